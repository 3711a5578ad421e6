"""Writing into views: what changes a part of a tensor in place, as a copy that autograd shows.

Where a view is changed in place, autograd keeps the operation inside one node, CopySlices, and nobody can look inside.
So the operation is computed beside the view and its result copied in: the same numbers, the same gradient, and a node
for all of it. A copy does nothing to a gradient but cut it up, so the nodes that are known to copy are marked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .calls import in_place, tensors

_COPY = "convscope copy"


def beside_views(call: Callable[[Any, Any], Any], func: Any, args: Any, kwargs: Any) -> Any:
    """Make a `call(args, kwargs)` of `func`; where it changes a view in place, on a copy that is then copied in."""
    view = args[0] if args else kwargs.get("input")
    if not isinstance(view, Tensor) or not view._is_view() or not _may_change(func, args, kwargs):
        return call(args, kwargs)
    beside = view.clone()
    output = call((beside, *args[1:]), kwargs) if args else call(args, {**kwargs, "input": beside})
    if output is not beside:
        return output
    view.copy_(beside)
    _mark(view)
    return view


def mark_copies(name: str, args: Any, output: Any) -> None:
    """Mark what a call has copied into a tensor: an assignment to a slice, padding all around."""
    if name == "setitem" and _is_basic(args[1]):
        _mark(args[0])
    if name == "pad" and isinstance(output, Tensor):
        node = output.grad_fn
        while node is not None and _kind(node) in ("CopySlices", "Slice", "Alias"):
            _metadata(node)[_COPY] = True
            node = node.next_functions[0][0]


def is_copy(node: Any) -> bool:
    """Whether a node is known to copy only."""
    return _COPY in _metadata(node)


def _may_change(func: Any, args: Any, kwargs: Any) -> bool:
    if getattr(func, "__name__", "") == "__setitem__" or not torch.is_grad_enabled():
        return False
    flagged = kwargs.get("inplace") is True or any(argument is True for argument in args)
    return (in_place(func) or flagged) and any(t.requires_grad for t in tensors((args, kwargs)))


def _is_basic(index: Any) -> bool:
    """Whether an index takes slices, which are copied into; tensors may be masks."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or isinstance(part, (slice, int)) for part in parts)


def _mark(written: Tensor) -> None:
    node = (written if written._base is None else written._base).grad_fn
    if node is not None and _kind(node) == "CopySlices":
        _metadata(node)[_COPY] = True


def _kind(node: Any) -> str:
    return node.name().rsplit("::", 1)[-1].removesuffix("Backward0").removesuffix("Backward")


def _metadata(node: Any) -> dict[str, Any]:
    return node.metadata
