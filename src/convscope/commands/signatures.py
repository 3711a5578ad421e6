"""Options of registered functions, read from their source: a command's help needs no import of torch.

Annotations are what they are in Python: `Annotated[type, "help", Range(1)]`, `Literal` choices, and names for those, of
this module or another. What stands for a type outside of the package becomes an empty class of its name.
"""

from __future__ import annotations

import ast
import functools
import inspect
import operator
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..options import Option, Range, option

_ROOT = Path(__file__).parents[1]
_BUILTIN: Mapping[str, Any] = {
    kind.__name__: kind for kind in (int, float, bool, str, bytes, list, tuple, dict, set, frozenset, object)
}
_LIBRARY: Mapping[str, Any] = {"pathlib": {"Path": Path}, "typing": vars(typing), "collections.abc": vars(typing)}
_OPERATORS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.BitOr: operator.or_,
    ast.Add: operator.add,
    ast.Mult: operator.mul,
    ast.Sub: operator.sub,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def options_in_source(path: Path, node: ast.FunctionDef) -> dict[str, Option]:
    """Return a function's keyword-only parameters as options, as the registry has them once it is imported."""
    source = _source(path)
    pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    return {
        argument.arg: option(
            argument.arg,
            source.value(argument.annotation) if argument.annotation else Any,
            source.value(default) if default else inspect.Parameter.empty,
        )
        for argument, default in pairs
    }


def constant(path: Path, node: ast.expr) -> Any:
    """Return the value of an expression of constants and of names of them."""
    return _source(path).value(node)


class _Source:
    """A module's source, with the values of its names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: dict[str, ast.expr | tuple[str, int, str]] = {}
        for node in _statements(ast.parse(path.read_text(encoding="utf-8")).body):
            self._note(node)

    def _note(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Assign):
            self.names |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            self.names[node.target.id] = node.value
        elif isinstance(node, ast.ImportFrom):
            self.names |= {a.asname or a.name: (node.module or "", node.level, a.name) for a in node.names}
        elif isinstance(node, ast.Import):
            self.names |= {a.asname or a.name.split(".")[0]: (a.name, 0, "") for a in node.names}

    def value(self, node: ast.expr) -> Any:
        """Return the value of an expression; an empty class for what can only be known by importing it."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self.named(node.id)
        if isinstance(node, (ast.Tuple, ast.List)):
            items = [self.value(item) for item in node.elts]
            return tuple(items) if isinstance(node, ast.Tuple) else items
        if isinstance(node, ast.Subscript):
            return self._subscript(node)
        if isinstance(node, ast.BinOp):
            return _OPERATORS[type(node.op)](self.value(node.left), self.value(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self.value(node.operand)
        if isinstance(node, ast.Attribute):
            return _attribute(self.value(node.value), node.attr)
        if isinstance(node, ast.Call):
            return self._call(node)
        return "".join(map(str, self._parts(node))) if isinstance(node, ast.JoinedStr) else _unknown(ast.unparse(node))

    def _subscript(self, node: ast.Subscript) -> Any:
        generic, index = self.value(node.value), self.value(node.slice)
        try:
            return generic[index]
        except TypeError:
            return generic

    def _call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Name) and node.func.id == "Range":
            words = {word.arg: self.value(word.value) for word in node.keywords if word.arg}
            return Range(*map(self.value, node.args), **words)
        return _unknown(ast.unparse(node.func))

    def _parts(self, node: ast.JoinedStr) -> Iterator[Any]:
        for part in node.values:
            yield self.value(part.value if isinstance(part, ast.FormattedValue) else part)

    def named(self, name: str) -> Any:
        """Return what a name of the module stands for."""
        meant = self.names.get(name)
        if meant is None:
            return _BUILTIN.get(name, _unknown(name))
        return self.value(meant) if isinstance(meant, ast.expr) else self._imported(*meant)

    def _imported(self, module: str, level: int, name: str) -> Any:
        base = self.path.parents[level - 1] if level else _ROOT
        if not level and module.split(".", maxsplit=1)[0] != "convscope":
            return _LIBRARY.get(module, {}).get(name) or _unknown(name or module, module)
        inside = module if level else module.partition(".")[2]
        place = base.joinpath(*filter(None, inside.split(".")))
        for file, inner in (
            (place / f"{name}.py", ""),
            (place.with_suffix(".py"), name),
            (place / "__init__.py", name),
        ):
            if file.is_file():
                return _source(file).named(inner) if inner else _source(file)
        return _unknown(name, module)


@functools.cache
def _source(path: Path) -> _Source:
    return _Source(path)


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, also those for type checkers alone."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from node.body


def _attribute(owner: Any, name: str) -> Any:
    if isinstance(owner, _Source):
        return owner.named(name)
    found = getattr(owner, name, None) if not getattr(owner, "unknown", False) else None
    module = f"{getattr(owner, '__module__', '')}.{getattr(owner, '__name__', '')}".strip(".")
    return found if found is not None else _unknown(name, module)


def _unknown(name: str, module: str = "") -> Any:
    return type(name.rpartition(".")[2] or "unknown", (), {"__module__": module, "unknown": True})
