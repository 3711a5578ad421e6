"""Texts that others wrote, read as data: one guard for each kind, so that whatever a text holds is one line to read.

A `Document` is a text, the name that messages call it by, and the error that its faults are raised as. What is too
large, nested too deep or not what its kind allows is refused before it can cost time, memory or the stack; what was
parsed is then held against a shape, which is a type: `document.json(list[float])`.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import math
import os
import re
import stat
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints
from xml.etree import ElementTree

from .errors import ConvscopeError
from .quiet import quiet

T = TypeVar("T")

MOST_BYTES = 2**25
"""Bytes of a text: lists of small tables take about 25 times their text in memory."""

MOST_DEPTH = 64
"""How many lists and tables may lie inside each other; Python's own recursion ends somewhere beyond 300."""

_MOST_BITS = 1023  # of a whole number: a longer one is no floating-point number
_MOST_LITERAL = 2**20
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+"""
_DOTTED = re.compile(rf"(?<![\w-])(?:{_PART}){{{MOST_DEPTH}}}")
"""A key of TOML with so many parts: each makes a table inside the one before, in time that grows with their square."""

_BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_XML = re.compile(
    rb"""<\?xml[^>]{0,80}encoding=["'](iso-8859-\d+|windows-125\d|gbk|gb2312|big5|shift_jis|euc-jp|euc-kr)["']""",
    re.IGNORECASE,
)
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True)
class Document:
    """A text, the name that messages call it by, and the class of errors that its faults are raised as."""

    name: str
    text: str
    error: type[ConvscopeError]

    @classmethod
    def read(cls, path: str | Path, error: type[ConvscopeError], *, most: int = MOST_BYTES) -> Document:
        """Read a file of at most `most` bytes: UTF-8, or UTF-16 or -32 that begins with a mark. Raises `error`."""
        return cls.decoded(read_bytes(path, error, most=most), str(path), error)

    @classmethod
    def decoded(cls, content: bytes, name: str, error: type[ConvscopeError]) -> Document:
        """Decode bytes as `read` does. Raises `error` for what is no text."""
        named = _XML.match(content)
        default = named[1].decode() if named else "utf-8"
        encoding = next((known for mark, known in _BOMS if content.startswith(mark)), default)
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as wrong:
            raise error(
                f"{name} is not text in {encoding.upper()}: byte {wrong.start} ({content[wrong.start]:#04x}) "
                "cannot be read; save it as UTF-8"
            ) from None
        if "\0" in text:
            raise error(f"{name} is not text: character {text.index(chr(0))} is a zero byte")
        return cls(name, text, error)

    def fault(self, why: str) -> ConvscopeError:
        """Return the error to raise for a fault of this text."""
        return self.error(f"{self.name}: {why}")

    def json(self, shape: type[T]) -> T:
        """Parse JSON of a shape (`shaped`). Raises `error`, also where a key is there twice."""
        parsed = self._parsed("JSON", lambda text: json.loads(text, object_pairs_hook=_unique))
        if "\\ud" in self.text.lower():  # halves of characters, which no file and no terminal takes
            parsed = json.loads(json.dumps(parsed, ensure_ascii=False).encode("utf-8", "replace"))
        return self.shaped(parsed, shape)

    def toml(self) -> dict[str, Any]:
        """Parse TOML. Raises `error`."""
        if _DOTTED.search(self.text):
            raise self.fault(f"a key has more than {MOST_DEPTH} parts")
        return self._parsed("TOML", tomllib.loads)

    def literal(self, shape: type[T]) -> T:
        """Parse a literal of Python, such as a dict, of a shape (`shaped`). Raises `error`."""
        if len(self.text) > _MOST_LITERAL:
            raise self.fault(
                f"it has {len(self.text):,} characters; more than {_MOST_LITERAL:,} are not read as Python"
            )
        with quiet():  # the compiler warns of backslashes
            parsed = self._parsed("a literal of Python", _literal)
        return self.shaped(parsed, shape)

    def rows(self, mark: str = ",") -> list[list[str]]:
        """Parse the rows of a table, cells parted by a mark; empty lines are left out. Raises `error`."""
        return self._parsed("a table", lambda text: [*filter(None, csv.reader(io.StringIO(text, ""), delimiter=mark))])

    def xml(self) -> ElementTree.Element:
        """Parse XML without a document type, whose entities may stand for any amount of text. Raises `error`."""
        if "<!DOCTYPE" in self.text:
            raise self.fault("it has a document type, <!DOCTYPE ...>: delete that line")
        return self._parsed("XML", ElementTree.fromstring)

    def shaped(self, content: Any, shape: type[T]) -> T:
        """Return what was parsed in a shape. Raises `error`, which names the place that does not fit.

        Shapes are float (finite), int, str, bool, None, object (anything), lists, tuples, tables (`dict[str, X]`),
        `X | Y`, `Literal`, and dataclasses: tables with a key for each field, where what has a default may be missing
        and other keys are left out.
        """
        try:
            return _reader(shape)(content)
        except _UnfitError as unfit:
            place = unfit.place.removeprefix(".")
            raise self.fault(f"{place + ' ' if place else 'it '}{unfit.why}") from None

    def _parsed(self, kind: str, parse: Callable[[str], T]) -> T:
        if not self.text.strip() and kind != "TOML":
            raise self.error(f"{self.name} is empty")
        try:
            parsed = parse(self.text)
            _check(parsed)
        except _UnfitError as unfit:
            raise self.fault(f"{unfit.place}{unfit.why}") from None
        except RecursionError:
            raise self.fault(f"it is nested more than {MOST_DEPTH} deep") from None
        except (ValueError, SyntaxError, csv.Error) as wrong:
            raise self.error(f"{self.name} is not {kind}: {_reason(wrong)}") from None
        return parsed


