"""Operations of exported programs: torch's own modules and functions for those on a list, nothing for others."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def base_name(target: str) -> str:
    """Return the operation's plain name: "conv2d" of "torch.ops.aten.conv2d.default"."""
    match = re.fullmatch(r"torch\.ops\.aten\.(\w+)\.\w+", target)
    return match[1] if match else target


def trains(base: str, args: list[Any]) -> bool:
    """Whether a call drops or counts what it sees; without statistics, batch norm standardises weights."""
    return bool(args[5] and args[3] is not None if base == "batch_norm" else args[2])


# Modules that take pictures only, where the operation takes more.
RANKS = {"batch_norm": 4, "conv2d": 4, "conv_transpose2d": 4}


_Maker = Callable[..., nn.Module | None]


def _with(module: nn.Module, **tensors: Tensor | None) -> nn.Module:
    """Put weights into a module that was made without data."""
    for name, value in tensors.items():
        if name in module._parameters:
            module._parameters[name] = None if value is None else nn.Parameter(value)
        else:
            module._buffers[name] = value
    return module


def _conv(base: str, args: Any) -> nn.Module | None:
    weight, bias, stride, padding, dilation, groups = _filled(args, None, None, 1, 0, 1, 1)
    stride, padding, dilation = (_pair(v) for v in (stride, padding, dilation))
    module = nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], _pair(weight.shape[2:]), stride, padding, dilation, groups,
        bias=bias is not None, device="meta",
    )  # fmt: skip
    return _with(module, weight=weight, bias=bias)


def _conv_transpose(base: str, args: Any) -> nn.Module | None:
    weight, bias, stride, padding, out, groups, dilation = _filled(args, None, None, 1, 0, 0, 1, 1)
    stride, padding, out, dilation = (_pair(v) for v in (stride, padding, out, dilation))
    module = nn.ConvTranspose2d(
        weight.shape[0], weight.shape[1] * groups, _pair(weight.shape[2:]), stride, padding, out, groups,
        bias=bias is not None, dilation=dilation, device="meta",
    )  # fmt: skip
    return _with(module, weight=weight, bias=bias)


def _filled(args: Sequence[Any], *defaults: Any) -> tuple[Any, ...]:
    """Return arguments with defaults for those that were left out."""
    return (*args, *defaults[len(args) :])


def _pair(value: Any) -> Any:
    if isinstance(value, str):
        return value
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * 2 if len(values) == 1 else values


def _linear(base: str, args: Any) -> nn.Module | None:
    weight, bias = _filled(args, None, None)
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return _with(module, weight=weight, bias=bias)


def _batch_norm(base: str, args: Any) -> nn.Module | None:
    weight, bias, mean, variance, _, momentum, eps = args[:7]
    if mean is None or variance is None:
        return None
    module = nn.BatchNorm2d(len(mean), eps, momentum, affine=weight is not None, device="meta")
    del module.num_batches_tracked
    module.register_buffer("num_batches_tracked", None)
    return _with(module, running_mean=mean, running_var=variance, weight=weight, bias=bias)


def _layer_norm(base: str, args: Any) -> nn.Module | None:
    shape, weight, bias, eps = _filled(args[:4], None, None, None, 1e-5)
    module = nn.LayerNorm(shape, eps, elementwise_affine=weight is not None, bias=bias is not None, device="meta")
    return _with(module, weight=weight, bias=bias)


def _plain(kind: Callable[..., nn.Module], *, changes: bool = False) -> _Maker:
    """Make a module whose arguments are those of the call; `changes` for one that also exists in place."""

    def make(base: str, args: list[Any], **kwargs: Any) -> nn.Module:
        return kind(*args, **kwargs, **({"inplace": base.endswith("_")} if changes else {}))

    return make


def _hardtanh(base: str, args: list[Any]) -> nn.Module:
    low, high = _filled(args, -1.0, 1.0)
    inplace = base.endswith("_")
    return nn.ReLU6(inplace) if (low, high) == (0, 6) else nn.Hardtanh(low, high, inplace=inplace)


def _elu(base: str, args: list[Any]) -> nn.Module | None:
    return nn.ELU(*args, inplace=base.endswith("_")) if len(args) < 2 else None


def _max_pool(base: str, args: list[Any]) -> nn.Module:
    kernel, stride, padding, dilation, ceil = _filled(args, None, None, 0, 1, False)
    return nn.MaxPool2d(kernel, stride or None, padding, dilation, ceil_mode=ceil)


def _dropout(base: str, args: list[Any]) -> nn.Module:
    return nn.Dropout(args[0])


MAKERS: dict[str, _Maker] = {
    "conv2d": _conv,
    "conv_transpose2d": _conv_transpose,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "relu": _plain(nn.ReLU, changes=True),
    "relu6": _plain(nn.ReLU6, changes=True),
    "silu": _plain(nn.SiLU, changes=True),
    "hardswish": _plain(nn.Hardswish, changes=True),
    "hardsigmoid": _plain(nn.Hardsigmoid, changes=True),
    "elu": _elu,
    "leaky_relu": _plain(nn.LeakyReLU, changes=True),
    "hardtanh": _hardtanh,
    "gelu": _plain(nn.GELU),
    "sigmoid": _plain(nn.Sigmoid),
    "tanh": _plain(nn.Tanh),
    "adaptive_avg_pool2d": _plain(nn.AdaptiveAvgPool2d),
    "avg_pool2d": _plain(nn.AvgPool2d),
    "max_pool2d": _max_pool,
    "dropout": _dropout,
    "flatten": _plain(nn.Flatten),
}


