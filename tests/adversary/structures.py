"""Damage with knowledge of a format: to its chunks, members, fields, entries, opcodes and trees, checksums made right.

A `Layout` takes a file apart into pieces and puts pieces together again. All formats that are a row of pieces are
damaged in one way: a piece is dropped, repeated, moved, or changed inside.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.random import Generator

from .mutations import BYTES, NUMBERS, TEXT, WORDS, Mutation, one_of, set_to_edges, several

Piece = tuple[bytes, bytes]
"""A piece's name or header, and its content."""


@dataclass(frozen=True)
class Layout:
    """How a format is taken apart into pieces, and put together with right lengths and checksums."""

    split: Callable[[bytes], list[Piece]]
    join: Callable[[Sequence[Piece]], bytes]
    inner: Mutation = BYTES
    """What damages the inside of a piece."""

    def mutate(self, data: bytes, rng: Generator) -> bytes:
        """Damage one piece; bytes anywhere where the file is no such format (any more)."""
        try:
            pieces = self.split(data)
        except Exception:  # it was damaged before
            return BYTES(data, rng)
        if not pieces:
            return BYTES(data, rng)
        at = int(rng.integers(len(pieces)))
        head, content = pieces[at]
        match int(rng.integers(8)):
            case 0:
                del pieces[at]
            case 1:
                pieces[at:at] = [pieces[at]] * one_of((1, 2, 500), rng)
            case 2:
                pieces.insert(int(rng.integers(len(pieces))), pieces.pop(at))
            case 3:
                pieces[at] = self._head(head, rng), content
            case _:
                pieces[at] = head, self.inner(content, rng)
        try:
            return self.join(pieces)
        except (struct.error, ValueError, OverflowError, IndexError):
            return BYTES(data, rng)

    @staticmethod
    def _head(head: bytes, rng: Generator) -> bytes:
        return set_to_edges(head, rng)[: len(head)] if head else head


# Rows of chunks -----------------------------------------------------------------------------------------------------

_PNG = b"\x89PNG\r\n\x1a\n"


def _png_chunks(data: bytes) -> list[Piece]:
    pieces, at = list[Piece](), len(_PNG)
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        pieces.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return pieces


def _png(pieces: Sequence[Piece]) -> bytes:
    parts = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in pieces)
    return _PNG + b"".join(parts)


