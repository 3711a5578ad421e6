"""Damage without knowledge of a format: to bytes, numbers, lines and words, drawn from a generator."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from numpy.random import Generator

T = TypeVar("T")
Mutation = Callable[[bytes, Generator], bytes]

HUGE = (2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1)
EDGES = (0, 1, 2, 3, 7, 16, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 2**20, 2**24, *HUGE, 2**64 - 1)
NUMBERS = (b"-1", b"0", b"7", b"1e9", b"1e400", b"NaN", b"null", b"0.5", b"9" * 5000, *(str(n).encode() for n in HUGE))
WORDS = (b"", b"\x00", b"../../x", b"/etc/passwd", b"\xff\xfe", b"\xed\xa0\x80", b"[bold]x[/]", b"\x1b[31m",
b"x" * 300,
         b"'" * 3, b"%s", b"{0}", "é日本".encode())  # fmt: skip


def one_of(choices: Sequence[T], rng: Generator) -> T:
    """Draw one."""
    return choices[int(rng.integers(len(choices)))]


def several(mutations: Sequence[Mutation], most: int = 3) -> Mutation:
    """Return what damages in one to `most` of these ways."""

    def mutate(data: bytes, rng: Generator) -> bytes:
        for _ in range(rng.integers(1, most + 1)):
            data = one_of(mutations, rng)(data, rng)
        return data

    return mutate


def position(data: bytes, rng: Generator) -> int:
    """Somewhere: near the beginning, near the end, or anywhere."""
    span = min(len(data), 3000)
    start = (0, len(data) - span, int(rng.integers(len(data) - span + 1)))[rng.integers(3)]
    return start + int(rng.integers(max(span, 1)))


def truncated(data: bytes, rng: Generator) -> bytes:
    """Cut off somewhere."""
    return data[: position(data, rng)]


def flipped(data: bytes, rng: Generator) -> bytes:
    """With up to 16 bits the other way."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 17)):
        if changed:
            changed[position(data, rng) % len(changed)] ^= 1 << rng.integers(8)
    return bytes(changed)


def overwritten(data: bytes, rng: Generator) -> bytes:
    """With a huge number, as little-endian bytes or as protobuf writes it."""
    at, number = position(data, rng), one_of(HUGE, rng)
    varint = b"\xff" * 8 + b"\x7f"
    new = varint if rng.random() < 0.5 else number.to_bytes(8, "little")
    return data[:at] + new + data[at + (len(new) if rng.random() < 0.7 else 1) :]


def set_to_edges(data: bytes, rng: Generator) -> bytes:
    """With a number at the edge of its type, of 1, 2, 4 or 8 bytes in either order."""
    at, size = position(data, rng), one_of((1, 2, 4, 8), rng)
    number = one_of(EDGES, rng) % 256**size
    return data[:at] + number.to_bytes(size, one_of(("little", "big"), rng)) + data[at + size :]


def spliced(data: bytes, rng: Generator) -> bytes:
    """With a piece of itself elsewhere."""
    a, b, length = position(data, rng), position(data, rng), int(rng.integers(1, 400))
    return data[:a] + data[b : b + length] + data[a + (length if rng.random() < 0.5 else 0) :]


def renumbered(data: bytes, rng: Generator) -> bytes:
    """With another number where one is written in text: sizes and places in headers."""
    found = list(re.finditer(rb"(?<=[\[,: =(])-?\d+(?=[\],} \n);])", data))
    if not found:
        return spliced(data, rng)
    match = one_of(found, rng)
    return data[: match.start()] + one_of(NUMBERS, rng) + data[match.end() :]


def resized(data: bytes, rng: Generator) -> bytes:
    """With another number that the schema takes where one is written: sizes, strides, axes."""
    found = list(re.finditer(rb"(?<=: )\d+", data))
    if not found:
        return data
    match = one_of(found, rng)
    new = one_of((0, 1, 2, 3, 5, 16, 1000, 65535, 2**20, 2**31 - 1, 2**32 - 1), rng)
    return data[: match.start()] + str(new).encode() + data[match.end() :]


def relined(data: bytes, rng: Generator) -> bytes:
    """Without a line, or with one twice, or elsewhere."""
    lines = data.split(b"\n")
    line = lines.pop(rng.integers(len(lines)))
    for _ in range(rng.integers(0, 3)):
        lines.insert(rng.integers(len(lines) + 1), line)
    return b"\n".join(lines)


def reworded(data: bytes, rng: Generator) -> bytes:
    """With a word of the file, or a strange one, where another was."""
    words = list(re.finditer(rb"\w+", data))
    if not words:
        return data
    old, new = one_of(words, rng), one_of(words, rng)[0]
    return data[: old.start()] + (new if rng.random() < 0.6 else one_of(WORDS, rng)) + data[old.end() :]


BYTES = several((truncated, flipped, overwritten, set_to_edges, spliced, renumbered))
TEXT = several((renumbered, relined, reworded, reworded, spliced, truncated, flipped))
DEFINITIONS = several((resized, resized, resized, resized, renumbered, relined, reworded, spliced))
