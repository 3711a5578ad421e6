"""Caffe's layers that slide a window over a picture: convolution, pooling, local response normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from . import modules
from .plans import Pair, Plan, Shape, axis_of, check_outputs, check_size, picture_of, refusal, shown, weighed
from .schema import chosen
from .specs import Spec


def _both(spec: Spec, options: Any, name: str, given: Sequence[int], default: int) -> Pair:
    """Return an option along y and x, given once, once per axis, or as name_h and name_w."""
    apart = [f"{name}_h", f"{name}_w"]
    if any(options.HasField(key) for key in apart):
        if given:
            raise refusal(spec, f"gives {name}_h or {name}_w beside one {name} for both axes: keep one of them")
        return getattr(options, apart[0]), getattr(options, apart[1])
    return _along_both(spec, name, given, default)


def _along_both(spec: Spec, name: str, given: Sequence[int], default: int) -> Pair:
    if len(given) > 2:
        raise refusal(spec, f"has {name} along {len(given)} axes: only layers in two dimensions run")
    values = list(given) or [default]
    return values[0], values[-1]


@dataclass(frozen=True)
class _Window:
    """A window that slides over two axes."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair = (1, 1)

    @property
    def reach(self) -> Pair:
        return self.dilation[0] * (self.kernel[0] - 1) + 1, self.dilation[1] * (self.kernel[1] - 1) + 1

    def check(self, spec: Spec, shape: Shape) -> None:
        """Refuse a window of nothing, and absurdly large windows or paddings."""
        for name in ("kernel", "stride", "dilation"):
            if min(getattr(self, name)) < 1:
                raise refusal(spec, f"needs {name}{'_size' * (name == 'kernel')} of at least 1 along both axes")
        channels, *extents = shape
        padded = [extent + 2 * padding for extent, padding in zip(extents, self.padding, strict=True)]
        check_size(spec, "a padded bottom", (channels, *padded))
        check_size(spec, "a window", self.reach)


# Convolution


