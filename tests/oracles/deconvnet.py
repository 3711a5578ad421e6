"""Two witnesses for the deconvnet: an explicit stack of layers, and a walk over the autograd graph.

The stack follows Zeiler & Fergus (arXiv:1311.2901v3, sec. 2.1) layer by layer, with no gradient anywhere; on request
its rectifiers, poolings and normalisations do what the other corners of Mahendran & Vedaldi's cube (ECCV 2016) say. The
walk serves networks that are no stack: it finds every rectifier in the graph of a finished forward pass, whatever wrote
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VGG, AlexNet

from convscope import Net
from convscope.zoo.caffe.modules import InnerProduct
from convscope.zoo.caffe.network import CaffeNet

Unpool = Callable[[Tensor, Tensor, torch.Size], Tensor]


def unpool_adding(signal: Tensor, switches: Tensor, size: torch.Size) -> Tensor:
    """Send every number to its switch; numbers that share a switch add up, as the adjoint of pooling wants it."""
    flat = signal.new_zeros(size).flatten(2)
    return flat.scatter_add_(2, switches.flatten(2), signal.flatten(2)).view(size)


def unpool_overwriting(signal: Tensor, switches: Tensor, size: torch.Size) -> Tensor:
    """Send every number to its switch; of those that share one, the last stays, as in `F.max_unpool2d`."""
    flat = signal.new_zeros(size).flatten(2)
    return flat.scatter_(2, switches.flatten(2), signal.flatten(2)).view(size)


@dataclass
class Step:
    """One layer of the stack and what its way down needs: its input and the switches."""

    module: nn.Module
    source: Tensor
    switches: Tensor | None = None

    @property
    def size(self) -> torch.Size:
        return self.source.shape


@dataclass
class Corner:
    """A corner of the cube; as it stands, Zeiler & Fergus's."""

    mask: bool = False
    switches: bool = True
    rectify: bool = True
    lrn: bool = False


ZEILER_FERGUS = Corner()


class ExplicitDeconvnet:
    """A sequential network run up by hand to the layer `upto`, ready to send signals down to pixels."""

    @torch.no_grad()
    def __init__(self, net: Net, pixels: Tensor, upto: str = "") -> None:
        self.std = pixels.new_tensor(net.std).view(-1, 1, 1)
        signal = (pixels - pixels.new_tensor(net.mean).view(-1, 1, 1)) / self.std
        self.order = [2, 1, 0] if net.order == "BGR" else list(range(len(net.mean)))
        signal = signal[:, self.order]
        self.steps: list[Step] = []
        for name, module in _layers(net.body, ""):
            source, (signal, switches) = signal, _up(module, signal)
            self.steps.append(Step(module, source, switches))
            if name == upto:
                break
        else:
            assert not upto, f"no layer {upto}"
        self.activity = signal
        self.filtered: list[Tensor] = []

    @torch.no_grad()
    def down(self, seed: Tensor, unpool: Unpool = unpool_adding, corner: Corner = ZEILER_FERGUS) -> Tensor:
        """Send a signal of the shape of `activity` down; `filtered` then holds what each filter was given."""
        self.filtered = []
        signal = seed
        for step in reversed(self.steps):
            if isinstance(step.module, nn.Conv2d):
                self.filtered.append(signal)
            signal = _down(step, signal, unpool, corner)
        return signal[:, self.order] / self.std


def _layers(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, (AlexNet, VGG)):
        yield from _layers(module.features, "features")
        yield from _layers(module.avgpool, "avgpool")
        yield "flatten", nn.Flatten()
        yield from _layers(module.classifier, "classifier")
    elif isinstance(module, (nn.Sequential, CaffeNet)):  # of Caffe's, those that are one chain
        for key, part in module.named_children():
            yield from _layers(part, f"{name}.{key}".lstrip("."))
    else:
        yield name, module


