"""Guided Grad-CAM: the product of guided backpropagation and Grad-CAM.

Selvaraju et al., "Grad-CAM" (arXiv:1610.02391, sec. 3.1): Grad-CAM is class-discriminative, but only as fine as its
layer's grid; guided backpropagation has the picture's resolution, but is hardly class-discriminative. Their product,
Grad-CAM upsampled to the picture times guided backpropagation, is both. Its second factor recovers edges of the picture
whatever the network has learnt (Adebayo et al. 2018, arXiv:1810.03292).
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from ..context import say
from ..net import Net
from ..objectives import Objective
from ..registry import method
from .cam import grad_cam
from .deconvnet import guided_backprop


@method(
    "Guided Grad-CAM",
    paper="Selvaraju et al. 2017, arXiv:1610.02391, sec. 3.1",
    signed=True,
    projects=True,
    linear=False,
    caveat="shows edges of the picture wherever Grad-CAM is large: like guided backpropagation, its detail is nearly "
    "independent of the weights (Adebayo et al. 2018)",
)
def guided_grad_cam(
    net: Net,
    pixels: Tensor,
    objective: Objective,
    *,
    layer: Annotated[str | None, "layer of Grad-CAM; by default the last with spatial positions"] = None,
) -> Tensor:
    """Guided Grad-CAM: guided backpropagation weighted by the class activation map.

    Pixels (n, c, h, w) in [0, 1] to a signed picture of the same shape; its scale has no unit. Raises RuleError where a
    network's activation is not a rectifier, LayerError as `grad_cam` does.
    """
    product = guided_backprop(net, pixels, objective) * grad_cam(net, pixels, objective, layer=layer)
    zero = "the product is zero everywhere: guided backpropagation and Grad-CAM do not overlap"
    say(["" if any_ else zero for any_ in product.flatten(1).any(1).tolist()])
    return product
