"""What a small call costs: `explain` and `Net.layers` on small networks, where safety shows beside little arithmetic.

    python benchmarks/overhead.py [SRC OF ANOTHER VERSION] [--rounds 5]

Two versions are run in turn, each in a process of its own; what counts is the processor time of a call after the first.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[1] / "src"
CALLS = 40
TIMED = f"""
import json, time
from pathlib import Path
import convscope, torch
torch.set_num_threads(1)
picture = next(Path(convscope.__file__).parent.rglob("digits/3.png"))
result = {{}}
for name in ("lenet5", "zfnet64"):
    net = convscope.load(name)
    work = {{
        "explain, saliency": lambda: convscope.explain(net, picture, "saliency"),
        "layers": lambda: convscope.Net(net.body, mean=net.mean, std=net.std, size=net.size).layers,
    }}
    for what, call in work.items():
        call()
        start = time.process_time()
        for _ in range({CALLS}):
            call()
        result[f"{{what}} ({{name}})"] = 1000 * (time.process_time() - start) / {CALLS}
print(json.dumps(result))
"""


def milliseconds(source: Path) -> dict[str, float]:
    """Return the time of each call in a fresh process."""
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", TIMED], env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("before", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    sources = [*([options.before] if options.before else []), HERE]
    rounds = [[milliseconds(source) for source in sources] for _ in range(options.rounds)]
    print("| | before, ms | now, ms | now of before |\n|---|--:|--:|--:|" if options.before else "| | ms |\n|---|--:|")
    for what in rounds[0][0]:
        medians = [statistics.median(row[column][what] for row in rounds) for column in range(len(sources))]
        ratios = [f"{statistics.median(row[1][what] / row[0][what] for row in rounds):.2f}"] if options.before else []
        print(f"| {what} | {' | '.join([*(f'{median:.1f}' for median in medians), *ratios])} |")


if __name__ == "__main__":
    main()
