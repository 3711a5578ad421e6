"""Backward rules: change how rectifiers and max pooling send gradient back, for any model, without touching it.

A rule sees the gradient above a rectifier (what arrives) and below it (what plain backpropagation would pass on) and
says what is passed on. Max pooling sends it to where each maximum was, or to the middle of each window whatever was
there. Rules are correct or loud: when the backward pass begins, the whole autograd graph is checked,
and a rectifier that was not rewritten, or an activation for which the rule is not defined, is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, Function
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from .calls import name_of
from .errors import RuleError
from .interruptions import held_back
from .operations import BY_NODE, Backward, names, nodes, nodes_of
from .view_writes import beside_views, is_copy, mark_copies

_INSTEAD = "Methods that follow the true gradient (gradient, saliency, grad_cam) and occlusion work"

Rule = Callable[[Tensor, Tensor], Tensor]


def plain(below: Tensor, above: Tensor) -> Tensor:
    """Pass on the true gradient, through active units only."""
    return below


def straight(below: Tensor, above: Tensor) -> Tensor:
    """Pass everything on, as if there were no rectifier."""
    return above


def deconvnet(below: Tensor, above: Tensor) -> Tensor:
    """Rectify the signal itself, whatever the forward pass did (Zeiler & Fergus, sec. 2.1)."""
    return above.clamp(min=0)


def guided(below: Tensor, above: Tensor) -> Tensor:
    """Pass only positive gradient, and only through active units (Springenberg et al., arXiv:1412.6806)."""
    return below.clamp(min=0)


def redirected(below: Tensor, above: Tensor) -> Tensor:
    """Pass the true gradient, or the rectified signal for pictures whose true gradient is zero everywhere.

    An ascent can so leave a picture for which all units are inactive (lucid's redirected gradients).
    """
    reached = below.flatten(1).any(1).view(-1, *[1] * (below.ndim - 1))
    return torch.where(reached, below, above.clamp(min=0))


_skipped: ContextVar[bool] = ContextVar("normalisation is skipped", default=False)


def normalised(through: Tensor, value: Tensor) -> Tensor:
    """Mark `value` as `through` normalised by a module of one's own, and return it.

    Both have the same shape. Inside a `relu_rule` with `skip_lrn=True` the gradient of `value` becomes that of
    `through` unchanged; elsewhere nothing changes.
    """
    return _PassBack.apply(through, value) if _skipped.get() and value.requires_grad else value


_MARK = "convscope rule"
_CENTRED = "convscope centre"

# Max poolings whose windows are known from their node, and maxima without windows.
_POOLINGS = nodes_of("max_pool2d", "adaptive_max_pool2d")
_MAXIMA = nodes_of("amax", "max", "maximum")

# What the table of operations does not hold is refused: it cannot be known whether it rectifies.
_LINEAR = nodes(Backward.LINEAR) | {"_PassBack"}
_CURVED = nodes(Backward.CURVED)
_ACTIVATIONS = nodes(Backward.ACTIVATION)
_UNDEFINED = _ACTIVATIONS | nodes(Backward.SELECTION)
_COMPARISONS = names(Backward.COMPARISON)

_SMALL = 1e-3
"""Floors up to this, but 0, only keep a divisor or the base of a power from being 0."""

_RECURRENT = ("CudnnRnn", "MiopenRnn")
_RELU_MODE = 0


class relu_rule(TorchFunctionMode):  # noqa: N801  reads as a verb in `with relu_rule(deconvnet):`
    """Rewrite the backward pass of every rectifier, and on request of max pooling, that runs inside the `with` block.

    Rectifiers are ReLU, ReLU6, clamp(min=0), hardtanh(0, b) and threshold(0, 0) in every spelling: module, function,
    method or in place. `skip_lrn=True` also passes gradient through local response normalisation unchanged, as Zeiler
    and Fergus do: torch's own, and what a module marks by `normalised`. `centre=True` sends the gradient of every 2-d
    max pooling to the middle of its window instead of to its maximum: of an even number the position before the half,
    at the border the nearest inside the picture. Run the forward and the backward pass inside the block: the check is
    made when the backward pass begins. Nothing is left behind: a rule hangs on the autograd nodes of one forward pass
    and goes with them.

    After `torch.autograd.grad` inside the block, `report` says "57 of 57 rectifiers rewritten", `switches` counts the
    max poolings in the path that send gradient to their maximum, `centred` those that send it to the middle.

    Raises RuleError at the backward pass when a rectifier was not rewritten (scripted, compiled or checkpointed code),
    when the network uses an activation for which the rule is not defined, when it has no rectifier at all and yet is
    not linear, or when `centre` meets a maximum whose windows are not known.
    """

    def __init__(self, rule: Rule, *, skip_lrn: bool = False, centre: bool = False) -> None:
        super().__init__()
        self.rule = rule
        self.skip_lrn = skip_lrn
        self.centre = centre
        self.report = ""
        self.switches = self.centred = 0
        self.comparison = ""
        self._entered: list[ExitStack] = []

    def __enter__(self) -> Any:
        with ExitStack() as stack:
            stack.enter_context(held_back())
            stack.callback(_skipped.reset, _skipped.set(self.skip_lrn))
            entered = super().__enter__()
            stack.push(super().__exit__)
            self._entered.append(stack.pop_all())
        return entered

    def __exit__(self, *error: Any) -> None:
        self._entered.pop().__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        if name in _COMPARISONS and any(isinstance(a, Tensor) and a.requires_grad for a in args):
            self.comparison = name
        if func in (torch.autograd.grad, Tensor.backward):
            self._check(args[0] if args else kwargs["outputs"])
        output = beside_views(lambda a, k: self._call(func, a, k), func, args, kwargs)
        mark_copies(name, args, output)
        return output

    def _call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Make a call, and apply the rule to what it has computed."""
        output = func(*args, **kwargs)
        if not isinstance(output, Tensor) or output.grad_fn is None:
            return output
        if func is torch.nn.functional.local_response_norm and self.skip_lrn:
            return _PassBack.apply(args[0] if args else kwargs["input"], output)
        if self.centre and kind_of(output.grad_fn) in _POOLINGS:
            return _centred(output)
        if self.rule is not plain and _rectifies(output.grad_fn):
            self._rewrite(output.grad_fn)
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
        """Refuse a backward pass that would not follow the rule, and write the report."""
        if self.comparison and self.rule is not plain:
            raise RuleError(
                f"the network compares activations ({self.comparison}), which may be a rectifier written out by hand: "
                f"{self._name} is for ReLU. {_INSTEAD}"
            )
        roots = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        rewritten = total = 0
        curved = ""
        self.switches = self.centred = 0
        for node in graph_below([root.grad_fn for root in roots]):
            kind = kind_of(node)
            self._count_pooling(node, kind)
            if _rectifies(node):
                total += 1
                rewritten += _marked(node)
            elif is_copy(node) or _scales(node):
                continue
            elif kind not in _LINEAR or _foreign(node):
                self._check_curved(node, kind)
                curved = kind
        rectifiers = "" if self.rule is plain else self._check_rectifiers(rewritten, total, curved)
        self.report = "; ".join(filter(None, (rectifiers, self._pooling)))

    def _count_pooling(self, node: Node, kind: str) -> None:
        pools = "MaxPool" in kind
        self.switches += pools
        self.centred += _CENTRED in _metadata(node)
        if self.centre and (pools or kind in _MAXIMA):
            raise RuleError(
                f"the network takes a maximum ({kind}) whose windows are not known (in one or three dimensions, "
                "with indices, fractional, by hand, or scripted): the signal cannot be sent to their middle. Keep "
                "the switches"
            )

    def _check_rectifiers(self, rewritten: int, total: int, curved: str) -> str:
        if total == 0 and curved:
            raise RuleError(
                f"no ReLU lies between the objective and the picture ({curved} does): {self._name} would be the plain "
                f"gradient. {_INSTEAD}"
            )
        if rewritten < total:
            raise RuleError(
                f"only {rewritten} of {total} rectifiers could be rewritten by {self._name}: "
                "the others run in scripted or compiled code. Use the plain eager module"
            )
        return f"{rewritten} of {total} rectifiers rewritten" if total else "no rectifier on the way down"

    @property
    def _pooling(self) -> str:
        if not self.centre:
            return ""
        if not self.centred:
            return "no max pooling on the way down, so switches make no difference"
        verb = "poolings send" if self.centred > 1 else "pooling sends"
        return f"{self.centred} max {verb} the signal to the windows' middle"

    def _check_curved(self, node: Node, kind: str) -> None:
        """Refuse a node that is not linear unless it is known not to rectify."""
        if (self.rule is plain and (kind in _ACTIVATIONS or kind == "Mul")) or _guards(node) or _is_magnitude(node):
            return
        if kind in _UNDEFINED:
            raise RuleError(
                f"the network uses {BY_NODE[kind].title}, where {self._name} is not defined: it is a rule for ReLU. "
                f"{_INSTEAD}"
            )
        if _multiplies_by_a_mask(node):
            raise RuleError(f"the network multiplies by a mask, where {self._name} is not defined. {_INSTEAD}")
        if kind in _RECURRENT and getattr(node, "_saved_mode", None) == _RELU_MODE:
            raise RuleError(
                f"a recurrent layer runs its ReLU inside one call, where {self._name} cannot reach. {_INSTEAD}"
            )
        if kind not in _CURVED or _foreign(node):
            raise RuleError(
                f"the network contains {kind} (compiled, scripted, checkpointed, custom, or unknown to convscope), "
                f"which may or may not rectify: {self._name} cannot be applied. Use plain eager modules. {_INSTEAD}"
            )

    @property
    def _name(self) -> str:
        return f"the {getattr(self.rule, '__name__', 'given')} rule"


class _PassBack(Function):
    """The value of one tensor forward, the gradient of another backward."""

    @staticmethod
    def forward(ctx: Any, through: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def _centred(pooled: Tensor) -> Tensor:
    """Give the result of max pooling the gradient of picking the middle of every window.

    A pooling that cannot be replaced is returned as it is: the check of the backward pass refuses it.
    """
    node: Any = pooled.grad_fn
    source = getattr(node, "_saved_self", None)
    if not isinstance(source, Tensor) or not source.requires_grad:
        return pooled
    picked = source
    for axis, dim in enumerate((-2, -1)):
        extent, count = source.shape[dim], pooled.shape[dim]
        if kind_of(node) == "AdaptiveMaxPool2D":
            middles = [(i * extent // count - (-(i + 1) * extent // count) - 1) // 2 for i in range(count)]
        else:
            options = ("kernel_size", "stride", "padding", "dilation")
            kernel, stride, padding, dilation = (_along(getattr(node, f"_saved_{name}"), axis) for name in options)
            # torch saves no stride where it is the kernel's size.
            middles = [_middle(i * (stride or kernel) - padding, kernel, dilation, extent) for i in range(count)]
        picked = picked.index_select(dim, torch.tensor(middles, device=source.device))
    output = _PassBack.apply(picked, pooled.detach())
    _metadata(output.grad_fn)[_CENTRED] = True
    return output


def _along(values: tuple[int, ...], axis: int) -> int:
    """Return an option of pooling along one axis; one number stands for both, none for 0."""
    return values[axis % len(values)] if values else 0


def _middle(start: int, kernel: int, dilation: int, extent: int) -> int:
    """Return the middle of a window, or the nearest position to it inside the picture."""
    first, last = -(start // dilation), (extent - 1 - start) // dilation
    return start + dilation * min(max((kernel - 1) // 2, first), last)


def _guards(node: Node) -> bool:
    """Whether a node is a clamp from just above 0, as of normalisations and generalised means: its gradient stays."""
    kind = kind_of(node)
    if kind not in ("Clamp", "ClampMin") or getattr(node, "_saved_max", None) is not None:
        return False
    floor = _saved_number(node, "min")
    return floor is not None and 0 < floor <= _SMALL


def _is_magnitude(node: Node) -> bool:
    """Whether a node is the absolute value of complex numbers, which is no rectifier."""
    return kind_of(node) == "Abs" and node._saved_self.is_complex()  # type: ignore[attr-defined]


_FACTORS = {
    "Mul": ("_saved_self", "_saved_other"),
    "Addcmul": ("", "_saved_tensor1", "_saved_tensor2"),
    "Lerp": ("", "", "_saved_weight"),
}
"""What the nodes of products call their factors."""


def _multiplies_by_a_mask(node: Node) -> bool:
    """Whether a product has a factor without gradient that differs between positions, as a mask's does.

    Products of complex numbers are filters of frequencies.
    """
    if _is_complex(node):
        return False
    factors = zip(node.next_functions, _FACTORS.get(kind_of(node), ()), strict=False)
    masks = [getattr(node, name, None) for (edge, _), name in factors if edge is None]
    return any(isinstance(m, Tensor) and (m.dtype == torch.bool or (m.ndim > 2 and m[0, 0].numel() > 1)) for m in masks)


def _scales(node: Node) -> bool:
    """Whether a node multiplies by one number that depends on no pixel, which is linear."""
    factors = zip(node.next_functions, _FACTORS["Mul"], strict=False) if kind_of(node) == "Mul" else ()
    numbers = [getattr(node, name) for (edge, _), name in factors if edge is None]
    return any(isinstance(n, Tensor) and n.numel() == 1 and n.dtype != torch.bool for n in numbers)


def _is_complex(node: Node) -> bool:
    """Whether a node's result is of complex numbers."""
    return any(metadata.dtype.is_complex for metadata in node._input_metadata)


def _metadata(node: Node) -> dict[str, Any]:
    return node.metadata  # type: ignore[return-value]  # a property at run time, a method in torch's annotations


def _marked(node: Node) -> bool:
    return _MARK in _metadata(node)


def graph_below(roots: list[Any], until: Node | None = None) -> Iterator[Node]:
    """Walk the autograd graph below some nodes, each node once, and not below the node `until`."""
    visited: set[Node] = set()
    stack = [root for root in roots if root is not None]
    while stack:
        node = stack.pop()
        if node in visited:
            continue
        visited.add(node)
        yield node
        if node is not until:
            stack += [following for following, _ in node.next_functions if following is not None]


def _rectifies(node: Node) -> bool:
    """Whether an autograd node is that of max(x, 0), possibly cut off above."""
    operation = BY_NODE.get(kind_of(node))
    if operation is None or operation.backward is not Backward.RECTIFIER or isinstance(node, BackwardCFunction):
        return False
    return not operation.floor or _saved_number(node, operation.floor) == 0


def _saved_number(node: Node, name: str) -> float | None:
    value = getattr(node, f"_saved_{name}", None)
    return float(value) if isinstance(value, (int, float)) else None


def kind_of(node: Node) -> str:
    """Return what an autograd node undoes: "Convolution" for ConvolutionBackward0."""
    return re.sub(r"Backwards?\d*$", "", node.name().rsplit("::", 1)[-1])


def _foreign(node: Node) -> bool:
    """Whether a node is an autograd function that is not convscope's own, whatever its name."""
    return isinstance(node, BackwardCFunction) and getattr(type(node), "_forward_cls", None) is not _PassBack
