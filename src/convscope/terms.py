"""Objective terms beside classes and units: a layer's energy, a direction, and regularisers for synthesis.

After Olah, Mordvintsev and Schubert, "Feature Visualization" (Distill 2017) and lucid: the energy of a layer
(DeepDream), a direction in a layer's channels, and regularisers against noise (tv, blur), extreme values (l1, l2) and
pictures that are all alike (diversity). Penalties are positive: subtract them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .baselines import blurred
from .errors import ObjectiveError, nearest
from .layers import find_layer, spatial_layer, spatial_names
from .net import Net
from .tracing import PIXELS, WHOLE_OUTPUT, Layer

_BLUR = 1.0


def total_variation(pixels: Tensor, beta: float = 2.0) -> Tensor:
    """Return sum ((x[i,j+1]-x[i,j])^2 + (x[i+1,j]-x[i,j])^2)^(beta/2) per picture, from (n, c, h, w) to (n,).

    With beta = 2 its gradient is minus twice the five-point Laplacian. Mahendran & Vedaldi 2014, arXiv:1412.0035,
    sec. 3.
    """
    down, right = pixels.diff(dim=2).square(), pixels.diff(dim=3).square()
    if beta == 2:
        return down.flatten(1).sum(1) + right.flatten(1).sum(1)
    # Below 2 the derivative has no bound at zero.
    squares = F.pad(down, (0, 0, 0, 1)) + F.pad(right, (0, 1, 0, 0)) + 1e-8
    return squares.pow(beta / 2).flatten(1).sum(1)


@dataclass(frozen=True)
class Penalty:
    """A penalty on the values x of a picture around the network's mean m, summed over all values; never negative.

    tv: squared differences of neighbours. l1: |x - m|. l2: (x - m)^2. blur: (x - blurred x)^2, by a Gaussian of 1
    pixel.
    """

    name: str
    mean: tuple[float, ...] = (0.5,)
    layer: str = PIXELS

    def read(self, activity: Tensor) -> Tensor:
        """Return the penalty of every picture, (n, c, h, w) to (n,)."""
        if self.name == "tv":
            return total_variation(activity)
        if self.name == "blur":
            return (activity - blurred(activity, _BLUR)).square().flatten(1).sum(1)
        away = (activity - activity.new_tensor(self.mean)[:, None, None]).flatten(1)
        return away.abs().sum(1) if self.name == "l1" else away.square().sum(1)

    def __str__(self) -> str:
        return f"{self.name}()"

    def title(self, net: Net) -> str:
        """Return the words that stand for it in titles and captions."""
        return {"tv": "total variation", "l1": "L1 norm", "l2": "squared L2 norm", "blur": "fine detail"}[self.name]


@dataclass(frozen=True)
class Energy:
    """The mean square of a layer's activity, which DeepDream maximizes."""

    layer: str

    def read(self, activity: Tensor) -> Tensor:
        """Return the mean square of every picture's activity, (n, ...) to (n,)."""
        return activity.flatten(1).square().mean(1)

    def __str__(self) -> str:
        return f"energy({self.layer or WHOLE_OUTPUT})"

    def title(self, net: Net) -> str:
        """Return the words that stand for it in titles and captions."""
        return f"energy of {self.layer or 'the output'}"


@dataclass(frozen=True)
class Diversity:
    """Diversity of the pictures of one objective in a layer: minus the mean cosine of their Gram matrices.

    Its sign is that of an objective term: add it. Zero for a single picture.
    """

    layer: str

    def read(self, activity: Tensor) -> Tensor:
        """Return, per picture, minus its mean cosine with the others, (n, c, h, w) to (n,) in [-1, 1]."""
        flat = activity.flatten(2)
        grams = (flat @ flat.transpose(1, 2)).flatten(1)
        grams = grams / (grams.norm(dim=1, keepdim=True) + 1e-12)
        cosines = grams @ grams.T
        return (cosines.diagonal() - cosines.sum(1)) / max(1, len(activity) - 1)

    def __str__(self) -> str:
        return f"diversity({self.layer})"

    def title(self, net: Net) -> str:
        """Return the words that stand for it in titles and captions."""
        return f"diversity in {self.layer}"