def _select(x: Tensor, dim: int, index: int) -> Tensor:
    return x[(*[slice(None)] * (dim % x.ndim), index)]


def _slice(x: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Tensor:
    return x[(*[slice(None)] * (dim % x.ndim), slice(start, end, step))]


def _index(x: Tensor, positions: Sequence[Tensor | None]) -> Tensor:
    return x[tuple(slice(None) if position is None else position for position in positions)]


def _size(x: Tensor, dim: int) -> int:
    return x.shape[dim]


def _bilinear(x: Tensor, size: Any, corners: bool, scales: Any = None, *_: Any) -> Tensor:
    return F.interpolate(x, size=size, scale_factor=scales, mode="bilinear", align_corners=corners)


def _bicubic(x: Tensor, size: Any, corners: bool, scales: Any = None, *_: Any) -> Tensor:
    return F.interpolate(x, size=size, scale_factor=scales, mode="bicubic", align_corners=corners)


def _nearest(x: Tensor, size: Any, scales: Any = None, *_: Any) -> Tensor:
    return F.interpolate(x, size=size, scale_factor=scales, mode="nearest")


def _function_norm(x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, *rest: Any) -> Tensor:
    return F.batch_norm(x, mean, variance, weight, bias, *rest[:3])


def _layers(x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Tensor:
    return F.layer_norm(x, shape, weight, bias, eps)


def _groups(x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Tensor:
    return F.group_norm(x, groups, weight, bias, eps)


def _instances(x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, *rest: Any) -> Tensor:
    return F.instance_norm(x, mean, variance, weight, bias, *rest[:3])


def _same(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


def _typed(x: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
    dtype = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.dtype)), x.dtype)
    return x.to(dtype, copy=copy)


_OWN: dict[str, Callable[..., Any]] = {
    "batch_norm": _function_norm,
    "layer_norm": _layers,
    "group_norm": _groups,
    "select": _select,
    "slice": _slice,
    "sym_size": _size,
    "upsample_bilinear2d": _bilinear,
    "upsample_bicubic2d": _bicubic,
    "upsample_nearest2d": _nearest,
    "silu_": partial(F.silu, inplace=True),
    "hardswish_": partial(F.hardswish, inplace=True),
    "hardsigmoid_": partial(F.hardsigmoid, inplace=True),
    "mish_": partial(F.mish, inplace=True),
    "dropout_": _same,
    "index": _index,
    "instance_norm": _instances,
    "linalg_vector_norm": torch.linalg.vector_norm,
    "im2col": F.unfold,
    "col2im": F.fold,
    "alias": _same,
    "lift_fresh_copy": torch.clone,
    "detach": _same,
    "detach_": _same,
    "to": _typed,
    "_to_copy": partial(_typed, copy=True),
    "_unsafe_view": torch.reshape,
    "conv_transpose2d": F.conv_transpose2d,
    "_operator.add": operator.add,
    "_operator.sub": operator.sub,
    "_operator.mul": operator.mul,
    "_operator.floordiv": operator.floordiv,
    "_operator.mod": operator.mod,
    "_operator.neg": operator.neg,
}

# Operations that are functions of torch by the same name, with the same arguments in the same order.
_OF_FUNCTIONAL = frozenset(
    """relu relu_ relu6 silu hardswish hardsigmoid elu elu_ leaky_relu leaky_relu_ hardtanh hardtanh_ gelu selu selu_
    celu celu_ mish softplus softsign adaptive_avg_pool2d adaptive_max_pool2d avg_pool1d avg_pool2d avg_pool3d
    max_pool2d dropout linear pad pixel_shuffle pixel_unshuffle scaled_dot_product_attention""".split()
)
_OF_TORCH = frozenset(
    """conv1d conv2d flatten cat stack matmul bmm mm addmm baddbmm addcmul add sub rsub mul div pow sqrt rsqrt exp
    log abs neg reciprocal square sigmoid tanh softmax log_softmax clamp clamp_min clamp_max clip mean sum amax
    amin max min var std maximum minimum permute transpose t squeeze unsqueeze chunk split split_with_sizes unbind
    roll flip where narrow movedim swapaxes index_select sin cos erf prelu reshape unflatten tile channel_shuffle
    gt lt ge le eq ne logical_and logical_or logical_not bitwise_not repeat_interleave floor ceil round sign
    cumsum einsum ones_like zeros_like full_like""".split()
)
_OF_TENSOR = frozenset(
    """view contiguous clone expand expand_as type_as add_ sub_ mul_ div_ sigmoid_ tanh_ clamp_ clamp_min_ repeat
    view_as reshape_as unfold masked_fill fill_ copy_ new_zeros new_ones new_full""".split()
)
CREATING = frozenset(("arange", "zeros", "ones", "full", "linspace", "eye"))
KNOWN = CREATING | _OF_FUNCTIONAL | _OF_TORCH | _OF_TENSOR | _OWN.keys()
OF_SHAPES = frozenset(("sym_size", "new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like"))
DROPPED = frozenset(("_assert_scalar", "_assert_async", "_assert_tensor_metadata", "sym_constrain_range_for_size"))


def function_of(base: str) -> Callable[..., Any]:
    """Return torch's function for an operation by its plain name. Raises ValueError where there is none."""
    if base in _OWN:
        return _OWN[base]
    for names, home in ((_OF_FUNCTIONAL, F), (_OF_TORCH | CREATING, torch), (_OF_TENSOR, Tensor)):
        if base in names and hasattr(home, base):
            return getattr(home, base)
    raise ValueError(f"{base} with arguments that are not known here")
