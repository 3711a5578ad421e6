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
    # Python puts the working directory first, where a file named torch.py would be taken for the library.
    if not sys.flags.safe_path:
        del sys.path[0]
    main()