def _up(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    m: Any = module
    match module:
        case nn.Conv2d():
            return F.conv2d(x, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups), None
        case InnerProduct():
            return x.flatten(1) @ m.weight.T + m.bias, None
        case nn.Linear():
            return x @ m.weight.T + m.bias, None
        case nn.ReLU():
            return torch.where(x > 0, x, torch.zeros_like(x)), None
        case nn.AdaptiveMaxPool2d():
            return F.adaptive_max_pool2d(x, m.output_size, return_indices=True)
        case nn.MaxPool2d():
            return F.max_pool2d(
                x, m.kernel_size, m.stride, m.padding, m.dilation, ceil_mode=m.ceil_mode, return_indices=True
            )
        case nn.AdaptiveAvgPool2d() | nn.AvgPool2d():
            rows, columns = _averages(module, x.shape)
            return rows @ x @ columns.T, None
        case nn.LocalResponseNorm():
            return x / (m.k + m.alpha / m.size * _neighbours(x.square(), m.size)) ** m.beta, None
        case nn.Flatten():
            return x.flatten(1), None
        case nn.Dropout():
            return x, None
    raise NotImplementedError(type(module).__name__)


def _down(step: Step, signal: Tensor, unpool: Unpool, corner: Corner) -> Tensor:
    m: Any = step.module
    match step.module:
        case nn.Conv2d():
            return _transposed(m, step.size, signal)
        case InnerProduct():
            return (signal @ m.weight).view(step.size)
        case nn.Linear():
            return signal @ m.weight
        case nn.ReLU():
            passes = torch.ones_like(signal, dtype=torch.bool)
            passes = passes & (step.source > 0) if corner.mask else passes
            passes = passes & (signal > 0) if corner.rectify else passes
            return torch.where(passes, signal, torch.zeros_like(signal))
        case nn.MaxPool2d() | nn.AdaptiveMaxPool2d():
            assert step.switches is not None
            switches = step.switches if corner.switches else _middles(m, step.size, step.switches)
            return unpool(signal, switches, step.size)
        case nn.AdaptiveAvgPool2d() | nn.AvgPool2d():
            rows, columns = _averages(m, step.size)
            return rows.T @ signal @ columns
        case nn.Flatten():
            return signal.view(step.size)
    if isinstance(step.module, nn.LocalResponseNorm) and corner.lrn:
        return _through_normalisation(m, step.source, signal)
    assert isinstance(step.module, (nn.LocalResponseNorm, nn.Dropout))
    return signal


def _middles(pool: Any, size: torch.Size, switches: Tensor) -> Tensor:
    """Put every switch in the middle of its window, found by listing the places of the window one by one."""
    middles = torch.empty_like(switches)
    for row in range(switches.shape[2]):
        for column in range(switches.shape[3]):
            y, x = (
                _middle(pool, axis, index, size[2 + axis], switches.shape[2 + axis])
                for axis, index in enumerate((row, column))
            )
            middles[:, :, row, column] = y * size[3] + x
    return middles


def _middle(pool: Any, axis: int, index: int, extent: int, count: int) -> int:
    if isinstance(pool, nn.AdaptiveMaxPool2d):
        window = [i for i in range(extent) if index * extent // count <= i < -(-(index + 1) * extent // count)]
    else:
        kernel, stride, padding, dilation = (
            value if isinstance(value, int) else value[axis]
            for value in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        )
        window = [index * stride - padding + dilation * j for j in range(kernel)]
    middle = window[(len(window) - 1) // 2]
    return min((position for position in window if 0 <= position < extent), key=lambda position: abs(position - middle))


def _through_normalisation(norm: Any, x: Tensor, signal: Tensor) -> Tensor:
    """Apply the transposed Jacobian of y_i = x_i d_i^-b, d_i = k + a/n sum of x_j^2 over the neighbours j of i."""
    size, channels = norm.size, x.shape[1]
    total = norm.k + norm.alpha / size * _neighbours(x.square(), size)
    down = signal * total**-norm.beta
    for i in range(channels):
        common = signal[:, i] * x[:, i] * total[:, i] ** (-norm.beta - 1)
        for j in range(max(i - size // 2, 0), min(i + (size - 1) // 2 + 1, channels)):
            down[:, j] -= 2 * norm.alpha * norm.beta / size * x[:, j] * common
    return down


def _transposed(conv: Any, size: torch.Size, signal: Tensor) -> Tensor:
    """Apply the transposed filters, without bias; pixels that no window reached come back as zeros."""
    missing = [
        whole - ((seen - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1)
        for whole, seen, stride, padding, dilation, kernel in zip(
            size[2:], signal.shape[2:], conv.stride, conv.padding, conv.dilation, conv.kernel_size, strict=True
        )
    ]
    return F.conv_transpose2d(signal, conv.weight, None, conv.stride, conv.padding, missing, conv.groups, conv.dilation)


def _averages(module: Any, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Return the matrices that average rows and columns."""
    if isinstance(module, nn.AdaptiveAvgPool2d):
        wanted = module.output_size if isinstance(module.output_size, tuple) else (module.output_size,) * 2
        windows = [
            [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)] for n, m in zip(size[2:], wanted, strict=True)
        ]
    else:
        assert module.padding == 0 and not module.ceil_mode
        kernel, stride = module.kernel_size, module.stride
        windows = [[(i, i + kernel) for i in range(0, n - kernel + 1, stride)] for n in size[2:]]
    matrices = []
    for spans, extent in zip(windows, size[2:], strict=True):
        matrix = torch.zeros(len(spans), extent, dtype=torch.float64)
        for row, (start, stop) in zip(matrix, spans, strict=True):
            row[start:stop] = 1 / (stop - start)
        matrices.append(matrix)
    return matrices[0], matrices[1]


def _neighbours(x: Tensor, size: int) -> Tensor:
    """Sum over `size` neighbouring channels; of an even number one more lies before than after."""
    total = torch.zeros_like(x)
    for k in range(x.shape[1]):
        total[:, k] = x[:, max(k - size // 2, 0) : k + (size - 1) // 2 + 1].sum(1)
    return total


_PASSES: dict[str, Callable[[Any], Tensor]] = {
    "ReluBackward0": lambda node: node._saved_result > 0,
    "HardtanhBackward0": lambda node: (node._saved_self > 0) & (node._saved_self < node._saved_max_val),
    "ThresholdBackward0": lambda node: node._saved_self > 0,
    "ClampMinBackward0": lambda node: node._saved_self >= 0,
    "ClampBackward1": lambda node: (node._saved_self >= 0) & (node._saved_self <= (node._saved_max or torch.inf)),
}


def walk_gradient(
    net: Net, pixels: Tensor, score: Callable[[Tensor], Tensor], rule: Literal["plain", "deconvnet", "guided"]
) -> tuple[Tensor, int]:
    """Return d score / d pixels with another rule at every rectifier of the graph, and how many there are."""
    pixels = pixels.detach().clone().requires_grad_()
    value = score(net(pixels)).sum()
    found, waiting, seen = 0, [value.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
        if node.name() in _PASSES:
            found += 1
            if rule != "plain":
                node.register_hook(_hook(_PASSES[node.name()](node), rule))
    return torch.autograd.grad(value, pixels)[0], found


def _hook(passes: Tensor, rule: str) -> Callable[[Any, Any], tuple[Tensor]]:
    def hook(_: Any, above: Any) -> tuple[Tensor]:
        positive = above[0] * (above[0] > 0)
        return (positive if rule == "deconvnet" else positive * passes,)

    return hook
