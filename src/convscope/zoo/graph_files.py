"""What files that hold graphs have in common: one input, chosen outputs, weights inside, what a caption must say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..assumptions import Assumption, of_size
from ..errors import NetworkError, OptionError, nearest
from ..net import Net
from .graph_batches import fit_to_batches
from .graphs import Graph

_SIDE = 224


def as_net(
    body: Graph, path: Path, shape: tuple[int, Any, Any], notes: list[str], reading: dict[str, Any], *, single: bool
) -> Net:
    """Wrap the graph of a file that reads pictures of `shape` (c, h, w); h and w are None where it leaves them open.

    `single` says that the file was made for one picture at a time. Captions say what was guessed. Raises what
    `fit_to_batches` raises.
    """
    channels, *sides = shape
    size: Any = reading.get("size", tuple(sides))
    assumed: list[Assumption] = []
    if None in (size if isinstance(size, tuple) else ()):
        size = _SIDE
        assumed.append(of_size((_SIDE, _SIDE), "the file leaves the size open"))
        notes = [*notes, f"read at {_SIDE}x{_SIDE} pixels, since the file leaves the size open"]
    if "mean" not in reading and "std" not in reading:
        notes = [*notes, "reads pixels in [0, 1] as they are, since no mean and std were given"]
    height, width = (size, size) if isinstance(size, int) else size
    fit_to_batches(body.eval(), (channels, height, width), name=path.name, single=single)
    own: dict[str, Any] = {"name": path.stem, "note": "; ".join(notes), "channels": channels}
    options: dict[str, Any] = own | reading | {"size": size}
    return Net(body, **options).assuming(*assumed)


def refuse_weights(name: str, weights: object) -> None:
    """Raise OptionError for weights that are given besides a file that has its own."""
    if weights != "default":
        raise OptionError(
            f"{name} has its weights inside: leave out weights, or load the Python model by file:MY_MODEL.py:build"
        )


def one_input(names: Sequence[str], path: Path) -> str:
    """Return the name of what reads the picture. Raises NetworkError where a file reads more or nothing."""
    if len(names) != 1:
        raise NetworkError(
            f"{path} has {len(names)} inputs ({', '.join(map(repr, names)) or 'none'}), and one picture is given: wrap "
            "the Python model, as in load('file:MY_MODEL.py:build', extra=...)"
        )
    return names[0]


def refuse_batches(count: int | None, path: Path) -> None:
    """Raise NetworkError for a file that was made for a fixed number of pictures above one."""
    if count is not None and count > 1:
        raise NetworkError(f"{path} takes {count} pictures at a time: export it for one, or for a batch of any size")


def refuse_operations(names: set[str], path: Path, version: str = "") -> None:
    """Raise NetworkError that names all operations that are not known, at once."""
    if names:
        what = f"{len(names)} operation{'s' if len(names) > 1 else ''}{version}"
        raise NetworkError(
            f"{path} uses {what} not known here ({', '.join(sorted(names))}): load the Python model by "
            "file:MY_MODEL.py:build"
        )


def chosen_outputs(names: Sequence[str], path: Path, reading: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the outputs of a file that are looked at, and notes that say so.

    They are one, the first where nothing is asked for, or all where a function in `reading` chooses. Raises OptionError
    for an output that does not exist, NetworkError where there is none.
    """
    if not names:
        raise NetworkError(f"{path} returns no tensor")
    wanted = reading.get("output", 0)
    if callable(wanted):
        return list(names), []
    reading.pop("output", None)
    numbered = isinstance(wanted, int) and -len(names) <= wanted < len(names)
    chosen = names[wanted] if numbered else str(wanted)
    if chosen not in names:
        there = nearest(chosen, names)
        raise OptionError(f"{path} has no output {wanted!r}; it has {len(names)}: {there}, or by number as in output=0")
    return [chosen], [f"its output {chosen!r} of {len(names)}"] if len(names) > 1 else []
