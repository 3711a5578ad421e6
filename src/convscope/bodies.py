"""Bodies: what a module is made of, whoever made it: eager, TorchScript, compiled, quantised, exported.

A scripted or traced module runs as one piece: it is a layer, and what is inside it is none.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils._pytree import tree_leaves

from .errors import NetworkError, WeightsError

_CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3, nn.ConvTranspose2d: 2}
_CONVOLVES = ("conv2d", "_convolution", "convolution")


def unwrapped(body: nn.Module) -> nn.Module:
    """Return the module inside wrappers that compute nothing: of `torch.compile`, DataParallel, and the distributed."""
    while True:
        if _is_compiled(body):
            body = body._orig_mod  # type: ignore[assignment]
        elif isinstance(body, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            body = body.module  # type: ignore[assignment]
        else:
            return body


def parts(body: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield every module that Python calls, once, by name: the body itself first, nothing inside TorchScript."""
    seen = set[int]()
    inside = tuple[str, ...]()
    for name, module in body.named_modules(prefix=prefix):
        if name.startswith(inside) or id(module) in seen:
            continue
        seen.add(id(module))
        if isinstance(module, torch.jit.ScriptModule):
            inside = (*inside, f"{name}." if name else "")
        yield name, module
        if inside and not inside[-1]:  # the body itself runs as one piece
            return


def kind(module: nn.Module) -> str:
    """Return the name of a module's class; of a scripted one that of the class which it was made of."""
    return str(getattr(module, "original_name", "")) or type(module).__name__


def in_one_piece(body: nn.Module) -> str:
    """Say why a body's layers cannot be read, and what to do; "" where they can."""
    scripted = [name for name, module in parts(body) if isinstance(module, torch.jit.ScriptModule)]
    if scripted:
        which = f"{scripted[0]!r} of it is" if scripted[0] else "it is"
        return f"{which} TorchScript, which runs as one piece: give Net the module that it was made of"
    if isinstance(body, fx.GraphModule) and not any(map(_calls_module, body.graph.nodes)):
        return (
            "it is a graph of calls without modules: give Net the module that it was made of, or write an exported "
            "program by torch.export.save(program, 'model.pt2') and load it, convscope.load('pt2:model.pt2')"
        )
    return ""


def _calls_module(node: fx.Node) -> bool:
    # What torch.export puts before the first call compares shapes.
    return node.op == "call_module" and node.target != "_guards_fn"


def without_gradient(body: nn.Module) -> str:
    """Say what in a body lets no gradient pass, and what does without one; "" where nothing is known to."""
    forward = "; methods that need none run as they are: occlusion, rise"
    packed = next((name for name, module in parts(body) if "quantized" in type(module).__module__), None)
    if packed is not None:
        return f"its layer {packed!r} computes in int8: give Net the module before quantisation{forward}"
    if any(isinstance(module, torch.jit.ScriptModule) for _, module in parts(body)):
        return f"it holds TorchScript, which may be optimised for inference: give Net the eager module{forward}"
    return ""


# Compiled parts ---------------------------------------------------------------------------------------------------


def holds_compiled(body: nn.Module) -> bool:
    """Whether any part of a body runs as `torch.compile` made it."""
    return any(_is_compiled(part) or getattr(part, "_compiled_call_impl", None) is not None for part in body.modules())


def _is_compiled(module: nn.Module) -> bool:
    # Whoever has compiled a module has imported this; to import it takes seconds.
    compiler = sys.modules.get("torch._dynamo.eval_frame")
    return compiler is not None and isinstance(module, compiler.OptimizedModule)


class _Switch:
    """Something of the whole process that is changed while anybody needs it so, and changed back by the last."""

    def __init__(self, change: Callable[[], AbstractContextManager[Any]]) -> None:
        self._change, self._lock, self._users = change, threading.Lock(), 0
        self._changed: AbstractContextManager[Any] = nullcontext()

    @contextmanager
    def __call__(self) -> Generator[None]:
        with self._lock:
            if not self._users:
                self._changed = self._change()
                self._changed.__enter__()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._changed.__exit__(None, None, None)


eagerly = _Switch(lambda: torch.compiler.set_stance("force_eager"))
"""Run compiled parts as they were written, inside the block: what is compiled cannot be read or redirected."""


@contextmanager
def _without_cudnn() -> Generator[None]:
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


without_cudnn = _Switch(_without_cudnn)
"""Leave cuDNN out of the passes inside the block: its recurrent layers have no backward pass in eval mode."""


@contextmanager
def surroundings(body: nn.Module, device: torch.device, *, holds_compiled: bool) -> Generator[None]:
    """Put in force what a body needs while it runs on a device; `holds_compiled` as the function says of it."""
    with ExitStack() as stack:
        if holds_compiled:
            stack.enter_context(eagerly())
        differentiable = device.type == "cuda" and torch.is_grad_enabled()
        if differentiable and any(isinstance(module, nn.RNNBase) for module in body.modules()):
            stack.enter_context(without_cudnn())
        yield


# Weights ----------------------------------------------------------------------------------------------------------


