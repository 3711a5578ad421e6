"""Class activation maps: the positions of a late layer that raise the score.

A^k_ij is the activity of channel k at position ij of a layer, of Z positions; S is the score and g^k_ij = dS/dA^k_ij.

    CAM         sum_k w_k A^k, for S = b + sum_k w_k mean_ij A^k                Zhou et al., sec. 2
    Grad-CAM    max(0, sum_k (1/Z sum_ij g^k_ij) A^k)                           Selvaraju et al., sec. 3, eq. 1 and 2
    Grad-CAM++  max(0, sum_k (sum_ij a^k_ij max(0, g^k_ij)) A^k)                Chattopadhay et al., sec. 3
    HiResCAM    sum_k g^k A^k, position by position                             Draelos & Carin
    LayerCAM    max(0, sum_k max(0, g^k) A^k), position by position             Jiang et al., sec. III
    XGrad-CAM   max(0, sum_k (sum_ij g^k_ij A^k_ij / sum_ij A^k_ij) A^k)        Fu et al., sec. 3
    Eigen-CAM   A v_1, of A = U D V^T with a row per position, a column per channel; S is unused    Muhammad & Yeasin

Behind global average pooling and a linear head, g^k_ij = w_k / Z: then Grad-CAM before its rectifier, XGrad-CAM before
its rectifier and HiResCAM are CAM / Z, whose sum is the score without its bias.

A local objective, as about one position of a segmenter's output, depends on few positions of a layer. One weight for a
channel would light up other places: there Grad-CAM, Grad-CAM++ and XGrad-CAM weigh each position by what they else take
the mean or sum of, g^k_ij or a^k_ij max(0, g^k_ij). Eigen-CAM, which asks nothing of S, refuses.

Grad-CAM++ takes exp(S) as the score. Its derivatives are exp(S) times powers of g where S is piecewise linear, so
that exp(S) cancels: a = g^2 / (2 g^2 + g^3 sum_ab A_ab) = 1 / (2 + g sum_ab A_ab), and a factor common to all weights
is left out. The authors' code also normalises a; this is the paper's formula.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import torch
from torch import Tensor

from ..context import say
from ..cuts import independent
from ..errors import LayerError
from ..layers import find_layer, last_spatial_layer
from ..net import Net
from ..objectives import Objective
from ..operations import Backward, nodes, nodes_of
from ..registry import method
from ..rules import graph_below, kind_of
from ..tracing import Layer
from .cam_layers import (
    Align,
    CamInput,
    Layers,
    cam_inputs,
    fuse,
    redo_unread,
    score_and_activities,
)

Grid = Callable[[CamInput], Tensor]
"""From a layer's activity and gradient to a map (n, 1, rows, columns)."""

_BY_POSITION = (
    "the objective is about one place: each position is weighed by the gradient there, as in HiResCAM, not by its mean "
    "over all positions, which would light up other places"
)


def _mapped(
    net: Net,
    pixels: Tensor,
    objective: Objective,
    layer: list[str] | str | None,
    align: str,
    grid: Grid,
    *,
    rectify: bool = True,
    forward: str = "",
) -> Tensor:
    """Draw the grids of layers, rectify them, and upsample them to the picture; `forward` as `cam_inputs` has it."""
    inputs = cam_inputs(net, pixels, objective, layer, forward=forward)
    grids = [(one.layer, grid(one)) for one in inputs]
    maps = fuse(net, [(one, values.clamp(min=0) if rectify else values) for one, values in grids], pixels, align)

    def alone(row: int) -> Tensor:
        own = objective.rows(row)
        return _mapped(net, pixels[row : row + 1], own, layer, align, grid, rectify=rectify, forward=forward)

    return redo_unread(maps, inputs, alone)


def _weighed(one: CamInput, pooled: Tensor, by_position: Tensor) -> Tensor:
    """Sum a layer's channels, weighed by one number each, `pooled` (n, c, 1, 1).

    Where the objective is local, or depends on few positions of the layer, each position has its own weight.
    """
    local = one.local | one.few
    say([_BY_POSITION if is_local else "" for is_local in local.tolist()])
    weights = torch.where(local[:, None, None, None], by_position, pooled) if local.any() else pooled
    return (weights * one.activity).sum(1, keepdim=True)


@method("Grad-CAM", paper="Selvaraju et al. 2017, arXiv:1610.02391, sec. 3", signed=False)
def grad_cam(net: Net, pixels: Tensor, objective: Objective, *, layer: Layers = None, align: Align = "field") -> Tensor:
    """Gradient-weighted class activation map: channels of a layer weighted by their mean gradient, rectified.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), interpolated from the layer's grid, in score, never negative. For an
    objective about one place each position is weighed by its own gradient, as HiResCAM does. Raises LayerError when the
    layer has no spatial positions or the objective does not depend on it.
    """

    def grid(one: CamInput) -> Tensor:
        return _weighed(one, one.gradient.mean((2, 3), keepdim=True), one.gradient)

    return _mapped(net, pixels, objective, layer, align, grid)


