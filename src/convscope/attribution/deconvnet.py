"""Deconvnet and guided backpropagation: backward passes with modified rules at rectifiers.

Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (arXiv:1311.2901v3, sec. 2.1): to see what
excites a unit, set all other activations of its layer to zero and project it down: unpool by the switches that the
forward pass recorded, rectify, filter with the transposed filters, layer by layer; contrast normalisation is skipped
and no bias is added. Simonyan et al. (arXiv:1312.6034, sec. 4) show that this is backpropagation with one change: at
a rectifier, R = max(R, 0) instead of R 1[x > 0]. So the deconvnet of any network is a rule, with nothing to rebuild:

    convolution    transposed filters      = the gradient
    max pooling    switches                = the gradient; where overlapping windows share a switch they add up
    rectifier      max(R, 0)               the rule
    normalisation  R                       skipped (`skip_lrn`)

Guided backpropagation (Springenberg et al., arXiv:1412.6806) keeps both masks: R 1[x > 0] 1[R > 0].

Mahendran and Vedaldi ("Salient Deconvolutional Networks", ECCV 2016) put all of these into one cube: does a rectifier
apply its forward mask 1[x > 0], does max pooling use its switches or send the signal to the centre of each window, does
a rectifier rectify the signal, 1[R > 0]? `backward` is the cube, with normalisation as its fourth bit:

                            mask   switches   rectify   lrn
    gradient, saliency      yes    yes        no        yes
    deconvnet               no     yes        yes       no
    guided_backprop         yes    yes        yes       yes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor

from .. import rules
from ..context import say, track
from ..cuts import no_gradient
from ..net import Net
from ..objectives import Objective, as_objective
from ..registry import method
from ..tapping import tap
from ..tracing import Layer
from .gradient import gradient, gradients_at_pixels, say_if_flat


@method(
    "Deconvnet",
    paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, sec. 2.1",
    signed=True,
    projects=True,
    caveat="shows the pattern that excites a unit, through this picture's pooling switches; nearly independent of the "
    "weights of the upper layers (Adebayo et al. 2018; Nie et al. 2018)",
)
def deconvnet(net: Net, pixels: Tensor, objective: Objective) -> Tensor:
    """Deconvnet: projection of the objective back to pixels, with rectified signals and pooling switches.

    Pixels (n, c, h, w) in [0, 1] to a signed picture of the same shape; its scale has no unit. Raises RuleError where
    a network's activation is not a rectifier, instead of returning a plain gradient.
    """
    return deconvnets(net, pixels, [objective])


def deconvnets(net: Net, pixels: Tensor, objectives: Sequence[Objective]) -> Tensor:
    """Return the `deconvnet` (k n, c, h, w) of k objectives in n pictures, one objective after the other."""
    rule = rules.relu_rule(rules.deconvnet, skip_lrn=True)
    projections = _backward_with(net, pixels, objectives, rule)
    if not rule.switches:
        say("no max pooling below the objective, so no switches: the projection hardly depends on this picture")
    return projections


def project_down(net: Net, pixels: Tensor, layer: Layer, seeds: Callable[[Tensor], list[Tensor]]) -> tuple[Tensor, str]:
    """Project parts of a layer's activity down to pixels, after one forward pass.

    Pixels (1, c, h, w) in [0, 1]; `seeds` selects the part of the activity (1, channels, rows, columns) to keep, one
    tensor of that shape per projection. Returns the projections (k, c, h, w) and the rule's report.
    """
    with torch.inference_mode(False), torch.enable_grad(), rules.relu_rule(rules.deconvnet, skip_lrn=True) as rule:
        pixels = pixels.detach().clone().requires_grad_()
        activity = tap(net, pixels, [layer.name])[layer.name]
        if not activity.requires_grad:
            raise no_gradient(net, pixels, as_objective(net, layer.name))
        projections = [
            torch.autograd.grad(activity, pixels, seed, retain_graph=True)[0]
            for seed in track(seeds(activity.detach()), "projecting down")
        ]
    return torch.cat(projections), rule.report


def _backward_with(net: Net, pixels: Tensor, objectives: Sequence[Objective], rule: rules.relu_rule) -> Tensor:
    """Go back from k objectives under a rule to pixels (k n, c, h, w), and say what it did."""
    with rule:
        projection = gradients_at_pixels(net, pixels, objectives)
    say(rule.report)
    if rule.rule in (rules.plain, rules.straight):
        say_if_flat(projection)
        return projection
    blocked = (
        "the signal does not reach the pixels: it is negative everywhere at some rectifier; "
        "choose a single activation instead, as layer:channel"
    )
    say(["" if any_ else blocked for any_ in projection.flatten(1).any(1).tolist()])
    return projection


@method(
    "Guided backpropagation",
    paper="Springenberg et al. 2014, arXiv:1412.6806",
    signed=True,
    projects=True,
    caveat="recovers edges of the picture; nearly independent of the class and of the weights of the upper layers "
    "(Adebayo et al. 2018; Nie et al. 2018)",
)
def guided_backprop(net: Net, pixels: Tensor, objective: Objective) -> Tensor:
    """Guided backpropagation: only positive gradient flows back, and only through active units.

    Pixels (n, c, h, w) in [0, 1] to a signed picture of the same shape; its scale has no unit. Raises RuleError as
    `deconvnet` does.
    """
    return guided_backprops(net, pixels, [objective])


def guided_backprops(net: Net, pixels: Tensor, objectives: Sequence[Objective]) -> Tensor:
    """Return the `guided_backprop` (k n, c, h, w) of k objectives in n pictures, one objective after the other."""
    return _backward_with(net, pixels, objectives, rules.relu_rule(rules.guided))


_RECTIFIER = {
    (True, False): rules.plain,
    (False, True): rules.deconvnet,
    (True, True): rules.guided,
    (False, False): rules.straight,
}
"""The rule of a rectifier, by (mask, rectify)."""


@method(
    "Modified backpropagation",
    paper="Mahendran & Vedaldi 2016, ECCV, Salient Deconvolutional Networks; after arXiv:1312.6034, sec. 4",
    signed=True,
    projects=True,
)
def backward(
    net: Net,
    pixels: Tensor,
    objective: Objective,
    *,
    mask: Annotated[bool, "rectifiers pass the signal through active units only, 1[x > 0]"] = True,
    switches: Annotated[
        bool, "max pooling sends the signal to the position of the maximum; without, to the centre of its window"
    ] = True,
    rectify: Annotated[bool, "rectifiers pass positive signal only, 1[R > 0]"] = False,
    lrn: Annotated[bool, "backpropagate through local response normalisation; without, it is skipped"] = True,
) -> Tensor:
    """Backpropagation with a choice of rules for rectifiers, max pooling and normalisation.

    Pixels (n, c, h, w) in [0, 1] to a signed picture of the same shape. By default it is the gradient; the deconvnet is
    mask=False, rectify=True, lrn=False, guided backpropagation rectify=True. Of an even window the centre is the
    position before its half; at the picture's border the nearest position inside. Raises RuleError where a network has
    an activation, or a maximum, for which a choice has no meaning.
    """
    rules_used = " · ".join(
        f"{name}: {'yes' if value else 'no'}"
        for name, value in (("mask", mask), ("switches", switches), ("rectify", rectify), ("lrn", lrn))
    )
    say(rules_used)
    if mask and switches and not rectify and lrn:
        return gradient(net, pixels, objective)
    rule = rules.relu_rule(_RECTIFIER[mask, rectify], skip_lrn=not lrn, centre=not switches)
    return _backward_with(net, pixels, [objective], rule)
