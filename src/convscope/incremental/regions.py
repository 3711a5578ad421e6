"""Regions: what part of each layer a changed part of the picture can reach, and how to recompute that part alone.

Along one axis, a window of k taps (dilation d, stride s, padding p) reads inputs o s - p + j d, j in [0, k), for output
o. So inputs [lo, hi) reach outputs

    [ceil((lo + p - (k - 1) d) / s),  floor((hi - 1 + p) / s) + 1)      clipped to the layer,

and outputs [o, o + n) read inputs [o s - p, o s - p + (n - 1) s + (k - 1) d + 1). A pointwise operation
keeps a region; one that joins several tensors has the union of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..operations import BY_NAME, Reach, names
from .tape import Slot, Step

Bounds = np.ndarray
"""The first or last rows (or columns) of regions, one number per position of the occluder."""


@dataclass(frozen=True)
class Taps:
    """A sliding window along one axis.

    `padding` lies before the first input, `after` beyond the last where it is more than a window's own length; both are
    negative where inputs are skipped.
    """

    size: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    after: int = 0

    @property
    def reach(self) -> int:
        return (self.size - 1) * self.dilation

    def outputs(self, low: Bounds, high: Bounds, extent: int) -> tuple[Bounds, Bounds]:
        """Return the outputs that inputs [low, high) reach, of `extent` outputs; empty where there are none."""
        first = -((self.reach - low - self.padding) // self.stride)
        last = (high - 1 + self.padding) // self.stride + 1
        first = np.clip(first, 0, extent)
        return first, np.where(high > low, np.clip(last, first, extent), first)

    def inputs(self, count: int) -> int:
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
    def pointwise(self) -> bool:
        return all(taps.identity for taps in self.taps)


def local_form(step: Step, clean: Sequence[Tensor]) -> Local | None:
    """Say how to recompute a part of a step's output alone, or None where every output needs every input."""
    ins, outs = [clean[i] for i in step.inputs], [clean[i] for i in step.outputs]
    # The first dimension is the picture's, the last two are rows and columns; between them may be any.
    if any(t.ndim < 3 or t.shape[0] != 1 or not t.numel() for t in (*ins, *outs)):
        return None
    if step.name in _POINTWISE:
        return _pointwise(step, ins, outs)
    if step.name in _WINDOWS and len(ins) == len(outs) == 1:
        images = all(t.ndim == 4 for t in (*ins, *outs)) or step.name in _ANY_RANK
        return _WINDOWS[step.name](step, ins[0], outs[0]) if images else None
    return None


def _pointwise(step: Step, ins: list[Tensor], outs: list[Tensor]) -> Local | None:
    """Make the step's own call on parts, where it computes each position from that position alone."""
    grids = {tuple(t.shape[-2:]) for t in (*ins, *outs)}
    if len({t.ndim for t in ins}) > 1 or len(grids) > 1 or not (_broadcasts(step) and _is_local(step, ins[0])):
        return None
    where = {number: position for position, number in enumerate(step.inputs)}
    return Local(lambda parts: step.call(lambda i: parts[where[i]]))


def _broadcasts(step: Step) -> bool:
    """Whether the constants of a pointwise step fit parts of any size."""
    fixed = constants((step.args, step.kwargs))
    if step.name in _JOINS:
        return not fixed
    return step.name in _PER_CHANNEL or not any(n > 1 for constant in fixed for n in constant.shape[-2:])


def _is_local(step: Step, x: Tensor) -> bool:
    """Whether the options of a pointwise step let it compute each position alone, and the same each time."""
    if step.name in _ALONG:
        return _between(_dim(step), x)
    if step.name == "batch_norm":
        return not step.argument(5, "training", False) and step.argument(1, "running_mean", None) is not None
    if step.name == "rrelu":
        return not step.argument(3, "training", False)
    if BY_NAME[step.name].reach is Reach.NOISE:
        return not step.argument(2, "training", True)
    return step.name != "prelu" or not any(isinstance(a, Slot) for a in step.args[1:])


def _between(dim: Any, tensor: Tensor) -> bool:
    """Whether a dimension is neither the picture's nor rows or columns."""
    return isinstance(dim, int) and 0 < dim % tensor.ndim < tensor.ndim - 2


def _dim(step: Step) -> Any:
    dim = step.argument(2 if step.name in ("chunk", "split") else 1, "dim", 0)
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


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, (tuple, list)):
        return (int(value[0]), int(value[0])) if len(value) == 1 else (int(value[0]), int(value[1]))
    return int(value), int(value)


