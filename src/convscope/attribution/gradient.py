"""Gradients of the objective with respect to the picture.

Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks" (arXiv:1312.6034, sec. 3): around a picture I0
the class score is nearly linear, S(I) ~ w.I + b with w = dS/dI at I0, so the magnitude of w says which pixels need to
be changed the least to change the score the most. S is the logit, not the posterior, whose gradient also suppresses the
other classes. A gradient here is per unit of pixel in [0, 1].

Smilkov et al., "SmoothGrad" (arXiv:1706.03825, sec. 3): the gradient fluctuates between pictures that look the same, so
average it over such pictures, 1/n sum_i w(I0 + N(0, sigma^2)). Their noise level is sigma as a fraction of the
picture's range, max I0 - min I0. Some packages give the mean of squares, 1/n sum_i w(...)^2, under the same name: it
has no sign, and fluctuations add up instead of averaging out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..batching import in_batches
from ..context import say
from ..cuts import no_gradient
from ..errors import OptionError
from ..net import Net
from ..objectives import Objective, Unit
from ..options import Range
from ..registry import method
from ..tapping import tap

Batch = Annotated[int, "pictures per forward and backward pass; halved when memory runs out", Range(1)]


@method(
    "Vanilla gradient",
    paper="Simonyan et al. 2013, arXiv:1312.6034, sec. 3.1",
    signed=True,
    projects=True,
    unit="score per unit of pixel",
)
def gradient(net: Net, pixels: Tensor, objective: Objective) -> Tensor:
    """Gradient of the score with respect to the pixels, with its sign.

    Pixels (n, c, h, w) in [0, 1] to a map of the same shape, in score per unit of pixel.
    """
    return gradients(net, pixels, [objective])


def gradients(net: Net, pixels: Tensor, objectives: Sequence[Objective]) -> Tensor:
    """Return the gradients (k n, c, h, w) of k objectives at n pictures, one objective after the other."""
    found = gradients_at_pixels(net, pixels, objectives)
    say_if_flat(found)
    return found


def gradients_at_pixels(net: Net, pixels: Tensor, objectives: Sequence[Objective]) -> Tensor:
    """Return what `gradient_at_pixels` does for k objectives, (k n, c, h, w), from one forward pass for all of them."""
    with torch.inference_mode(False), torch.enable_grad():
        pixels = pixels.detach().clone().requires_grad_()
        layers = dict.fromkeys(layer for objective in objectives for layer in objective.layers)
        readings = tap(net, pixels, layers)
        found = list[Tensor]()
        for number, objective in enumerate(objectives, 1):
            score, more = objective.score(readings).sum(), number < len(objectives)
            gradient = None
            if score.requires_grad:
                gradient = torch.autograd.grad(score, pixels, retain_graph=more, allow_unused=True)[0]
            if gradient is None:
                raise no_gradient(net, pixels, objective)
            found.append(gradient)
    return torch.cat(found)


def gradient_at_pixels(net: Net, pixels: Tensor, objective: Objective) -> Tensor:
    """Return d objective / d pixels, (n, c, h, w), from one forward and backward pass.

    Works inside `no_grad` and `inference_mode`; raises ObjectiveError when the score does not depend on the picture.
    """
    return gradient_through(net, pixels, objective, lambda picture: picture)


def gradient_through(net: Net, pixels: Tensor, objective: Objective, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return d objective / d pixels, (n, c, h, w), where the network's input is a differentiable `change` of them."""
    with torch.inference_mode(False), torch.enable_grad():
        pixels = pixels.detach().clone().requires_grad_()
        score = objective(net, change(pixels)).sum()
        gradient = torch.autograd.grad(score, pixels, allow_unused=True)[0] if score.requires_grad else None
    if gradient is None:
        raise no_gradient(net, pixels, objective)
    return gradient


def say_if_flat(gradient: Tensor) -> None:
    """Note in the caption that a gradient is zero everywhere, which a blank map would not show."""
    flat = "the gradient is zero everywhere: the score does not change around this picture"
    say(["" if any_ else flat for any_ in gradient.flatten(1).any(1).tolist()])


@method(
    "Saliency", paper="Simonyan et al. 2013, arXiv:1312.6034, sec. 3.1", signed=False, unit="score per unit of pixel"
)
def saliency(
    net: Net,
    pixels: Tensor,
    objective: Objective,
    *,
    crops: Annotated[
        int, "number of crops averaged: 1, or 10 for four corners and the centre with mirror images, as in the paper"
    ] = 1,
) -> Tensor:
    """Magnitude of the gradient, maximum over the colour channels.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), in score per unit of pixel, never negative. Ten crops are 7/8 of the
    picture each (224 of 256 in the paper) and enlarged to the picture's size, because many networks take no other; the
    gradient goes back through that, so each lies where it was cut, unmirrored and per unit of the picture's own pixels.
    A pixel's value is the mean over the crops that contain it. Raises OptionError for another number of crops, and for
    a unit at a row and column, which is another part of the picture in every crop.
    """
    if crops == 1:
        return gradient(net, pixels, objective).abs().amax(1, keepdim=True)
    if crops != 10:
        raise OptionError(f"crops is 1 or 10 (four corners, the centre, and their mirror images), not {crops}")
    positions = [str(t) for _, t in objective.terms if isinstance(t, Unit) and isinstance(t.position, tuple)]
    if positions:
        raise OptionError(
            f"{positions[0]} is another part of the picture in every crop: name the channel alone, or use crops=1"
        )
    height, width = pixels.shape[-2:]
    size = max(1, round(height * 7 / 8)), max(1, round(width * 7 / 8))
    say(f"mean over ten crops of {size[0]} × {size[1]} pixels, enlarged to {height} × {width}")
    maps = torch.cat([_mean_of_crops(net, one[None], objective.rows(row), size) for row, one in enumerate(pixels)])
    say_if_flat(maps)
    return maps


