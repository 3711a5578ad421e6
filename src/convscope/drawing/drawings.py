"""Drawings: light frozen values that keep the raw numbers, know how they were made, and draw themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..data.display import to_image
from ..data.images import InputPicture
from ..errors import OptionError, PictureError
from ..heads import Answer
from ..recipes import Recipe
from ..renames import renamed
from . import charts, colours, layout, pictures
from .base import Drawing
from .layout import Scale, Sheet, Tile
from .paper import PAPER, Paper
from .sheet_words import sheet_from_words, sheet_words
from .typesetting import Page

_SIDE = 370
_CHART = (600, 360)
_TEXTS = ("title", "subtitle", "note")
_ROBUST, _RARE = 0.98, 0.999
_BEYOND = 0.1
_SHOWN = 12
_FINEST = 32
"""How many times the pixels of a map a whole picture is drawn with."""


_NO_RECIPE = Recipe()


def robust_limit(values: np.ndarray) -> float:
    """Return the magnitude that colours should reach: the largest, unless a few outliers would hide the rest.

    What lies in few pixels is no outlier where it is most of the map, such as a small lesion: but for one pixel of a
    thousand, at most a tenth of the sum lies beyond the colours. It is 1 where all values are zero.
    """
    magnitude = np.abs(values)
    top = float(magnitude.max(initial=0.0)) or 1.0
    usual, rare = np.quantile(magnitude, (_ROBUST, _RARE)).tolist() if magnitude.size else (0.0, 0.0)
    within = magnitude.clip(max=rare)
    usual = _level(np.append(within[within > usual], usual), _BEYOND * float(within.sum(dtype=float)))
    return usual if 0 < usual < top / 2 else top


def _level(magnitude: np.ndarray, beyond: float) -> float:
    """Return the smallest of some magnitudes above which at most so much of them lies."""
    falling = np.sort(magnitude.astype(float))[::-1]
    above = falling.cumsum() - falling * np.arange(1, len(falling) + 1)
    return float(falling[above <= beyond].min())


def as_picture(values: np.ndarray, bands: Sequence[int] = ()) -> tuple[Image.Image, float]:
    """Show signed values (c, h, w) as a picture with mid-grey as zero; also return the value that becomes white.

    `bands` are those that are shown, as `to_image` takes them.
    """
    limit = robust_limit(values)
    return to_image(0.5 + values * (0.5 / limit), bands), limit


def as_grey_picture(values: np.ndarray, limit: float) -> Image.Image:
    """Return signed values (c, h, w) as a picture without colours: mid-grey is zero, `limit` white.

    With the largest magnitude of many pictures as their limit, they are as calm as the papers' projections.
    """
    return to_image(0.5 + values.mean(0) * (0.5 / limit))


@dataclass(frozen=True, eq=False, repr=False)
class Heatmap(Drawing):
    """A number for every pixel that a network saw.

    `values` is (c, h, w): c = 1, or the colour channels where the map is itself a picture (`projects`). `picture` is
    the picture and the way back to its original; `limit` fixes the colour scale, for maps that are to be compared;
    `overlay_only` shows the map over the picture alone, at the original's resolution, with nothing around it; `grey`
    shows a map that is a picture without colours and on one contrast. `answer` is what the network says of the picture,
    where it was asked; it is not saved.
    """

    values: Tensor
    picture: InputPicture
    recipe: Recipe = _NO_RECIPE
    title: str = ""
    subtitle: str = ""
    note: str = ""
    unit: str = ""
    signed: bool = False
    projects: bool = False
    limit: float | None = None
    cmap: str | None = None
    overlay_only: bool = False
    grey: bool = False
    answer: Answer | None = None

    view = renamed("view", "picture")

    def display(self) -> dict[str, Any]:
        shown = {"limit": self.limit, "cmap": self.cmap, "overlay_only": self.overlay_only or None}
        shown["grey"] = self.grey or None
        return {name: value for name, value in shown.items() if value is not None}

    def words(self) -> dict[str, Any]:
        words = {name: getattr(self, name) for name in (*_TEXTS, "unit", "signed", "projects")}
        return {**words, **self.display(), "picture": pictures.words_of(self.picture)}

    @classmethod
    def from_words(
        cls, words: Mapping[str, Any], numbers: Mapping[str, np.ndarray], recipe: Recipe, image: Image.Image | None
    ) -> Self:
        picture, remark = pictures.find_again(words["picture"], recipe)
        fields = {name: value for name, value in words.items() if name not in ("schema", "kind", "picture")}
        fields["note"] = "\n".join(dict.fromkeys(filter(None, (*fields["note"].split("\n"), remark))))
        return cls(torch.from_numpy(numbers["map"]), picture, replace(recipe, display={}), **fields)

    def render(self) -> Image.Image:
        return self.overlay() if self.overlay_only else super().render()

    def page(self, paper: Paper) -> Page:
        return layout.bare(self.overlay(), paper) if self.overlay_only else super().page(paper)

    def numbers(self) -> dict[str, np.ndarray]:
        return {"map": self.values.detach().float().cpu().numpy()}

    @property
    def flat(self) -> np.ndarray:
        """The map as one number per pixel, (h, w): colour channels summed."""
        return self.numbers()["map"].sum(0)

    @property
    def scale(self) -> Scale:
        """The colours of the map and what they mean."""
        values = self.flat
        name = self.cmap or ("polar" if self.signed else "fire")
        limit = self.limit if self.limit is not None else robust_limit(values)
        low = -limit if self.signed else 0.0
        return Scale(name, low, limit, self.unit, bool(values.min() < low), bool(values.max() > limit))

    def compared_with(self, others: Sequence[Heatmap]) -> Heatmap:
        """Return the map on a scale shared with others."""
        limit = max(robust_limit(each.flat) for each in (self, *others))
        return replace(self, limit=limit)

    def spread(self, size: tuple[int, int]) -> np.ndarray:
        """Return the map (height, width) laid over the whole original picture, NaN where the network saw nothing."""
        width, height = self.picture.original.size
        left, top, right, bottom = (
            round(edge * ratio)
            for edge, ratio in zip(self.picture.box, (size[0] / width, size[1] / height) * 2, strict=True)
        )
        right, bottom = max(right, left + 1), max(bottom, top + 1)
        if (right - left, bottom - top) == self.flat.shape[::-1]:
            values = self.flat
        else:
            # Enlarged pixels stay pixels; anything between is interpolated.
            whole = (right - left) >= 2 * self.flat.shape[1]
            mode = "nearest" if whole and max(self.flat.shape) < 100 else "bilinear"
            options: dict[str, Any] = {} if mode == "nearest" else {"align_corners": False, "antialias": True}
            source = torch.from_numpy(self.flat)[None, None]
            values = F.interpolate(source, size=(bottom - top, right - left), mode=mode, **options)[0, 0].numpy()
        canvas = np.full((size[1], size[0]), np.nan, dtype=np.float32)
        inner = canvas[max(top, 0) : bottom, max(left, 0) : right]
        inner[:] = values[max(-top, 0) :, max(-left, 0) :][: inner.shape[0], : inner.shape[1]]
        return canvas

    def _fine(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return a size at which no pixel of the map is lost: made smaller as numbers, signs would cancel.

        Where the map lies on a sliver of a long picture, some are lost: all of the picture would be drawn as fine.
        """
        left, _, right, _ = self.picture.box
        ratio = self.flat.shape[1] / ((right - left) * size[0] / self.picture.original.width)
        ratio = min(ratio, math.sqrt(_FINEST * self.flat.size / (size[0] * size[1])))
        return size if ratio <= 1 else (math.ceil(size[0] * ratio), math.ceil(size[1] * ratio))

    def map_image(self, size: tuple[int, int] | None = None) -> Image.Image:
        """Paint the map in its colours over the extent of the original picture; pale grey where nothing was seen."""
        size = size or self.picture.original.size
        fine = self._fine(size)
        if fine != size:
            return self.map_image(fine).resize(size, Image.Resampling.LANCZOS)
        scale = self.scale
        values = self.spread(size)
        painted = colours.paint(np.nan_to_num(values), scale.low, scale.high, scale.colours)
        painted[np.isnan(values)] = 225
        return Image.fromarray(painted)

    def overlay(self, size: tuple[int, int] | None = None) -> Image.Image:
        """Lay the map over the picture, by default at the original's resolution; weak values leave it visible."""
        size = size or self.picture.original.size
        fine = self._fine(size)
        if fine != size:
            return self.overlay(fine).resize(size, Image.Resampling.LANCZOS)
        scale, values = self.scale, self.spread(size)
        seen = ~np.isnan(values)
        values = np.nan_to_num(values)
        method = Image.Resampling.NEAREST if size[0] >= 2 * self.picture.original.width else Image.Resampling.LANCZOS
        picture = self.picture.original.convert("L").resize(size, method).convert("RGB")
        base = np.asarray(picture, dtype=np.float32)
        alpha = (0.85 * (np.abs(values) / scale.high).clip(0, 1) ** 0.7)[..., None]
        mixed = base * (1 - alpha) + colours.paint(values, scale.low, scale.high, scale.colours) * alpha
        mixed[~seen] = 0.35 * base[~seen] + 0.65 * 235
        return Image.fromarray(np.rint(mixed).astype(np.uint8))

    def projection(self) -> Image.Image:
        """Show a map with colour channels as a picture, mid-grey being zero."""
        return self._as_picture()[0]

    def sheet(self) -> Sheet:
        if self.overlay_only:
            return Sheet("", ((Tile(self.overlay()),),))
        near = self.picture.near()
        return self._sheet() if near is self.picture else replace(self, picture=near)._sheet(self._near_caption(near))

    def _sheet(self, caption: str = "") -> Sheet:
        picture = layout.enlarged(self.picture.original, _SIDE)
        values = self.flat
        own = "" if self.limit is None else ", on a shared scale"
        unit = f"{self.unit}, " if self.unit else ""
        extent = f"{unit}from {layout.number(values.min())} to {layout.number(values.max())}{own}"
        map_ = Tile(self.map_image(picture.size), extent, self.scale)
        last = Tile(self.overlay(picture.size), "over the picture")
        missing = isinstance(self.picture, pictures.MissingPicture)
        tiles = (map_,) if missing else (map_, last)
        if self.projects:
            painted, limit = self._as_picture()
            last = Tile(self.placed(painted, picture.size), f"as a picture: grey is 0, white {layout.number(limit)}")
            map_ = Tile(map_.image, extent + (", colours summed" if len(self.values) > 1 else ""), map_.scale)
            tiles = (last,) if self.grey else (last, map_)  # in grey they are the same
        seen = () if missing else (Tile(picture, caption or self._size_caption()),)
        return Sheet(self.title, ((*seen, *tiles),), self.subtitle, self.note)

    def _as_picture(self) -> tuple[Image.Image, float]:
        """Show the map as the picture that it is; also return the value that becomes white."""
        values = self.numbers()["map"]
        if not self.grey:
            return as_picture(values, self.picture.display.bands)
        limit = (float(np.abs(values).max()) or 1.0) if self.limit is None else self.limit / len(values)
        return as_grey_picture(values, limit), limit

    def _size_caption(self) -> str:
        width, height = self.picture.original.size
        seen = self.picture.pixels.shape
        whole = f"{width} × {height}"
        untouched = self.picture.box == (0, 0, width, height) and (seen[2], seen[1]) == (width, height)
        return whole if untouched else f"{whole}, seen at {seen[2]} × {seen[1]}"

    def _near_caption(self, near: InputPicture) -> str:
        width, height = near.original.size
        return f"{self._size_caption()}; its middle shown, {width} × {height}"

    def placed(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Put an image of what the network saw where it was seen, on a grey of the original's extent."""
        ratio = size[0] / self.picture.original.width, size[1] / self.picture.original.height
        box = [round(edge * r) for edge, r in zip(self.picture.box, ratio * 2, strict=True)]
        inner = (max(1, box[2] - box[0]), max(1, box[3] - box[1]))
        method = Image.Resampling.NEAREST if inner[0] >= 2 * image.width else Image.Resampling.BICUBIC
        canvas = Image.new("RGB", size, (225, 225, 225))
        canvas.paste(image.convert("RGB").resize(inner, method), (box[0], box[1]))
        return canvas


@dataclass(frozen=True, eq=False, repr=False)
class Picture(Drawing):
    """A picture that a network made: values (c, h, w) in [0, 1].

    It is written as it is, with nothing around it; HTML pages show it on a sheet. `show` are the bands that are shown,
    where there are others than grey or RGB.
    """

    values: Tensor
    recipe: Recipe = _NO_RECIPE
    title: str = ""
    subtitle: str = ""
    note: str = ""
    show: Sequence[int] = ()

    def numbers(self) -> dict[str, np.ndarray]:
        return {"picture": self.values.detach().float().cpu().numpy()}

    needs_numbers: ClassVar[bool] = False

    def words(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _TEXTS} | {"channels": len(self.values), "show": list(self.show)}

    @classmethod
    def from_words(
        cls, words: Mapping[str, Any], numbers: Mapping[str, np.ndarray], recipe: Recipe, image: Image.Image | None
    ) -> Self:
        values = numbers.get("picture")
        if values is None:
            if image is None:
                raise PictureError("there are no pixels of the picture")
            if words["channels"] not in (1, 3):
                raise PictureError(
                    f"a PNG shows three of {words['channels']} bands: load the numbers, written by save_values"
                )
            # A PNG holds 8 bits of them.
            values = np.asarray(image, np.float32).transpose(2, 0, 1)[: words["channels"]] / 255
        texts = {name: words[name] for name in _TEXTS}
        show = tuple(words.get("show", ()))
        return cls(torch.from_numpy(np.ascontiguousarray(values)), replace(recipe, display={}), **texts, show=show)

    def image(self) -> Image.Image:
        """Return the picture itself, at its own size."""
        return to_image(self.numbers()["picture"], self.show)

    def render(self) -> Image.Image:
        return self.image().convert("RGB")

    def page(self, paper: Paper) -> Page:
        return layout.bare(self.image(), paper)

    def sheet(self) -> Sheet:
        image = self.image()
        tile = Tile(layout.enlarged(image, _SIDE), f"{image.width} × {image.height}")
        return Sheet(self.title, ((tile,),), self.subtitle, self.note)


@dataclass(frozen=True, eq=False, repr=False)
class Gallery(Drawing):
    """Many tiles on one sheet, with the numbers behind them."""

    content: Sheet
    values: Mapping[str, Tensor]
    recipe: Recipe = _NO_RECIPE

    def numbers(self) -> dict[str, np.ndarray]:
        return {name: value.detach().float().cpu().numpy() for name, value in self.values.items()}

    def with_recipe(self, recipe: Recipe, footnote: str) -> Gallery:
        note = "\n".join(filter(None, (footnote, self.content.note)))
        return replace(self, recipe=recipe, content=replace(self.content, note=note))

    def _title(self) -> str:
        return self.content.title

    def words(self) -> dict[str, Any]:
        return {"sheet": sheet_words(self.content)}

    @classmethod
    def from_words(
        cls, words: Mapping[str, Any], numbers: Mapping[str, np.ndarray], recipe: Recipe, image: Image.Image | None
    ) -> Self:
        values = {name: torch.from_numpy(np.array(value)) for name, value in numbers.items()}
        paper = recipe.display.get(PAPER, {})
        return cls(sheet_from_words(words["sheet"], image, Paper(**paper)), values, replace(recipe, display={}))

    def sheet(self) -> Sheet:
        return self.content


@dataclass(frozen=True, eq=False, repr=False)
class Curve(Drawing):
    """Lines over one axis: `series` by name, each as long as `x`."""

    x: Sequence[float]
    series: Mapping[str, Sequence[float]]
    recipe: Recipe = _NO_RECIPE
    title: str = ""
    subtitle: str = ""
    note: str = ""
    x_label: str = ""
    y_label: str = ""

    def __post_init__(self) -> None:
        for name, values in self.series.items():
            if len(values) != len(self.x):
                raise OptionError(f"curve {name!r} has {len(values)} values for {len(self.x)} positions")

    def words(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*_TEXTS, "x_label", "y_label")} | {"series": list(self.series)}

    @classmethod
    def from_words(
        cls, words: Mapping[str, Any], numbers: Mapping[str, np.ndarray], recipe: Recipe, image: Image.Image | None
    ) -> Self:
        texts = {name: words[name] for name in (*_TEXTS, "x_label", "y_label")}
        series = {name: numbers[name].tolist() for name in words["series"]}
        return cls(numbers["x"].tolist(), series, replace(recipe, display={}), **texts)

    def numbers(self) -> dict[str, np.ndarray]:
        return {"x": np.asarray(self.x), **{name: np.asarray(values) for name, values in self.series.items()}}

    def sheet(self) -> Sheet:
        chart = charts.lines(self.x, self.series, (self.x_label, self.y_label), _CHART)
        return Sheet(self.title, ((Tile(chart),),), self.subtitle, self.note)
