"""Provenance: what decides a drawing's numbers, written down before they are computed, and what a reader must know."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .assumptions import assumed_first
from .context import Part
from .data import storage
from .data.display import default_bands
from .data.hashing import content_hash, where_of
from .data.images import InputPicture
from .data.preprocessing import Size, sides
from .errors import PictureError
from .net import Net
from .objectives import Objective
from .options import Option
from .recipes import PART, PictureRecord, Recipe
from .registry import Entry


def recipe(
    net: Net,
    entry: Entry,
    pictures: Sequence[Any],
    of: Any,
    options: Mapping[str, Any],
    *,
    size: Size | None = None,
    seeds: int | None = None,
) -> Recipe:
    """Write down what decides a drawing: `options` are those of the entry, checked, defaults included."""
    return Recipe(
        method=entry.name,
        network=network_record(net),
        weights=net.digest,
        pictures=tuple(map(_record_of_any, pictures)),
        of=_objective(of),
        size=size if size is None or isinstance(size, int) else sides(size),
        seeds=seeds,
        options={
            name: _option(entry.options[name], value)
            for name, value in options.items()
            if name != "of" and entry.options[name].recorded
        },
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Return the versions on which rounding, and so the last digits, may depend."""
    from . import __version__

    return {"convscope": __version__, "torch": torch.__version__}


def network_record(net: Net) -> dict[str, Any]:
    """Say which network it is: by name, as `load` takes it, and how it reads pixels."""
    return {
        "name": net.name,
        "note": net.note,
        "output": net.output_name,
        "source": asdict(net.source) if net.source is not None else None,
        "reads": net.reads,
    } | ({"seed": net.seed} if net.seed is not None else {})


def picture_record(picture: Any) -> PictureRecord:
    """Say where a picture was, and what it holds."""
    if isinstance(picture, InputPicture):
        return PictureRecord(picture.where, picture.sha256)
    record = getattr(picture, "record", None)
    if isinstance(record, PictureRecord):
        return record
    return PictureRecord(where_of(picture), content_hash(picture))


def _record_of_any(picture: Any) -> PictureRecord:
    """Say which picture it is, also of one that cannot be read: the view that was given it says why."""
    try:
        return picture_record(picture)
    except PictureError:
        return PictureRecord(where_of(picture), "")


def pictures_record(paths: Sequence[str | Path]) -> PictureRecord:
    """Say of many pictures together which they are: a data set's are too many to be listed."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(bytes.fromhex(content_hash(path)))
    return PictureRecord(f"{len(paths)} pictures, {storage.at(paths[0]).name} the first", whole.hexdigest())


def _objective(of: Any) -> Any:
    """Return an objective as it was given, as a file can hold it; of a function, its name alone."""
    if isinstance(of, (list, tuple)):
        return [_objective(each) for each in of]
    if of is None or isinstance(of, (str, int)):
        return of
    if isinstance(of, Objective) or not callable(of):
        return str(of)
    return {"function": getattr(of, "__name__", type(of).__name__)}


def _option(option: Option, value: Any) -> Any:
    """Return an option's value as JSON can hold it: pictures by where they were and what they hold."""
    if isinstance(value, (list, tuple)):
        return [_option(option, item) for item in value]
    if isinstance(value, (Image.Image, Tensor, bytes)) or hasattr(value, "__array__"):
        return asdict(picture_record(value))
    if option.is_picture and isinstance(value, (str, Path)) and value not in option.choices:
        return asdict(picture_record(value))
    return str(value) if isinstance(value, (Path, Objective)) else value


def shown_bands(net: Net) -> str:
    """Say which of a network's bands are shown, where they are not all."""
    bands = net.show or default_bands(net.channels)
    if len(bands) == net.channels and not net.show:
        return ""
    which = f"Band {bands[0]} of" if len(bands) == 1 else f"Bands {bands[0]}, {bands[1]} and {bands[2]} of"
    how = "in grey" if len(bands) == 1 else "as red, green and blue"
    return f"{which} {net.channels}, from 0, shown {how}."


def with_remarks(net: Net, recipe: Recipe, remarks: Sequence[str]) -> Recipe:
    """Return a recipe with what its run said, what was assumed of the network and its pictures first.

    That of a run which was interrupted has a key of its own: what is finished goes by keys.
    """
    # A size that the run was given is no assumption.
    own = [each for each in net.assumptions if recipe.size is None or each.options != ("size",)]
    assumed, others = assumed_first((*own, *remarks))
    part = {PART: True} if any(isinstance(each, Part) for each in remarks) else {}
    return replace(
        recipe,
        assumed=tuple(each.short for each in assumed),
        remarks=(*map(str, assumed), *others),
        settled={**recipe.settled, **part},
    )


def footnote(net: Net, entry: Entry, recipe: Recipe) -> str:
    """Gather what a reader must know: what was assumed, the network's note, other remarks, the method's caveat."""
    assumed, remarks = recipe.remarks[: len(recipe.assumed)], recipe.remarks[len(recipe.assumed) :]
    notes = net.note.split("; ")
    random = next((note for note in notes if note.startswith("random")), "")
    notes = [note for note in notes if note and note != random and not any(each.startswith(note) for each in assumed)]
    lines = [f"{net.name} has {random}: this explains nothing it has learnt."] if random else []
    lines += [f"Assumed: {each}." for each in assumed]
    lines += ["; ".join(notes)]
    lines += ["; ".join(remarks)]
    lines += [shown_bands(net)]
    lines += [f"{entry.title}: {entry.caveat}." if entry.caveat else ""]
    return "\n".join(line for line in lines if line)
