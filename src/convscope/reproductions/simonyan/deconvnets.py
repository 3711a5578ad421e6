"""Section 4: where the deconvnet is the gradient, and where it is not, checked on the network at hand.

With X the activity and R the signal that comes back from the layer above,

    convolution    dS/dX = R * flipped filters               the deconvnet's: the same
    rectifier      dS/dX = R 1[X > 0]                        the deconvnet's: R 1[R > 0]
    max pooling    dS/dX(s) = sum over windows p with their maximum at s of R(p), the deconvnet's: the same, by switches

Each is compared with what autograd computes, in double precision, with the deconvnet's part written out.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ...context import listen
from ...drawing.tables import Cell, Column, Table
from ...errors import RuleError
from ...layers import picture_layers
from ...net import Net
from ...objectives import as_objective
from ...predictions import first_choices
from ...ranks import rank_correlation
from ...running import attribute
from ...sharing import hooked
from ...studies.intervals import Interval, bootstrap
from ..claims import Claim, Statement
from ..registration import Found, experiment
from ..subject import Subject

_ROUNDING, _OTHER = 1e-10, 0.01

_CONVOLUTION = Statement(
    "convolution-identical",
    "At a convolution the deconvnet's signal is the gradient",
    rule="at every convolution, filtering by the flipped filters, written out as zeros between the signal's values and "
    "a correlation, differs from autograd's gradient by at most 1e-10 of its norm (double precision).",
    paper="the two formulas are the same.",
)
_POOLING = Statement(
    "pooling-identical",
    "At a max pooling layer the deconvnet's switches are the gradient",
    rule="at every max pooling layer, sending each window's signal to where its maximum was, and adding where windows "
    "share one, differs from autograd's gradient by at most 1e-10 of its norm.",
    paper="the two formulas are the same.",
)
_RECTIFIER = Statement(
    "rectifier-differs",
    "At a rectifier the two differ",
    rule="at every rectifier, for the signal that the top-1 class sends back, R 1[R > 0] differs from R 1[X > 0] by "
    "more than 1% of its norm.",
    paper="the sign of the signal decides in one, the sign of the activity in the other.",
)
_ONLY = Statement(
    "only-rectifiers",
    "But for rectifiers the deconvnet is the gradient",
    rule="for the top-1 class of every picture, the deconvnet with the rectifiers' own mask in the place of its rule "
    "gives the gradient within 0.01% of its norm, and with its own rule it differs by more than 1% (single precision).",
    paper="the deconvnet corresponds to back-propagation through the network, except for the rectifiers.",
)


@experiment(
    "simonyan",
    50,
    "Section 4",
    "The deconvnet and the gradient",
    did="it was shown by formulas that a deconvnet reconstructs by the gradient at convolutions and max pooling, and "
    "by another rule at rectifiers: the gradient is its generalisation to any layer.",
    differs="not formulas, but numbers of the network at hand. Contrast normalisation, batch normalisation and "
    "residual sums are not in the paper; the deconvnet passes through contrast normalisation unchanged.",
    claims=(_CONVOLUTION, _POOLING, _RECTIFIER, _ONLY),
    work=0.5,
)
def deconvnets(subject: Subject) -> Found:
    """Compare the gradient with the deconvnet, layer by layer and for the whole network."""
    data = subject.some(24, 6)
    _, first = next(data.batches(1))
    parts = list(_parts(subject.net, first, subject.seed))
    claims = [
        _identical(_CONVOLUTION, [each for each in parts if each.kind == "convolution"], "convolution"),
        _identical(_POOLING, [each for each in parts if each.kind == "max pooling"], "max pooling layer"),
        _differs([each for each in parts if each.kind == "rectifier"]),
    ]
    with listen():  # how many rectifiers were rewritten
        whole, words = _whole(subject, data)
    did = f"One picture for the layers, {len(data)} for the whole network. {words}".strip()
    return Found(did, [*claims, whole], tables=[_table(parts)] if parts else [])


@dataclass(frozen=True)
class _Part:
    """How far the deconvnet's part lies from the gradient at a layer, relative to its norm.

    Of a rectifier also at which shares of the positions only one of both passes the signal on.
    """

    layer: str
    kind: str
    deviation: float
    gradient_only: float | None = None
    deconvnet_only: float | None = None


def _parts(net: Net, pixels: Tensor, seed: int) -> Iterator[_Part]:
    """Compare at every convolution, max pooling layer and rectifier that is a module, on what it was given."""
    found = {layer.name: layer.module for layer in picture_layers(net) if layer.leaf and "#" not in layer.name}
    kinds = (nn.Conv2d, nn.MaxPool2d, nn.ReLU, nn.ReLU6)
    modules: dict[str, nn.Module] = {name: module for name, module in found.items() if isinstance(module, kinds)}
    given, answered = _passed(net, pixels, modules)
    generator = torch.Generator().manual_seed(seed)
    for name, module in modules.items():
        if isinstance(module, (nn.ReLU, nn.ReLU6)):
            value, signal = (each.double().cpu() for each in answered[name])
            yield _rectifier(name, value, signal, 6.0 if isinstance(module, nn.ReLU6) else torch.inf)
            continue
        own = cast(nn.Conv2d | nn.MaxPool2d, copy.deepcopy(module).double().cpu())
        call = _Call(own, given[name].double().cpu())
        signal = torch.randn(call.output.shape, generator=generator, dtype=torch.float64)
        (gradient,) = torch.autograd.grad(call.output, call.x, signal)
        plain = call.x.detach()
        with torch.inference_mode():
            if isinstance(own, nn.MaxPool2d):
                yield _Part(name, "max pooling", _relative(switched(own, plain, signal), gradient))
            elif call.convolution is not None:
                yield _Part(name, "convolution", _relative(filtered(call.convolution, plain, signal), gradient))


@dataclass(frozen=True)
class Convolution:
    """What a convolution is, once all that is padded around it is part of what it reads."""

    weight: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


class _Call(TorchFunctionMode):
    """The call of torch by which a module computes, since a module may pad by itself: what it reads and gives."""

    def __init__(self, module: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.convolution: Convolution | None = None
        self.x = x.requires_grad_()
        with torch.enable_grad(), self:
            self.output = cast(Tensor, module(self.x))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.conv2d:
            return func(*args, **(kwargs or {}))
        given = _arguments(*args, **(kwargs or {}))
        if not isinstance(given["padding"], str):
            stride, padding, dilation = (_pair(given[name]) for name in ("stride", "padding", "dilation"))
            self.convolution = Convolution(given["weight"].detach(), stride, padding, dilation, given["groups"])
            self.x = given["input"].detach().requires_grad_()
            given["input"] = self.x
        return func(**given)


def _arguments(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> dict[str, Any]:
    """Return the arguments of a call of `torch.conv2d` by their names."""
    return dict(locals())


def _pair(value: Any) -> tuple[int, int]:
    found = tuple(int(each) for each in value) if isinstance(value, (tuple, list)) else (int(value),)
    return (found[0], found[-1])


def _passed(
    net: Net, pixels: Tensor, modules: dict[str, nn.Module]
) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
    """Return what modules were given, and of rectifiers their activity and the signal of the top-1 class there."""
    given, answered, signals = dict[str, Tensor](), dict[str, Tensor](), dict[str, Tensor]()

    def reading(name: str) -> Any:
        def read(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if isinstance(module, (nn.ReLU, nn.ReLU6)):
                answered[name] = output
            else:
                given[name] = inputs[0].detach().clone()

        return read

    with torch.enable_grad(), hooked((module, reading(name)) for name, module in modules.items()):
        leaf = pixels.detach().clone().requires_grad_()
        score = as_objective(net, first_choices(net, pixels)[0])(net, leaf).sum()
    for name, value in answered.items():
        (signal,) = torch.autograd.grad(score, value, retain_graph=True, allow_unused=True, materialize_grads=True)
        answered[name], signals[name] = value.detach(), signal
    return given, {name: (value, signals[name]) for name, value in answered.items()}


def filtered(convolution: Convolution, x: Tensor, signal: Tensor) -> Tensor:
    """Filter a signal by a convolution's flipped filters, to the size of what the convolution reads.

    Zeros go between the signal's values, as many as the stride steps over, and around it.
    """
    sides, stride = x.shape[2:], convolution.stride
    spread = signal.new_zeros(
        *signal.shape[:2], *((n - 1) * step + 1 for n, step in zip(signal.shape[2:], stride, strict=True))
    )
    spread[:, :, :: stride[0], :: stride[1]] = signal
    edges = list[int]()
    for axis in (1, 0):
        reach = convolution.dilation[axis] * (convolution.weight.shape[2 + axis] - 1)
        before = reach - convolution.padding[axis]
        edges += [before, sides[axis] + reach - spread.shape[2 + axis] - before]
    weight = convolution.weight.unflatten(0, (convolution.groups, -1)).transpose(1, 2).flatten(0, 1).flip(2, 3)
    return F.conv2d(F.pad(spread, edges), weight, dilation=convolution.dilation, groups=convolution.groups)


def switched(module: nn.MaxPool2d, x: Tensor, signal: Tensor) -> Tensor:
    """Send the signal of every window to where its maximum was; where windows share one, signals add up."""
    _, places = F.max_pool2d(
        x, module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode, return_indices=True
    )
    sent = torch.zeros_like(x).flatten(2)
    return sent.scatter_add_(2, places.flatten(2), signal.flatten(2)).reshape(x.shape)


def _rectifier(name: str, value: Tensor, signal: Tensor, high: float) -> _Part:
    """Compare both rules, of what a rectifier answered: that tells where it was active, in place or not."""
    active, positive = (value > 0) & (value < high), signal > 0
    reached = signal != 0
    count = max(1, int(reached.sum()))
    only = [float((reached & each).sum()) / count for each in (active & ~positive, positive & ~active)]
    return _Part(name, "rectifier", _relative(signal * positive, signal * active), *only)


def _relative(written: Tensor, gradient: Tensor) -> float:
    return float((written - gradient).norm() / gradient.norm().clamp(min=1e-300))


def _tiny(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def _identical(statement: Statement, parts: list[_Part], word: str) -> Claim:
    if not parts:
        return statement.unjudged(f"the network has no {word} that is a module of its own")
    worst = max(each.deviation for each in parts)
    of = f"{len(parts)} {word}{'s' * (len(parts) > 1)}"
    return statement.judged(worst <= _ROUNDING, f"At most {_tiny(worst)} at {of}.")


def _differs(parts: list[_Part]) -> Claim:
    if not parts:
        return _RECTIFIER.unjudged("the network has no rectifier that is a module of its own")
    apart = [each.deviation for each in parts]
    alone = [sum(each.gradient_only or 0 for each in parts), sum(each.deconvnet_only or 0 for each in parts)]
    shares = [each / len(parts) for each in alone]
    return _RECTIFIER.judged(
        min(apart) > _OTHER,
        f"{min(apart):.0%} to {max(apart):.0%} of the norm at {len(parts)} rectifiers; of the positions that signal "
        f"reaches, {shares[0]:.0%} pass only in the gradient, {shares[1]:.0%} only in the deconvnet.",
    )


def _whole(subject: Subject, data: Any) -> tuple[Claim, str]:
    """Compare both for the top-1 class of pictures, with the deconvnet's rule and with the rectifiers' own mask."""
    net = subject.net
    same, apart, alike = list[float](), list[float](), list[float]()
    try:
        for _, pixels in data.batches(1):
            of = first_choices(net, pixels)[0]
            gradient = attribute(net, pixels, "gradient", of=of)
            masked = attribute(net, pixels, "backward", of=of, mask=True, rectify=False, lrn=False)
            own = attribute(net, pixels, "deconvnet", of=of)
            same.append(_relative(masked, gradient))
            apart.append(_relative(own * gradient.norm() / own.norm().clamp(min=1e-30), gradient))
            alike.append(rank_correlation(*(each.abs().sum(1) for each in (own, gradient))))
    except RuleError as error:
        return _ONLY.unjudged(f"the deconvnet is not defined there: {error}"), ""
    found = bootstrap(lambda rows: sum(alike[row] for row in rows) / len(rows), len(alike), seed=subject.seed)
    claim = _ONLY.judged(
        max(same) <= 1e-4 and min(apart) > _OTHER,
        f"With the rectifiers' mask at most {_tiny(max(same))} apart, with the deconvnet's rule {min(apart):.0%} to "
        f"{max(apart):.0%}, brought to one norm.",
        numbers={"rank correlation": found},
    )
    return claim, f"Rank correlation of the magnitudes of both maps: {_plain(found)}."


def _plain(interval: Interval) -> str:
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]".replace("-", "−")


_MOST = 24


def _table(parts: list[_Part]) -> Table:
    columns = (
        Column("layer", unbroken=True),
        Column("kind"),
        Column("deviation", "number", format=".1e"),
        Column("gradient_only", "number", "only in the gradient", ".0%"),
        Column("deconvnet_only", "number", "only in the deconvnet", ".0%"),
    )
    step = -(-len(parts) // _MOST)
    rows: list[tuple[Cell, ...]] = [
        (each.layer, each.kind, each.deviation, each.gradient_only, each.deconvnet_only) for each in parts[::step]
    ]
    note = (
        "deviation: of the deconvnet's part from the gradient, relative to its norm; only in: of the positions that a "
        "signal reaches, the share that passes it on in one of both alone"
    )
    note += f"; every {step}th of {len(parts)} layers is shown" if step > 1 else ""
    return Table(columns, tuple(rows), title="The deconvnet's signal against the gradient, layer by layer", note=note)
