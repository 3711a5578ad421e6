"""The command of a registered function, built from its source: its help imports neither torch nor numpy."""

from __future__ import annotations

import ast
import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from ..configuration import located
from ..errors import OptionError
from ..listing import Listed, headed
from ..options import Option, joined, separated
from ..outputs import NUMBER_ENDINGS, PICTURE_ENDINGS, TABLE_ENDINGS
from ..registry import Entry
from . import inputs
from .arguments import STUDY, dashed
from .groups import Parameter, beginning, parameters_of, taken, with_parameters
from .network import Network
from .paper import Figure
from .printing import AsJson
from .signatures import constant, options_in_source

_COLOURS = ("fire", "polar", "grey", "jet")


@dataclass(frozen=True)
class Shown:
    """How maps are shown."""

    overlay: Annotated[
        bool, typer.Option("--overlay", help="write only the map over the picture, at the original's resolution")
    ] = False
    shared_scale: Annotated[bool, typer.Option("--shared-scale", help="one colour scale for all pictures")] = False
    cmap: Annotated[
        str | None,
        typer.Option(help=f"colour map: {', '.join(_COLOURS)}", autocompletion=beginning(_COLOURS)),
    ] = None
    grey: Annotated[
        bool, typer.Option("--grey", help="a map that is a picture without colours, as calm as the papers' figures")
    ] = False
    check: inputs.Check = False


COMMON: Mapping[str, Parameter] = {
    **parameters_of(Network),
    "out": (inputs.Out, None),
    "size": (inputs.Size, None),
    "save_values": (
        Annotated[Path | None, typer.Option(help=f"also write the raw numbers ({', '.join(NUMBER_ENDINGS)})")],
        None,
    ),
    **parameters_of(Figure),
    "as_json": (AsJson, False),
}
"""Options of every registered command."""

ONLY_STUDIES: Mapping[str, Parameter] = {
    "out": (
        Annotated[
            Path | None,
            typer.Option("--out", "-o", help=f"figure to write ({', '.join(PICTURE_ENDINGS)}); STUDY.png by default"),
        ],
        None,
    ),
    "table": (
        Annotated[Path | None, typer.Option(help=f"also write the table ({', '.join(TABLE_ENDINGS)})")],
        None,
    ),
}
"""Options of studies, some in the place of common ones."""

ONLY_METHODS: Mapping[str, Parameter] = {"of": (inputs.Of, None), **parameters_of(Shown)}
"""Options of commands that draw a map of one picture."""

# A shape, as "(n, c, h, w)", and what only a caller in Python reads.
_SHAPE = re.compile(r"\((?:n|c|h|w|1|3|batch)(?:, ?\w+)+\)")
_PYTHON_ONLY = re.compile(r"^(?:Raises|Returns|Args|Yields)\b")


@dataclass(frozen=True)
class Signature:
    """What a command line must know of a registered function."""

    name: str
    title: str
    kind: str
    text: str
    paper: str
    caveat: str
    takes: str
    projects: bool
    films: str
    single: bool
    options: Mapping[str, Option]

    @property
    def attributes(self) -> bool:
        """Whether it draws a map of one picture for one objective."""
        return self.kind == "method"


def command_line(name: str, kind: str) -> str:
    """Return what stands on a command line for something registered: studies are below a command of their own.

    There a study needs no `_study` at the end of its name, which tells it from a function that draws a figure alone.
    """
    return f"{STUDY} {dashed(name.removesuffix('_study'))}" if kind == STUDY else dashed(name)


def from_source(listed: Listed) -> Signature:
    """Read a registered function's signature in its source."""
    node, words = listed.node, dict[str, Any]()
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call):
            words |= {word.arg: constant(listed.path, word.value) for word in decorator.keywords if word.arg}
    attributes = listed.kind == "method"
    positional = [argument.arg for argument in node.args.args][1:]
    return Signature(
        listed.name,
        listed.title,
        listed.kind,
        ast.get_docstring(node) or "",
        words.get("paper", ""),
        words.get("caveat", ""),
        "picture" if attributes else next(iter(positional), ""),
        words.get("projects", False),
        words.get("films", ""),
        _single(ast.unparse(node.returns) if node.returns else "", attributes),
        options_in_source(listed.path, node),
    )


def from_entry(entry: Entry) -> Signature:
    """Return the signature of a registered function that has been imported."""
    return Signature(
        entry.name,
        entry.title,
        entry.kind,
        inspect.getdoc(entry.function) or "",
        entry.paper,
        entry.caveat,
        entry.takes,
        entry.projects,
        entry.films,
        _single(str(entry.function.__annotations__.get("return", "")), entry.attributes),
        entry.options,
    )


def _single(returns: str, attributes: bool) -> bool:
    """Whether what it draws has one array of numbers, which .npy can hold."""
    return attributes or not {"Gallery", "Curve", "Drawing", "Study"} & set(re.findall(r"\w+", returns))


