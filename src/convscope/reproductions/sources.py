"""Which pictures a network is looked at with: those that are given, or what ships with the packages that are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from ..context import say
from ..data.pictures import Pictures, read_pictures
from ..data.samples import PREFIX, digits, samples
from ..errors import DataError
from ..evaluation.truth import find_truth, outcomes
from ..net import Net
from ..outputs import write_image
from ..studies.labelled import Labelled
from .sampling import evenly

_MOST, _MOST_LARGE = 5000, 1000
_HELD_OUT = 397
_DIGITS = tuple(map(str, range(10)))


@dataclass(frozen=True)
class Given:
    """What somebody gave: pictures to judge by, pictures that were trained on, and pictures of other classes.

    Each is a source for all networks, or sources by the networks' names, "" for all others. `labels` is a table of
    labels of `data`, as studies take it.
    """

    data: Any = None
    train: Any = None
    transfer: Any = None
    labels: str | Path | None = None

    def of(self, net: Net, part: str) -> Any:
        """Return the source of a part for a network; None where there is none."""
        given = getattr(self, part)
        if not isinstance(given, Mapping):
            return given
        return given.get(net.name, given.get(""))

    def named(self, net: Net) -> bool:
        """Whether the pictures were given for this network by its name."""
        return isinstance(self.data, Mapping) and net.name in self.data


class Digits:
    """Handwritten digits of scikit-learn, enlarged to 28 x 28: those that lenet5 has learnt, or those held out."""

    def __init__(self, *, held_out: bool) -> None:
        self.name = "digits-held-out" if held_out else "digits-learnt"
        from sklearn.datasets import load_digits

        found: Any = load_digits()
        generator = torch.Generator().manual_seed(0)
        torch.randperm(10_000, generator=generator)  # MNIST's were drawn first (training/digits.py)
        order = torch.randperm(len(found.target), generator=generator)
        rows = (order[-_HELD_OUT:] if held_out else order[:-_HELD_OUT]).numpy()
        small = torch.tensor(found.images[rows], dtype=torch.float32)[:, None] / 16
        large = F.interpolate(small, size=(24, 24), mode="bicubic", align_corners=False).clamp(0, 1)
        self.images = (F.pad(large, (2, 2, 2, 2))[:, 0] * 255).round().byte().numpy()
        self.targets = [int(target) for target in np.asarray(found.target)[rows]]

    def __len__(self) -> int:
        return len(self.images)

    def written(self, place: Path) -> str:
        """Write the digits below a folder, in a folder for each, and return where they lie."""
        for number, (image, target) in enumerate(zip(self.images, self.targets, strict=True)):
            file = place / self.name / str(target) / f"{number:04d}.png"
            if not file.exists():
                write_image(file, Image.fromarray(image))
        return str(place / self.name)


@dataclass(frozen=True)
class Pool:
    """Pictures for one network, with words of where they are from, and all of the source that they were taken of."""

    data: Labelled
    source: Pictures
    words: str
    learnt: Labelled | None
    others: Labelled | None


def pool(net: Net, given: Given, place: Path, *, limit: int, seed: int, quick: bool) -> Pool:
    """Read the pictures for a network: those given, or what ships. Raises what `read_pictures` raises.

    Digits that ship are written into a folder of `place`, because figures read single pictures again.
    """
    most = _MOST if net.size[0] * net.size[1] <= 128 * 128 else _MOST_LARGE
    most = limit or (most // 4 if quick else most)
    source, words, own = _judged_by(net, given, place)
    data = _read(net, source, most, seed, None if own else given.labels)
    learnt, others = given.of(net, "train"), given.of(net, "transfer")
    if own and _reads_digits(net) and learnt is None and find_spec("sklearn"):
        learnt = Digits(held_out=False).written(place)
    return Pool(
        data,
        read_pictures(source),
        words,
        None if learnt is None else _read(net, learnt, most, seed),
        None if others is None else _read(net, others, most, seed),
    )


def _judged_by(net: Net, given: Given, place: Path) -> tuple[Any, str, bool]:
    """Return the pictures that a network is judged by, words for them, and whether they are those that ship."""
    source = given.of(net, "data")
    if source is not None and (given.named(net) or not _reads_digits(net) or _has_its_classes(net, source, given)):
        return source, _called(source), False
    if source is not None:
        say(
            f"{net.name} tells digits apart, and {_called(source)} shows other things: it is judged by digits that ship"
        )
    if _reads_digits(net) and find_spec("sklearn"):
        return (
            Digits(held_out=True).written(place),
            "397 digits of scikit-learn that lenet5 has not learnt, 8 × 8 enlarged",
            True,
        )
    if _reads_digits(net):
        return [str(path) for path in digits()], "the ten digits that ship", True
    found = [f"{PREFIX}{name}" for name, path in samples().items() if "/" not in name and path.is_file()]
    return found, f"{len(found)} photographs of scikit-image, which have no labels", True


def _reads_digits(net: Net) -> bool:
    """Whether a network reads small grey pictures, and tells the ten digits apart."""
    return net.channels == 1 and max(net.size) <= 32 and outcomes(net) == _DIGITS


def _has_its_classes(net: Net, source: Any, given: Given) -> bool:
    pictures = read_pictures(source)
    try:
        truth = find_truth(net, pictures, given.labels)
        return any(truth.of(picture) is not None for picture in pictures)
    except DataError:
        return False


def _read(net: Net, source: Any, most: int, seed: int, labels: str | Path | None = None) -> Labelled:
    """Read at most so many pictures, as many of each class as there are."""
    listed = Labelled.listed(net, source, {"labels": labels})
    rows = evenly(listed.targets, most, seed) if most < len(listed) else range(len(listed))
    return listed.subset(rows).read()


def _called(source: Any) -> str:
    """Name a source that lies in files; pictures in memory have no name."""
    each = list(source) if isinstance(source, (list, tuple)) else [source]
    named = [str(part) for part in each if isinstance(part, (str, Path))]
    return ", ".join(named[:3]) + (", ..." if len(named) > 3 else "") if named else "the pictures given"
