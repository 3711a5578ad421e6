"""Cold starts: every command's help, `import convscope`, and one explanation, each in a process of its own.

    python benchmarks/startup.py [SRC OF ANOTHER VERSION] [--rounds 5]

Two versions are run in turn; what counts is the processor time of a process, so that other work matters little.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[1] / "src"
EXPLAIN = (
    "import convscope, sys; from pathlib import Path; root = Path(convscope.__file__).parent; "
    "picture = next(root.rglob('digits/3.png')); "
    "convscope.explain(convscope.load('zfnet64'), picture, 'saliency')"
)


def commands() -> list[str]:
    """List all commands, as the first version names them."""
    sys.path.insert(0, str(HERE))
    from convscope.cli import _OWN, _listed

    return [*_OWN, *_listed()]


def seconds(arguments: list[str], source: Path) -> float:
    """Return the processor time of one process, itself and what it waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("before", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    tasks = {"`import convscope`": ["-c", "import convscope"], "`explain` on zfnet64": ["-c", EXPLAIN]}
    tasks["`--help`"] = ["-m", "convscope", "--help"]
    tasks |= {f"`{name} --help`": ["-m", "convscope", name, "--help"] for name in commands()}
    sources = [*([options.before] if options.before else []), HERE]
    print("| | before, s | after, s | ratio |\n|---|---|---|---|" if options.before else "| | s |\n|---|---|")
    for name, arguments in tasks.items():
        rounds = [[seconds(arguments, source) for source in sources] for _ in range(options.rounds)]
        medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
        ratio = [f"{statistics.median(row[0] / row[1] for row in rounds):.1f}"] if options.before else []
        print(f"| {name} | {' | '.join([*(f'{median:.2f}' for median in medians), *ratio])} |", flush=True)


if __name__ == "__main__":
    main()