def _mean_of_crops(net: Net, picture: Tensor, objective: Objective, size: tuple[int, int]) -> Tensor:
    height, width = picture.shape[-2:]
    down, right = height - size[0], width - size[1]
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    boxes = [(top, left, mirrored) for top, left in corners for mirrored in (False, True)]

    def crop(copies: Tensor, piece: slice) -> Tensor:
        cut = [
            copy[:, top : top + size[0], left : left + size[1]]
            for copy, (top, left, _) in zip(copies, boxes[piece], strict=True)
        ]
        crops = [part.flip(2) if mirrored else part for part, (_, _, mirrored) in zip(cut, boxes[piece], strict=True)]
        return F.interpolate(torch.stack(crops), size=(height, width), mode="bilinear", align_corners=False)

    def saliencies(piece: slice) -> Tensor:
        copies = picture.expand(piece.stop - piece.start, -1, -1, -1)
        gradients = gradient_through(net, copies, objective, lambda leaf: crop(leaf, piece))
        return gradients.abs().amax(1, keepdim=True).sum(0, keepdim=True)

    total = torch.stack(list(in_batches(saliencies, len(boxes), len(boxes), "crops"))).sum(0)
    coverage = total.new_zeros(height, width)
    for top, left, _ in boxes:
        coverage[top : top + size[0], left : left + size[1]] += 1
    # A pixel outside all crops has no gradient either (F20).
    return total / coverage.clamp(min=1)


@method(
    "Gradient x input",
    paper="Shrikumar et al. 2016, arXiv:1605.01713",
    signed=True,
    caveat="contains the picture as a factor, so it looks like the picture whatever the network does",
)
def gradient_x_input(net: Net, pixels: Tensor, objective: Objective) -> Tensor:
    """Gradient times input: each pixel's contribution to the score in the linear approximation.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), summed over colour channels, in score. The picture is taken relative
    to the network's mean colour, which is zero after normalisation.
    """
    mean = torch.tensor(net.mean, dtype=pixels.dtype, device=pixels.device)[:, None, None]
    return (gradient(net, pixels, objective) * (pixels.detach() - mean)).sum(1, keepdim=True)


@method(
    "SmoothGrad",
    paper="Smilkov et al. 2017, arXiv:1706.03825, sec. 3",
    signed=True,
    projects=True,
    unit="score per unit of pixel",
)
def smooth_grad(
    net: Net,
    pixels: Tensor,
    objective: Objective,
    *,
    noise: Annotated[
        float, "standard deviation of the noise, as a fraction of the picture's value range", Range(0)
    ] = 0.15,
    samples: Annotated[int, "number of noisy copies", Range(1)] = 25,
    squared: Annotated[bool, "average squared gradients, which have no sign, instead of gradients"] = False,
    seed: Annotated[int, "random seed of the noise", Range(0)] = 0,
    batch: Batch = 10,
) -> Tensor:
    """SmoothGrad: mean gradient over noisy copies of the picture.

    Pixels (n, c, h, w) in [0, 1] to a map of the same shape, in score per unit of pixel (its square with `squared`).
    Every picture of a batch gets the same noise, in proportion to its range; noisy pixels are not cut to [0, 1], which
    would shift their mean.
    """
    deviations = noise * (pixels.amax((1, 2, 3)) - pixels.amin((1, 2, 3)))
    copies = f"{'mean of squares' if squared else 'mean'} over {samples} noisy copies, standard deviation"
    say([f"{copies} {value:.2g}" for value in deviations.tolist()])
    weights = [1 / samples] * samples

    def smoothed(row: int, picture: Tensor) -> Tensor:
        def noisy(piece: slice) -> Tensor:
            return picture + deviations[row] * noise_of(range(samples)[piece], picture, seed)

        own = objective.rows(row)
        return weighted_gradient(net, own, noisy, weights, batch, "SmoothGrad", power=2 if squared else 1)

    mean = torch.stack([smoothed(row, picture) for row, picture in enumerate(pixels.detach())])
    say_if_flat(mean)
    return mean


def noise_of(numbers: range, like: Tensor, seed: int) -> Tensor:
    """Return the samples of standard normal noise with these numbers, each of the shape of a picture (c, h, w).

    A sample depends on the seed and its number alone: neither on its batch nor on the device.
    """
    samples: list[Tensor] = []
    for number in numbers:
        state = int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0])
        samples.append(torch.randn(like.shape, generator=torch.Generator().manual_seed(state)))
    return torch.stack(samples).to(like)


def weighted_gradient(
    net: Net,
    objective: Objective,
    pictures: Callable[[slice], Tensor],
    weights: list[float],
    batch: int,
    label: str,
    *,
    power: int = 1,
) -> Tensor:
    """Return the weighted sum, (c, h, w), of the gradients (to a power) at as many pictures as there are weights.

    `pictures` makes those of a slice, (k, c, h, w), when they are needed; the objective is that of all of them.
    """

    def work(piece: slice) -> Tensor:
        gradients = gradient_at_pixels(net, pictures(piece), objective)
        factors = torch.tensor(weights[piece], dtype=torch.float64)
        # Half precision would round away what the later terms add.
        exact = gradients.to(torch.promote_types(gradients.dtype, torch.float32))
        return torch.einsum("k,kchw->chw", factors.to(exact), exact**power).to(gradients.dtype)

    pieces = list(in_batches(work, len(weights), batch, label))
    return torch.stack(pieces).sum(0)
