"""Run the command line: `convscope`, or `python -m convscope`."""

import sys


def main() -> None:
    """Run the command line; importing it takes long enough to be interrupted."""
    try:
        from .cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