def _parameters(signature: Signature) -> dict[str, Parameter]:
    """Return a command's parameters: its own in the place of common ones of the same name."""
    own = {name: _parameter(option) for name, option in signature.options.items()}
    beside = {"method": ONLY_METHODS, STUDY: ONLY_STUDIES}.get(signature.kind, {})
    shared = {**COMMON, **beside, **own}
    if signature.kind == STUDY:
        return {"pictures": (inputs.Data, inspect.Parameter.empty), **shared} if signature.takes else shared
    pictures: dict[str, Parameter] = {"pictures": (inputs.Pictures, inspect.Parameter.empty)}
    return {**pictures, **shared, "yes": (inputs.Yes, False)} if signature.takes else shared


def _parameter(option: Option) -> Parameter:
    words: dict[str, Any] = {"help": _help(option)}
    required = option.default is inspect.Parameter.empty
    if option.type is bool:
        return Annotated[bool, typer.Option(**words)], option.default
    words |= {"parser": _parser(option), "metavar": _metavar(option), "show_default": not required}
    if choices := option.choices:
        words["autocompletion"] = beginning([*map(str, choices)])
    kind = list[str] if option.several else str
    default = None if option.several and not required else option.default
    return Annotated[kind if required else kind | None, typer.Option(**words)], default


def _help(option: Option) -> str:
    extra = f" ({option.range})" if option.range is not None else ""
    several = "; several with commas between, or by repeating the option" if option.several else ""
    return option.help + extra + ("" if "comma" in option.help else several)


def _metavar(option: Option) -> str:
    if option.choices:
        return "[" + "|".join(map(str, option.choices)) + "]"
    words = option.kind
    for start, name in (
        ("a whole number", "INT"),
        ("a number", "NUMBER"),
        ("a path", "PATH"),
        ("a picture", "PICTURE"),
    ):
        if words.removeprefix("a list, each ").startswith(start):
            return name
    return "TEXT"


def _parser(option: Option) -> Callable[[Any], Any]:
    # Where Python takes whatever is a picture, the command line takes its path, or a name of the configuration's data.
    pictures = option.is_picture or {Path, Any} <= _members(option.type)

    def parse(value: Any) -> Any:
        if pictures and isinstance(value, str):
            value = _located(value, several=option.several)
        try:
            return option.parse(value) if isinstance(value, str) else option.check(value)
        except OptionError as error:
            raise OptionError(f"--{dashed(option.name)}{str(error).removeprefix(option.name)}") from None

    # Typer shows the name of what parses where nothing else is said.
    parse.__name__ = option.name
    return parse


def _located(text: str, *, several: bool) -> str:
    """Return the places of pictures that a text names; a file whose own name has commas is one."""
    if not several:
        return located(text)
    return joined(map(located, [text] if os.path.exists(text) else separated(text)))  # noqa: PTH110  False for too long names


def _members(kind: Any) -> set[Any]:
    """Return a type and the types that it is made of."""
    # The parameters of a callable are a list.
    own = set[Any]() if isinstance(kind, list) else {kind}
    return own.union(*map(_members, get_args(kind)))


def flattened(option: Option, value: Any) -> Any:
    """Return a list's values over all its repetitions; any other value as it is."""
    if not option.several:
        return value
    return (
        [item for part in value for item in (part if isinstance(part, list) else [part])] if value else option.default
    )


def command_of(signature: Signature, run: Callable[..., None]) -> Callable[..., None]:
    """Return a command for typer that calls `run(signature, pictures, options, **common)`."""
    groups = {"network": Network, "figure": Figure} | ({"shown": Shown} if signature.kind != STUDY else {})

    def command(**values: Any) -> None:
        options = {name: flattened(option, values.pop(name)) for name, option in signature.options.items()}
        common = {name: taken(group, values) for name, group in groups.items()}
        run(signature, values.pop("pictures", []), options, **common, **values)

    command.__doc__ = help_text(signature)
    return with_parameters(command, _parameters(signature))


def help_text(signature: Signature) -> str:
    """Return what a reader of the command line must know of a function, without what only Python's readers need."""
    parts = [headed(signature.title, _plain(signature.text))]
    parts += [signature.paper] if signature.paper else []
    parts += [f"Caution: {signature.caveat}."] if signature.caveat else []
    return "\n\n".join(parts)


def _plain(text: str) -> str:
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    kept: list[str] = []
    for paragraph in paragraphs:
        if not paragraph or paragraph.startswith(">>>") or _PYTHON_ONLY.match(paragraph):
            continue
        sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z`])", paragraph)
        shown = [each for each in sentences if not (_PYTHON_ONLY.match(each) or _SHAPE.search(each))]
        kept.append(" ".join(shown).replace("`", ""))
    return "\n\n".join(filter(None, kept))
