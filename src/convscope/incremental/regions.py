"""Regions: what part of each layer a changed part of the picture can reach, and how to recompute that part alone.

Along one axis, a window of k taps (dilation d, stride s, padding p) reads inputs o s - p + j d, j in [0, k), for output
o. So inputs [lo, hi) reach outputs

    [ceil((lo + p - (k - 1) d) / s),  floor((hi - 1 + p) / s) + 1)      clipped to the layer,

and outputs [o, o + n) read inputs [o s - p, o s - p + (n - 1) s + (k - 1) d + 1). Anything that works place by place
keeps a region; what joins several tensors unites theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..geometry import argument
from .tape import Slot, Step

Starts = np.ndarray
"""Where regions begin and end along an axis, one number per position of the occluder."""


@dataclass(frozen=True)
class Taps:
    """A sliding window along one axis; `padding` lies before the first input, negative where some are skipped."""

    size: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    @property
    def reach(self) -> int:
        return (self.size - 1) * self.dilation

    def reached(self, low: Starts, high: Starts, extent: int) -> tuple[Starts, Starts]:
        """Return the outputs that inputs [low, high) reach, of `extent` outputs; empty where there are none."""
        first = -((self.reach - low - self.padding) // self.stride)
        last = (high - 1 + self.padding) // self.stride + 1
        first = np.clip(first, 0, extent)
        return first, np.where(high > low, np.clip(last, first, extent), first)

    def read(self, count: int) -> int:
        """Return how many inputs `count` neighbouring outputs read."""
        return (count - 1) * self.stride + self.reach + 1

    @property
    def identity(self) -> bool:
        return self == Taps()


@dataclass(frozen=True)
class Local:
    """How to recompute a part of a step's output from a part of its inputs.

    `taps` says along y and x what is read; `border` is the number beyond the border; `apply` maps the inputs' parts,
    wide enough and already padded, to the output's. `scale` corrects for windows that hang over the border.
    """

    apply: Callable[[Sequence[Tensor]], Any]
    taps: tuple[Taps, Taps] = (Taps(), Taps())
    border: float = 0.0
    scale: Tensor | None = None
    macs: float = 0.0

    @property
    def placewise(self) -> bool:
        return all(taps.identity for taps in self.taps)


def local_form(step: Step, clean: Sequence[Tensor]) -> Local | None:
    """Say how to recompute a part of a step's output alone, or None where every output needs every input."""
    ins, outs = [clean[i] for i in step.inputs], [clean[i] for i in step.outputs]
    # The first dimension is the picture's, the last two are rows and columns; between them may be any.
    if any(t.ndim < 3 or t.shape[0] != 1 or not t.numel() for t in (*ins, *outs)):
        return None
    if step.name in PLACEWISE:
        return _placewise(step, ins, outs)
    if step.name in _WINDOWS and len(ins) == len(outs) == 1:
        flat = all(t.ndim == 4 for t in (*ins, *outs)) or step.name in _RESHAPES | _ANY_RANK
        return _WINDOWS[step.name](step, ins[0], outs[0]) if flat else None
    return None


def _placewise(step: Step, ins: list[Tensor], outs: list[Tensor]) -> Local | None:
    grids = {tuple(t.shape[-2:]) for t in (*ins, *outs)}
    per_channel = step.name in ("batch_norm", "prelu")
    if (
        len({t.ndim for t in ins}) > 1
        or len(grids) > 1
        or (not per_channel and any(_varies(t) for t in constants((step.args, step.kwargs))))
        or (step.name in JOINS and constants((step.args, step.kwargs)))
    ):
        return None
    if step.name in _ALONG_CHANNELS and not _between(_dim(step), ins[0]):
        return None
    if step.name == "batch_norm" and (
        _given(step, 5, "training", False) or _given(step, 1, "running_mean", None) is None
    ):
        return None
    if step.name in _DROPOUTS and _given(step, 2, "training", step.name == "dropout"):
        return None
    if step.name == "prelu" and any(isinstance(a, Slot) for a in step.args[1:]):
        return None
    where = {number: position for position, number in enumerate(step.inputs)}
    return Local(lambda parts: step.call(lambda i: parts[where[i]]))


def _between(dim: Any, tensor: Tensor) -> bool:
    """Whether a dimension is neither the picture's nor rows or columns."""
    return isinstance(dim, int) and 0 < dim % tensor.ndim < tensor.ndim - 2


