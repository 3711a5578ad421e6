"""Time many pictures: `explain_many` and `explain` against a bare loop of the same passes, and a folder one by one.

    python benchmarks/many.py [--pictures FOLDER] [--count 1000] [--folder 200] [--rounds 3] [--base SRC]

SqueezeNet 1.0 at 224 pixels, Grad-CAM for each picture's top-1 class. The bare loop reads every picture with
Pillow, scales and cuts it, runs the network once for the class and once more for the map, in batches of the same
size, and nothing else: no recipe, no drawing, no check. Without `--pictures` it runs on noise saved as JPEG.
`explain` does what the command of that name does: overlays, measures, a table and a page.
Contenders run in turn; a figure is the quickest of all rounds, a ratio that of two figures.

The second table runs the command line on a folder, `convscope grad-cam FOLDER`, and the same command once per
picture in one process, as versions before 0.2 did for a folder; `--base` names the sources of such a version, to
run it itself.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

import convscope as cs
from convscope.data.folders import SUFFIXES, find_files
from convscope.data.pictures import read_pictures
from convscope.evaluation.survey import Survey
from convscope.evaluation.survey_page import survey_page

BATCH = 8


def noise(folder: Path, count: int) -> list[Path]:
    """Save pictures of noise of a photograph's size."""
    for number in range(count):
        values = np.random.default_rng(number).integers(0, 256, (36, 48, 3), np.uint8)
        Image.fromarray(values).resize((480, 360), Image.Resampling.BICUBIC).save(
            folder / f"{number:04}.jpg", quality=90
        )
    return find_files(folder, SUFFIXES)


def bare(net: cs.Net, paths: list[Path]) -> None:
    """Grad-CAM by hand for a network whose maps are pooled: nothing but decoding and passes."""
    body, inner = net.body, net.body.classifier[1]
    for start in range(0, len(paths), BATCH):
        pixels = torch.from_numpy(np.stack([net.prepare(path).pixels for path in paths[start : start + BATCH]]))
        inputs = net.normalise(pixels)
        with torch.no_grad():
            top = body(inputs).argmax(1)
        kept: list[torch.Tensor] = []

        def keep(_: object, __: object, output: torch.Tensor, kept: list[torch.Tensor] = kept) -> torch.Tensor:
            kept.append(output.detach().requires_grad_())
            return kept[0].clone()

        handle = inner.register_forward_hook(keep)
        score = body(inputs).gather(1, top[:, None]).sum()
        handle.remove()
        (gradient,) = torch.autograd.grad(score, kept[0])
        maps = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True).relu()
        F.interpolate(maps, size=pixels.shape[2:], mode="bilinear")


def ours(net: cs.Net, paths: list[Path]) -> None:
    """Take every drawing of `explain_many` and let it go."""
    for _ in cs.explain_many(net, list(paths), "grad_cam", batch_size=BATCH, layer="classifier.1"):
        pass


def surveyed(net: cs.Net, paths: list[Path], out: Path) -> None:
    """Do what `convscope explain` does: overlays, a table and a page."""
    shutil.rmtree(out, ignore_errors=True)
    survey = Survey(net, list(read_pictures(list(paths))), out, "grad_cam", options={"layer": ["classifier.1"]})
    survey.run()
    survey.surveyed.table.save(out / "table.csv")
    (out / "index.html").write_text(survey_page(survey.surveyed, (), ("table.csv",)))


def quickest(rounds: int, contenders: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Time contenders in turn, and return each one's quickest round in seconds."""
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(rounds):
        for name, work in contenders.items():
            start = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


FOLDER = "import sys; from convscope.cli import run; sys.exit(run(sys.argv[1:]))"


def command(folder: Path, out: Path, source: str | None) -> None:
    """Run the command line on a folder, with the sources of another version where they are named."""
    shutil.rmtree(out, ignore_errors=True)
    words = ["grad_cam", str(folder), "--net", "torchvision:squeezenet1_0", "--weights", "none", "-o", str(out)]
    environment = os.environ | ({"PYTHONPATH": source} if source else {})
    subprocess.run([sys.executable, "-c", FOLDER, *words], check=True, capture_output=True, env=environment)


def one_by_one(paths: list[Path], out: Path) -> None:
    """Explain and save one picture after the other."""
    net = cs.load("torchvision:squeezenet1_0", weights=None)
    for path in paths:
        cs.explain(net, path, "grad_cam").save(out / f"{path.stem}.png")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--folder", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base")
    chosen = parser.parse_args()
    net = cs.load("torchvision:squeezenet1_0", weights=None)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        paths = find_files(chosen.pictures, SUFFIXES) if chosen.pictures else noise(place, min(chosen.count, 200))
        many = [paths[number % len(paths)] for number in range(chosen.count)]
        contenders: dict[str, Callable[[], None]] = {
            "bare loop": lambda: bare(net, many),
            "explain_many": lambda: ours(net, many),
            "explain": lambda: surveyed(net, many, place / "survey"),
        }
        times = quickest(chosen.rounds, contenders)
        print(f"{chosen.count} pictures, Grad-CAM, SqueezeNet 1.0, batches of {BATCH}")
        for label, seconds in times.items():
            print(f"  {label:14} {seconds:7.1f} s  {times['bare loop'] / seconds:5.2f} of the bare loop's speed")
        folder, out = place / "folder", place / "out"
        folder.mkdir()
        for number, path in enumerate(many[: chosen.folder]):
            shutil.copy(path, folder / f"{number:04}{path.suffix}")
        contenders = {"folder": lambda: command(folder, out, None)}
        if chosen.base:
            contenders["folder, before"] = lambda: command(folder, place / "before", chosen.base)
        else:
            contenders["one by one"] = lambda: one_by_one(find_files(folder, SUFFIXES), place / "single")
        times = quickest(chosen.rounds, contenders)
        print(f"a folder of {chosen.folder} pictures on the command line, start-up included")
        for label, seconds in times.items():
            print(f"  {label:14} {seconds:7.1f} s  {seconds / times['folder']:5.2f} times the folder's")


if __name__ == "__main__":
    main()