def convolution(spec: Spec, shapes: list[Shape]) -> Plan:
    """Plan a convolution, groups and dilation included."""
    options, (channels, *extents) = spec.options.convolution_param, picture_of(spec, shapes[0])
    window = _convolution_window(spec, shapes[0])
    sides = tuple(
        (extent + 2 * p - reach) // s + 1
        for extent, p, reach, s in zip(extents, window.padding, window.reach, window.stride, strict=True)
    )
    weight = (options.num_output, channels // options.group, *window.kernel)
    return _convolving(spec, nn.Conv2d, window, channels, sides, weight)


def deconvolution(spec: Spec, shapes: list[Shape]) -> Plan:
    """Plan a transposed convolution."""
    options, (channels, *extents) = spec.options.convolution_param, picture_of(spec, shapes[0])
    window = _convolution_window(spec, shapes[0])
    sides = tuple(
        s * (extent - 1) + reach - 2 * p
        for extent, p, reach, s in zip(extents, window.padding, window.reach, window.stride, strict=True)
    )
    weight = (channels, options.num_output // options.group, *window.kernel)
    return _convolving(spec, nn.ConvTranspose2d, window, channels, sides, weight)


def _convolution_window(spec: Spec, shape: Shape) -> _Window:
    options = spec.options.convolution_param
    if axis_of(spec, options.axis, shape) != 1:
        raise refusal(spec, f"takes axis {options.axis} for the channels: only axis 1 runs")
    window = _Window(
        _both(spec, options, "kernel", options.kernel_size, 0),
        _both(spec, options, "stride", options.stride, 1),
        _both(spec, options, "pad", options.pad, 0),
        _along_both(spec, "dilation", options.dilation, 1),
    )
    window.check(spec, shape)
    check_outputs(spec, options)
    channels, group = shape[0], options.group
    if group < 1 or channels % group or options.num_output % group:
        raise refusal(
            spec, f"cannot divide {channels} channels in and {options.num_output} out (num_output) into {group} groups"
        )
    return window


def _convolving(spec: Spec, kind: Any, window: _Window, channels: int, sides: Shape, weight: Shape) -> Plan:
    options = spec.options.convolution_param

    def make() -> nn.Module:
        return kind(
            channels,
            options.num_output,
            window.kernel,
            window.stride,
            window.padding,
            dilation=window.dilation,
            groups=options.group,
            bias=options.bias_term,
        )

    return Plan([(options.num_output, *sides)], make, weighed(weight, options))


# Pooling and normalisation


def pooling(spec: Spec, shapes: list[Shape]) -> Plan:
    """Plan pooling, whose windows are as many as Caffe's rule says, rounded up."""
    options = spec.options.pooling_param
    channels, *extents = picture_of(spec, shapes[0])
    kind = chosen(options, "pool")
    if kind == "STOCHASTIC":
        raise refusal(spec, "pools at random (STOCHASTIC), which gives another map every time: use MAX or AVE")
    average = kind == "AVE"
    if options.global_pooling:
        return _global_pooling(spec, options, channels, average=average)
    window = _pooling_window(spec, options, shapes[0])
    ceil, padded = chosen(options, "round_mode") == "CEIL", any(window.padding)
    numbers = list(zip(extents, window.kernel, window.stride, window.padding, strict=True))
    sides = tuple(modules.pooled_extent(*one, ceil=ceil, clipped=padded) for one in numbers)
    if any((side - 1) * s >= extent + p for side, (extent, _, s, p) in zip(sides, numbers, strict=True)):
        raise refusal(spec, f"would lay its last window outside its bottom {shown(shapes[0])}, where Caffe fails")
    return Plan([(channels, *sides)], lambda: _pool(window, average=average, ceil=ceil))


def _global_pooling(spec: Spec, options: Any, channels: int, *, average: bool) -> Plan:
    if any(options.HasField(key) for key in ("kernel_size", "kernel_h", "kernel_w")):
        raise refusal(spec, "pools globally and yet gives a kernel size: keep one of them")
    strides = [options.stride, *(getattr(options, key) for key in ("stride_h", "stride_w") if options.HasField(key))]
    if any((options.pad, options.pad_h, options.pad_w)) or any(stride != 1 for stride in strides):
        raise refusal(spec, "pools globally, where padding must be 0 and the stride 1")
    return Plan([(channels, 1, 1)], lambda: nn.AdaptiveAvgPool2d(1) if average else nn.AdaptiveMaxPool2d(1))


def _pooling_window(spec: Spec, options: Any, shape: Shape) -> _Window:
    given = {key: [getattr(options, key)] * options.HasField(key) for key in ("kernel_size", "stride", "pad")}
    window = _Window(
        _both(spec, options, "kernel", given["kernel_size"], 0),
        _both(spec, options, "stride", given["stride"], 1),
        _both(spec, options, "pad", given["pad"], 0),
    )
    window.check(spec, shape)
    if options.HasField("pad_h") != options.HasField("pad_w"):
        raise refusal(spec, "gives one of pad_h and pad_w: give both")
    if any(p >= k for p, k in zip(window.padding, window.kernel, strict=True)):
        raise refusal(
            spec, f"pads by {shown(window.padding)}, which must be less than its window {shown(window.kernel)}"
        )
    return window


def _pool(window: _Window, *, average: bool, ceil: bool) -> nn.Module:
    if any(2 * p > k for p, k in zip(window.padding, window.kernel, strict=True)):
        return modules.WidePooling(window.kernel, window.stride, window.padding, average=average, ceil=ceil)
    pool = nn.AvgPool2d if average else nn.MaxPool2d
    return pool(window.kernel, window.stride, window.padding, ceil_mode=ceil)


def lrn(spec: Spec, shapes: list[Shape]) -> Plan:
    """Plan local response normalisation, across channels or within them."""
    options = spec.options.lrn_param
    size, shape = options.local_size, picture_of(spec, shapes[0])
    if size % 2 == 0:
        raise refusal(spec, f"normalises over local_size: {size}, which must be odd")
    if chosen(options, "norm_region") == "ACROSS_CHANNELS":
        check_size(spec, "a padded bottom", (shape[0] + size, *shape[1:]))
        return Plan([shape], lambda: nn.LocalResponseNorm(size, options.alpha, options.beta, options.k))
    _Window((size, size), (1, 1), (size // 2, size // 2)).check(spec, shape)
    return Plan([shape], lambda: modules.WithinChannelNorm(size, options.alpha, options.beta))