def _varies(constant: Tensor) -> bool:
    """Whether a constant differs from place to place."""
    return any(n > 1 for n in constant.shape[-2:])


def _dim(step: Step) -> Any:
    dim = _given(step, 2 if step.name in ("chunk", "split") else 1, "dim", 0)
    return dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim


def constants(value: Any) -> list[Tensor]:
    """List the tensors in a call's arguments that do not depend on the picture."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [t for item in value for t in constants(item)]
    if isinstance(value, dict):
        return constants(list(value.values()))
    return []


def _given(step: Step, position: int, name: str, default: Any) -> Any:
    return argument(step.args, step.kwargs, position, name, default)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, (tuple, list)):
        return (int(value[0]), int(value[0])) if len(value) == 1 else (int(value[0]), int(value[1]))
    return int(value), int(value)


def _convolution(step: Step, x: Tensor, out: Tensor) -> Local | None:
    weight, bias = _given(step, 1, "weight", None), _given(step, 2, "bias", None)
    if not isinstance(weight, Tensor) or isinstance(bias, Slot):
        return None
    stride, dilation = _pair(_given(step, 3, "stride", 1)), _pair(_given(step, 5, "dilation", 1))
    padding, groups = _given(step, 4, "padding", 0), int(_given(step, 6, "groups", 1))
    kernel = _pair(weight.shape[2:])
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        padding = [t // 2 for t in total]
    taps = _taps(kernel, stride, _pair(padding), dilation)
    macs = float(weight[0].numel() * out.shape[1])
    return Local(lambda parts: F.conv2d(parts[0], weight, bias, stride, 0, dilation, groups), taps, macs=macs)


def _taps(kernel: Any, stride: Any, padding: Any, dilation: Any = 1) -> tuple[Taps, Taps]:
    pairs = zip(*(_pair(v) for v in (kernel, stride, padding, dilation)), strict=True)
    y, x = (Taps(*numbers) for numbers in pairs)
    return y, x


def _max_pool(step: Step, x: Tensor, out: Tensor) -> Local | None:
    kernel = _pair(_given(step, 1, "kernel_size", None))
    stride = _pair(_given(step, 2, "stride", None) or kernel)
    padding, dilation = _given(step, 3, "padding", 0), _pair(_given(step, 4, "dilation", 1))
    taps = _taps(kernel, stride, padding, dilation)
    return Local(lambda parts: F.max_pool2d(parts[0], kernel, stride, 0, dilation), taps, border=-torch.inf)


def _avg_pool(step: Step, x: Tensor, out: Tensor) -> Local | None:
    kernel = _pair(_given(step, 1, "kernel_size", None))
    stride = _pair(_given(step, 2, "stride", None) or kernel)
    padding, include = _pair(_given(step, 3, "padding", 0)), _given(step, 5, "count_include_pad", True)
    scale = _share(x, out, kernel, stride, padding, include, _given(step, 6, "divisor_override", None))
    return Local(lambda parts: F.avg_pool2d(parts[0], kernel, stride), _taps(kernel, stride, padding), scale=scale)


def _share(
    x: Tensor, out: Tensor, kernel: Any, stride: Any, padding: Any, include: bool, divisor: Any
) -> Tensor | None:
    """Return by what the plain mean of padded windows is off: their size over what torch divides by, (1, 1, h, w)."""
    counts = []
    for k, s, p, n, m in zip(kernel, stride, padding, x.shape[2:], out.shape[2:], strict=True):
        start = torch.arange(m, dtype=torch.float64) * s - p
        end = (start + k).clamp(max=n + p)
        counts.append(end - start if include else end.clamp(max=n) - start.clamp(min=0))
    divisors = (
        counts[0][:, None] * counts[1] if divisor is None else torch.full(out.shape[2:], divisor, dtype=torch.float64)
    )
    scale = kernel[0] * kernel[1] / divisors
    return None if bool((scale == 1).all()) else scale.to(x)[None, None]


def _adaptive_pool(step: Step, x: Tensor, out: Tensor) -> Local | None:
    """Where the output's size divides the input's, adaptive pooling is pooling; to one place it is global."""
    sizes = list(zip(x.shape[2:], out.shape[2:], strict=True))
    if any(n % m for n, m in sizes) or all(m == 1 for _, m in sizes):
        return None
    kernel = tuple(n // m for n, m in sizes)
    pool = F.avg_pool2d if "avg" in step.name else F.max_pool2d
    return Local(lambda parts: pool(parts[0], kernel), _taps(kernel, kernel, 0))


def _pad(step: Step, x: Tensor, out: Tensor) -> Local | None:
    pads = [int(p) for p in _given(step, 1, "pad", ())]
    if _given(step, 2, "mode", "constant") != "constant":
        return None
    left, _, top, _, *channels = (*pads, *[0] * (4 - len(pads)))
    value = float(_given(step, 3, "value", None) or 0)
    if channels and value:
        return None
    taps = (Taps(padding=top), Taps(padding=left))
    return Local(lambda parts: F.pad(parts[0], (0, 0, 0, 0, *channels)) if channels else parts[0], taps, border=value)


def _getitem(step: Step, x: Tensor, out: Tensor) -> Local | None:
    """Slices of channels, rows and columns, and single channels; strided ones are windows of one tap."""
    index = step.args[1] if isinstance(step.args[1], tuple) else (step.args[1],)
    if not all(i is Ellipsis or (isinstance(i, (slice, int)) and not isinstance(i, bool)) for i in index):
        return None
    at = index.index(Ellipsis) if Ellipsis in index else len(index)
    rest = (slice(None),) * (x.ndim - sum(i is not Ellipsis for i in index))
    batch, *between, rows, columns = (*index[:at], *rest, *index[at + 1 :])
    if any(isinstance(part, int) for part in (batch, rows, columns)) or batch.indices(1) != (0, 1, 1):
        return None
    (y0, _, ys), (x0, _, xs) = rows.indices(x.shape[-2]), columns.indices(x.shape[-1])
    taps = (Taps(stride=ys, padding=-y0), Taps(stride=xs, padding=-x0))
    chosen = (slice(None), *between, slice(None, None, ys), slice(None, None, xs))
    return Local(lambda parts: parts[0][chosen], taps)


def _reshape(step: Step, x: Tensor, out: Tensor) -> Local | None:
    """A change of what lies between the picture's dimension and the places, which keep their order."""
    if x.shape[-2:] != out.shape[-2:]:
        return None
    between = out.shape[1:-2]
    return Local(lambda parts: parts[0].reshape(len(parts[0]), *between, *parts[0].shape[-2:]))