def weights(body: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield everything that a body has learnt as plain tensors by name: parameters, buffers, and what is packed away.

    Quantised weights are packed in tuples, those of a frozen TorchScript module are constants of its graph.
    """
    for name, value in body.state_dict().items():
        for tensor in (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)):
            yield from ((name, plain) for plain in _plain(tensor))
    for name, module in parts(body):
        if isinstance(module, torch.jit.ScriptModule) and not any(True for _ in module.parameters()):
            yield from ((name, plain) for constant in _constants(module) for plain in _plain(constant))


def first_float(body: nn.Module) -> Tensor:
    """Return a tensor whose type and device a body computes in: its first floating point weight."""
    tensors = (t for t in chain(body.parameters(), body.buffers()) if t.is_floating_point())  # most need only the first
    found = next(tensors, None)
    if found is not None:
        return found
    scripted = (module for _, module in parts(body) if isinstance(module, torch.jit.ScriptModule))
    constants = (t for module in scripted for t in _constants(module) if t.is_floating_point())
    return next(constants, torch.zeros(()))


def check_ready(body: nn.Module, name: str) -> None:
    """Refuse a body whose weights are not there yet. Raises WeightsError."""
    for part, module in parts(body):
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():  # type: ignore[misc]
            raise WeightsError(
                f"{name} has a layer whose size is not known before it has run ({part!r}, {kind(module)}): run it "
                "once before you give it to Net, as in body(torch.zeros(1, 3, 224, 224)), and load its weights"
            )


def check_data(body: nn.Module, name: str) -> None:
    """Refuse to run a body without data. Raises WeightsError."""
    bare = next((key for key, value in body.named_parameters() if value.is_meta), None)
    if bare is not None and not any(hasattr(module, "_hf_hook") for module in body.modules()):
        raise WeightsError(
            f"the weights of {name} are without data, {bare!r} among them (device 'meta'): give it numbers first: "
            "body.to_empty(device='cpu') and body.load_state_dict(...)"
        )


def _plain(tensor: Tensor) -> list[Tensor]:
    if tensor.is_quantized:
        per_channel = tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_affine_float_qparams)
        scale = tensor.q_per_channel_scales() if per_channel else torch.tensor(tensor.q_scale())
        zero = tensor.q_per_channel_zero_points() if per_channel else torch.tensor(tensor.q_zero_point())
        return [tensor.int_repr(), scale, zero]
    return [tensor if tensor.layout == torch.strided else tensor.to_dense()]


def _constants(module: Any) -> Iterator[Tensor]:
    """Yield the tensors that are written into the graph of a TorchScript module."""
    for node in _nodes(module.graph):
        if node.kind() == "prim::Constant" and node.hasAttribute("value") and node.kindOf("value") == "t":
            yield node.t("value")


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.nodes():
        yield node
        for block in node.blocks():
            yield from _nodes(block)


# What a body reads ------------------------------------------------------------------------------------------------


def first_channels(body: nn.Module) -> int:
    """Return how many channels the first convolution of pictures reads, as modules are listed; 3 without one."""
    for module in body.modules():
        if _dimensions(module) == 2 and not isinstance(module, nn.ConvTranspose2d) and "Transpose" not in kind(module):
            channels = getattr(module, "in_channels", None)  # a traced module keeps its weights alone
            return channels if isinstance(channels, int) else int(module.weight.shape[1])  # type: ignore[union-attr]
        kernel = next((kernel for kernel in _graph_kernels(module) if kernel.ndim == 4), None)
        if kernel is not None:
            return kernel.shape[1]
    return 3


def reads_instead(body: nn.Module) -> str:
    """Say what a body reads that is no picture, and how it can all the same; "" where it reads pictures."""
    dimensions = next((number for module in body.modules() if (number := _dimensions(module))), 2)
    if dimensions == 3:
        return (
            "its first convolution is a Conv3d, so that it reads volumes: say how a picture becomes one, as in "
            "Net(..., channels=16, call=lambda body, pixels: body(pixels[:, None])) for 16 slices of one channel each"
        )
    if dimensions == 1:
        return (
            "its first convolution is a Conv1d, so that it reads signals: say how a picture becomes one, as in "
            "Net(..., size=(1, 400), channels=2, call=lambda body, pixels: body(pixels[:, :, 0]))"
        )
    return ""


def with_forward(body: nn.Module) -> str:
    """Say what to give instead of a body that only holds another, as a class for training may."""
    sizes = {name: sum(value.numel() for value in part.parameters()) for name, part in body.named_children()}
    name, made = max(sizes, key=sizes.__getitem__, default=""), type(body).__name__
    alone = f", or give the network alone, as in def build(): return {made}(...).{name}" if name else ""
    return f"define it in {made}, as what becomes of a picture{alone}"


def _dimensions(module: nn.Module) -> int:
    """Return over how many dimensions a module convolves, or 0; scripted and quantised ones are known by name."""
    named = kind(module)
    found = (number for base, number in _CONVOLUTIONS.items() if isinstance(module, base) or named == base.__name__)
    return next(found, 0)


def _graph_kernels(body: nn.Module) -> Iterator[Tensor]:
    """Yield the kernels of convolutions that are calls in a graph, in order."""
    if isinstance(body, fx.GraphModule):
        for node in body.graph.nodes:
            name = str(getattr(node.target, "__name__", node.target)).partition(".")[0]
            if name in _CONVOLVES and isinstance(node.args[1], fx.Node) and node.args[1].op == "get_attr":
                value: Any = body
                for part in str(node.args[1].target).split("."):
                    value = getattr(value, part)
                yield value
    elif isinstance(body, torch.jit.ScriptModule):
        for node in _nodes(body.graph):  # type: ignore[attr-defined]
            if node.kind().rpartition("::")[2] in _CONVOLVES:
                weight = list(node.inputs())[1].node()
                if weight.kind() == "prim::Constant":
                    yield weight.t("value")


def check_module(body: object) -> None:
    """Raise NetworkError, which says what to do, unless something is a module."""
    if isinstance(body, nn.Module):
        return
    if isinstance(body, torch.export.ExportedProgram):
        raise NetworkError(
            "Net wraps a torch.nn.Module, not an exported program: write it, torch.export.save(program, 'model.pt2'), "
            "and load it, convscope.load('pt2:model.pt2')"
        )
    raise NetworkError(
        f"Net wraps a torch.nn.Module, not {type(body).__name__}; to load one by name: convscope.load(...)"
    )
