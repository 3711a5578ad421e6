"""Score how well every registered method localises objects in pictures with boxes, beside maps without a network.

    python benchmarks/localisation.py DATA [--limit 1000] [--slow-limit 100] [--weights squeezenet1_0.safetensors]

DATA is a folder with val_boxes.csv (path, x0, y0, x1, y1; paths val/CLASS/NAME) and classes.csv (class, name), of 100
classes of Tiny-ImageNet. Three settings: zfnet64 at its own 64 pixels, zfnet64 at 128, and SqueezeNet with the
pictures enlarged to 224. A method is first timed on a few pictures; one that takes longer than `--slow` seconds a
picture is scored on `--slow-limit` pictures only: the table says how many.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from convscope import Net, load
from convscope.checks import Boxed, Criteria, Localisation, localise, read_boxes
from convscope.commands.progress import progress
from convscope.data.boxes import renamed, spread_over
from convscope.errors import ConvscopeError
from convscope.registry import METHODS, load_all

QUICK = {"rise": {"masks": 500}}
"""A quarter of the default: thousands of passes for every picture would take days."""


@dataclass(frozen=True)
class Setting:
    """A network and the side of its input, in pixels."""

    name: str
    net: Net
    size: int | None = None


def settings(weights: Path | None, device: str) -> list[Setting]:
    """Load the networks; SqueezeNet only where its weights are given."""
    small = load("zfnet64", device=device)
    found = [Setting("zfnet64-64", small), Setting("zfnet64-128", small, 128)]
    if weights is not None:
        # Pictures of 64 pixels have no margin to cut off: the whole of them is enlarged to 224.
        squeezenet = load("torchvision:squeezenet1_0", weights=weights, device=device).sized(224)
        squeezenet.fit = replace(squeezenet.fit, resize=224)
        found.append(Setting("squeezenet-224", squeezenet))
    return found


def seconds(setting: Setting, pictures: Sequence[Boxed], method: str) -> float:
    """Return the time that a method takes per picture, on one picture after a first that does not count."""
    start = 0.0
    for one in (pictures[0], pictures[-1]):
        start = time.perf_counter()
        localise(setting.net, [one], [method], size=setting.size, options=QUICK)
    return time.perf_counter() - start


def scored(
    setting: Setting, pictures: Sequence[Boxed], methods: Sequence[str], options: argparse.Namespace
) -> Localisation:
    """Score fast methods on all pictures and slow ones on fewer, in one table."""
    fast: list[str] = []
    slow: list[str] = []
    for method in methods:
        try:
            taken = seconds(setting, pictures, method)
        except ConvscopeError as error:
            print(f"{method} is left out: {error}")
            continue
        print(f"{setting.name}: {method} takes {taken:.2f} s a picture")
        (slow if taken > options.slow else fast).append(method)
    criteria = Criteria(segment=True)
    table = localise(setting.net, pictures, fast, size=setting.size, criteria=criteria, options=QUICK)
    if not slow:
        return table
    some = spread_over(pictures, options.slow_limit)
    few = localise(setting.net, some, slow, size=setting.size, criteria=criteria, options=QUICK)
    # The maps without a network come last, and are those of all pictures.
    rows = (*table.rows[: len(fast)], *few.rows[: len(slow)], *table.rows[len(fast) :])
    recipe = replace(table.recipe, options={**table.recipe.options, "methods": [*fast, *slow]})
    return replace(table, rows=rows, recipe=recipe)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--slow-limit", type=int, default=100)
    parser.add_argument("--slow", type=float, default=1.0, help="seconds a picture above which a method is slow")
    parser.add_argument("--weights", type=Path, help="SqueezeNet 1.0's weights, for the third setting")
    parser.add_argument("--methods", help="names with commas between; all by default")
    parser.add_argument("--settings", help="names with commas between, as zfnet64-128; all by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("localisation"), help="folder of the tables")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load_all()
    methods = options.methods.split(",") if options.methods else list(METHODS)
    pictures = renamed(read_boxes(options.data / "val_boxes.csv"), options.data / "classes.csv")
    pictures = spread_over(pictures, options.limit)
    with progress():
        for setting in settings(options.weights, options.device):
            if options.settings and setting.name not in options.settings.split(","):
                continue
            start = time.perf_counter()
            table = scored(setting, pictures, methods, options)
            for ending in ("csv", "md", "png"):
                table.save(options.out / f"{setting.name}.{ending}")
            print(f"\n{table.summary.markdown()}{time.perf_counter() - start:.0f} s\n", flush=True)


if __name__ == "__main__":
    main()
