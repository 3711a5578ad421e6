"""Damage to real files, for tests of what reads them."""

from __future__ import annotations

from hypothesis import strategies as st

Edit = tuple[int, str, bytes]


def edits(positions: st.SearchStrategy[int]) -> st.SearchStrategy[list[Edit]]:
    """One to four edits: bytes set, dropped or added at a place, or the rest cut off."""
    kinds = st.sampled_from(["set", "drop", "add", "cut"])
    return st.lists(st.tuples(positions, kinds, st.binary(min_size=1, max_size=5)), min_size=1, max_size=4)


def mutated(content: bytes, changes: list[Edit]) -> bytes:
    """Apply edits to the content of a file."""
    for position, kind, new in changes:
        at = position % max(len(content), 1)
        head, tail = content[:at], content[at:]
        content = {
            "set": head + new + tail[len(new) :], "drop": head + tail[len(new) :], "add": head + new + tail,
            "cut": head
        }[kind]  # fmt: skip
    return content
