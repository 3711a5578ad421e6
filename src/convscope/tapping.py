"""tap: read layers by name during one forward pass, and stop at the last one needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from .errors import LayerError
from .net import Net
from .sharing import hooked
from .tracing import OUTPUT, PIXELS


class _Enough(BaseException):
    """Leaves the forward pass once every layer has been read; not an Exception, so that no model swallows it."""


def tap(
    net: Net, pixels: Tensor, layers: Iterable[str | int], *, leaf: str | int | Sequence[str | int] | None = None
) -> dict[str, Tensor]:
    """Read layers during one forward pass that stops after the last of them.

    Args:
        net: the network.
        pixels: (n, c, h, w) in [0, 1].
        layers: names as in `net.layers`, numbers of convolutions, "" for the output, PIXELS for the pixels themselves.
        leaf: a layer to begin the autograd graph at: it is detached and requires grad, so that a backward pass to it
            costs nothing below it. Of several, one that depends on another stays connected to it.

    Returns the layers by the names asked for. What is kept is safe from in-place operations that follow.
    Raises LayerError when a layer does not exist, runs several times or is not reached.
    """
    leaves = () if leaf is None else (leaf,) if isinstance(leaf, (str, int)) else tuple(leaf)
    wanted = {str(name): name if name in (OUTPUT, PIXELS) else net.layer(name).name for name in (*layers, *leaves)}
    inside = set(wanted.values()) - {OUTPUT, PIXELS}
    reader = _Reader(inside, {wanted[str(name)] for name in leaves}, whole=OUTPUT in wanted.values())
    if inside or reader.whole:
        with net.blaming_the_size(pixels):
            reader.read(net, pixels)
    kept = reader.kept | {PIXELS: pixels}
    missing = [name for name in wanted.values() if name not in kept]
    if missing:
        raise LayerError(f"{net.name} did not run layer {missing[0]!r} in this forward pass")
    return {asked: kept[name] for asked, name in wanted.items()}


class _Reader:
    def __init__(self, names: set[str], leaves: set[str], *, whole: bool) -> None:
        self.names, self.leaves, self.whole = names, leaves, whole
        self.kept: dict[str, Tensor] = {}
        self.calls: dict[str, int] = {}

    def read(self, net: Net, pixels: Tensor) -> None:
        modules = sorted({name.partition("#")[0] for name in self.names})
        with hooked((net.body.get_submodule(module), self._hook(module)) for module in modules):
            try:
                output = net.run(pixels)
            except _Enough:
                return
        if self.whole:
            self.kept[OUTPUT] = output

    def _hook(self, module: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            self.calls[module] = self.calls.get(module, 0) + 1
            name = module if module in self.names else f"{module}#{self.calls[module]}"
            if name not in self.names:
                return None
            return self._keep(name, output)

        return hook

    def _keep(self, name: str, output: Any) -> Tensor | None:
        if not isinstance(output, Tensor):
            raise LayerError(f"layer {name!r} returns {type(output).__name__}, not a tensor: ask for a layer inside it")
        last = not self.whole and len(self.kept) == len(self.names) - 1
        if name in self.leaves:
            above = output.requires_grad and not self.leaves.isdisjoint(self.kept)
            self.kept[name] = output.clone() if above else output.detach().clone().requires_grad_()
            onward = None if last else self.kept[name].clone()
        else:
            # The copy is kept and the original goes on: whatever works in place later cannot reach what was read.
            self.kept[name] = output if last else output.clone()
            onward = None
        if last:
            raise _Enough
        return onward