def _exchange(step: Step, x: Tensor, out: Tensor) -> Local | None:
    """Two dimensions exchanged, neither of them the picture's, rows or columns: a shuffle of channels."""
    dims = _given(step, 1, "dim0", None), _given(step, 2, "dim1", None)
    if not all(_between(dim, x) for dim in dims):
        return None
    return Local(lambda parts: parts[0].transpose(dims[0] % x.ndim, dims[1] % x.ndim))


JOINS = frozenset("cat concat concatenate".split())
_ALONG_CHANNELS = frozenset("softmax log_softmax chunk split mean sum amax".split()) | JOINS
_DROPOUTS = frozenset("dropout dropout2d feature_dropout alpha_dropout".split())
PLACEWISE = (
    _ALONG_CHANNELS
    | _DROPOUTS
    | frozenset(
        """relu relu6 hardtanh clamp clamp_min clamp_max threshold silu gelu hardswish hardsigmoid sigmoid tanh
    leaky_relu elu selu celu prelu mish softplus logsigmoid softsign hardshrink
    add sub mul div true_divide iadd isub imul itruediv truediv radd rmul rsub rtruediv neg abs exp log sqrt rsqrt pow
    square reciprocal maximum minimum where lerp addcmul sign gt lt ge le eq ne
    to float double half bfloat16 type type_as contiguous clone detach local_response_norm batch_norm""".split()
    )
)
_ANY_RANK = frozenset(("getitem", "transpose"))
_RESHAPES = frozenset("view reshape flatten unflatten unsqueeze squeeze".split())
_WINDOWS: dict[str, Callable[[Step, Tensor, Tensor], Local | None]] = {
    "conv2d": _convolution,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive_pool,
    "adaptive_max_pool2d": _adaptive_pool,
    "pad": _pad,
    "getitem": _getitem,
    "transpose": _exchange,
    **dict.fromkeys(_RESHAPES, _reshape),
}
