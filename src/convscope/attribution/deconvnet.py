"""Deconvnets and guided backpropagation: backward passes with another rule at the rectifiers.

Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (arXiv:1311.2901v3, sec. 2.1): to see what
excites a unit, set all other activations of its layer to zero and send it down: unpool by the switches that the
forward pass recorded, rectify, filter with the transposed filters, layer by layer; contrast normalisation is skipped
and no bias is added. Simonyan et al. (arXiv:1312.6034, sec. 4) show that this is backpropagation with one change: at
a rectifier, R = max(R, 0) instead of R 1[x > 0]. So the deconvnet of any network is a rule, with nothing to rebuild:

    convolution    transposed filters      = the gradient
    max pooling    switches                = the gradient; where overlapping windows share a switch they add up
    rectifier      max(R, 0)               the rule
    normalisation  R                       skipped (`skip_lrn`)

Guided backpropagation (Springenberg et al., arXiv:1412.6806) keeps both masks: R 1[x > 0] 1[R > 0].

Mahendran and Vedaldi ("Salient Deconvolutional Networks", ECCV 2016) put all of these into one cube: does a rectifier
apply its forward mask 1[x > 0], does max pooling use its switches or send the signal to the middle of each window, does
a rectifier rectify the signal, 1[R > 0]? `backward` is the cube, with normalisation as its fourth bit:

                            mask   switches   rectify   lrn
    gradient, saliency      yes    yes        no        yes
    deconvnet               no     yes        yes       no
    guided_backprop         yes    yes        yes       yes
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from .. import rules
from ..context import say, track
from ..net import Net
from ..objectives import Objective
from ..registry import method
from ..tapping import tap
from ..tracing import Layer
from .gradient import gradient, gradient_at_pixels, say_if_flat


@method(
    "Deconvnet",
    paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, sec. 2.1",
    signed=True,
    projects=True,
    caveat="shows what a unit can be excited by, through the switches of this picture; it follows the weights of the "
    "upper layers little (Adebayo et al. 2018; Nie et al. 2018)",
)
def deconvnet(net: Net, pixels: Tensor, objective: Objective) -> Tensor:
    """Project the objective down to pixels through the deconvnet.

    Pixels (n, c, h, w) in [0, 1] to a signed picture of the same shape; its scale has no unit. Raises RuleError where
    a network's activation is not a rectifier, and never returns a plain gradient instead.
    """
    projection, rule = _sent_back(net, pixels, objective, rules.relu_rule(rules.deconvnet, skip_lrn=True))
    if not rule.switches:
        say("no max pooling on the way down, so no switches: the projection shows the unit, hardly this picture")
    return projection


def project_down(net: Net, pixels: Tensor, layer: Layer, seeds: Callable[[Tensor], list[Tensor]]) -> tuple[Tensor, str]:
    """Project parts of a layer's activity down to pixels, after one forward pass.

    Pixels (1, c, h, w) in [0, 1]; `seeds` picks from the activity (1, channels, rows, columns) what is to be kept, one
    tensor of that shape per projection. Returns the projections (k, c, h, w) and the rule's report.
    """
    with torch.inference_mode(False), torch.enable_grad(), rules.relu_rule(rules.deconvnet, skip_lrn=True) as rule:
        pixels = pixels.detach().clone().requires_grad_()
        activity = tap(net, pixels, [layer.name])[layer.name]
        projections = [
            torch.autograd.grad(activity, pixels, seed, retain_graph=True)[0]
            for seed in track(seeds(activity.detach()), "projecting down")
        ]
    return torch.cat(projections), rule.report


def _sent_back(net: Net, pixels: Tensor, objective: Objective, rule: rules.relu_rule) -> tuple[Tensor, rules.relu_rule]:
    """Run forward and back once under a rule, and report what it did."""
    with rule:
        projection = gradient_at_pixels(net, pixels, objective)
    say(rule.report)
    if not projection.any() and rule.rule in (rules.plain, rules.straight):
        say_if_flat(projection)
    elif not projection.any():
        say(
            "nothing reaches the picture: on the way down some rectifier finds the signal negative everywhere; "
            "ask for one activation instead, as layer:channel"
        )
    return projection, rule


@method(
    "Guided backpropagation",
    paper="Springenberg et al. 2014, arXiv:1412.6806",
    signed=True,
    projects=True,
    caveat="recovers edges of the picture rather than reasons: it hardly changes with the class or with the weights of "
    "the upper layers (Adebayo et al. 2018; Nie et al. 2018)",
)
def guided_backprop(net: Net, pixels: Tensor, objective: Objective) -> Tensor:
    """Send back only positive gradient, and only through active units.

    Pixels (n, c, h, w) in [0, 1] to a signed picture of the same shape; its scale has no unit. Raises RuleError as
    `deconvnet` does.
    """
    return _sent_back(net, pixels, objective, rules.relu_rule(rules.guided))[0]


_RECTIFIER = {
    (True, False): rules.plain,
    (False, True): rules.deconvnet,
    (True, True): rules.guided,
    (False, False): rules.straight,
}
"""What a rectifier does, by (mask, rectify)."""


@method(
    "Backward pass",
    paper="Mahendran & Vedaldi 2016, ECCV, Salient Deconvolutional Networks; after arXiv:1312.6034, sec. 4",
    signed=True,
    projects=True,
)
def backward(
    net: Net,
    pixels: Tensor,
    objective: Objective,
    *,
    mask: Annotated[bool, "rectifiers let the signal through active units only, 1[x > 0]"] = True,
    switches: Annotated[
        bool, "max pooling sends the signal to where the maximum was; without, to the middle of its window"
    ] = True,
    rectify: Annotated[bool, "rectifiers let positive signal through only, 1[R > 0]"] = False,
    lrn: Annotated[bool, "local response normalisation sends back its gradient; without, it is skipped"] = True,
) -> Tensor:
    """Send the objective back to pixels, choosing what rectifiers, max pooling and normalisation do.

    Pixels (n, c, h, w) in [0, 1] to a signed picture of the same shape. As it stands it is the gradient; the deconvnet
    is mask=False, rectify=True, lrn=False, guided backpropagation rectify=True. Of an even window the middle is the
    place before its half; at the picture's border the nearest place inside. Raises RuleError where a network has an
    activation, or a maximum, for which a choice has no meaning.
    """
    chosen = " · ".join(
        f"{name}: {'yes' if value else 'no'}"
        for name, value in (("mask", mask), ("switches", switches), ("rectify", rectify), ("lrn", lrn))
    )
    say(chosen)
    if mask and switches and not rectify and lrn:
        return gradient(net, pixels, objective)
    rule = rules.relu_rule(_RECTIFIER[mask, rectify], skip_lrn=not lrn, centre=not switches)
    return _sent_back(net, pixels, objective, rule)[0]
