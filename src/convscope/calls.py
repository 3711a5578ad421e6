"""Calls of torch functions, as a function mode sees them: names, arguments, and the tensors in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def name_of(function: Any) -> str:
    """Return a function's name as the table of operations has it: "add" for `__add__` and `add_`, "mT" for `x.mT`.

    An operator of another library, such as "quantized::conv2d", keeps its library's name before it, so that it is not
    taken for torch's own.
    """
    qualified = str(getattr(function, "_qualified_op_name", ""))
    if qualified and not qualified.startswith("aten::"):
        return qualified
    name = getattr(function, "__name__", "")
    attribute = getattr(getattr(function, "__self__", None), "__name__", "") if name == "__get__" else ""
    return attribute if attribute in _SWAPS else name.strip("_")


_SWAPS = ("T", "mT", "H", "mH")
"""Attributes that are tensors with their dimensions in another order."""


def argument(args: Any, kwargs: Any, position: int, name: str, default: Any) -> Any:
    """Return an argument of a call, by position or by name."""
    return args[position] if len(args) > position else kwargs.get(name, default)


def in_place(function: Any) -> bool:
    """Whether a function's name says that it changes its first argument: `add_`, `__iadd__`."""
    name = getattr(function, "__name__", "")
    return name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield every tensor in arguments or results, however nested."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
