"""How a network is trained: the numbers, the augmentation and the schedule."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from ..errors import OptionError, nearest
from ..zoo.blueprints import Blueprint

T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run: everything that decides its result, apart from data and seed.

    Attributes:
        epochs: passes over the pictures.
        batch: pictures per step, over all devices.
        rate: learning rate; the peak of "onecycle", the start of "plateau".
        schedule: "onecycle" (up, then down to nothing; the momentum 0.05 down, then up) or "plateau" (a tenth whenever
            three epochs brought nothing).
        augment: "photo", "digits", or "corners" (Krizhevsky et al.: four corners and the centre, mirrored).
        sizes: (from this share of the epochs on, sides as shares of the network's size, of which a step draws one).
        whole: (from this share of the epochs on, share of "photo" pictures shown uncropped, only shifted): enlarged
            crops are smooth, and a network trained on nothing else does badly on sharp pictures.
        momentum, nesterov, decay: of stochastic gradient descent.
        smoothing: share of the label given to all classes.
        dropout: of the last layers, where the network has any.
        gaussian: standard deviation of initial weights, per unit of pixels of 0 to 255, biases zero; torch's when None.
        clip: largest root mean square of a convolution's filter, in the same units; None for no limit.
        batch_norm: whether the network may normalise batches while it is trained.
    """

    epochs: int
    batch: int = 128
    rate: float = 0.1
    schedule: str = "onecycle"
    augment: str = "photo"
    sizes: tuple[tuple[float, tuple[float, ...]], ...] = ((0.0, (1.0,)),)
    whole: tuple[tuple[float, float], ...] = ((0.0, 0.0),)
    momentum: float = 0.9
    nesterov: bool = True
    decay: float = 5e-4
    smoothing: float = 0.0
    dropout: float | None = None
    gaussian: float | None = None
    clip: float | None = None
    batch_norm: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON has them."""
        return json.loads(json.dumps(asdict(self)))

    def sides(self, epoch: int, size: int) -> tuple[int, ...]:
        """Return the sides, in pixels, of which each step of an epoch (from 1) draws one."""
        return tuple(round(size * share) for share in self._at(self.sizes, epoch))

    def _at(self, stages: Sequence[tuple[float, T]], epoch: int) -> T:
        """Return the value of the stage that an epoch (from 1) is in."""
        return [value for start, value in stages if start <= (epoch - 1) / self.epochs][-1]

    def training_body(self, blueprint: Blueprint, classes: int) -> nn.Module:
        """Build the network as it is trained, with initial weights."""
        options = dict(blueprint.training) if self.batch_norm else {}
        if self.dropout is not None and blueprint.has_dropout:
            options["dropout"] = self.dropout
        body = blueprint.body(classes, **options)
        if self.gaussian is not None:
            _initialise(body, self.gaussian, _unit(blueprint))
        return body

    def optimizer(self, body: nn.Module) -> Optimizer:
        """Build the optimizer."""
        return torch.optim.SGD(
            body.parameters(), self.rate, self.momentum, nesterov=self.nesterov, weight_decay=self.decay
        )

    def scheduler(self, optimizer: Optimizer, steps: int) -> Any:
        """Build the schedule of the learning rate, for a number of steps in all."""
        if self.schedule == "plateau":
            return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.1, patience=2)
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            self.rate,
            total_steps=steps + 1,
            pct_start=max(0.2, 1.5 / (steps + 1)),  # below two steps upwards it divides by zero
            base_momentum=self.momentum - 0.05,
            max_momentum=self.momentum + 0.05,
        )

    def limit(self, body: nn.Module, blueprint: Blueprint) -> None:
        """Scale filters whose root mean square is above `clip` back to it (Zeiler & Fergus 2013, sec. 3.1)."""
        if self.clip is None:
            return
        with torch.no_grad():
            for unit, layer in zip(_units(body, blueprint), _convolutions(body), strict=True):
                size = layer.weight.square().mean((1, 2, 3), keepdim=True).sqrt()
                _set(layer, layer.weight * (self.clip * unit / size).clamp(max=1))

    def transforms(self, epoch: int, size: int) -> list[Callable[[Any], Any]]:
        """Build an epoch's augmentations, one per side: PIL in and uint8 tensor (c, side, side) out."""
        whole, augment = self._at(self.whole, epoch), AUGMENTATIONS[self.augment]
        return [v2.Compose([*augment(side, whole), v2.PILToTensor()]) for side in self.sides(epoch, size)]


