"""Which weights of a network that somebody else's code builds are random: a watch over what writes into tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_DRAWS_INTO = frozenset(
    """uniform_ normal_ kaiming_uniform_ kaiming_normal_ random_ bernoulli_ exponential_ cauchy_ log_normal_
    geometric_""".split()
)
_DRAWS = frozenset("rand randn randint rand_like randn_like randint_like normal bernoulli".split())
_SETS = frozenset("zero_ fill_ constant_ eye_ dirac_".split())


class WatchDraws(TorchFunctionMode):
    """Note which tensors were filled with random numbers inside the block and not overwritten since.

    Weights that are read from a file are copied over what was drawn, or take its place. Random numbers that go through
    arithmetic before they become weights (`0.02 * torch.randn(...)`) are not recognised.
    """

    def __init__(self) -> None:
        super().__init__()
        # The tensor is kept with its address, so that no other can get the same one.
        self._drawn: dict[int, Tensor] = {}

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", "")
        # Functions of nn.init give their tensor by name.
        written = result if name in _DRAWS else args[0] if args else (kwargs or {}).get("tensor")
        if isinstance(written, Tensor) and not written.is_meta:
            if name in _DRAWS or name in _DRAWS_INTO or (name == "copy_" and self._is_drawn(args[1])):
                self._drawn[_address(written)] = written.detach()
            elif name in _SETS or name == "copy_":
                self._drawn.pop(_address(written), None)
        return result

    def _is_drawn(self, value: Any) -> bool:
        return isinstance(value, Tensor) and not value.is_meta and _address(value) in self._drawn

    def says(self, module: nn.Module, seed: int) -> str:
        """Say which of a module's weights are random: "random weights, seed 0"; "" where none are.

        Weights are parameters of two dimensions and more: biases and scales often begin as constants.
        """
        weights = [parameter for parameter in module.parameters() if parameter.ndim > 1]
        drawn = sum(map(self._is_drawn, weights))
        if not drawn:
            return ""
        share = "" if drawn == len(weights) else f" in {drawn} of {len(weights)} layers"
        return f"random weights{share}, seed {seed}"


def _address(tensor: Tensor) -> int:
    with torch._C.DisableTorchFunction():
        return tensor.data_ptr() if tensor.layout == torch.strided else id(tensor)
