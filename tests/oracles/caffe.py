"""Caffe's layers by loops over numbers: one picture (channels, height, width), no torch.

Written from Caffe's rules for sizes, borders and divisors. `FailsError` stands for what Caffe itself refuses, or where
it would return a number that means nothing.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
Pair = tuple[int, int]


class FailsError(Exception):
    """Caffe does not run this layer."""


def convolution(x: Array, weight: Array, bias: Array, *, stride: Pair, pad: Pair, dilation: Pair, group: int) -> Array:
    """Correlate (channels, h, w) with filters (outputs, channels / group, kh, kw)."""
    outputs, per_group, *kernel = weight.shape
    sides = [
        math.floor((extent + 2 * p - (d * (k - 1) + 1)) / s) + 1
        for extent, p, d, k, s in zip(x.shape[1:], pad, dilation, kernel, stride, strict=True)
    ]
    if min(sides) < 1:
        raise FailsError
    y = np.zeros((outputs, *sides))
    for out, row, column in np.ndindex(*y.shape):
        first = out // (outputs // group) * per_group
        total = bias[out]
        for channel, i, j in np.ndindex(per_group, *kernel):
            at = row * stride[0] - pad[0] + i * dilation[0]
            along = column * stride[1] - pad[1] + j * dilation[1]
            if 0 <= at < x.shape[1] and 0 <= along < x.shape[2]:
                total += weight[out, channel, i, j] * x[first + channel, at, along]
        y[out, row, column] = total
    return y


def deconvolution(
    x: Array, weight: Array, bias: Array, *, stride: Pair, pad: Pair, dilation: Pair, group: int
) -> Array:
    """Stamp every number of (channels, h, w) as a filter of (channels, outputs / group, kh, kw)."""
    channels, per_group, *kernel = weight.shape
    sides = [
        s * (extent - 1) + d * (k - 1) + 1 - 2 * p
        for extent, p, d, k, s in zip(x.shape[1:], pad, dilation, kernel, stride, strict=True)
    ]
    if min(sides) < 1:
        raise FailsError
    y = np.zeros((per_group * group, *sides)) + bias[:, None, None]
    for channel, row, column in np.ndindex(*x.shape):
        first = channel // (channels // group) * per_group
        for out, i, j in np.ndindex(per_group, *kernel):
            at = row * stride[0] - pad[0] + i * dilation[0]
            along = column * stride[1] - pad[1] + j * dilation[1]
            if 0 <= at < sides[0] and 0 <= along < sides[1]:
                y[first + out, at, along] += weight[channel, out, i, j] * x[channel, row, column]
    return y


def pooling(x: Array, *, average: bool, kernel: Pair, stride: Pair, pad: Pair, floor: bool = False) -> Array:
    """Pool (channels, h, w); the windows' number is rounded up, or down."""
    if any(p >= k for p, k in zip(pad, kernel, strict=True)):
        raise FailsError
    sides = list[int]()
    for extent, k, s, p in zip(x.shape[1:], kernel, stride, pad, strict=True):
        count = (extent + 2 * p - k) / s
        side = (math.floor(count) if floor else math.ceil(count)) + 1
        if pad != (0, 0) and (side - 1) * s >= extent + p:
            side -= 1
        sides.append(side)
    if min(sides) < 1:
        raise FailsError
    y = np.zeros((len(x), *sides))
    for channel, row, column in np.ndindex(*y.shape):
        y[channel, row, column] = _pooled(x[channel], (row, column), average, kernel, stride, pad)
    return y


def _pooled(x: Array, position: Pair, average: bool, kernel: Pair, stride: Pair, pad: Pair) -> float:
    area, spans = 1, list[range]()
    for extent, index, k, s, p in zip(x.shape, position, kernel, stride, pad, strict=True):
        start = index * s - p
        # An average counts the padding, but not what lies beyond it.
        area *= min(start + k, extent + p) - start
        spans.append(range(max(start, 0), min(start + k, extent)))
    inside = [float(x[at]) for at in itertools.product(*spans)]
    if not inside or area <= 0:
        raise FailsError
    return sum(inside) / area if average else max(inside)


def lrn_across(x: Array, *, size: int, alpha: float, beta: float, k: float) -> Array:
    """Normalise by the squares of `size` neighbouring channels."""
    if size % 2 == 0:
        raise FailsError
    y = np.zeros_like(x)
    for channel, row, column in np.ndindex(*x.shape):
        near = range(max(channel - size // 2, 0), min(channel + size // 2 + 1, len(x)))
        total = sum(x[other, row, column] ** 2 for other in near)
        y[channel, row, column] = x[channel, row, column] / (k + alpha / size * total) ** beta
    return y


def lrn_within(x: Array, *, size: int, alpha: float, beta: float) -> Array:
    """Normalise by the squares of `size` x `size` places of the same channel, places outside counting as zeros."""
    if size % 2 == 0:
        raise FailsError
    y, reach = np.zeros_like(x), size // 2
    for channel, row, column in np.ndindex(*x.shape):
        total = 0.0
        for at, along in itertools.product(
            range(row - reach, row + reach + 1), range(column - reach, column + reach + 1)
        ):
            if 0 <= at < x.shape[1] and 0 <= along < x.shape[2]:
                total += x[channel, at, along] ** 2
        y[channel, row, column] = x[channel, row, column] * (1 + alpha * total / size**2) ** -beta
    return y
