"""Caffe's layers that torch has no module for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...rules import normalised


class InnerProduct(nn.Linear):
    """A linear layer that reads everything from an axis on as one vector."""

    def __init__(self, inputs: int, outputs: int, *, axis: int = 1, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias)
        self.axis = axis

    def forward(self, input: Tensor) -> Tensor:
        """Map (n, ..., inputs as a block) to (n, ..., outputs)."""
        return super().forward(input.flatten(self.axis))


class TransposedInnerProduct(nn.Module):
    """An inner product whose weights lie as (inputs, outputs), so that it can share those of another layer."""

    def __init__(self, inputs: int, outputs: int, *, axis: int = 1, bias: bool = True) -> None:
        super().__init__()
        plain = nn.Linear(inputs, outputs, bias)
        self.weight = nn.Parameter(plain.weight.detach().T.contiguous())
        self.bias = plain.bias if bias else None
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, ..., inputs as a block) to (n, ..., outputs)."""
        return F.linear(x.flatten(self.axis), self.weight.T, self.bias)


class WidePooling(nn.Module):
    """Pooling whose padding is wider than half its window, which torch's own refuses."""

    def __init__(
        self, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], *, average: bool, ceil: bool
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel, stride, padding
        self.average, self.ceil_mode = average, ceil

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, c, rows, columns); what lies beyond the padding counts in no average."""
        high, wide = self.padding
        rows, columns = (
            pooled_extent(*numbers, ceil=self.ceil_mode, clipped=True)
            for numbers in zip(x.shape[2:], self.kernel_size, self.stride, self.padding, strict=True)
        )
        padded = F.pad(x, (wide, wide, high, high), value=0.0 if self.average else -torch.inf)
        pool = F.avg_pool2d if self.average else F.max_pool2d
        return pool(padded, self.kernel_size, self.stride, ceil_mode=self.ceil_mode)[:, :, :rows, :columns]


def pooled_extent(extent: int, kernel: int, stride: int, padding: int, *, ceil: bool, clipped: bool) -> int:
    """Return how many windows Caffe's pooling has along an axis; `clipped` when there is padding along either axis."""
    room = extent + 2 * padding - kernel
    count = (-(-room // stride) if ceil else room // stride) + 1
    return count - 1 if clipped and (count - 1) * stride >= extent + padding else count


class WithinChannelNorm(nn.Module):
    """Local response normalisation over places: x (1 + alpha mean of x^2 in a square window)^-beta.

    Padding counts in the mean. The deconvnet's rule skips it as it does normalisation across channels.
    """

    def __init__(self, size: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.size, self.alpha, self.beta = size, alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to the same shape."""
        mean = F.avg_pool2d(x.square(), self.size, stride=1, padding=self.size // 2)
        return normalised(x, x * (1 + self.alpha * mean).pow(-self.beta))


class Power(nn.Module):
    """(shift + scale x)^power, element by element."""

    def __init__(self, power: float = 1, scale: float = 1, shift: float = 0) -> None:
        super().__init__()
        self.power, self.scale, self.shift = power, scale, shift

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor to another of its shape."""
        line = x * self.scale + self.shift
        return line if self.power == 1 else line.pow(self.power)


class Exponential(nn.Module):
    """base^(shift + scale x), given by the logarithm of the base."""

    def __init__(self, log_base: float = 1, scale: float = 1, shift: float = 0) -> None:
        super().__init__()
        self.log_base, self.scale, self.shift = log_base, scale, shift

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor to another of its shape."""
        return torch.exp((x * self.scale + self.shift) * self.log_base)


class Logarithm(nn.Module):
    """log(shift + scale x) to a base, given by the base's own logarithm."""

    def __init__(self, log_base: float = 1, scale: float = 1, shift: float = 0) -> None:
        super().__init__()
        self.log_base, self.scale, self.shift = log_base, scale, shift

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor to another of its shape."""
        return torch.log(x * self.scale + self.shift) / self.log_base


class AbsoluteValue(nn.Module):
    """|x|, element by element."""

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor to another of its shape."""
        return x.abs()


class Scale(nn.Module):
    """Multiply, and on request add, along some axes from `axis` on.

    The factor is learned where `weight` is its shape, else it is a second input whose first axes are those of the
    first. `bias` is the shape of what is added, if anything is.
    """

    def __init__(self, weight: tuple[int, ...] | None, bias: tuple[int, ...] | None, *, axis: int = 1) -> None:
        super().__init__()
        self.weight = None if weight is None else nn.Parameter(torch.ones(weight))
        self.bias = None if bias is None else nn.Parameter(torch.zeros(bias))
        self.axis = axis

    def forward(self, x: Tensor, factor: Tensor | None = None) -> Tensor:
        """Map a tensor, and the factor where it is not learned, to another of the first one's shape."""
        if self.weight is not None:
            x = x * _lined_up(self.weight, x, self.axis)
        elif factor is not None:
            x = x * _lined_up(factor, x, 0)
        return x if self.bias is None else x + _lined_up(self.bias, x, self.axis)


class Bias(nn.Module):
    """Add something learned along some axes from `axis` on, or a second input whose first axes are the first one's."""

    def __init__(self, bias: tuple[int, ...] | None, *, axis: int = 1) -> None:
        super().__init__()
        self.bias = None if bias is None else nn.Parameter(torch.zeros(bias))
        self.axis = axis

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Map a tensor, and what is added where it is not learned, to another of the first one's shape."""
        if self.bias is not None:
            return x + _lined_up(self.bias, x, self.axis)
        return x if added is None else x + _lined_up(added, x, 0)


def _lined_up(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """Append axes of length one to values, so that their first lies along `axis` of x."""
    return values.reshape(*values.shape, *[1] * (x.ndim - axis - values.ndim)) if values.ndim else values


class Eltwise(nn.Module):
    """Combine tensors of one shape: "SUM" with coefficients, "PROD" or "MAX"."""

    def __init__(self, operation: str, coefficients: Sequence[float]) -> None:
        super().__init__()
        self.operation, self.coefficients = operation, tuple(coefficients)

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        """Map tensors of one shape to one of that shape."""
        if self.operation == "SUM":
            terms = (x if c == 1 else x * c for x, c in zip((first, *others), self.coefficients, strict=True))
            total = next(terms)
            for term in terms:
                total = total + term
            return total
        for other in others:
            first = first * other if self.operation == "PROD" else torch.maximum(first, other)
        return first


class Concat(nn.Module):
    """Put tensors side by side along an axis."""

    def __init__(self, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *inputs: Tensor) -> Tensor:
        """Map tensors that differ along the axis only to one."""
        return torch.cat(inputs, self.axis)


class Slice(nn.Module):
    """Cut a tensor into pieces of given lengths along an axis."""

    def __init__(self, lengths: Sequence[int], axis: int = 1) -> None:
        super().__init__()
        self.lengths, self.axis = list(lengths), axis

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map a tensor to its pieces."""
        return x.split(self.lengths, self.axis)


class Split(nn.Module):
    """Hand one tensor on under several names."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map a tensor to itself, `count` times."""
        return (x,) * self.count


class Reshape(nn.Module):
    """Lay the numbers of each picture out in another shape."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, ...) to (n, *shape)."""
        return x.reshape(x.shape[0], *self.shape)


class Crop(nn.Module):
    """Cut the extent of a second tensor out of the first, along all axes from `axis` on."""

    def __init__(self, offsets: Sequence[int], axis: int = 2) -> None:
        super().__init__()
        self.offsets, self.axis = tuple(offsets), axis

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """Map two tensors to the part of the first that has the second one's shape from the axis on."""
        lengths = like.shape[self.axis :]
        parts = (slice(start, start + length) for start, length in zip(self.offsets, lengths, strict=True))
        return x[(slice(None),) * self.axis + tuple(parts)]