def _riff_chunks(data: bytes) -> list[Piece]:
    pieces, at = [(b"RIFF", data[8:12])], 12
    while at < len(data):
        (size,) = struct.unpack("<I", data[at + 4 : at + 8])
        pieces.append((data[at : at + 4], data[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2
    return pieces


def _riff(pieces: Sequence[Piece]) -> bytes:
    parts = [k + struct.pack("<I", len(c)) + c + b"\0" * (len(c) % 2) for k, c in pieces if k != b"RIFF"]
    whole = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(whole)) + whole


def _boxes(data: bytes) -> list[Piece]:
    """MP4's boxes, those of `moov` as pieces of their own."""
    pieces, at = list[Piece](), 0
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        if size < 8:
            break
        pieces.append((data[at + 4 : at + 8], data[at + 8 : at + size]))
        at += size
    return pieces


def _boxed(pieces: Sequence[Piece]) -> bytes:
    return b"".join(struct.pack(">I", 8 + len(content)) + kind + content for kind, content in pieces)


def _segments(data: bytes) -> list[Piece]:
    """A JPEG's segments; the last one holds everything from the first scan on."""
    pieces, at = list[Piece](), 2
    while data[at : at + 1] == b"\xff":
        marker = data[at : at + 2]
        (size,) = struct.unpack(">H", data[at + 2 : at + 4])
        if marker == b"\xff\xda":
            return [*pieces, (marker, data[at + 4 :])]
        pieces.append((marker, data[at + 4 : at + 2 + size]))
        at += 2 + size
    return pieces


def _jpeg(pieces: Sequence[Piece]) -> bytes:
    def segment(marker: bytes, content: bytes) -> bytes:
        size = 12 if marker == b"\xff\xda" else min(len(content) + 2, 65535)
        return marker + struct.pack(">H", size) + content

    return b"\xff\xd8" + b"".join(segment(*piece) for piece in pieces)


def _tiff_entries(data: bytes) -> list[Piece]:
    """The 12 bytes of each entry of the first directory, after all that is before them."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack(order + "I", data[4:8])
    (count,) = struct.unpack(order + "H", data[start : start + 2])
    entries = [(b"", data[start + 2 + 12 * i : start + 14 + 12 * i]) for i in range(count)]
    return [(data[:start], b""), *entries, (b"", data[start + 2 + 12 * count :])]


def _tiff(pieces: Sequence[Piece]) -> bytes:
    first, last = pieces[0], pieces[-1]
    order = "little" if first[0][:2] == b"II" else "big"
    count = (len(pieces) - 2).to_bytes(2, order)
    return first[0] + first[1] + count + b"".join(content for _, content in pieces[1:-1]) + last[1]


def _tar_members(data: bytes) -> list[Piece]:
    pieces, at = list[Piece](), 0
    while data[at : at + 1].strip(b"\0"):
        size = int(data[at + 124 : at + 136].strip(b"\0 "), 8)
        pieces.append((data[at : at + 512], data[at + 512 : at + 512 + size]))
        at += 512 + (size + 511) // 512 * 512
    return pieces


def _tar(pieces: Sequence[Piece]) -> bytes:
    whole = b""
    for head, content in pieces:
        blank = head[:148] + b" " * 8 + head[156:]
        whole += blank[:148] + b"%06o\0 " % sum(blank) + blank[156:] + content + b"\0" * (-len(content) % 512)
    return whole + bytes(1024)


# Fields, members, opcodes ---------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """Write a number as protobuf does."""
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number, shift, at = number | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return number, at


def _fields(data: bytes) -> list[Piece]:
    """The fields of a protobuf message: key, and value with its length where it has one."""
    pieces, at = list[Piece](), 0
    while at < len(data):
        key, after = _read_varint(data, at)
        kind = key & 7
        if kind == 0:
            end = _read_varint(data, after)[1]
        elif kind == 2:
            size, after = _read_varint(data, after)
            end = after + size
        else:
            end = after + {1: 8, 5: 4}[kind]
        if end > len(data):
            raise ValueError("no message")
        pieces.append((varint(key), data[after:end]))
        at = end
    return pieces


def _message(pieces: Sequence[Piece]) -> bytes:
    return b"".join(
        key + (varint(len(value)) if _read_varint(key + b"\0", 0)[0] & 7 == 2 else b"") + value for key, value in pieces
    )


def protobuf(data: bytes, rng: Generator) -> bytes:
    """Damage a field of a message, or of a message inside it, however deep."""
    inner = protobuf if len(data) > 40 and rng.random() < 0.85 else several((BYTES, TEXT), 1)
    return Layout(_fields, _message, inner).mutate(data, rng)


def _members(data: bytes) -> list[Piece]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(name.encode(), archive.read(name)) for name in archive.namelist()]


def _archive(pieces: Sequence[Piece]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")  # two members of one name
        for name, content in pieces:
            archive.writestr(name.decode("latin-1") or "x", content)
    return buffer.getvalue()


def _inside_archives(data: bytes, rng: Generator) -> bytes:
    if data[:1] in (b"{", b"["):
        return tree(data, rng)
    return opcodes(data, rng) if data[:1] == b"\x80" else BYTES(data, rng)


def _opcodes(data: bytes) -> list[Piece]:
    starts = [at for _, _, at in pickletools.genops(data)]
    return [(b"", data[a:b]) for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


OPCODES = (b".", b"}", b"]", b")", b"N", b"(", b"0", b"1", b"2", b"t", b"s", b"u", b"a", b"e", b"R", b"b", b"\x81",
           b"\x85", b"\x93", b"Q", b"\x94", b"K\x05", b"J\xff\xff\xff\x7f", b"h\x00", b"j\xff\xff\xff\xff", b"I9\n",
           b"I" + b"9" * 5000 + b"\n", b"cos\nsystem\n", b"cbuiltins\neval\n", b"ctorch\nload\n", b"X\x01\0\0\0x",
           b"\x8d" + b"\xff" * 8, b"\x95" + b"\xff" * 8, b"\x8a\xff", b"F1e400\n", b"V[/]\n")  # fmt: skip


def _other_opcode(data: bytes, rng: Generator) -> bytes:
    return one_of(OPCODES, rng) + (data if rng.random() < 0.5 else b"")


opcodes = Layout(_opcodes, lambda pieces: b"".join(p for _, p in pieces), several((BYTES, _other_opcode), 1)).mutate


def _safetensors(data: bytes, rng: Generator) -> bytes:
    """Damage the header, its length made right."""
    size = int.from_bytes(data[:8], "little")
    header = _in_metadata(data[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def _in_metadata(header: bytes, rng: Generator) -> bytes:
    """Damage the header, or JSON in the texts of its metadata."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = json.loads(header)
        if rng.random() < 0.6:
            whole["__metadata__"] = json.loads(tree_within(json.dumps(whole["__metadata__"]).encode(), rng))
            return json.dumps(whole).encode()
    return tree(header, rng)


def _npy(data: bytes, rng: Generator) -> bytes:
    size = int.from_bytes(data[8:10], "little")
    header = TEXT(data[10 : 10 + size], rng)[:65535]
    return data[:8] + len(header).to_bytes(2, "little") + header + data[10 + size :]


# Trees ----------------------------------------------------------------------------------------------------------------

_DEEP = 20_000
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 0.5, 1e308, -1e-300, 2**31, 2**63, 10**400, float("nan"), float("inf"), "", "x", " ",
    "x" * 10**5,
    "\0", "\ud800", "\x1b[31m", "[red]", "[/]", "../../etc/passwd", "a\nb", "", "0", "-1", [], [[]], {}, [None],
    [0] * 1000,
    {"": ""}, {"x": {"y": []}},
)  # fmt: skip
_HOLE = "a hole in the tree"


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, value in list(keys)[:200] for place in _places(value, (*path, key)))]