def read_bytes(path: str | Path, error: type[ConvscopeError], *, most: int = MOST_BYTES) -> bytes:
    """Read a file of at most `most` bytes, never waiting. Raises `error` for what is too large, missing, or no file."""
    try:
        with open(path, "rb", opener=_at_once) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise error(f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'no file')}; name a file")
            content = file.read(most + 1)
    except OSError as wrong:
        raise error(f"cannot read {path}: {wrong.strerror or wrong}") from None
    except ValueError:  # a zero byte
        raise error(f"cannot read {str(path)!r}: no file can have such a name") from None
    if len(content) > most:
        raise error(f"{path} has more than {most:,} bytes, the most that are read of such a file")
    return content


def _at_once(path: str, flags: int) -> int:
    """Open a file without waiting for who may write into it, where it is a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


class _UnfitError(Exception):
    """Content that has not the shape it should have; the place is put together on the way out."""

    def __init__(self, why: str, place: str = "") -> None:
        super().__init__(why)
        self.why, self.place = why, place

    def inside(self, place: str) -> _UnfitError:
        return _UnfitError(self.why, place + self.place)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _UnfitError(f"the key {shown(next(key for key in keys if keys.count(key) > 1))} is there twice")
    return table


def _literal(text: str) -> Any:
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except MemoryError:  # so the parser calls its own stack
        raise RecursionError from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            _unique([(repr(key.value), None) for key in node.keys if isinstance(key, ast.Constant)])
    try:
        return ast.literal_eval(tree)
    except (ValueError, TypeError):  # a call or a sum; a list as a key
        raise ValueError("texts, numbers, lists and dicts are read, and nothing is run") from None


def _check(parsed: Any) -> None:
    """Refuse what is nested too deep, and whole numbers that are no floating-point numbers."""
    level = [parsed] if isinstance(parsed, (list, tuple, dict, set)) else []
    for _ in range(MOST_DEPTH):
        items = [item for part in level for item in (part.values() if isinstance(part, dict) else part)]
        if any(type(item) is int and item.bit_length() > _MOST_BITS for item in items):
            raise _UnfitError("a number has more than 300 digits")
        level = [item for item in items if isinstance(item, (list, tuple, dict, set))]
        if not level:
            return
    raise _UnfitError(f"it is nested more than {MOST_DEPTH} deep")


def _reason(wrong: Exception) -> str:
    if "integer string conversion" in str(wrong):
        return "a number has more than 300 digits"
    if isinstance(wrong, SyntaxError) and not isinstance(wrong, ElementTree.ParseError):
        return f"{wrong.msg}, line {wrong.lineno}"
    return str(wrong)[:200]


_Reader = Callable[[Any], Any]
_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    NoneType: "nothing",
}


def _words(shape: Any) -> str:
    if get_origin(shape) in (Union, UnionType):
        return " or ".join(map(_words, get_args(shape)))
    if get_origin(shape) is Literal:
        return " or ".join(map(repr, get_args(shape)))
    if get_origin(shape) is tuple and get_args(shape)[-1] is not Ellipsis:
        return f"a list of {len(get_args(shape))}"
    if get_origin(shape) in (list, tuple, Sequence):
        return "a list"
    return _WORDS.get(shape, "a table")


def shown(value: Any) -> str:
    """Return a value as a message shows it, which is short."""
    if isinstance(value, (dict, list, tuple, set)):
        size = len(cast("Sequence[Any]", value))
        return f"a table of {size}" if isinstance(value, dict) else f"a list of {size}"
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]} ..."


def _unfit(value: Any, shape: Any) -> _UnfitError:
    return _UnfitError(f"is {shown(value)}; {_words(shape)} is needed")


_PLAIN = {bool, int, str, NoneType}
"""Types of which a value either is one or not."""


@cache
def _reader(shape: Any) -> _Reader:
    """Return the function that holds content against a shape."""
    origin, parts = get_origin(shape), get_args(shape)
    if shape is object or shape is Any:
        return lambda value: value
    if is_dataclass(shape):
        return _record(cast("type[Any]", shape))
    if origin in (Union, UnionType) and _PLAIN.issuperset(parts):  # nothing is tried: errors take time
        return _plain(shape, lambda value: type(value) in parts)
    if origin in (Union, UnionType):
        return _either(shape, [_reader(part) for part in parts])
    if origin is Literal:
        return _plain(shape, lambda value: value in parts)
    if origin is tuple and parts[-1] is not Ellipsis:
        return _fixed(shape, [_reader(part) for part in parts])
    if origin in (list, tuple, Sequence):
        return _several(shape, tuple if origin is tuple else list, _reader(parts[0]))
    if origin in (dict, Mapping):
        return _table(shape, _reader(parts[1]))
    if shape is float:
        return _number
    return _plain(shape, lambda value: type(value) is shape)


def _plain(shape: Any, fits: Callable[[Any], bool]) -> _Reader:
    def read(value: Any) -> Any:
        if not fits(value):
            raise _unfit(value, shape)
        return value

    return read


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise _unfit(value, float)
    return float(value)


def _either(shape: Any, readers: Sequence[_Reader]) -> _Reader:
    def read(value: Any) -> Any:
        nearest: _UnfitError | None = None
        for reader in readers:
            try:
                return reader(value)
            except _UnfitError as unfit:
                # What is wrong inside says more than that the whole does not fit.
                nearest = unfit if unfit.place else nearest
        raise nearest or _unfit(value, shape)

    return read


def _each(items: Sequence[Any], readers: Sequence[_Reader]) -> list[Any]:
    read: list[Any] = []
    try:
        for item, reader in zip(items, readers, strict=True):
            read.append(reader(item))
    except _UnfitError as unfit:
        raise unfit.inside(f"[{len(read)}]") from None
    return read


def _fixed(shape: Any, readers: Sequence[_Reader]) -> _Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or len(cast("Sequence[Any]", value)) != len(readers):
            raise _unfit(value, shape)
        return tuple(_each(cast("Sequence[Any]", value), readers))

    return read


def _several(shape: Any, made: Callable[[list[Any]], Any], reader: _Reader) -> _Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise _unfit(value, shape)
        items = cast("Sequence[Any]", value)
        return made(_each(items, [reader] * len(items)))

    return read


def _table(shape: Any, reader: _Reader) -> _Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _unfit(value, shape)
        return {key: _within(f".{_key(key)}", reader, item) for key, item in cast("dict[Any, Any]", value).items()}

    return read


def _key(key: Any) -> str:
    return key if isinstance(key, str) and key.isidentifier() else shown(key)


def _within(place: str, reader: _Reader, value: Any) -> Any:
    try:
        return reader(value)
    except _UnfitError as unfit:
        raise unfit.inside(place) from None


def _record(shape: type[Any]) -> _Reader:
    hints = get_type_hints(shape)
    readers = {entry.name: _reader(hints[entry.name]) for entry in fields(shape) if entry.init}
    needed = [
        entry.name
        for entry in fields(shape)
        if entry.init and entry.default is MISSING and entry.default_factory is MISSING
    ]

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _unfit(value, shape)
        missing = [name for name in needed if name not in value]
        if missing:
            raise _UnfitError(f"has no {missing[0]}")
        table, made, name = cast("dict[str, Any]", value), dict[str, Any](), ""
        try:
            for name, each in readers.items():
                if name in table:
                    made[name] = each(table[name])
        except _UnfitError as unfit:
            raise unfit.inside(f".{name}") from None
        return shape(**made)

    return read
