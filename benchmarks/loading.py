"""How long a shipped network takes to load once torch is imported, in fresh processes, beside a bare loop.

python benchmarks/loading.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys

ROUNDS = 7

BARE = """
import time, torch
from pathlib import Path
from importlib.util import find_spec
began = time.perf_counter()
from collections import OrderedDict
from safetensors.torch import load_file
from torch import nn
widths, parts, last = (48, 128, 192, 192, 256, 320), OrderedDict(), 3
for n, (width, side) in enumerate(zip(widths, (7, 5, 3, 3, 3, 3)), 1):
    parts[f"conv{n}"], last = nn.Conv2d(last, width, side), width
parts["fc"] = nn.Linear(last, 100)
body = nn.Sequential(parts)
folder = Path(find_spec("convscope").submodule_search_locations[0]) / "zoo" / "trained" / "zfnet64"
body.load_state_dict(load_file(sorted(folder.glob("*.safetensors"))[-1]))
print(time.perf_counter() - began)
"""

OURS = """
import time, torch
began = time.perf_counter()
import convscope
convscope.load({name!r})
print(time.perf_counter() - began)
"""


def main() -> None:
    contenders = {"bare": BARE} | {name: OURS.format(name=name) for name in ("zfnet64", "lenet5", "lenet5-1998")}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, code in contenders.items():
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            seconds[name].append(float(done.stdout))
    print("| | seconds | of the bare loop |\n|---|---|---|")
    for name, times in seconds.items():
        ratio = statistics.median(t / bare for t, bare in zip(times, seconds["bare"], strict=True))
        print(f"| {name} | {statistics.median(times):.3f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