@method(
    "Grad-CAM++",
    paper="Chattopadhay et al. 2018, arXiv:1710.11063, sec. 3",
    signed=False,
    linear=False,
    unit="",
    caveat="its scale has no unit; by the paper's formula, without the normalisation of the authors' code",
)
def grad_cam_plus_plus(
    net: Net, pixels: Tensor, objective: Objective, *, layer: Layers = None, align: Align = "field"
) -> Tensor:
    """Grad-CAM++: channels weighted by their normalised positive gradients, for small and repeated objects.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), never negative; its scale has no unit. A channel whose activity
    has a negative sum, which the formula does not allow, counts as of sum zero. Raises as `grad_cam` does.
    """

    def grid(one: CamInput) -> Tensor:
        total = one.activity.sum((2, 3), keepdim=True)
        negative = "the layer is not rectified, as Grad-CAM++ assumes: negative channel sums count as zero"
        say([negative if any_ else "" for any_ in (total < 0).flatten(1).any(1).tolist()])
        rising = one.gradient.clamp(min=0)
        weight = rising / (2 + rising * total.clamp(min=0))
        return _weighed(one, weight.sum((2, 3), keepdim=True), weight)

    return _mapped(net, pixels, objective, layer, align, grid)


@method("HiResCAM", paper="Draelos & Carin 2020, arXiv:2011.08891", signed=True)
def hires_cam(
    net: Net, pixels: Tensor, objective: Objective, *, layer: Layers = None, align: Align = "field"
) -> Tensor:
    """HiResCAM: gradient times activity, summed over the channels of a layer, with sign.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), interpolated from the layer's grid, in score; negative where a
    position lowers it. On the grid it sums to the score without its bias where the head above the layer is
    linear. Raises as `grad_cam` does.
    """

    def grid(one: CamInput) -> Tensor:
        return (one.gradient * one.activity).sum(1, keepdim=True)

    return _mapped(net, pixels, objective, layer, align, grid, rectify=False)


@method(
    "LayerCAM",
    paper="Jiang et al. 2021, IEEE TIP 30, doi:10.1109/TIP.2021.3089943",
    signed=False,
    caveat="a layer directly before pooling or a strided convolution shows a grid pattern: prefer the next layer",
)
def layer_cam(
    net: Net, pixels: Tensor, objective: Objective, *, layer: Layers = None, align: Align = "field"
) -> Tensor:
    """LayerCAM: activity weighted by its positive gradient at every position, also for early layers.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), interpolated from the layer's grid, in score, never negative. Raises
    as `grad_cam` does.
    """

    def grid(one: CamInput) -> Tensor:
        return (one.gradient.clamp(min=0) * one.activity).sum(1, keepdim=True)

    return _mapped(net, pixels, objective, layer, align, grid)


@method("XGrad-CAM", paper="Fu et al. 2020, arXiv:2008.02312, sec. 3", signed=False)
def xgrad_cam(
    net: Net, pixels: Tensor, objective: Objective, *, layer: Layers = None, align: Align = "field"
) -> Tensor:
    """XGrad-CAM: channels weighted by their mean gradient, itself weighted by activity.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), interpolated from the layer's grid, in score, never negative. Where
    activity is negative, which the formula does not allow, its magnitude counts. Raises as `grad_cam` does.
    """

    def grid(one: CamInput) -> Tensor:
        # With sums that may cancel, a channel's weight would be whatever rounding leaves to divide by.
        size = one.activity.abs()
        negative = "the layer is not rectified, as XGrad-CAM assumes: the magnitudes of its activity count"
        say([negative if any_ else "" for any_ in (one.activity < 0).flatten(1).any(1).tolist()])
        total = size.sum((2, 3), keepdim=True)
        weight = (one.gradient * size).sum((2, 3), keepdim=True) / total.where(total > 0, torch.ones_like(total))
        return _weighed(one, weight, one.gradient)

    return _mapped(net, pixels, objective, layer, align, grid)


@method(
    "Eigen-CAM",
    paper="Muhammad & Yeasin 2020, arXiv:2008.00299",
    signed=False,
    linear=False,
    unit="activity",
    caveat="does not depend on the objective: the same map for every class",
)
def eigen_cam(
    net: Net, pixels: Tensor, objective: Objective, *, layer: Layers = None, align: Align = "field"
) -> Tensor:
    """Eigen-CAM: the first principal component of a layer's activity, whatever the objective.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), interpolated from the layer's grid, in units of the layer's activity,
    never negative: of the component's two signs, the one that gives the larger sum. Raises as `grad_cam` does, and
    ObjectiveError for an objective about one place.
    """

    # The gradients are not read, but an objective that does not depend on the layer is refused here as elsewhere.
    def grid(one: CamInput) -> Tensor:
        return _first_component(one.activity)

    return _mapped(net, pixels, objective, layer, align, grid, forward="eigen_cam")