def _convolution(step: Step, x: Tensor, out: Tensor) -> Local | None:
    weight, bias = step.argument(1, "weight", None), step.argument(2, "bias", None)
    if not isinstance(weight, Tensor) or isinstance(bias, Slot):
        return None
    stride, dilation = _pair(step.argument(3, "stride", 1)), _pair(step.argument(5, "dilation", 1))
    padding, groups = step.argument(4, "padding", 0), int(step.argument(6, "groups", 1))
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
    kernel = _pair(step.argument(1, "kernel_size", None))
    stride = _pair(step.argument(2, "stride", None) or kernel)
    padding, dilation = step.argument(3, "padding", 0), _pair(step.argument(4, "dilation", 1))
    taps = _taps(kernel, stride, padding, dilation)
    return Local(lambda parts: F.max_pool2d(parts[0], kernel, stride, 0, dilation), taps, border=-torch.inf)


def _avg_pool(step: Step, x: Tensor, out: Tensor) -> Local | None:
    kernel = _pair(step.argument(1, "kernel_size", None))
    stride = _pair(step.argument(2, "stride", None) or kernel)
    padding, include = _pair(step.argument(3, "padding", 0)), step.argument(5, "count_include_pad", True)
    scale = _correction(x, out, kernel, stride, padding, include, step.argument(6, "divisor_override", None))
    return Local(lambda parts: F.avg_pool2d(parts[0], kernel, stride), _taps(kernel, stride, padding), scale=scale)


def _correction(
    x: Tensor, out: Tensor, kernel: Any, stride: Any, padding: Any, include: bool, divisor: Any
) -> Tensor | None:
    """Return the factor from the plain mean of padded windows to torch's, their size over its divisor, (1, 1, h, w)."""
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
    """Where the output's size divides the input's, adaptive pooling is pooling; to one position it is global."""
    sizes = list(zip(x.shape[2:], out.shape[2:], strict=True))
    if any(n % m for n, m in sizes) or all(m == 1 for _, m in sizes):
        return None
    kernel = tuple(n // m for n, m in sizes)
    pool = F.avg_pool2d if "avg" in step.name else F.max_pool2d
    return Local(lambda parts: pool(parts[0], kernel), _taps(kernel, kernel, 0))


def _pad(step: Step, x: Tensor, out: Tensor) -> Local | None:
    pads = [int(p) for p in step.argument(1, "pad", ())]
    if step.argument(2, "mode", "constant") != "constant":
        return None
    left, right, top, bottom, *channels = (*pads, *[0] * (4 - len(pads)))
    value = float(step.argument(3, "value", None) or 0)
    if channels and value:
        return None
    taps = (Taps(padding=top, after=bottom), Taps(padding=left, after=right))
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
    (y0, y1, ys), (x0, x1, xs) = rows.indices(x.shape[-2]), columns.indices(x.shape[-1])
    taps = (
        Taps(stride=ys, padding=-y0, after=y1 - x.shape[-2]),
        Taps(stride=xs, padding=-x0, after=x1 - x.shape[-1]),
    )
    channels = (slice(None), *between, slice(None, None, ys), slice(None, None, xs))
    return Local(lambda parts: parts[0][channels], taps)


def _reshape(step: Step, x: Tensor, out: Tensor) -> Local | None:
    """A change of the dimensions between the picture's and the spatial ones, which keep their order."""
    if x.shape[-2:] != out.shape[-2:]:
        return None
    between = out.shape[1:-2]
    return Local(lambda parts: parts[0].reshape(len(parts[0]), *between, *parts[0].shape[-2:]))


def _exchange(step: Step, x: Tensor, out: Tensor) -> Local | None:
    """Two dimensions swap, neither of them the picture's, rows or columns: a shuffle of channels."""
    dims = step.argument(1, "dim0", None), step.argument(2, "dim1", None)
    if not all(_between(dim, x) for dim in dims):
        return None
    return Local(lambda parts: parts[0].transpose(dims[0] % x.ndim, dims[1] % x.ndim))


def _flip(step: Step, x: Tensor, out: Tensor) -> Local | None:
    """The channels in reverse order, as of networks that read blue first."""
    dims = step.args[1:] or (step.kwargs.get("dims", ()),)
    dims = dims[0] if isinstance(dims[0], (tuple, list)) else dims
    return Local(lambda parts: parts[0].flip(dims)) if all(_between(dim, x) for dim in dims) else None


_JOINS = names(Reach.JOIN)
_ALONG = names(Reach.JOIN, Reach.ALONG, Reach.REDUCTION)
_POINTWISE = _ALONG | names(Reach.POINTWISE, Reach.NOISE) | {"batch_norm"}
_PER_CHANNEL = ("batch_norm", "prelu")
_ANY_RANK = names(Reach.RESHAPE) | {"getitem", "transpose"}
_WINDOWS: dict[str, Callable[[Step, Tensor, Tensor], Local | None]] = {
    "conv2d": _convolution,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive_pool,
    "adaptive_max_pool2d": _adaptive_pool,
    "pad": _pad,
    "getitem": _getitem,
    "transpose": _exchange,
    "flip": _flip,
    **dict.fromkeys(names(Reach.RESHAPE), _reshape),
}
