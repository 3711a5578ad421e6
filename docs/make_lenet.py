"""Draw the figures of docs/lenet.md, and print its numbers.

    python training/digits.py --mnist FOLDER -o digits
    python docs/make_lenet.py digits [--only NAME ...]

Without MNIST, `python docs/make_lenet.py` takes scikit-learn's digits, most of which lenet5 was trained on: its figures
go to the folder lenet5-figures, since those of the docs are of MNIST.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import convscope
from convscope import Net
from convscope.data import read_pictures
from convscope.incremental.changes import Changes
from convscope.objectives import ObjectiveBatch, as_objective
from convscope.studies.coadaptation import correlated_pairs, correlations, joint_drops
from convscope.studies.intervals import repeated
from convscope.zoo.lenet import lenet5

IMAGES = Path(__file__).parent / "images"
OTHERS = Path("lenet5-figures")


def activity(net: Net, digits: Path, images: Path) -> None:
    """Activations per digit."""
    study = convscope.activity(net, digits / "val", per_class=100)
    study.save(images / "lenet5-activity.png")
    print(study.gist)


def maximized(net: Net, _: Path, images: Path) -> None:
    """Neurons, maps and classes maximised."""
    convscope.filters_by_ascent(net, layer="relu2").save(images / "lenet5-maps.png")
    neurons = [f"relu4:{number}" for number in (9, 3, 29, 0, 24)]
    convscope.maximize(net, of=[*neurons, *range(10)]).save(images / "lenet5-neurons.png")


def evolution(net: Net, digits: Path, images: Path) -> None:
    """What units of two layers saw in the course of the training."""
    pictures = [picture.where for picture in read_pictures(digits / "val")][::4]
    convscope.evolution(net, pictures, layers=["conv2", "conv3"], units=[0, 7]).save(images / "lenet5-evolution.png")


def invariance(net: Net, digits: Path, images: Path) -> None:
    """Shifts, scales and rotations; and before and after pooling."""
    study = convscope.invariance(net, digits / "val", per_class=3)
    study.save(images / "lenet5-invariance.png")
    print(study.gist)


def effects(net: Net, digits: Path, images: Path) -> None:
    """What every channel does to the answer."""
    study = convscope.effects(net, digits / "val", per_class=4, limit=0)
    study.save(images / "lenet5-effects.png")
    print(study.gist)


def overfitted(_: Net, digits: Path, __: Path) -> None:
    """Small networks trained on 20 digits of each class, with and without dropout, over three seeds."""
    seen, answers = loaded(digits / "train", 20)
    new, truth = loaded(digits / "val", 100)
    print("| dropout | accuracy on the 200 digits | on 1,000 others | mean correlation of two units | synergy |")
    print("|---|--:|--:|--:|--:|")
    for share in (0.0, 0.5):
        found = [measured(trained(seen, answers, share, seed), seen, answers, new, truth) for seed in range(3)]
        cells = [repeated(column)[0] for column in zip(*found, strict=True)]
        print(
            f"| {share or 'none'} | " + " | ".join(f"{c.value:.3f} [{c.low:.3f}, {c.high:.3f}]" for c in cells) + " |"
        )


def diagnosis(net: Net, digits: Path, __: Path) -> None:
    """What is wrong with lenet5."""
    found = convscope.diagnose(net, digits / "val", digits / "train")
    for each in found.findings:
        print(f"- {each.kind}, severity {each.severity:.2f}: {each.sentence}")
    print("healthy:", "; ".join(f"{each.kind}: {each.sentence}" for each in found.healthy))
    print("not looked at:", "; ".join(f"{each.kind}: {each.reason}" for each in found.unseen))


def loaded(folder: Path, per_class: int) -> tuple[Tensor, Tensor]:
    """Return the first digits of each class, (n, 1, 28, 28) in [0, 1], and their classes."""
    net = convscope.load("lenet5")
    files = [
        (file, int(place.name)) for place in sorted(folder.iterdir()) for file in sorted(place.iterdir())[:per_class]
    ]
    return torch.cat([net.read(file) for file, _ in files]), torch.tensor([label for _, label in files])


def trained(seen: Tensor, answers: Tensor, dropout: float, seed: int) -> Net:
    """Train a lenet5 on few digits for 150 passes."""
    torch.manual_seed(seed)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, module in lenet5().named_children():
        layers[name] = module
        if name in ("flatten", "relu4"):
            layers[f"drop{name}"] = nn.Dropout(dropout)
    body = nn.Sequential(layers)
    optimizer = torch.optim.Adam(body.parameters(), 1e-3)
    for _ in range(150):
        for rows in torch.randperm(len(seen)).split(50):
            loss = F.cross_entropy(body((seen[rows] - 0.13) / 0.31), answers[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Net(body, mean=0.13, std=0.31, size=28, channels=1, name="overfitted")


def measured(net: Net, seen: Tensor, answers: Tensor, new: Tensor, truth: Tensor) -> tuple[float, ...]:
    """Return the accuracy on both sets; of relu3 the mean |correlation|, and the synergy of the 20 closest pairs."""
    right = [
        float((convscope.predict(net, pixels).argmax(1) == labels).float().mean())
        for pixels, labels in ((seen, answers), (new, truth))
    ]
    with torch.inference_mode():
        units = convscope.tap(net, new, ["relu3"])["relu3"].flatten(1)
    found = correlations(units)
    between = float(found[*torch.triu_indices(*found.shape, 1)].abs().mean())
    pairs = correlated_pairs(found, 20)
    batch = Changes(net, new, [net.layer("relu3")], [""], 2**25).of(new[::10])
    objective = ObjectiveBatch(tuple(as_objective(net, int(label)) for label in truth[::10]))
    joint = joint_drops(batch, objective, "relu3", pairs)
    synergy = torch.tensor([joint.synergy(number).value for number in range(len(pairs))])
    return *right, between, float(synergy.nanmean())


def own_digits(folder: Path) -> Path:
    """Write scikit-learn's digits into folders of classes: every fourth into val, the others into train."""
    values, labels = load_digits(return_X_y=True)
    small = torch.tensor(np.asarray(values) / 16).view(-1, 1, 8, 8)
    large = F.pad(F.interpolate(small, size=(24, 24), mode="bicubic").clamp(0, 1), (2, 2, 2, 2))
    for number, (image, label) in enumerate(zip(large, labels, strict=True)):
        place = folder / ("train" if number % 4 else "val") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image[0] * 255).round().byte().numpy()).save(place / f"{number}.png")
    return folder


