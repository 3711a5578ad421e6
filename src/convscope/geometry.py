"""Receptive fields: which pixels each unit of each layer can see.

A network is run once on tensors without data (torch's "meta" device) while a function mode follows how every
call moves, strides and merges the two spatial axes. For the operations in the tables below the result is exact
arithmetic; any other operation is taken to look at everything its inputs have seen, which is never too small.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a layer: unit i sees pixels [start + i step, start + i step + size).

    `shared` says that every unit sees the same pixels [start, start + size); `step` and `centre` then still tell
    where unit i lies. `centre` is the pixel coordinate of the middle of unit 0.
    """

    start: float = 0.0
    size: float = 1.0
    step: float = 1.0
    centre: float = 0.0
    shared: bool = False

    def window(self, kernel: float, stride: float, padding: float, dilation: float = 1) -> Axis:
        """Return the axis after a sliding window."""
        reach = (kernel - 1) * dilation
        centre = self.centre + (reach / 2 - padding) * self.step
        if self.shared:
            return replace(self, step=self.step * stride, centre=centre)
        return Axis(self.start - padding * self.step, self.size + reach * self.step, self.step * stride, centre)

    def spread(self, units: int) -> Axis:
        """Return the axis of one unit that has read all `units` units."""
        last = (units - 1) * self.step
        size = self.size if self.shared else self.size + last
        return Axis(self.start, size, max(self.step * units, 1.0), self.centre + last / 2, shared=True)

    def join(self, other: Axis) -> Axis:
        """Return the axis that sees what either of two axes sees."""
        start = min(self.start, other.start)
        size = max(self.start + self.size, other.start + other.size) - start
        return replace(self, start=start, size=size, centre=(self.centre + other.centre) / 2)