def _first_component(activity: Tensor) -> Tensor:
    """Project every position on the first right singular vector, from the smaller of the two Gram matrices."""
    # eigh does not support half precision, and a Gram matrix squares the range.
    flat = activity.flatten(2).to(torch.promote_types(activity.dtype, torch.float32))
    size = flat.abs().amax((1, 2), keepdim=True)
    flat = flat / size.where(size > 0, torch.ones_like(size))
    if flat.shape[1] <= flat.shape[2]:
        first = torch.linalg.eigh(flat @ flat.mT)[1][..., -1:]
        component = first.mT @ flat
    else:
        values, vectors = torch.linalg.eigh(flat.mT @ flat)
        component = (vectors[..., -1:] * values[..., -1:, None].clamp(min=0).sqrt()).mT
    component = component * component.sum(2, keepdim=True).sign()
    return (component * size).clamp(min=0).unflatten(2, activity.shape[2:]).to(activity.dtype)


@method("CAM", paper="Zhou et al. 2016, arXiv:1512.04150, sec. 2", signed=True)
def cam(
    net: Net,
    pixels: Tensor,
    objective: Objective,
    *,
    layer: Annotated[str | None, "layer below the linear head; by default the last with spatial positions"] = None,
    align: Align = "field",
) -> Tensor:
    """Class activation map: each position's contribution to the score, for networks with a linear head.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), interpolated from the layer's grid, in score; negative where a
    position lowers it. On the grid its mean plus the head's bias is the score. Where a linear head has separate weights
    for every position instead of pooling, the map uses them, and the caption says so. Raises LayerError where the head
    is not linear.
    """
    one = last_spatial_layer(net) if layer is None else find_layer(net, layer)
    with torch.inference_mode(False), torch.enable_grad():
        score, (activity,), local = score_and_activities(net, pixels, objective, [one])
        if not score.requires_grad:
            raise independent(net, pixels, objective, one)
        _check_head(net, one, score)
        (gradient,) = torch.autograd.grad(score.sum(), activity)
    gradient, activity = one.by_position(gradient), one.by_position(activity.detach())
    if one.tokens and not gradient.flatten(1).any(1).all():
        raise LayerError(
            f"{objective} does not depend on the patch tokens of layer {one.name!r} of {net.name}, only on others: cam "
            "needs a head that pools the patches. grad_cam and layer_cam use an earlier layer"
        )
    contributions = (gradient * activity).sum(1, keepdim=True) * one.positions
    uneven = "the head is linear but does not pool evenly: every position has its own weights"
    say([uneven if _uneven(row) else "" for row in gradient.split(1)])
    rests = (score.detach() - contributions.mean((1, 2, 3))).tolist()
    say([f"the mean over the layer's positions plus {rest:.3g}, the rest of the score, is the score" for rest in rests])
    maps = fuse(net, [(one, contributions)], pixels, align)

    def alone(row: int) -> Tensor:
        return cam(net, pixels[row : row + 1], objective.rows(row), layer=layer, align=align)

    return redo_unread(maps, [CamInput(one, activity, gradient, local)], alone)


# A quotient is linear in one of its two parts only, a maximum only once its switches are set.
_LINEAR = nodes(Backward.LINEAR) - nodes_of("div", "max_pool2d", "adaptive_max_pool2d", "max_pool3d", "max_unpool2d")


def _check_head(net: Net, layer: Layer, score: Tensor) -> None:
    """Raise LayerError unless everything above a layer is linear; the layer itself may be rectified."""
    curved = next(_curved(score.grad_fn), "")
    if curved:
        raise LayerError(
            f"cam needs a linear head, as global average pooling and one linear layer: above {layer.name!r} of "
            f"{net.name} is {curved}. hires_cam, layer_cam and grad_cam work with any head"
        )


def _curved(root: Any) -> Iterator[str]:
    """Yield the kinds of the nonlinear nodes below an autograd node."""
    for node in graph_below([root]):
        kind, below = kind_of(node), [following for following, _ in node.next_functions]
        # Scaling by a constant is linear; a product of two activities is not.
        scales = kind in ("Mul", "Div") and sum(following is not None for following in below) == 1
        if kind not in _LINEAR and not (scales and below[0] is not None) and not _on_the_layer(node):
            yield kind


def _on_the_layer(node: Any) -> bool:
    """Whether a node rectifies or max-pools the layer itself: w max(0, A) is the gradient times A at every position."""
    while kind_of(node) in ("Relu", "Clone", "Slice", "MaxPool2DWithIndices") or (
        kind_of(node) in ("Clamp", "ClampMin") and node._saved_min == 0 and getattr(node, "_saved_max", None) is None
    ):
        node = node.next_functions[0][0]
    return kind_of(node) == "AccumulateGrad"


def _uneven(gradient: Tensor) -> bool:
    """Whether a channel's gradients differ between positions, where no rectifier makes them zero."""
    values = gradient.flatten(2)
    most = values.abs().amax(2, keepdim=True)
    # Smaller differences may be the rounding of half precision.
    return bool(((values != 0) & ((values - most).abs() > 0.02 * most) & ((values + most).abs() > 0.02 * most)).any())