def _photo(side: int, whole: float) -> list[Any]:
    zoomed = v2.RandomResizedCrop(side, scale=(0.25, 1.0), antialias=True)
    shifted = v2.RandomCrop(side, padding=side // 8, padding_mode="reflect")
    plain = v2.Compose([v2.Resize(side, antialias=True), shifted])
    crop = v2.RandomChoice([zoomed, plain], p=[1 - whole, whole]) if whole else zoomed
    return [crop, v2.RandomHorizontalFlip(), v2.ColorJitter(0.3, 0.3, 0.3)]


def _digits(side: int, _: float) -> list[Any]:
    turn = v2.RandomAffine([-12, 12], (0.1, 0.1), (0.8, 1.2), (-12, 12), interpolation=v2.InterpolationMode.BILINEAR)
    return [v2.Resize((side, side), antialias=True), turn]


def _corners(side: int, _: float) -> list[Any]:
    """Scale the shorter side to 256 for 224, cut the middle square, and of it a corner or the middle, or its mirror."""
    large = round(side * 256 / 224)
    corners = [(top, left) for top in (0, large - side) for left in (0, large - side)]
    cuts = [v2.Lambda(partial(functional.crop, top=y, left=x, height=side, width=side)) for y, x in corners]
    square = [v2.Resize(large, antialias=True), v2.CenterCrop(large)]
    return [*square, v2.RandomChoice([v2.CenterCrop(side), *cuts]), v2.RandomHorizontalFlip()]


AUGMENTATIONS: dict[str, Callable[[int, float], list[Any]]] = {"photo": _photo, "digits": _digits, "corners": _corners}


def _convolutions(body: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in body.modules() if isinstance(layer, nn.Conv2d)]


def _unit(blueprint: Blueprint) -> float:
    """Return how many steps of 1/255 one unit of the network's normalised input is."""
    stds = blueprint.std if isinstance(blueprint.std, tuple) else (blueprint.std,)
    return 255 * sum(stds) / len(stds)


def _units(body: nn.Module, blueprint: Blueprint) -> list[float]:
    """Return the scale of every convolution's weights: the paper's numbers are for pixels of 0 to 255 at the first."""
    return [_unit(blueprint), *[1.0] * (len(_convolutions(body)) - 1)]


@torch.no_grad()
def _set(layer: nn.Module, weight: Tensor) -> None:
    """Set a layer's weight in place; through its parametrization where it has one, as layer 3 of lenet5-1998 does."""
    if parametrize.is_parametrized(layer, "weight"):
        layer.weight = weight
    else:
        layer.get_parameter("weight").copy_(weight)


def _initialise(body: nn.Module, std: float, unit: float) -> None:
    first = True
    for layer in body.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            _set(layer, torch.empty_like(layer.weight).normal_(0, std * unit if first else std))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            first = False


_PAPER = Recipe(
    epochs=70,
    rate=0.01,
    schedule="plateau",
    augment="corners",
    nesterov=False,
    decay=0.0,
    dropout=0.5,
    gaussian=0.01,
    clip=0.1,
    batch_norm=False,
)
_DIGITS = Recipe(epochs=30, batch=64, rate=0.05, augment="digits", smoothing=0.02)
_OWN = {
    "lenet5": _DIGITS,
    "lenet5-1998": replace(_DIGITS, rate=0.01),
    "zfnet64": Recipe(
        epochs=50,
        rate=0.1,
        smoothing=0.1,
        sizes=((0.0, (0.75,)), (0.56, (0.75, 0.75, 1.0, 1.5))),
        whole=((0.0, 0.0), (0.74, 0.4)),
    ),
}


def recipe(blueprint: Blueprint, name: str = "default", **changes: Any) -> Recipe:
    """Return a network's recipe: "default" or "paper" (Zeiler & Fergus 2013, sec. 3.1), with changes.

    Raises OptionError for an unknown recipe, or a number that makes no sense.
    """
    if name not in ("default", "paper"):
        raise OptionError(f"there is no recipe {name!r}; nearest: {nearest(name, ['default', 'paper'])}")
    plain = _PAPER if name == "paper" else _OWN.get(blueprint.name.partition(":")[0], _PAPER)
    if name == "paper" and blueprint.channels == 1:
        plain = replace(plain, augment="digits")  # a mirrored digit is another digit
    chosen = replace(plain, **{key: value for key, value in changes.items() if value is not None})
    for key in ("epochs", "batch"):
        if getattr(chosen, key) < 1:
            raise OptionError(f"{key} is at least 1, not {getattr(chosen, key)}")
    if not 0 < chosen.rate < float("inf"):
        raise OptionError(f"rate is a positive number, not {chosen.rate}")
    return chosen
