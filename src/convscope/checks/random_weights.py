"""Random weights: copies of a network whose layers lose what they have learnt."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..errors import LayerError, NetworkError, OptionError, nearest
from ..net import Net

Initialisation = Literal["he", "reset", "permuted"]

_PARAMETRIZATIONS = "parametrizations"


def randomised(
    net: Net, layers: Collection[str] | None = None, *, weights: Initialisation = "he", seed: int = 0
) -> Net:
    """Copy a network and give some layers random weights; the network itself is left as it is.

    Args:
        net: the network.
        layers: names as `weighted_layers` gives them; all of them by default.
        weights: "he" draws weights of variance 2 / inputs without biases (He et al. 2015), which keeps signals of one
            size through rectified layers; "reset" calls the modules' own `reset_parameters`, under which they shrink;
            "permuted" shuffles every tensor, which keeps the distribution of the trained weights. Normalisations are
            reset, their statistics too; a module without `reset_parameters` is permuted.
        seed: seed of the weights; a layer gets the same ones whichever others are randomised with it, on any device.

    Raises LayerError for a layer without weights, NetworkError when the network cannot be copied.
    """
    existing = weighted_layers(net)
    chosen = existing if layers is None else tuple(layers)
    for name in chosen:
        if name not in existing:
            raise LayerError(f"{net.name} has no layer {name!r} with weights; nearest: {nearest(name, existing)}")
    twin = twin_of(net)
    randomise(twin, [(existing.index(name), name) for name in chosen], weights, seed)
    twin.note = f"random weights in {'all' if len(chosen) == len(existing) else len(chosen)} layers, seed {seed}"
    return twin


def weighted_layers(net: Net) -> tuple[str, ...]:
    """List the modules that hold weights of their own, the output's first, the picture's last."""
    positions: dict[str, int] = {}
    for position, name in enumerate(net.layers):
        positions[name.partition("#")[0]] = position
    owners = [
        (_call_of(name, positions), number, name)
        for number, (name, module) in enumerate(net.body.named_modules())
        if any(True for _ in module.parameters(recurse=False))
    ]
    if not owners:
        raise NetworkError(f"{net.name} has no weights: there is nothing to randomise")
    return tuple(name for _, _, name in sorted(owners, reverse=True))


def _call_of(name: str, positions: dict[str, int]) -> int:
    """The position of a module in the forward pass; one that is never called itself has that of its parent."""
    while name and name not in positions:
        name = name.rpartition(".")[0]
    return positions.get(name, len(positions))


def twin_of(net: Net) -> Net:
    """Copy a network. Raises NetworkError where it cannot be copied."""
    try:
        with torch.no_grad():  # or what TorchScript copies would be computed from the original
            return copy.deepcopy(net)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise NetworkError(f"{net.name} cannot be copied, and only a copy may lose its weights: {error}") from None


def randomise(net: Net, layers: Sequence[tuple[int, str]], weights: Initialisation, seed: int) -> None:
    """Give random weights to numbered layers of a network, in place."""
    if weights not in ("he", "reset", "permuted"):
        raise OptionError(f"weights is 'he', 'reset' or 'permuted', not {weights!r}")
    modules = dict(net.body.named_modules())
    for number, name in layers:
        module = modules[name]
        generator = torch.Generator().manual_seed(seed * 100_003 + number)
        own = callable(getattr(module, "reset_parameters", None))
        if weights == "permuted" or not own or _PARAMETRIZATIONS in dict(module.named_children()):
            _permute(module, generator)
            continue
        _reset(module, generator)
        if weights == "he":
            _rescale(module)


def _reset(module: nn.Module, generator: torch.Generator) -> None:
    """Call a module's own initialisation, on the CPU so that every device gets the same numbers."""
    device = next(module.parameters(recurse=False)).device
    with torch.no_grad(), _Drawing(generator):
        module.cpu()
        module.reset_parameters()  # type: ignore[operator]
        module.to(device)


class _Drawing(TorchFunctionMode):
    """Take the random numbers of this thread from a generator: torch's own is the whole process's."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in _DRAW or "generator" in kwargs:
            kwargs["generator"] = self.generator
        return func(*args, **kwargs)


_DRAW = frozenset(
    "rand randn randint randperm normal bernoulli uniform_ normal_ bernoulli_ exponential_ random_".split()
)


def _rescale(module: nn.Module) -> None:
    """Bring weights to He et al.'s variance, 2 / inputs, and clear biases, unless it is a normalisation."""
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            length = float(parameter.float().square().mean().sqrt())
            if parameter.ndim > 1 and length:
                parameter.mul_((2 / parameter[0].numel()) ** 0.5 / length)
            elif any(other.ndim > 1 for other in module.parameters(recurse=False)):
                parameter.zero_()


def _permute(module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