FIGURES: tuple[Callable[[Net, Path, Path], None], ...] = (
    activity, maximized, evolution, invariance, effects, overfitted, diagnosis,
)  # fmt: skip


def main() -> None:
    """Draw them, or some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digits", nargs="?", type=Path, help="what training/digits.py wrote")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="functions of this script")
    options = parser.parse_args()
    unknown = set(options.only) - {draw.__name__ for draw in FIGURES}
    if unknown:
        parser.error(f"no figure {', '.join(unknown)}; there are {', '.join(draw.__name__ for draw in FIGURES)}")
    if options.digits is not None:
        for part in ("train", "val"):
            if not (options.digits / part / "0").is_dir():
                parser.error(f"{options.digits} has no {part}/0: {_HOW}")
    else:
        OTHERS.mkdir(exist_ok=True)
        print(
            f"no folder of MNIST's digits: scikit-learn's are taken, and figures go to {OTHERS}; {_HOW}",
            file=sys.stderr,
        )
    with tempfile.TemporaryDirectory() as folder:
        digits, images = (options.digits, IMAGES) if options.digits else (own_digits(Path(folder)), OTHERS)
        for draw in FIGURES:
            if not options.only or draw.__name__ in options.only:
                draw(convscope.load("lenet5"), digits, images)


_HOW = (
    "python training/digits.py --mnist FOLDER -o digits makes one, of a FOLDER with t10k-images-idx3-ubyte.gz and "
    "t10k-labels-idx1-ubyte.gz"
)


if __name__ == "__main__":
    main()
