"""Scores of a batch of pictures, each group with its own objective, and their gradient at the free numbers.

The gradient is taken in two parts: through the network, at what it sees, where rectifiers can be redirected and large
pictures cut into tiles; and from there through transform and parametrization. Terms about the picture itself (layer
PIXELS) are differentiated beside the network's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import rules
from ..cuts import no_gradient
from ..errors import OptionError, RuleError
from ..net import Net
from ..objectives import Objective
from ..tapping import tap
from ..tracing import PIXELS
from .parametrizations import Parametrization
from .tiling import TiledGradient
from .transforms import Transform

_REDIRECTED = 16
"""Steps in which gradient is led past silent rectifiers, as in lucid."""

PATIENCE = 64
"""Steps after which a unit whose gradient never reached the picture is given up."""


class BatchScore:
    """The scores of `count` pictures: count / len(objectives) in a row for each objective.

    `reached` (count,) says which pictures the true gradient has reached so far. Raises OptionError for objectives that
    pictures cannot be shared among, or that say nothing about the network.
    """

    def __init__(
        self, net: Net, objectives: Sequence[Objective], count: int, *, tile: int | None, redirect: bool
    ) -> None:
        if count % len(objectives):
            raise OptionError(f"{count} pictures cannot be shared among {len(objectives)} objectives")
        self.net, self.count, self.redirect = net, count, redirect
        self.network_terms = [_terms(objective, of_pixels=False) for objective in objectives]
        if not all(objective.terms for objective in self.network_terms):
            raise OptionError("the objective says nothing about the network: add a class, a channel or a layer")
        self.pixel_terms = _pixel_terms(objectives)
        self.layers = list(dict.fromkeys(name for objective in self.network_terms for name in objective.layers))
        self.tiles = TiledGradient(tile) if tile is not None else None
        self.reached = torch.zeros(count, dtype=torch.bool)

    def gradient(
        self, parametrization: Parametrization, transform: Transform, numbers: Tensor, step: int
    ) -> tuple[Tensor, Tensor]:
        """Return the gradient of the summed scores at the free numbers, and the scores (n,), in step `step` from 0.

        `numbers` are this step's random numbers of the transform.
        """
        pixels = parametrization.pixels()
        view = transform(pixels, numbers)
        at_view, scores = self._at_view(view.detach(), step)
        outputs, gradients = [view], [at_view]
        if self.pixel_terms:
            own = self._score(self.pixel_terms, {PIXELS: pixels})
            outputs, gradients = [view, own], [at_view, torch.ones_like(own)]
            scores = scores + own.detach()
        (gradient,) = torch.autograd.grad(outputs, [parametrization.free], gradients)
        return gradient, scores

    def final(self, pixels: Tensor, steps: int, fallback: float) -> Tensor:
        """Return the scores (n,) of pictures without transform, after `steps` steps.

        A picture that is larger than the tiles is not scored again: each has the `fallback`.
        """
        if self.tiles and self.tiles.side < max(pixels.shape[-2:]):
            return torch.full((self.count,), fallback)
        if self.redirect and steps <= _REDIRECTED:
            # So short a run has seen no gradient but redirected ones.
            gradient, scores = self._whole(pixels.clone())
            self.reached |= gradient.flatten(1).any(1).cpu()
        else:
            with torch.no_grad():
                scores = self._score(self.network_terms, tap(self.net, pixels, self.layers))
        with torch.no_grad():
            return scores + self._score(self.pixel_terms, {PIXELS: pixels}) if self.pixel_terms else scores

    def _at_view(self, view: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Return the network's gradient at what it sees, and its scores (n,).

        In the first steps, and for a while longer where the true gradient reaches nothing, it is led past rectifiers.
        """
        if step < _REDIRECTED:
            redirected = self._redirected(view)
            if redirected is not None:
                return redirected
        true = self._differentiate(view)
        if self._waiting(step):
            self.reached |= true[0].flatten(1).any(1).view(self.count, -1).any(1).cpu()
            return (self._redirected(view) if self._waiting(step) else None) or true
        return true

    def _waiting(self, step: int) -> bool:
        """Whether there are pictures that the true gradient may still come to reach."""
        return step < PATIENCE and not bool(self.reached.all())

    def _redirected(self, view: Tensor) -> tuple[Tensor, Tensor] | None:
        if not self.redirect:
            return None
        try:
            with rules.relu_rule(rules.redirected):
                return self._differentiate(view)
        except RuleError:
            # Only rectifiers can be redirected, and only they need it.
            self.redirect = False
            return None

    def _differentiate(self, view: Tensor) -> tuple[Tensor, Tensor]:
        return self.tiles.over(view, self._whole) if self.tiles else self._whole(view)

    def _whole(self, view: Tensor) -> tuple[Tensor, Tensor]:
        leaf = view.requires_grad_()
        scores = self._score(self.network_terms, tap(self.net, leaf, self.layers), len(view) // self.count)
        gradient = torch.autograd.grad(scores.sum(), leaf, allow_unused=True)[0] if scores.requires_grad else None
        if gradient is None:
            raise no_gradient(self.net, leaf[:1], self.network_terms[0])
        return gradient, scores.detach()

    def _score(self, objectives: Sequence[Objective], readings: dict[str, Tensor], views: int = 1) -> Tensor:
        """Return one score per picture from readings of all of them, each in `views` copies."""
        if len(objectives) == 1 and views == 1:
            return objectives[0].score(readings)
        # split's backward is one concatenation: a slice's would write the whole batch anew for every group.
        parts = {name: value.split(len(value) // len(objectives)) for name, value in readings.items()}
        scores = [
            objective.score({name: value[i] for name, value in parts.items()}) for i, objective in enumerate(objectives)
        ]
        return torch.cat(scores).view(-1, views).mean(1)


def _pixel_terms(objectives: Sequence[Objective]) -> list[Objective]:
    """Return the terms about the picture itself; an objective without has those of another, with weight 0."""
    parts = [_terms(objective, of_pixels=True) for objective in objectives]
    some = next((objective for objective in parts if objective.terms), None)
    return [part if part.terms else some * 0.0 for part in parts] if some else []


def _terms(objective: Objective, *, of_pixels: bool) -> Objective:
    """Return the terms about the picture itself, or those about the network."""
    return Objective(tuple((w, term) for w, term in objective.terms if (term.layer == PIXELS) == of_pixels))
