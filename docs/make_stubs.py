"""Write src/convscope/__init__.pyi: the public names for type checkers, with every method's options.

    python docs/make_stubs.py

A test compares the file with what this writes.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import convscope
from convscope.options import Option
from convscope.registry import METHODS, VIEWS, Entry, load_all

FILE = Path(convscope.__file__).with_suffix(".pyi")

HEAD = '''"""The public names of convscope, written by docs/make_stubs.py."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from torch import Tensor

'''

ALIASES = """
_Objective = str | int | Objective | Callable[[Tensor], Tensor] | None

__version__: str
"""

# What comes before a method's own options.
OVERLOADS = {
    "explain": (
        "net: Net, picture: Any, method: {method}, of: _Objective = None, *, size: int | None = None",
        "Heatmap",
    ),
    "attribute": (
        "net: Net, pixels: Tensor, method: {method}, of: _Objective | Sequence[_Objective] = None, *",
        "Tensor",
    ),
    "explain_many": (
        "net: Net, data: Any, method: {method}, of: _Objective = None, *, size: int | None = None, "
        "batch_size: int | None = None, workers: int | None = None, exists: Callable[[str], bool] | None = None",
        "Explanations",
    ),
}


def text() -> str:
    """Return the whole file."""
    load_all()
    views = {name for name in VIEWS if name in convscope._HOMES}
    functions = views | set(OVERLOADS)
    homes = {"Explanations": "bulk", **convscope._HOMES}
    imports = [
        f"from .{home} import {name} as {name}"
        for name, home in sorted(homes.items(), key=lambda pair: (pair[1], pair[0]))
        if name not in functions and home
    ]
    parts = [HEAD + "\n".join(imports).replace(" as Explanations", "") + "\n" + ALIASES]
    parts += [_overloads(name, *shape) for name, shape in OVERLOADS.items()]
    parts += [_view(VIEWS[name]) for name in sorted(views)]
    return "\n".join(parts)


def _overloads(name: str, before: str, returned: str) -> str:
    lines: list[str] = []
    for entry in sorted(METHODS.values(), key=lambda entry: entry.name):
        own = "".join(f", {option}" for option in map(_option, entry.options.values()))
        words = dict.fromkeys((entry.name, entry.name.replace("_", "-")))
        head = before.format(method=f"Literal[{', '.join(map(repr, words))}]")
        # Without an option of its own, a star would have nothing after it.
        head = head.removesuffix(", *") if head.endswith("*") and not own else head
        lines.append(f"@overload\ndef {name}({head}{own}) -> {returned}: ...")
    # Another method, such as a plugin's; with options of its own it is called through a variable of type Any.
    rest = before.format(method="str")
    lines.append(f"@overload\ndef {name}({rest.removesuffix(', *')}) -> {returned}: ...")
    return "\n".join(lines) + "\n"


def _view(entry: Entry) -> str:
    inputs = "".join(f", {name}: Any" for name in entry.inputs)
    returned = rendered(typing.get_type_hints(entry.function)["return"])
    options = list(entry.options.values())
    required = [option.default is inspect.Parameter.empty for option in options]
    # An option that must be given cannot follow, by position, one that may be left out.
    by_position = len(options) if required == sorted(required, reverse=True) else required.index(False)
    own = [*map(_option, options[:by_position]), *(["*"] if by_position < len(options) else [])]
    own += map(_option, options[by_position:])
    return f"def {entry.name}(net: Net{inputs}{''.join(f', {option}' for option in own)}) -> {returned}: ...\n"


def _option(option: Option) -> str:
    default = "" if option.default is inspect.Parameter.empty else " = ..."
    kind = "_Objective" if option.name == "of" and Any not in get_args(option.type) else rendered(option.type)
    several = any(get_origin(part) is list for part in (option.type, *get_args(option.type)))
    return f"{option.name}: {kind if option.name != 'of' or not several else rendered(option.type)}{default}"


def rendered(kind: Any) -> str:
    """Write a type as source."""
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return "Any" if Any in members else " | ".join(dict.fromkeys(map(rendered, members)))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, members))}]"
    if origin is not None and origin.__module__ == "collections.abc" and origin.__name__ == "Callable":
        return "Callable[..., Any]"
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(rendered, members))}]"
    if kind is type(None):
        return "None"
    known = {"int", "float", "str", "bool", "bytes", "Path", "Tensor", "Objective", "Any"} | set(convscope._HOMES)
    name = getattr(kind, "__name__", str(kind))
    return name if name in known else "Any"


def names() -> Iterator[str]:
    """Yield the names that the file declares."""
    written = FILE.read_text(encoding="utf-8")
    yield from re.findall(r"^(?:def|from \S+ import \S+ as) (\w+)", written, re.MULTILINE)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(FILE)
