"""Backward rules: change how rectifiers send gradient back, for any model, without touching it.

A rule sees the gradient above a rectifier (what arrives) and below it (what plain backpropagation would pass on) and
says what is passed on. Rules are correct or loud: when the backward pass begins, the whole autograd graph is checked,
and a rectifier that was not rewritten, or an activation for which the rule has no meaning, is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, Function
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from .errors import RuleError

Rule = Callable[[Tensor, Tensor], Tensor]


def deconvnet(below: Tensor, above: Tensor) -> Tensor:
    """Rectify the signal itself, whatever the forward pass did (Zeiler & Fergus, sec. 2.1)."""
    return above.clamp(min=0)


def guided(below: Tensor, above: Tensor) -> Tensor:
    """Pass only positive gradient, and only through active units (Springenberg et al., arXiv:1412.6806)."""
    return below.clamp(min=0)


_MARK = "convscope rule"
_INPLACE = frozenset({"relu", "relu6", "clamp", "clamp_min", "hardtanh", "threshold"})
_UNDEFINED = {
    "SiluBackward0": "SiLU",
    "GeluBackward0": "GELU",
    "LeakyReluBackward0": "leaky ReLU",
    "PreluKernelBackward0": "PReLU",
    "RreluWithNoiseBackward0": "RReLU",
    "EluBackward0": "ELU",
    "CeluBackward0": "CELU",
    "HardswishBackward0": "hard swish",
    "MishBackward0": "Mish",
    "SoftplusBackward0": "softplus",
    "MaximumBackward0": "an element-wise maximum",
}

# Without a rectifier the rule changes nothing, which is right only where all else is linear in the picture.
_LINEAR = frozenset(
    f"{name}Backward"
    for name in """Convolution Addmm Mm Bmm Linear NativeBatchNorm CudnnBatchNorm MaxPool2DWithIndices AvgPool2D
    AdaptiveAvgPool2D Mean Sum Add Sub Div Neg Cat View UnsafeView Reshape ReshapeAlias Flatten Squeeze Unsqueeze T
    Transpose Permute Select Slice Index Gather Clone ToCopy ConstantPadNd Expand Split Alias _PassBack""".split()
)


class relu_rule(TorchFunctionMode):  # noqa: N801  reads as a verb in `with relu_rule(deconvnet):`
    """Rewrite the backward pass of every rectifier that runs inside the `with` block.

    Rectifiers are ReLU, ReLU6, clamp(min=0), hardtanh(0, b) and threshold(0, 0) in every spelling: module, function,
    method or in place. `skip_lrn=True` also sends gradient past local response normalisation unchanged, as Zeiler and
    Fergus do. Run the forward and the backward pass inside the block: the check is made when the backward pass begins.
    Nothing is left behind: a rule hangs on the autograd nodes of one forward pass and goes with them.

    After `torch.autograd.grad` inside the block, `report` says "57 of 57 rectifiers rewritten", and `switches` counts
    the max poolings on the way down.

    Raises RuleError at the backward pass when a rectifier was not rewritten (scripted, compiled or checkpointed code),
    when the network uses an activation for which the rule is not defined, or when it has no rectifier at all and yet
    is not linear.
    """

    def __init__(self, rule: Rule, *, skip_lrn: bool = False) -> None:
        super().__init__()
        self.rule = rule
        self.skip_lrn = skip_lrn
        self.report = ""
        self.switches = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.autograd.grad, Tensor.backward):
            self._check(args[0] if args else kwargs["outputs"])
        output = func(*args, **kwargs)
        if not isinstance(output, Tensor) or output.grad_fn is None:
            return output
        if func is torch.nn.functional.local_response_norm and self.skip_lrn:
            return _PassBack.apply(args[0] if args else kwargs["input"], output)
        if _rectifies(output.grad_fn):
            self._rewrite(output.grad_fn)
        elif output._base is not None and getattr(func, "__name__", "").rstrip("_") in _INPLACE:
            raise RuleError(
                "an in-place ReLU works on a view, where its backward pass cannot be rewritten: use inplace=False there"
            )
        return output

    def _rewrite(self, node: Node) -> None:
        if _marked(node):
            return
        _metadata(node)[_MARK] = True
        rule = self.rule

        def hook(below: Any, above: Any) -> Any:
            if below[0] is None:
                return None
            return (rule(below[0], above[0]), *below[1:])

        node.register_hook(hook)

    def _check(self, outputs: Any) -> None:
        roots = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        rewritten = total = 0
        curved = ""
        self.switches = 0
        for node in _graph([root.grad_fn for root in roots]):
            name = node.name()
            self.switches += "MaxPool" in name
            if name in _UNDEFINED:
                raise RuleError(
                    f"the network uses {_UNDEFINED[name]}, where {self._name} is not defined: it is a rule for ReLU. "
                    "Methods that follow the true gradient (gradient, saliency, grad_cam) and occlusion work"
                )
            if _opaque(node):
                raise RuleError(
                    f"the network hides its rectifiers in {name} (compiled, scripted, checkpointed or custom code): "
                    f"{self._name} cannot be applied there. Use the plain eager module"
                )
            if _rectifies(node):
                total += 1
                rewritten += _marked(node)
            elif name != "torch::autograd::AccumulateGrad" and name.rstrip("0123456789") not in _LINEAR:
                curved = name
        if total == 0 and curved:
            raise RuleError(
                f"no ReLU lies between the question and the picture ({curved} does): "
                f"{self._name} would be the plain gradient, which `gradient` and `saliency` show"
            )
        if rewritten < total:
            raise RuleError(
                f"only {rewritten} of {total} rectifiers could be rewritten by {self._name}: "
                "the others run in scripted or compiled code. Use the plain eager module"
            )
        self.report = f"{rewritten} of {total} rectifiers rewritten" if total else "no rectifier on the way down"

    @property
    def _name(self) -> str:
        return f"the {getattr(self.rule, '__name__', 'backward')} rule"


class _PassBack(Function):
    """The value of one tensor forward, the gradient of another backward."""

    @staticmethod
    def forward(ctx: Any, through: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def _metadata(node: Node) -> dict[str, Any]:
    return node.metadata  # type: ignore[return-value]  # a property at run time, a method in torch's annotations


def _marked(node: Node) -> bool:
    return _MARK in _metadata(node)


def _graph(roots: list[Any]) -> Iterator[Node]:
    """Walk the autograd graph below some nodes, each node once."""
    seen: set[Node] = set()
    stack = [root for root in roots if root is not None]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        stack += [following for following, _ in node.next_functions if following is not None]


def _rectifies(node: Node) -> bool:
    """Whether an autograd node is that of max(x, 0), possibly cut off above."""
    name = node.name()
    if name == "ReluBackward0":
        return True
    if name == "HardtanhBackward0":
        return float(node._saved_min_val) == 0.0  # type: ignore[attr-defined]
    if name in ("ClampMinBackward0", "ClampBackward1"):
        low = node._saved_min  # type: ignore[attr-defined]
        return low is not None and float(low) == 0.0
    if name == "ThresholdBackward0":
        return float(node._saved_threshold) == 0.0  # type: ignore[attr-defined]
    return False


def _opaque(node: Node) -> bool:
    name = node.name()
    if name == "CopySlices" or name.startswith(("CompiledFunction", "DifferentiableGraph")):
        return True
    return isinstance(node, BackwardCFunction) and getattr(type(node), "_forward_cls", None) is not _PassBack
