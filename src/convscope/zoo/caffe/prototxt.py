"""Prototxts as text: read whole, scanned for lines and names of fields, parsed into messages.

protobuf's parser either refuses every field that the schema lacks or skips all of them, and tells no lines of what it
read. The scan gives both: which fields there are, and where.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from ...errors import NetworkError, nearest
from .schema import NetParameter

MOST_BYTES = 2 * 2**20
MOST_DEPTH = 32
"""Caffe's schema needs five messages inside each other."""

_LONG = 200

_TOKEN = re.compile(
    r"""
    (?P<skip> (?: \s | \#[^\n]* )++ )
  | (?P<string> "(?: [^"\\\n] | \\. )*+" | '(?: [^'\\\n] | \\. )*+' )
  | (?P<name> [^\s{}<>:;,\[\]"'\#]++ (?= (?: \s | \#[^\n]*+ )*+ [:{<\[] ) )
  | (?P<word> [^\s{}<>:;,\[\]"'\#]++ )
  | (?P<open> [{<] )
  | (?P<close> [}>] )
  | (?P<mark> . )
    """,
    re.VERBOSE,
)

_UNREAD = {"Unread", "BlobProto"}


@dataclass(frozen=True, slots=True)
class Field:
    """A field as it is written: its name, its line, its (first) value without quotes, or the fields inside it."""

    name: str
    line: int
    value: str = ""
    fields: list[Field] = field(default_factory=list)

    def all(self, name: str) -> list[Field]:
        """Return the fields inside that have this name."""
        return [inner for inner in self.fields if inner.name == name]

    def get(self, name: str) -> str:
        """Return the value of the first field inside that has this name, or nothing."""
        return next((inner.value for inner in self.all(name)), "")


def read_text(path: Path) -> str:
    """Read a prototxt; what cannot be one is a NetworkError that says what it is."""
    if path.is_dir():
        raise NetworkError(f"{path} is a folder: give the definition in it, such as {path / 'deploy.prototxt'}")
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= MOST_BYTES else b""
    except OSError as error:
        raise NetworkError(f"there is no definition at {path}: {error.strerror or error}") from None
    if size > MOST_BYTES:
        raise NetworkError(
            f"{path} has {size:,} bytes, and a definition at most {MOST_BYTES:,}: a caffemodel is given as weights=FILE"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NetworkError(_no_text(path, f"byte {error.start} is not UTF-8")) from None
    if "\0" in text:
        raise NetworkError(_no_text(path, f"character {text.index(chr(0))} is a zero"))
    if not text.strip():
        raise NetworkError(f"{path} is empty: a definition is a .prototxt with the network's layers")
    return text


def _no_text(path: Path, why: str) -> str:
    return f"{path} is not text ({why}): the definition is the .prototxt, and a caffemodel is given as weights=FILE"


def scan(path: Path, text: str) -> Field:
    """Read the fields and their lines, whatever their names; a NetworkError where they lie too deep."""
    root = Field("", 1)
    inside, name, line, at = [root], "", 1, 1
    for token in _TOKEN.finditer(text):
        kind, written = token.lastgroup, token.group()
        if kind == "name":
            name, at = written, line
        elif kind in ("string", "word") and name:
            inside[-1].fields.append(Field(name, at, written.strip("\"'")))
            name = ""
        elif kind == "open":
            # Messages in a list, [{...}, {...}], have their name before the first only.
            within = inside[-1].fields
            block = Field(name, at) if name else Field(within[-1].name if within else "", line)
            within.append(block)
            inside.append(block)
            name = ""
        elif kind == "close" and len(inside) > 1:
            inside.pop()
        if len(inside) > MOST_DEPTH:
            raise NetworkError(
                f"{path}, line {line}: braces lie more than {MOST_DEPTH} deep, and a definition needs five"
            )
        line += written.count("\n")
    return root


def parse(path: Path, text: str) -> Any:
    """Parse the text into a NetParameter, skipping unknown fields; a NetworkError with the line where it fails."""
    broken, lines = _broken(text)
    try:
        return text_format.Parse(broken, NetParameter(), allow_unknown_field=True)
    except text_format.ParseError as error:
        line = lines[min(error.GetLine() or 1, len(lines)) - 1]
        raise NetworkError(f"{path} cannot be read at line {line}: {_reason(str(error))}") from None


def _broken(text: str) -> tuple[str, list[int]]:
    """Break long lines between tokens, and return for every line which it was part of.

    The parser's time grows with the square of a line's length.
    """
    parts, lines, line, length = [""], [1], 1, 0
    for token in _TOKEN.finditer(text):
        written = token.group()
        newlines = written.count("\n")
        lines += range(line + 1, line + newlines + 1)
        line += newlines
        length = 0 if newlines else length + len(written)
        parts.append(written)
        if length > _LONG:
            parts.append("\n")
            lines.append(line)
            length = 0
    return "".join(parts), lines


def _reason(said: str) -> str:
    """Say in our words what protobuf's parser says, without the line's text, which may be long."""
    reason = said.split(" : ", 1)[-1].rsplit("': ", 1)[-1][:200].rstrip(".")
    enum = re.fullmatch(r'Enum type "caffe\.(\w+)\.Value" has no value (?:named|with number) (.+)', reason)
    if enum is None:
        return reason.replace('"caffe.', '"')
    values = NetParameter.DESCRIPTOR.file.message_types_by_name[enum[1]].enum_types[0].values_by_name
    return f"there is no {enum[1]} {enum[2]}; nearest: {nearest(enum[2], values)}"


def unknown_fields(block: Field, descriptor: Any) -> Iterator[str]:
    """Name the fields in a block that the schema does not have, with their lines and what may have been meant."""
    known = descriptor.fields_by_name
    for inner in block.fields:
        if inner.name not in known:
            yield f"{inner.name!r} (line {inner.line}; nearest: {nearest(inner.name, known, count=1)})"
        elif known[inner.name].message_type and known[inner.name].message_type.name not in _UNREAD:
            yield from unknown_fields(inner, known[inner.name].message_type)
