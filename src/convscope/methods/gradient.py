"""Gradients of the question with respect to the picture.

Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks" (arXiv:1312.6034, sec. 3): around a picture I0
the class score is nearly linear, S(I) ~ w.I + b with w = dS/dI at I0, so the magnitude of w says which pixels need to
be changed the least to change the score the most. S is the unnormalised score, not the posterior, whose gradient also
asks for all other classes to go down. A gradient here is per unit of pixel in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import QuestionError
from ..net import Net
from ..objectives import Objective
from ..registry import method
from ..reporting import say


@method("Gradient", paper="Simonyan et al. 2013, arXiv:1312.6034, sec. 3.1", signed=True, projects=True)
def gradient(net: Net, pixels: Tensor, objective: Objective) -> Tensor:
    """Differentiate the question with respect to every pixel, sign kept.

    Pixels (n, c, h, w) in [0, 1] to a map of the same shape, in score per unit of pixel.
    """
    slope = slope_at_pixels(net, pixels, objective)
    if not slope.any():
        say("the gradient is zero everywhere: around this picture the answer does not change")
    return slope


def slope_at_pixels(net: Net, pixels: Tensor, objective: Objective) -> Tensor:
    """Run forward and back once and return d objective / d pixels, (n, c, h, w).

    Works inside `no_grad` and `inference_mode`; raises QuestionError when nothing connects the question to the picture.
    """
    with torch.inference_mode(False), torch.enable_grad():
        pixels = pixels.detach().clone().requires_grad_()
        score = objective(net, pixels).sum()
        slope = torch.autograd.grad(score, pixels, allow_unused=True)[0] if score.requires_grad else None
    if slope is None:
        raise QuestionError(f"{objective} does not depend on the picture: there is no gradient")
    return slope


@method("Saliency", paper="Simonyan et al. 2013, arXiv:1312.6034, sec. 3.1", signed=False)
def saliency(net: Net, pixels: Tensor, objective: Objective) -> Tensor:
    """Take the gradient's magnitude, its maximum over the colour channels.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), in score per unit of pixel, never negative.
    """
    return gradient(net, pixels, objective).abs().amax(1, keepdim=True)


@method(
    "Gradient x input",
    paper="Shrikumar et al. 2016, arXiv:1605.01713",
    signed=True,
    caveat="contains the picture as a factor, so it looks like the picture whatever the network does",
)
def gradient_x_input(net: Net, pixels: Tensor, objective: Objective) -> Tensor:
    """Multiply the gradient by the picture: what each pixel adds to the score in the linear approximation.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), summed over colour channels, in score. The picture is taken relative
    to the network's mean colour, which is what the network calls zero.
    """
    mean = torch.tensor(net.mean, dtype=pixels.dtype, device=pixels.device)[:, None, None]
    return (gradient(net, pixels, objective) * (pixels.detach() - mean)).sum(1, keepdim=True)
