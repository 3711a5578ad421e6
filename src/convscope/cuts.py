"""Cut gradients: a score may depend on the picture, or on a layer, and yet have no gradient there.

A body cuts the gradient by `torch.no_grad`, `detach`, whole numbers (argmax, rounding) or a way through NumPy. Whether
the score depends on something is then seen by changing it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from .bodies import without_gradient
from .errors import LayerError, ObjectiveError
from .layers import picture_layers
from .net import Net
from .sharing import hooked
from .tapping import tap
from .tracing import OUTPUT, Layer

_HOW = "torch.no_grad, detach, whole numbers or NumPy do that"
_INSTEAD = "occlusion, rise, score_cam and ablation_cam go by forward passes alone"


class CutError(LayerError):
    """A score depends on a layer, but no gradient leads there."""


class Scored(Protocol):
    """What a score needs: the layers that it reads, and one number per picture from them."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers."""
        ...

    def score(self, readings: dict[str, Tensor]) -> Tensor:
        """Return one number per picture."""
        ...


def no_gradient(net: Net, pixels: Tensor, objective: Scored) -> ObjectiveError:
    """Return the error for a score without gradient at pixels (n, c, h, w): it does not depend on them, or is cut."""
    pixels = pixels.detach()
    if cut := without_gradient(net.body):
        return ObjectiveError(f"no gradient of {objective} reaches the picture: {cut}")
    noise = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(0)).to(pixels)
    others = [_score(net, other, objective) for other in (1 - pixels, torch.zeros_like(pixels), noise)]
    if all(torch.equal(_score(net, pixels, objective), other) for other in others):
        return ObjectiveError(f"{objective} does not depend on the picture: there is no gradient")
    return ObjectiveError(
        f"{objective} depends on the picture, but {net.name} cuts the gradient {_where(net, pixels[:1])}: {_HOW}. "
        f"{_INSTEAD}"
    )


def independent(net: Net, pixels: Tensor, objective: Scored, layer: Layer) -> LayerError:
    """Return the error for a score without gradient at a layer: it does not depend on it, or the gradient is cut."""
    if cut := without_gradient(net.body):
        return CutError(f"no gradient of {objective} reaches {layer.title} of {net.name}: {cut}")
    activity = tap(net, pixels.detach(), [layer.name])[layer.name]
    with replaced(net, layer, torch.zeros_like(activity[: len(activity) // len(pixels)])):
        without = torch.cat(
            [_score(net, one[None], _of_row(objective, row)) for row, one in enumerate(pixels.detach())]
        )
    if torch.equal(without, _score(net, pixels.detach(), objective)):
        return LayerError(f"{objective} does not depend on {layer.title}: name a layer that runs before it")
    return CutError(
        f"{objective} depends on {layer.title}, but {net.name} cuts the gradient between them: {_HOW}. {_INSTEAD}"
    )


def _of_row(objective: Any, row: int) -> Scored:
    return objective.rows(row)


def _score(net: Net, pixels: Tensor, objective: Scored) -> Tensor:
    with torch.no_grad():
        return objective.score(tap(net, pixels, objective.layers))


def _where(net: Net, picture: Tensor) -> str:
    """Say before which layer the gradient is cut."""
    names = [layer.name for layer in picture_layers(net) if layer.leaf and layer.name]
    with torch.inference_mode(False), torch.enable_grad():
        readings = tap(net, picture.clone().requires_grad_(), [*names, OUTPUT])
    cut = next((name for name in names if not readings[name].requires_grad), None)
    return f"before layer {cut!r}" if cut is not None else "after its last layer"


@contextmanager
def replaced(net: Net, layer: Layer, activity: Tensor) -> Generator[None]:
    """Replace a layer's output by `activity` in the block, at its own call where its module runs several times."""
    module, _, call = layer.name.partition("#")
    calls = 0

    def hook(_: Any, __: Any, output: Tensor) -> Tensor | None:
        nonlocal calls
        calls += 1
        # A copy: the next operation may work in place.
        return activity.clone() if not call or calls == int(call) else None

    with hooked([(net.body.get_submodule(module), hook)]):
        yield
