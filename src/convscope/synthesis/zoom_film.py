"""A film of a dream: each frame is the dream of the enlarged middle of the frame before.

Frames are files, and each is made from the file before it: a film that is resumed has the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from .. import outputs, registry
from ..context import Parts, listen, say, track
from ..data.opening import open_picture
from ..drawing.drawings import Picture
from ..drawing.files import read_recipe
from ..errors import OptionError, OutputError
from ..provenance import footnote, with_remarks
from ..recipes import Recipe, current_recipe
from .octaves import OctaveAscent

Frame = Callable[[Tensor], Picture]
"""Draws a frame's pixels (1, c, h, w)."""


@dataclass(frozen=True)
class Zoom:
    """The number of frames, the zoom between them as a fraction of the sides, and the folder that keeps them.

    Raises OptionError for settings out of range, OutputError for a folder that cannot be written.
    """

    count: int | None
    by: float
    folder: Path | None
    fps: float

    def __post_init__(self) -> None:
        if self.count is None or self.folder is None:
            raise OptionError("a film needs zoom=100, the number of frames, and frames='dream-frames', their folder")
        if self.count < 1 or not 0 <= self.by < 1 or not self.fps > 0:
            raise OptionError(
                f"zoom must be at least 1 frame, zoom_by in [0, 1), fps above 0: not {self.count}, {self.by:g} and "
                f"{self.fps:g}"
            )
        outputs.check_folder(self.folder)

    def path(self, number: int) -> Path:
        """Return the file of a frame, counted from 1."""
        return Path(self.folder or "") / f"frame-{number:04d}.png"

    def closer(self, image: Image.Image) -> Image.Image:
        """Return the middle of a frame, enlarged to its size."""
        width, height = image.size
        across, down = width * self.by / 2, height * self.by / 2
        box = (across, down, width - across, height - down)
        return image.resize(image.size, Image.Resampling.BICUBIC, box=box)


def make_frames(dreamer: OctaveAscent, first: Image.Image, zoom: Zoom, draw: Frame) -> list[Path]:
    """Make the frames that do not exist yet; return the files of all, up to an interruption.

    Raises OutputError when an existing file belongs to another film.
    """
    paths = list[Path]()
    numbers = range(1, (zoom.count or 0) + 1)
    for number in track(Parts(numbers, [not zoom.path(each).exists() for each in numbers]), "frames"):
        path = zoom.path(number)
        own = _recipe_of(number, str(dreamer.objective))
        if path.exists():
            _refuse_others(path, own)
        elif not _make_frame(dreamer, own, first, zoom, paths[-1] if paths else None, draw):
            say(f"interrupted at frame {number} of {zoom.count}: run the same command again to resume")
            break
        paths.append(path)
    return paths


def _recipe_of(number: int, objective: str) -> Recipe:
    """Return the recipe of a frame: that of a film up to it, wherever its frames are kept."""
    recipe = current_recipe(frame=number)
    options = dict(recipe.options) | {"zoom": number, "frames": None, "fps": None}
    return replace(recipe, options=options, objective=objective)


def _make_frame(
    dreamer: OctaveAscent, own: Recipe, first: Image.Image, zoom: Zoom, last: Path | None, draw: Frame
) -> bool:
    """Write a frame and return whether there is one: nothing is kept of an interrupted frame."""
    number = own.settled["frame"]
    dreamer = replace(dreamer, monitor=replace(dreamer.monitor, label=f"frame {number}"))
    with listen() as remarks:
        try:
            image = first if last is None else zoom.closer(open_picture(last).convert(first.mode))
            pixels, interrupted = dreamer.dream(image, number - 1)
        except KeyboardInterrupt:
            pixels, interrupted = None, True
    if interrupted and last is None:
        raise KeyboardInterrupt
    if interrupted or pixels is None:
        return False
    for remark in remarks:
        say(remark)
    own = with_remarks(dreamer.net, own, remarks)
    draw(pixels).with_recipe(own, footnote(dreamer.net, registry.VIEWS["dream"], own)).save(zoom.path(number))
    return True


def _refuse_others(path: Path, own: Recipe) -> None:
    """Raise OutputError when an existing file is not the frame that would be made."""
    there, here = (_decisive(recipe) for recipe in (read_recipe(path), own))
    differing = [
        f"{name} was {there.get(name)!r} and is {here.get(name)!r}"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]
    if differing:
        raise OutputError(
            f"{path} belongs to another film: {'; '.join(differing)}. Use the same options, or another folder"
        )


def _decisive(recipe: Recipe) -> dict[str, Any]:
    """Return everything in a recipe that decides the numbers, by name."""
    content = json.loads(recipe.to_json())
    others = {name: value for name, value in content.items() if name not in ("remarks", "versions", "key", "display")}
    pictures = [picture["sha256"] for picture in others.pop("pictures")]
    return {**others.pop("options"), **others.pop("settled"), **others, "pictures": pictures}
