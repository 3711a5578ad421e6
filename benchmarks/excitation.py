"""Do made pictures excite their units more than photographs do?

For random channels over the layers of two networks: the made picture's activity, mean over places and over fresh
jitter, against the best of thousands of photographs. For class models: the network's own first choice and probability,
and what another network says of the picture shown.

    python benchmarks/excitation.py DATA [--channels 20] [--classes 10] [--pictures 5000]

DATA holds weights/squeezenet1_0.safetensors and, unpacked beside it or given by --photographs, a folder
val/<wnid>/*.JPEG of Tiny ImageNet's first 100 classes.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from torch import Tensor

from convscope import Net, load, predict, tap
from convscope.synthesis.class_model import class_model
from convscope.synthesis.maximize import maximize
from convscope.synthesis.transforms import Transform


def layers_of(net: Net) -> list[str]:
    """The rectified layers with places, and the output."""
    return [layer.name for layer in net.layers.values() if layer.spatial and layer.leaf and "ReLU" in layer.kind]


def chosen(net: Net, count: int) -> list[tuple[str, int]]:
    """Draw channels over all layers."""
    draw, names = random.Random(0), layers_of(net)
    return [(name, draw.randrange(net.layers[name].shape[0])) for name in (draw.choice(names) for _ in range(count))]


def best_of_photographs(net: Net, units: list[tuple[str, int]], paths: list[Path]) -> Tensor:
    """The largest mean activity of every unit over photographs."""
    best = torch.full((len(units),), -torch.inf)
    names = list(dict.fromkeys(name for name, _ in units))
    with torch.inference_mode():
        for start in range(0, len(paths), 32):
            pixels = torch.cat([net.read(path) for path in paths[start : start + 32]])
            read = tap(net, pixels, names)
            now = torch.stack([read[name][:, k].flatten(1).mean(1).amax() for name, k in units])
            best = torch.maximum(best, now)
    return best


def shaken_score(net: Net, picture: Tensor, name: str, channel: int) -> float:
    """The mean activity over 16 fresh shifts of up to an eighth of the side."""
    transform = Transform(jitter=min(net.size) / 8)
    drawn = transform.draw(range(1000, 1016), 1)[0]
    with torch.inference_mode():
        seen = transform(picture[None].expand(16, -1, -1, -1), drawn)
        return float(tap(net, seen, [name])[name][:, channel].mean())


def channels(net: Net, count: int, paths: list[Path], steps: int) -> int:
    """Print and count the channels that their made picture excites more than any photograph."""
    units = chosen(net, count)
    best = best_of_photographs(net, units, paths)
    made = maximize(net, of=[f"{name}:{k}" for name, k in units], steps=steps)
    more = 0
    for (name, k), photograph, picture in zip(units, best.tolist(), made.values["pictures"], strict=True):
        value = shaken_score(net, picture, name, k)
        more += value > photograph
        ratio = value / max(photograph, 1e-9)
        print(f"  {name}:{k:<4} made {value:9.3g}  best photograph {photograph:9.3g}  {ratio:6.1f} x", flush=True)
    made.save(f"excitation-{net.name}.png")
    print(f"{net.name}: {more} of {count} excited more than by the best of {len(paths)} photographs")
    return more


def same_class(name: str, other: Net) -> int | None:
    """The index of a class of the same name in another network."""
    words = {word.strip().lower() for word in name.split(",")}
    for index, known in enumerate(other.classes):
        if words & {word.strip().lower() for word in known.split(",")}:
            return index
    return None


def models(net: Net, other: Net, names: list[str], steps: int) -> None:
    """Print how sure the network is of its own class models, and what another network says of them."""
    made = class_model(net, of=names, steps=steps)
    made.save(f"class-models-{net.name}.png")
    shown = made.values["pictures"]
    own, unscaled = predict(net, shown), predict(net, made.values["models"])
    size = torch.nn.functional.interpolate(shown, size=other.size, mode="bicubic", antialias=True)
    seen = predict(other, size.clamp(0, 1))
    sure, ranks = 0, []
    for i, name in enumerate(names):
        index, theirs = list(net.classes).index(name), same_class(name, other)
        sure += int(own[i].argmax()) == index and float(own[i, index]) > 0.9
        rank = int((seen[i] > seen[i, theirs]).sum()) if theirs is not None else None
        ranks += [rank] if rank is not None else []
        shares = f"p = {float(own[i, index]):.2f} ({float(unscaled[i, index]):.2f} unscaled)"
        print(f"  {name:30} {shares}   rank in {other.name}: {rank}", flush=True)
    count = len(other.classes)
    first, five = sum(r == 0 for r in ranks), sum(r < 5 for r in ranks)
    print(
        f"{net.name}: {sure} of {len(names)} its own first choice with p > 0.9; {other.name} of {count} classes: first "
        f"{first}, in five {five} of {len(ranks)} (chance {len(ranks) / count:.2g} and {5 * len(ranks) / count:.2g}), "
        f"median rank {sorted(ranks)[len(ranks) // 2]} (chance {count // 2})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--photographs", type=Path, help="folder with val/; DATA by default")
    parser.add_argument("--channels", type=int, default=20, help="per network")
    parser.add_argument("--classes", type=int, default=10, help="per network")
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=256)
    given = parser.parse_args()
    torch.set_num_threads(2)
    folder = given.photographs or given.data
    paths = sorted(folder.glob("val/*/*.JPEG"))[:: max(1, 5000 // given.pictures)]
    small = load("zfnet64")
    large = load("torchvision:squeezenet1_0", weights=given.data / "weights" / "squeezenet1_0.safetensors")
    shared = [n for n in small.classes if same_class(n, large) is not None]
    names = random.Random(1).sample(shared, given.classes)
    models(small, large, names, given.steps)
    twins = [same_class(name, large) for name in names]
    models(large, small, [large.classes[index] for index in twins if index is not None], given.steps)
    for net in (small, large) if given.channels else ():
        channels(net, given.channels, paths, given.steps)


if __name__ == "__main__":
    main()