@dataclass(frozen=True)
class Direction:
    """The projection of a layer's activity on a vector of its channels.

    The dot product times the cosine to `power`, as in lucid: the cosine alone may be large where nothing is active.
    """

    layer: str
    file: str
    power: float = 1.0

    @cached_property
    def vector(self) -> Tensor:
        """The unit vector, read from the file. Raises ObjectiveError when the file holds none."""
        try:
            values = np.asarray(np.load(self.file, allow_pickle=False), dtype=np.float32)
        except (OSError, ValueError, TypeError, EOFError, BadZipFile) as error:
            raise ObjectiveError(f"cannot read a direction from {self.file}: {error}") from None
        vector = torch.from_numpy(values.reshape(-1))
        if not (bool(torch.isfinite(vector).all()) and bool(vector.any())):
            raise ObjectiveError(f"the direction in {self.file} is zero, or not finite: give one number per channel")
        return vector / vector.norm()

    def read(self, activity: Tensor) -> Tensor:
        """Return the mean over positions, (n, c) or (n, c, h, w) to (n,)."""
        positions = activity.flatten(2) if activity.ndim > 2 else activity[:, :, None]
        dots = torch.einsum("ncp,c->np", positions, self.vector.to(activity))
        cosines = (dots / (positions.norm(dim=1) + 1e-6)).clamp(min=0.1)
        return (dots * cosines**self.power).mean(1)

    def __str__(self) -> str:
        return f"direction({self.layer or WHOLE_OUTPUT}, {self.file})"

    def title(self, net: Net) -> str:
        """Return the words that stand for it in titles and captions."""
        return f"direction {Path(self.file).stem} of {self.layer or 'the output'}"


SynthesisTerm = Penalty | Energy | Diversity | Direction


def judges_making(term: object) -> bool:
    """Whether a term is a regulariser for synthesis, meaningless for a given picture."""
    return isinstance(term, (Penalty, Diversity))


def parse_term(net: Net, name: str, inside: str) -> SynthesisTerm:
    """Parse `name(inside)` of an objective. Raises ObjectiveError, or LayerError for a layer that does not suit it."""
    if name not in _READERS:
        raise ObjectiveError(f"there is no {name}(...): known are {nearest(name, ('p', *_READERS))}")
    return _READERS[name](net, name, inside)


def _penalty(net: Net, name: str, inside: str) -> Penalty:
    if inside:
        raise ObjectiveError(f"{name}() is a penalty on the picture and takes no argument: write '243 - 0.01*{name}()'")
    return Penalty(name, net.mean)


def _layer(net: Net, name: str, inside: str) -> Layer:
    if not inside:
        names = spatial_names(net) or list(net.layers)
        raise ObjectiveError(
            f"{name}() needs a layer: write {name}({names[len(names) // 2]}), or another of {nearest('', names)}"
        )
    return net.output if inside == WHOLE_OUTPUT and inside not in net.layers else find_layer(net, inside)


def _energy(net: Net, name: str, inside: str) -> Energy:
    return Energy(_layer(net, name, inside).name)


def _diversity(net: Net, name: str, inside: str) -> Diversity:
    return Diversity(spatial_layer(net, _layer(net, name, inside).name, purpose="diversity").name)


def _direction(net: Net, name: str, inside: str) -> Direction:
    match = re.fullmatch(r"([^,]+?)\s*,\s*(.+)", inside)
    if match is None:
        raise ObjectiveError("write a direction as direction(layer, file.npy), with one number per channel in the file")
    layer = _layer(net, name, match[1])
    direction = Direction(layer.name, match[2])
    if not layer.channelled or len(direction.vector) != layer.shape[0]:
        raise ObjectiveError(
            f"{match[2]} holds {len(direction.vector)} numbers for layer {layer.name!r} of shape {layer.shape}: "
            "give one per channel"
        )
    return direction


_READERS: dict[str, Callable[[Net, str, str], SynthesisTerm]] = {
    "energy": _energy,
    "direction": _direction,
    "diversity": _diversity,
    "tv": _penalty,
    "l1": _penalty,
    "l2": _penalty,
    "blur": _penalty,
}
