"""The picture that a map belongs to, found again when the map is read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ..addresses import is_remote
from ..data.display import Display, Window
from ..data.hashing import content_hash
from ..data.images import InputPicture, prepare
from ..data.limits import check_pixels
from ..data.preprocessing import Fit, Preprocessing, checked_window
from ..errors import ConvscopeError, PictureError
from ..recipes import Recipe

_PALE = (225, 225, 225)


class MissingPicture(InputPicture):
    """Stands for a picture that is not where it was: its extent is known, and nothing else."""


def words_of(picture: InputPicture) -> dict[str, Any]:
    """Return what a file holds of a picture: its name, its extent and what part the network saw."""
    return {
        "name": picture.name,
        "size": picture.original.size,
        "box": [float(edge) for edge in picture.box],
        "shape": picture.pixels.shape,
        **({"show": picture.display.bands} if picture.display.bands else {}),
    }


def find_again(words: Mapping[str, Any], recipe: Recipe) -> tuple[InputPicture, str]:
    """Return the picture where it was, if it is the same one; else what stands for it, and a remark that says so."""
    where = recipe.pictures[0].where if recipe.pictures else ""
    # A drawing that was sent must not make this machine ask a storage.
    remote = is_remote(where)
    try:
        if remote:
            raise PictureError("not fetched")
        picture = prepare(where, _preprocessing(recipe, words), name=words["name"])
        same = content_hash(where) == recipe.pictures[0].sha256
    except (ConvscopeError, KeyError, TypeError, IndexError):
        picture, same = None, False
    if picture is not None and same and list(picture.pixels.shape) == list(words["shape"]):
        return picture, ""
    left = "is another one now" if picture is not None and not same else "is not there"
    left = "lies in a storage, which is not asked for a drawing of a file" if remote else left
    bands, height, width = words["shape"]
    check_pixels(words["size"][0], words["size"][1], "the picture of the drawing")
    check_pixels(width, height, "the picture of the drawing", each=4 * bands)
    grey = Image.new("RGB", tuple(words["size"]), _PALE)
    pixels = np.full(words["shape"], _PALE[0] / 255, np.float32)
    display = Display(tuple(words.get("show", ())))
    missing = MissingPicture(grey, pixels, tuple(words["box"]), words["name"], display=display)
    return missing, f"The picture {where or words['name'] or 'of this map'} {left}: the map is shown alone."


def _preprocessing(recipe: Recipe, words: Mapping[str, Any]) -> Preprocessing:
    """Return how the network read its pictures."""
    reads = recipe.network["reads"]
    resize = reads["resize"]
    fit = Fit(
        tuple(reads["size"]),
        tuple(resize) if isinstance(resize, list) else resize,
        reads["interpolation"],
        reads.get("fit", "cover"),
    )
    fit = fit if recipe.size is None else fit.scaled(recipe.size)
    value_range = reads.get("value_range")
    return Preprocessing(
        fit,
        words["shape"][0],
        tuple(value_range) if value_range else None,
        tuple(words.get("show", ())),
        tuple(reads.get("mean", ())),
        _window(recipe),
    )


def _window(recipe: Recipe) -> Window | None:
    """Return the values that pictures were shown between, where the network was loaded with them."""
    source = recipe.network.get("source") or {}
    told = {**source.get("options", {}), **source.get("changed", {})}
    return checked_window(told.get("window"))