def tree(data: bytes, rng: Generator) -> bytes:
    """Damage a value, a key or a branch of JSON, or leave something that is none in its place."""
    try:
        root = json.loads(data)
    except (ValueError, RecursionError):
        return TEXT(data, rng)
    path = one_of(_places(root), rng)
    if not path:
        return _text(one_of(VALUES, rng)) if rng.random() < 0.3 else TEXT(data, rng)
    parent = root
    for key in path[:-1]:
        parent = parent[key]
    _change(parent, path[-1], rng)
    text = _text(root)
    raw = (b"[" * _DEEP + b"]" * _DEEP, b'{"a":' * _DEEP + b"1" + b"}" * _DEEP, *NUMBERS, *WORDS)
    return text.replace(json.dumps(_HOLE).encode(), one_of(raw, rng))


def _change(parent: Any, key: Any, rng: Generator) -> None:
    match int(rng.integers(6)):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            other = one_of([*parent, *(w.decode("latin-1") for w in WORDS)], rng)
            parent[other] = parent.pop(key)
        case 1:
            parent[key:key] = [parent[key]] * one_of((1, 3, 1000), rng)
        case 2:
            parent[key] = one_of(list(parent.values()) if isinstance(parent, dict) else parent, rng)
        case 3:
            parent[key] = _HOLE
        case _:
            parent[key] = one_of(VALUES, rng)