@dataclass(frozen=True)
class Field:
    """The receptive field of a layer's units, in pixels of the network's input, as (y, x) pairs.

    For a layer without spatial extent it is the field of the whole layer.
    """

    y: Axis = Axis()
    x: Axis = Axis()

    @property
    def size(self) -> tuple[float, float]:
        return self.y.size, self.x.size

    @property
    def step(self) -> tuple[float, float]:
        return self.y.step, self.x.step

    @property
    def shared(self) -> bool:
        """Whether every unit sees the same pixels."""
        return self.y.shared and self.x.shared

    @property
    def offset(self) -> tuple[float, float]:
        return self.y.start, self.x.start

    def box(self, position: tuple[int, int], picture: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the pixels (top, left, bottom, right) that unit `place` sees in a picture of (height, width)."""
        (top, bottom), (left, right) = (
            _clip(axis, index, extent) for axis, index, extent in zip((self.y, self.x), position, picture, strict=True)
        )
        return top, left, bottom, right

    def spread(self, units: tuple[int, int]) -> Field:
        return Field(self.y.spread(units[0]), self.x.spread(units[1]))


def _clip(axis: Axis, index: int, extent: int) -> tuple[int, int]:
    start = axis.start + (0 if axis.shared else index * axis.step)
    # Fractional steps are sums of floating point numbers: what is whole to a millionth is whole.
    low, high = math.ceil(start - 1e-6), math.floor(start + axis.size - 1 + 1e-6) + 1
    low = min(max(low, 0), extent - 1)
    return low, min(max(high, low + 1), extent)


@dataclass(frozen=True)
class Seen:
    """One execution of one module: its kind, the shape of its output without the batch, and its receptive field.

    `lies` is the field of one unit even where `field`, of channels last, is that of the whole layer. `parts` says how
    many entries along the batch a picture has: more than one for windows or heads.
    """

    module: str
    call: int
    kind: str
    shape: tuple[int, ...]
    field: Field
    channels_last: bool = False
    lies: Field = Field()
    parts: int = 1


@dataclass(frozen=True)
class _Track:
    """What is known of a tensor: the field of its units, and which of its dimensions are y and x (None: no extent).

    `empty` says that it has the shape of another and nothing of its content.
    """

    field: Field
    dims: tuple[int, int] | None
    empty: bool = False

    def extent(self, tensor: Tensor) -> tuple[int, int]:
        return (tensor.shape[self.dims[0]], tensor.shape[self.dims[1]]) if self.dims else (1, 1)


_EMPTY = {"new_full", "new_zeros", "new_ones", "new_empty", "full_like", "zeros_like", "ones_like", "empty_like"}

_OF_EVERY_MODULE = vars(nn.Module()).keys()

Handler = Callable[[_Track, Tensor, Tensor, tuple[Any, ...], dict[str, Any]], "_Track | None"]


def trace(
    body: nn.Module, shape: tuple[int, int, int], call: Callable[[Callable[..., Any], Tensor], Any] | None = None
) -> list[Seen]:
    """Run a module on a picture of `shape` (c, h, w) without data and report every module's output in order.

    `call(body, picture)` says how the module is called and what of its result is the output, which comes last; plainly
    when not given. Falls back to a run on real zeros where the module cannot run without data.
    """
    call = call or (lambda module, x: module(x))
    tensors = dict(body.named_parameters()) | dict(body.named_buffers())
    first = next((value for value in tensors.values() if value.is_floating_point()), torch.zeros(()))
    on_meta = {name: value.detach().to("meta") for name, value in tensors.items()}
    picture = torch.zeros(1, *shape, dtype=first.dtype, device="meta")
    try:
        with _attributes_kept(body):
            return _run(body, picture, lambda x: call(partial(_on_meta, body, on_meta), x))
    except (RuntimeError, NotImplementedError, ValueError, TypeError, AssertionError):
        if first.is_meta:
            raise
        return _run(body, torch.zeros(1, *shape, dtype=first.dtype, device=first.device), lambda x: call(body, x))


@contextmanager
def _attributes_kept(body: nn.Module) -> Generator[None]:
    """Undo what a run writes to a module's own attributes, such as a detector's anchors: they would be without data."""
    own = [(vars(module), _own_attributes(module)) for module in body.modules()]
    inside = [(value, value.copy()) for _, kept in own for value in kept.values() if type(value) in (dict, list, set)]
    try:
        yield
    finally:
        for attributes, kept in own:
            for name in attributes.keys() - kept.keys() - _OF_EVERY_MODULE:
                del attributes[name]
            attributes.update(kept)
        for value, kept in inside:
            value.clear()
            (value.extend if isinstance(value, list) else value.update)(kept)


def _own_attributes(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}


def _on_meta(body: nn.Module, tensors: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    return torch.func.functional_call(body, tensors, args, kwargs)


def _run(body: nn.Module, picture: Tensor, forward: Callable[[Tensor], Any]) -> list[Seen]:
    seen: list[Seen] = []
    calls: dict[str, int] = {}
    follow = _Follow()
    follow.mark(picture, _Track(Field(), (2, 3)))

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(module: nn.Module, _: Any, output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if isinstance(output, Tensor):
                track = follow.known(output) or _Track(Field().spread(_extent(picture)), None)
                if track.dims is None and output.ndim == 4:
                    track = _reshaped(output, _extent(picture))
                other = track.dims is not None and track.dims != (output.ndim - 2, output.ndim - 1)
                field = track.field.spread(track.extent(output)) if other else track.field
                seen.append(
                    Seen(
                        name,
                        calls[name],
                        type(module).__name__,
                        tuple(output.shape[1:]),
                        field,
                        other,
                        track.field,
                        parts=output.shape[0] if output.ndim else 1,
                    )
                )

        return record

    # Scripted modules take no hooks: they are no layers. What the body itself returns may not be the output.
    hooked = [(n, m) for n, m in body.named_modules() if n and not isinstance(m, torch.jit.ScriptModule)]
    handles = [module.register_forward_hook(hook(name)) for name, module in hooked]
    try:
        # Tensors of inference mode do not know what they are views of.
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings(), follow:
            warnings.simplefilter("ignore")
            hook("")(body, None, forward(picture))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _reshaped(out: Tensor, picture: tuple[int, int]) -> _Track:
    """Guess the places of four dimensions that came out of a reshape: the two with the picture's proportions."""
    dims = (1, 2) if _unlike(picture, out.shape[1:3]) < min(0.5, _unlike(picture, out.shape[2:4])) else (2, 3)
    axes = (Axis().spread(extent) for extent in picture)
    return _Track(Field(*(_evenly(axis, axis, 1, out.shape[d]) for axis, d in zip(axes, dims, strict=True))), dims)


def _unlike(picture: tuple[int, int], grid: Sequence[int]) -> float:
    """How many rows a grid has too many or too few for a picture's proportions."""
    return abs(picture[0] * grid[1] / picture[1] - grid[0]) if min(grid) > 1 else math.inf


def _extent(tensor: Tensor) -> tuple[int, int]:
    return tensor.shape[-2], tensor.shape[-1]


class _Follow(TorchFunctionMode):
    """Carry a `_Track` from the inputs of every call to its outputs."""

    def mark(self, tensor: Tensor, track: _Track) -> None:
        tensor._convscope_track = track  # type: ignore[attr-defined]

    def known(self, tensor: Tensor) -> _Track | None:
        return getattr(tensor, "_convscope_track", None)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        inputs = [t for t in tensors((args, kwargs)) if self.known(t) is not None]
        tracks = [(self.known(t), t.shape) for t in inputs]
        output = func(*args, **kwargs)
        if not tracks:
            return output
        changed = _changed(func, args)
        for out in tensors(output):
            self.mark(
                out, _after(name, tracks, inputs, out, args, kwargs) if changed is None else _everything(tracks, out)
            )
        if changed is not None:
            before = self.known(changed)
            pasted = (before is None or before.empty) and _pasted(name, args, changed)
            source = self.known(args[1]) if pasted else None
            self.mark(changed, _placed(source, args[1].shape, changed) if source else _everything(tracks, changed))
        return output


def _changed(func: Any, args: Any) -> Tensor | None:
    """Return the tensor that is changed behind its track: by assignment, or by an in-place call on a view of it."""
    name = getattr(func, "__name__", "")
    if name == "__setitem__":
        return args[0] if args[0]._base is None else args[0]._base
    return args[0]._base if in_place(name) and args and isinstance(args[0], Tensor) else None


def _pasted(name: str, args: Any, onto: Tensor) -> bool:
    """Whether a call copies a picture into the upper left corner of an empty one, as detectors pad theirs."""
    if name != "copy" or onto.ndim < 2 or not onto.is_contiguous():
        return False
    corner = (args[0].storage_offset() - onto.storage_offset()) % max(onto.shape[-1] * onto.shape[-2], 1) == 0
    return corner and args[0].ndim == args[1].ndim >= 2 and args[0].stride()[-2:] == onto.stride()[-2:]


def _placed(track: _Track, shape: Sequence[int], onto: Tensor) -> _Track:
    """Return the track of a tensor that holds another, of this track and shape, at the beginning of its last axes."""
    last = (len(shape) - 2, len(shape) - 1)
    if track.dims != last:
        return _everything([(track, shape)], onto)
    return replace(track, dims=(onto.ndim - 2, onto.ndim - 1))


def in_place(name: str) -> bool:
    """Whether a function's name says that it changes its first argument: `add_`, `__iadd__`."""
    return name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield every tensor in arguments or results, however nested."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def _after(name: str, tracks: Sequence[Any], inputs: list[Tensor], out: Tensor, args: Any, kwargs: Any) -> _Track:
    """Return the track of an output, by the tables below or, failing those, as one that has read everything."""
    result = None
    if name in _EMPTY:
        return replace(_everything(tracks, out), empty=True)
    if name in POINTWISE:
        result = _merge(tracks, out)
    elif name in HANDLERS and len(tracks) == 1:
        result = HANDLERS[name](tracks[0][0], inputs[0], out, args, kwargs)
    return result if result is not None else _everything(tracks, out)


def _everything(tracks: Sequence[Any], out: Tensor) -> _Track:
    """Every unit of the output may depend on every unit of every input."""
    fields = []
    for track, shape in tracks:
        extent = (shape[track.dims[0]], shape[track.dims[1]]) if track.dims else (1, 1)
        fields.append(track.field.spread(extent))
    joined = fields[0]
    for field in fields[1:]:
        joined = Field(joined.y.join(field.y), joined.x.join(field.x))
    track, shape = tracks[0]
    if out.ndim != 4:
        return _Track(joined, None)
    units = (shape[track.dims[0]], shape[track.dims[1]]) if track.dims else (1, 1)
    kept = track.dims if track.dims and all(d < out.ndim and out.shape[d] == shape[d] for d in track.dims) else (2, 3)
    y, x = (
        _evenly(wide, old, before, out.shape[dim])
        for wide, old, before, dim in zip(
            (joined.y, joined.x), (track.field.y, track.field.x), units, kept, strict=True
        )
    )
    return _Track(Field(y, x), kept)


def _evenly(wide: Axis, old: Axis, before: int, after: int) -> Axis:
    """Lay `after` units, each of which sees all that `wide` does, evenly where `before` units lay."""
    step = old.step * before / after
    return replace(wide, step=step, centre=old.centre + (step - old.step) / 2)


def _merge(tracks: Sequence[Any], out: Tensor) -> _Track | None:
    """Element by element (with broadcasting) or side by side along the channels."""
    spatial = [(t, s) for t, s in tracks if t.dims is not None and len(s) == out.ndim]
    if not spatial:
        field = tracks[0][0].field
        for track, _ in tracks[1:]:
            field = Field(field.y.join(track.field.y), field.x.join(track.field.x))
        return _Track(field, None)
    dims = spatial[0][0].dims
    if any(t.dims != dims for t, _ in spatial):
        local = next((t.dims for t, _ in spatial if not t.field.shared), dims)
        return replace(_everything(tracks, out), dims=local)
    axes = []
    for which, dim in enumerate(dims):
        parts = [((t.field.y, t.field.x)[which], s[dim] if t.dims and len(s) == out.ndim else 1) for t, s in tracks]
        axis = _merge_axis(parts, out.shape[dim])
        if axis is None:
            return None
        axes.append(axis)
    return _Track(Field(*axes), dims)


def _merge_axis(parts: list[tuple[Axis, int]], units: int) -> Axis | None:
    full = [axis for axis, count in parts if count == units]
    if not full or any(axis.step != full[0].step for axis in full):
        return None
    if len(full) == len(parts) and not any(axis.shared for axis in full):
        joined = full[0]
        for axis in full[1:]:
            joined = joined.join(axis)
        return joined
    wide = full[0].spread(units)
    for axis, count in parts:
        wide = wide.join(axis.spread(count))
    local = [axis for axis in full if not axis.shared] or full
    return replace(wide, step=local[0].step, centre=sum(axis.centre for axis in local) / len(local))


def _pair(value: Any) -> tuple[float, float]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def argument(args: Any, kwargs: Any, position: int, name: str, default: Any) -> Any:
    """Return an argument of a call, by position or by name."""
    return args[position] if len(args) > position else kwargs.get(name, default)


def _slide(track: _Track, kernel: Any, stride: Any, padding: Any, dilation: Any) -> _Track | None:
    if track.dims is None:
        return None
    axes = [
        axis.window(*numbers)
        for axis, *numbers in zip(
            (track.field.y, track.field.x), _pair(kernel), _pair(stride), _pair(padding), _pair(dilation), strict=True
        )
    ]
    return _Track(Field(*axes), track.dims)


def _conv(track: _Track, x: Tensor, out: Tensor, args: Any, kwargs: Any) -> _Track | None:
    weight = argument(args, kwargs, 1, "weight", None)
    stride = argument(args, kwargs, 3, "stride", 1)
    padding = argument(args, kwargs, 4, "padding", 0)
    dilation = _pair(argument(args, kwargs, 5, "dilation", 1))
    kernel = _extent(weight)
    if padding == "same":
        padding = [(d * (k - 1)) // 2 for d, k in zip(dilation, kernel, strict=True)]
    return _slide(track, kernel, stride, 0 if padding == "valid" else padding, dilation)


def _conv_transpose(track: _Track, x: Tensor, out: Tensor, args: Any, kwargs: Any) -> _Track | None:
    """Output o reads inputs i with o = i stride - padding + j dilation, j in [0, kernel): an interval of i."""
    if track.dims is None:
        return None
    weight = argument(args, kwargs, 1, "weight", None)
    stride, padding = (_pair(argument(args, kwargs, p, n, d)) for p, n, d in ((3, "stride", 1), (4, "padding", 0)))
    dilation = _pair(argument(args, kwargs, 7, "dilation", 1))
    axes = []
    for axis, k, s, p, d in zip(
        (track.field.y, track.field.x), _extent(weight), stride, padding, dilation, strict=True
    ):
        reach = (k - 1) * d
        axes.append(_stretch(axis, s, (p - reach) / s, reach / s))
    return _Track(Field(*axes), track.dims)


def _stretch(axis: Axis, scale: float, first: float, reach: float) -> Axis:
    """Return the axis of outputs o that read inputs in [o / scale + first, o / scale + first + reach]."""
    centre = axis.centre + (first + reach / 2) * axis.step
    if axis.shared:
        return replace(axis, step=axis.step / scale, centre=centre)
    return Axis(axis.start + first * axis.step, axis.size + reach * axis.step, axis.step / scale, centre)


def _pool(track: _Track, x: Tensor, out: Tensor, args: Any, kwargs: Any) -> _Track | None:
    kernel = argument(args, kwargs, 1, "kernel_size", None)
    stride = argument(args, kwargs, 2, "stride", None) or kernel
    return _slide(track, kernel, stride, argument(args, kwargs, 3, "padding", 0), 1)


def _max_pool(track: _Track, x: Tensor, out: Tensor, args: Any, kwargs: Any) -> _Track | None:
    kernel = argument(args, kwargs, 1, "kernel_size", None)
    stride = argument(args, kwargs, 2, "stride", None) or kernel
    padding, dilation = argument(args, kwargs, 3, "padding", 0), argument(args, kwargs, 4, "dilation", 1)
    return _slide(track, kernel, stride, padding, dilation)


def _adaptive(track: _Track, x: Tensor, out: Tensor, args: Any, kwargs: Any) -> _Track | None:
    """Unit i reads inputs [floor(i n / m), ceil((i + 1) n / m))."""
    if track.dims is None:
        return None
    axes = []
    for axis, dim in zip((track.field.y, track.field.x), track.dims, strict=True):
        n, m = x.shape[dim], out.shape[dim]
        if m == 1:
            axes.append(axis.spread(n))
        elif n % m == 0:
            axes.append(axis.window(n // m, n // m, 0))
        else:
            reach = max(math.ceil((i + 1) * n / m) - i * n / m for i in range(m))
            axes.append(_stretch(axis, m / n, -1 + 1 / m, reach - 1 / m))
    return _Track(Field(*axes), track.dims)


def _interpolate(track: _Track, x: Tensor, out: Tensor, args: Any, kwargs: Any) -> _Track | None:
    mode = argument(args, kwargs, 3, "mode", "nearest")
    smooth = argument(args, kwargs, 4, "align_corners", None) or argument(args, kwargs, 6, "antialias", False)
    if track.dims is None or smooth or mode not in ("nearest", "bilinear"):
        return None
    given = argument(args, kwargs, 2, "scale_factor", None)
    exact = given is not None and not argument(args, kwargs, 5, "recompute_scale_factor", None)
    axes = []
    for which, (axis, dim) in enumerate(zip((track.field.y, track.field.x), track.dims, strict=True)):
        scale = _pair(given)[which] if exact else out.shape[dim] / x.shape[dim]
        if mode == "bilinear":
            axes.append(_stretch(axis, scale, 0.5 / scale - 1.5, 2))
        else:
            # Output o reads input floor(o / scale).
            below = 1 - 1 / scale if scale == int(scale) else 0 if 1 / scale == int(1 / scale) else 1
            axes.append(_stretch(axis, scale, -below, below))
    return _Track(Field(*axes), track.dims)


def _pad(track: _Track, x: Tensor, out: Tensor, args: Any, kwargs: Any) -> _Track | None:
    pads = list(argument(args, kwargs, 1, "pad", ()))
    mode = argument(args, kwargs, 2, "mode", "constant")
    if track.dims != (x.ndim - 2, x.ndim - 1) or mode == "circular":
        return None
    left, right, top, bottom = (*pads, 0, 0, 0)[:4]
    # A unit of a reflected border sees as far inside as it lies outside, of a replicated one half as far.
    fold = {"constant": 0, "replicate": 1, "reflect": 2}[mode]
    axes = []
    for axis, low, high in ((track.field.y, top, bottom), (track.field.x, left, right)):
        wide = _stretch(axis, 1, -low - fold * max(high, 0), fold * (max(low, 0) + max(high, 0)))
        axes.append(replace(wide, centre=axis.centre - low * axis.step))
    return _Track(Field(*axes), track.dims)


def _getitem(track: _Track, x: Tensor, out: Tensor, args: Any, kwargs: Any) -> _Track | None:
    """Slices of the spatial dimensions move and stride them; whole numbers and None shift the others."""
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    if track.dims is None or not all(i is None or i is Ellipsis or isinstance(i, (slice, int)) for i in index):
        return None
    taken = sum(i is not None and i is not Ellipsis for i in index)
    rest = (slice(None),) * (x.ndim - taken)
    at = index.index(Ellipsis) if Ellipsis in index else len(index)
    axes, dims = {track.dims[0]: track.field.y, track.dims[1]: track.field.x}, dict[int, int]()
    before = after = 0
    for part in (*index[:at], *rest, *index[at + 1 :]):
        if part is None:
            after += 1
            continue
        if isinstance(part, slice):
            if before in axes:
                first, _, stride = part.indices(x.shape[before])
                axes[before], dims[before] = axes[before].window(1, stride, -first), after
            after += 1
        elif before in axes:
            return None
        before += 1
    return _Track(Field(axes[track.dims[0]], axes[track.dims[1]]), (dims[track.dims[0]], dims[track.dims[1]]))


def _unbind(track: _Track, x: Tensor, out: Tensor, args: Any, kwargs: Any) -> _Track | None:
    """Each part loses one dimension, as by a whole number between brackets."""
    dim = argument(args, kwargs, 1, "dim", 0) % x.ndim
    return _getitem(track, x, out, (x, (slice(None),) * dim + (0,)), {})


def _reshape(track: _Track, x: Tensor, out: Tensor, args: Any, kwargs: Any) -> _Track | None:
    """Keep the extent where the two last dimensions are untouched; otherwise each number may be of any place."""
    if track.dims is None:
        return track
    trailing = track.dims == (x.ndim - 2, x.ndim - 1)
    if trailing and out.ndim > 2 and tuple(out.shape[-2:]) == tuple(x.shape[-2:]):
        return _Track(track.field, (out.ndim - 2, out.ndim - 1))
    return _Track(track.field.spread(track.extent(x)), None)


def _permute(track: _Track, x: Tensor, out: Tensor, args: Any, kwargs: Any) -> _Track | None:
    if track.dims is None:
        return track
    order = args[1:] if len(args) > 1 else kwargs["dims"]
    if len(order) == 1 and isinstance(order[0], (tuple, list)):
        order = order[0]
    order = [d % x.ndim for d in order]
    return _Track(track.field, (order.index(track.dims[0]), order.index(track.dims[1])))


def _transpose(track: _Track, x: Tensor, out: Tensor, args: Any, kwargs: Any) -> _Track | None:
    a, b = (argument(args, kwargs, p, n, 0) % x.ndim for p, n in ((1, "dim0"), (2, "dim1")))
    order = list(range(x.ndim))
    order[a], order[b] = order[b], order[a]
    return _permute(track, x, out, (x, order), {})


def _linear(track: _Track, x: Tensor, out: Tensor, args: Any, kwargs: Any) -> _Track | None:
    return None if track.dims is not None and x.ndim - 1 in track.dims else track


def _layer_norm(track: _Track, x: Tensor, out: Tensor, args: Any, kwargs: Any) -> _Track | None:
    count = len(argument(args, kwargs, 1, "normalized_shape", ()))
    normalised = range(x.ndim - count, x.ndim)
    return None if track.dims is not None and any(d in normalised for d in track.dims) else track


def _along(position: int) -> Handler:
    """Work along one dimension, the argument at `position`: local when it is not a spatial one."""

    def handler(track: _Track, x: Tensor, out: Tensor, args: Any, kwargs: Any) -> _Track | None:
        dim = argument(args, kwargs, position, "dim", 0)
        if track.dims is None or not isinstance(dim, int) or dim % x.ndim in track.dims or out.ndim != x.ndim:
            return None
        return track

    return handler


def _batch_norm(track: _Track, x: Tensor, out: Tensor, args: Any, kwargs: Any) -> _Track | None:
    """Local with statistics of its own; otherwise it reads those of the whole picture."""
    own = argument(args, kwargs, 1, "running_mean", None) is not None
    return track if own and not argument(args, kwargs, 5, "training", False) else None


def _whole(track: _Track, x: Tensor, out: Tensor, args: Any, kwargs: Any) -> _Track | None:
    """Reductions: local over channels when the rank is kept, otherwise over everything."""
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if track.dims is None or dim is None or out.ndim != x.ndim:
        return None
    dims = {d % x.ndim for d in (dim if isinstance(dim, (tuple, list)) else (dim,))}
    return None if dims & set(track.dims) else track


POINTWISE = frozenset(
    """relu relu6 hardtanh clamp clamp_min clamp_max threshold silu gelu hardswish hardsigmoid sigmoid tanh
    leaky_relu elu selu celu prelu rrelu mish softplus dropout dropout2d feature_dropout alpha_dropout
    add sub mul div true_divide iadd isub imul itruediv radd rmul rsub neg abs exp log sqrt pow square
    cat concat concatenate to float double half bfloat16 type type_as contiguous clone detach requires_grad
    local_response_norm where maximum minimum lerp addcmul identity""".split()
)

HANDLERS: dict[str, Handler] = {
    "conv2d": _conv,
    "conv_transpose2d": _conv_transpose,
    "max_pool2d": _max_pool,
    "max_pool2d_with_indices": _max_pool,
    "avg_pool2d": _pool,
    "lp_pool2d": lambda t, x, o, a, k: _pool(t, x, o, (a[0], *a[2:]), k),
    "adaptive_avg_pool2d": _adaptive,
    "adaptive_max_pool2d": _adaptive,
    "interpolate": _interpolate,
    "pad": _pad,
    "getitem": _getitem,
    "unbind": _unbind,
    "flatten": _reshape,
    "view": _reshape,
    "reshape": _reshape,
    "unflatten": _reshape,
    "squeeze": _reshape,
    "unsqueeze": _reshape,
    "permute": _permute,
    "transpose": _transpose,
    "linear": _linear,
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "softmax": _along(1),
    "log_softmax": _along(1),
    "chunk": _along(2),
    "split": _along(2),
    "narrow": _along(1),
    "mean": _whole,
    "sum": _whole,
    "amax": _whole,
}