def _text(root: Any) -> bytes:
    try:
        return json.dumps(root).encode()
    except (ValueError, RecursionError):  # a number of more digits than Python writes
        return b"[" * 3


def toml(data: bytes, rng: Generator) -> bytes:
    """Damage a value, a key or a table's name of TOML."""
    found = list(re.finditer(rb"(?m)(?<= = ).+$|^[\w.\"-]+(?= = )|(?<=^\[)[^\]\n]+(?=\])", data))
    if not found or rng.random() < 0.2:
        return TEXT(data, rng)
    match = one_of(found, rng)
    return data[: match.start()] + one_of(TOML, rng) + data[match.end() :]


TOML = (b"3", b"-1", b"0", b"1.5", b"inf", b"nan", b"true", b"''", b"'x'", b"'~nobody/x'", b"'~'", b"'\\u0000'",
b'"\\u0000"',
        b"[]", b"[[]]", b"[1, 'a']", b"{}", b"{ a = 1 }", b"1979-05-27", b"1979-05-27T07:32:00Z", b"9" * 5000,
        b"0x" + b"f" * 5000,
        b"[" * 2000 + b"]" * 2000, b"{a=" * 900 + b"1" + b"}" * 900, b"'" + b"x" * 10**5 + b"'", b"'[red]x[/]'",
        b"'\x1b[31m'", b".".join([b"a"] * 20_000), b'"a:b"', b"'/'", b"'../..'", b"'torchvision:MNIST:/x'",
        b"'sample:x'",
        b"'file:x.py:build'", b"'onnx:/dev/zero'", b"'\xff'", b"net", b"a", b"tool.convscope")  # fmt: skip

PNG_LAYOUT = Layout(_png_chunks, _png)
PNG, WEBP, MP4 = (each.mutate for each in (PNG_LAYOUT, Layout(_riff_chunks, _riff), Layout(_boxes, _boxed)))
JPEG, TIFF, TAR = (Layout(*both).mutate for both in ((_segments, _jpeg), (_tiff_entries, _tiff), (_tar_members, _tar)))
ZIP = Layout(_members, _archive, _inside_archives).mutate
SAFETENSORS, NPY = _safetensors, _npy


def drawing_png(data: bytes, rng: Generator) -> bytes:
    """Damage the recipe or the words in a drawing's text chunks."""

    def words(content: bytes, rng: Generator) -> bytes:
        key, mark, text = content.partition(b"\0")
        return key + mark + tree(text, rng) if text[:1] == b"{" else content

    return Layout(_png_chunks, _png, words).mutate(data, rng)


def drawing_npz(data: bytes, rng: Generator) -> bytes:
    """Damage the recipe or the words in an archive's comment, or its members."""
    with contextlib.suppress(Exception), zipfile.ZipFile(io.BytesIO(data)) as archive:
        comment = archive.comment
        text = zlib.decompress(comment) if comment[:1] == b"\x78" else comment
        if rng.random() < 0.7:
            return _with_comment(data, tree_within(text, rng))
        return _with_comment(ZIP(data, rng), comment)
    return BYTES(data, rng)


def _with_comment(data: bytes, comment: bytes) -> bytes:
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = (comment if len(comment) < 65535 else zlib.compress(comment, 9))[:65535]
    return buffer.getvalue()


def tree_within(data: bytes, rng: Generator) -> bytes:
    """Damage JSON, or JSON in the texts of JSON."""
    with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
        outer = json.loads(data)
        key = one_of(list(outer), rng)
        if rng.random() < 0.8 and outer[key][:1] == "{":
            return json.dumps({**outer, key: tree(outer[key].encode(), rng).decode("latin-1")}).encode()
    return tree(data, rng)


def with_bytes(*mutations: Mutation) -> Mutation:
    """Return damage of these kinds mostly, and to bytes anywhere now and then."""
    return several((*mutations, *mutations, *mutations, BYTES))
