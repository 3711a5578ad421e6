"""DeepDream: raise what a layer already sees in a picture, from coarse to fine.

Mordvintsev, Olah and Tyka, "Inceptionism: Going Deeper into Neural Networks" (2015), and its notebook, dream.ipynb of
google/deepdream: gradient ascent on a layer's energy at octaves of the picture; what one octave adds is enlarged and
laid over the next. Guided, every place is drawn towards the place of another picture that it is most like. In a film,
every frame is the dream of the enlarged middle of the one before.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .. import outputs, registry
from ..context import listen, say, track
from ..data.images import InputPicture
from ..data.opening import open_picture
from ..drawing.drawings import Film, Picture
from ..errors import ObjectiveError, OptionError, OutputError, SynthesisError
from ..layers import spatial_layer, trunk_layer
from ..net import Net
from ..objectives import Objective, Term, Unit, as_objective
from ..recipes import Recipe, read_recipe
from ..registry import view
from ..running import footnote, recipe
from ..tapping import tap
from ..terms import Energy
from .ascent import Made, Preview, PreviewEvery, Seed, Steps, Watch, ascend
from .likeness import scale_to
from .parametrizations import Pixels
from .transforms import Transform

_AT_ONCE = 4096
"""Places that are compared with a guide at once: all those of a large layer would not fit."""

_SMALLEST = 64
"""The side of the smallest tiles that may be asked for, in pixels."""


@dataclass(frozen=True, eq=False)
class Guided:
    """The largest dot product of a place's activity with one of a guide's places, averaged over places.

    `guide` is the guide's activity, (places, c). The gradient is the notebook's: by each place, the guide's feature
    vector with the largest dot product.
    """

    layer: str
    guide: Tensor
    name: str = ""

    def read(self, activity: Tensor) -> Tensor:
        """Return one number per picture, (n, c, h, w) to (n,)."""
        positions = activity.flatten(2).transpose(1, 2)
        with torch.no_grad():
            parts = positions.detach().split(_AT_ONCE, dim=1)
            likest = torch.cat([(part @ self.guide.T).argmax(2) for part in parts], 1)
        return (positions * self.guide[likest]).sum(2).mean(1)

    def __str__(self) -> str:
        return f"guided({self.layer}, {self.name})"

    def title(self, net: Net) -> str:
        """Say in plain words what is asked for."""
        return f"{self.layer} guided by {self.name}"


@view(
    "DeepDream",
    paper="Mordvintsev, Olah & Tyka 2015, Inceptionism; google/deepdream, dream.ipynb",
    caveat="shows what the layer makes of a picture, not what is in it",
    films="zoom",
)
def dream(
    net: Net,
    picture: Any,
    *,
    of: Annotated[
        str | int | Objective | None, "what is raised: layer:channel, a class, sums; a bare layer stands for its energy"
    ] = None,
    layer: Annotated[str | None, "the layer whose energy is raised, or that is guided; by default a late one"] = None,
    guide: Annotated[Path | Any | None, "a second picture: what the layer sees there is raised here"] = None,
    size: Annotated[int | None, "the dream's longer side in pixels; the picture's own by default"] = None,
    octaves: Annotated[
        int | None, "sizes at which is dreamt; by default as many as have half the network's side"
    ] = None,
    octave_scale: Annotated[float, "how much larger each octave is than the one before"] = 1.4,
    steps: Annotated[int, "steps per octave"] = 10,
    rate: Annotated[float, "how far a step goes: the mean change of a value in [0, 1]"] = 0.01,
    jitter: Annotated[
        int, "pixels by which the picture is rolled before a step, up to; more where there are tiles"
    ] = 32,
    tile: Annotated[int, "the longest side in pixels that the network sees at once; larger octaves are cut up"] = 384,
    zoom: Annotated[
        int | None, "make a film of so many frames, each the dream of the enlarged middle of the last"
    ] = None,
    zoom_by: Annotated[float, "the share of the sides that goes from frame to frame"] = 0.05,
    frames: Annotated[
        Path | str | None, "the folder of the film's frames; an interrupted film goes on from there"
    ] = None,
    fps: Annotated[float, "the film's frames per second"] = 12.0,
    seed: Seed = 0,
    preview: Preview = None,
    preview_every: PreviewEvery = 10,
) -> Picture | Film:
    """Raise what a layer sees in a picture, from coarse to fine, until anybody can see it.

    The picture keeps its size and aspect; its values are (c, h, w) in [0, 1]. With `zoom` it becomes a film. Raises
    OptionError for options that do not go together, ObjectiveError for an objective about one place, OutputError for a
    folder that holds another film, SynthesisError when no gradient reaches the picture.
    """
    with listen() as remarks:
        seen = _seen(net, picture, size)
        image = seen.original
        asked, guides = _asked(net, of, layer, guide)
        count = _octaves(net, image, octaves, octave_scale)
        schedule = Steps(steps, by="ascent", rate=rate, scaling="mean")
        watch = Watch("dreaming", Path(preview) if preview else None, preview_every)
        dreamer = _Dreamer(net, asked, count, octave_scale, schedule, jitter, tile, seed, watch)
        settings = {"size": max(image.size)} | dreamer.options
        known = recipe(net, "dream", [seen, *guides], str(asked), settings, [])
        del seen  # its pixels are as large as everything that follows
        if zoom is None and frames is None:
            return _picture(dreamer, known, image, remarks)
        return _film(dreamer, known, image, _Zoom(zoom, zoom_by, Path(frames) if frames else None, fps), remarks)


def octave_sizes(height: int, width: int, count: int, scale: float) -> list[tuple[int, int]]:
    """Return the sizes (height, width) of octaves in pixels, smallest first; each side is the next's over the scale."""
    sizes = [(height, width)]
    while len(sizes) < count:
        sizes.append((round(sizes[-1][0] / scale), round(sizes[-1][1] / scale)))
    return sizes[::-1]


# What is asked ----------------------------------------------------------------------------------------------------


def _seen(net: Net, picture: Any, size: int | None) -> InputPicture:
    """Open a picture at its own size and aspect, or with its longer side scaled to `size`."""
    image = net.prepare(picture).original if isinstance(picture, Tensor) else open_picture(picture)
    image = image.convert("L" if net.channels == 1 else "RGB")
    if size is not None and size < 1:
        raise OptionError(f"size is the dream's longer side in pixels, at least 1, not {size}")
    whole, ratio = image.size, (size or max(image.size)) / max(image.size)
    if ratio != 1:
        image = image.resize([max(1, round(side * ratio)) for side in whole], Image.Resampling.LANCZOS)
    if ratio < 1:
        say(f"dreamt at {image.width} × {image.height} pixels; the picture has {whole[0]} × {whole[1]}")
    name = Path(picture).name if isinstance(picture, (str, Path)) else ""
    return InputPicture(image, _values(image), (0, 0, *image.size), name)


def _values(image: Image.Image) -> np.ndarray:
    """Return an image's values in [0, 1], (c, h, w)."""
    values = np.asarray(image, dtype=np.float32) / 255
    return values[None] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1))


def _asked(
    net: Net, of: str | int | Objective | None, layer: str | None, guide: Any
) -> tuple[Objective, list[InputPicture]]:
    """Settle what is raised, and which picture guides it."""
    if of is not None and (layer is not None or guide is not None):
        raise OptionError("of says all of what is raised; layer and guide are for energy: give of, or layer and guide")
    if of is not None:
        terms = [(weight, _raised(net, term)) for weight, term in as_objective(net, of).terms]
        return Objective(tuple(terms)), []
    chosen = trunk_layer(net) if layer is None else net.layer(layer)
    if guide is None:
        return Objective(((1.0, Energy(chosen.name)),)), []
    chosen = spatial_layer(net, chosen.name, purpose="a guide")
    seen = net.prepare(guide)
    with torch.no_grad():
        activity = tap(net, net.pixels(seen), [chosen.name])[chosen.name]
    return Objective(((1.0, Guided(chosen.name, activity[0].flatten(1).T, seen.name or "a picture")),)), [seen]


def _raised(net: Net, term: Term) -> Term:
    if isinstance(term, Unit) and term.channel is None:
        return Energy(term.layer)
    if isinstance(term, Unit) and (isinstance(term.position, tuple) or term.position == "centre"):
        raise ObjectiveError(
            f"a dream is seen at several sizes, and {term} is a place at one: ask for {term.layer}:{term.channel}"
        )
    return term


def _octaves(net: Net, image: Image.Image, count: int | None, scale: float) -> int:
    """Return how many octaves there are: by default the first has at least half the side that the network is for."""
    if not scale > 1:
        raise OptionError(f"octave_scale is how much larger each octave is than the one before, above 1, not {scale:g}")
    shorter = min(image.size)
    if count is None:
        return max(1, 1 + math.floor(math.log(2 * shorter / min(net.size), scale)))
    most = 1 + math.floor(math.log(shorter, scale))
    if not 1 <= count <= most:
        raise OptionError(
            f"octaves of {scale:g} are 1 to {most} for {image.width} × {image.height} pixels, not {count}"
        )
    return count


# Dreaming ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Dreamer:
    """Everything about a dream but the picture."""

    net: Net
    asked: Objective
    octaves: int
    octave_scale: float
    steps: Steps
    jitter: int
    tile: int
    seed: int
    watch: Watch

    def __post_init__(self) -> None:
        if self.tile < _SMALLEST:
            raise OptionError(
                f"tile is the side of what the network sees at once, at least {_SMALLEST}, not {self.tile}"
            )
        if self.jitter < 0:
            raise OptionError(f"jitter is at least 0 pixels, not {self.jitter}")

    @property
    def options(self) -> dict[str, Any]:
        """What the recipe says of it."""
        names = ("octaves", "octave_scale", "jitter", "tile", "seed")
        return {"steps": self.steps.count, "rate": self.steps.rate} | {name: getattr(self, name) for name in names}

    def dream(self, image: Image.Image, frame: int = 0) -> tuple[Tensor, bool]:
        """Dream of an image; return pixels (1, c, h, w) of the same size, and whether that was interrupted."""
        sizes = octave_sizes(image.height, image.width, self.octaves, self.octave_scale)
        detail: Tensor | None = None
        interrupted, moved = False, False
        for number, size in enumerate(sizes):
            try:
                # No base is kept: of a large picture, one copy more is much.
                base = self._base(image, size)
                start = Pixels(base if detail is None else _enlarged(detail, size).add_(base))
                del base
                made = self._ascend(start, number, frame)
                del start
                interrupted, moved = made.interrupted, moved or any(made.moved)
                detail = made.pixels.sub_(self._base(image, size))
            except KeyboardInterrupt:
                if detail is None:
                    raise
                interrupted = True
            if interrupted:
                say(f"interrupted in octave {number + 1} of {len(sizes)}: what was dreamt so far was kept")
                break
        if not moved and not interrupted:
            raise SynthesisError(
                f"nothing in the picture moves {self.asked.title(self.net)}: ask for another layer, such as "
                f"{trunk_layer(self.net).name!r}"
            )
        assert detail is not None
        return _enlarged(detail, sizes[-1]).add_(self._base(image, sizes[-1])).clamp_(0, 1), interrupted

    def _base(self, image: Image.Image, size: tuple[int, int]) -> Tensor:
        return scale_to(torch.from_numpy(_values(image))[None].to(self.net.device), size)

    def _ascend(self, start: Pixels, octave: int, frame: int) -> Made:
        tiled = self.tile < max(start.free.shape[-2:])
        # Tiles' borders come to lie anywhere, so that none is drawn.
        roll = max(self.jitter, self.tile // 2) if self.jitter and tiled else self.jitter
        label = f"{self.watch.label}, octave {octave + 1} of {self.octaves}"
        return ascend(
            self.net,
            [self.asked],
            start,
            transform=Transform(roll=roll),
            steps=self.steps,
            seeds=[self.seed + frame * self.octaves + octave],
            tile=self.tile,
            # A picture excites something from the start: the gradient is the true one.
            redirect=False,
            watch=replace(self.watch, label=label),
        )


def _enlarged(detail: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(detail, size=size, mode="bilinear", align_corners=False)


def _picture(dreamer: _Dreamer, known: Recipe, image: Image.Image, remarks: list[str]) -> Picture:
    dreamt, _ = dreamer.dream(image)
    return _drawn(dreamer, replace(known, remarks=tuple(remarks)), dreamt)


def _drawn(dreamer: _Dreamer, known: Recipe, dreamt: Tensor) -> Picture:
    return Picture(dreamt[0], known, *_captions(dreamer, known))


def _captions(dreamer: _Dreamer, known: Recipe) -> tuple[str, str, str]:
    """Return title, subtitle and note."""
    title = f"Dream: {dreamer.asked.title(dreamer.net)}"
    octaves = f"{dreamer.octaves} octaves of {dreamer.steps.count} steps"
    return title, f"DeepDream · {dreamer.net.name} · {octaves}", _note(dreamer.net, known)


def _note(net: Net, known: Recipe) -> str:
    return footnote(net, registry.VIEWS["dream"], list(known.remarks))


# The film ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Zoom:
    """How a film is made of a dream: how many frames, how much nearer each, where they are kept."""

    count: int | None
    nearer: float
    folder: Path | None
    fps: float

    def __post_init__(self) -> None:
        if self.count is None or self.folder is None:
            raise OptionError(
                "a film needs both: zoom=100 frames, and the folder that keeps them, frames='dream-frames'"
            )
        if self.count < 1 or not 0 <= self.nearer < 1 or not self.fps > 0:
            raise OptionError(
                f"zoom is at least 1 frame, zoom_by a share from 0 to below 1, fps above 0: not {self.count}, "
                f"{self.nearer:g} and {self.fps:g}"
            )
        outputs.check_folder(self.folder)

    def path(self, number: int) -> Path:
        """Return the file of a frame, counted from 1."""
        return Path(self.folder or "") / f"frame-{number:04d}.png"

    def closer(self, image: Image.Image) -> Image.Image:
        """Return the middle of a frame, enlarged to its size."""
        width, height = image.size
        across, down = width * self.nearer / 2, height * self.nearer / 2
        box = (across, down, width - across, height - down)
        return image.resize(image.size, Image.Resampling.BICUBIC, box=box)


def _film(dreamer: _Dreamer, known: Recipe, first: Image.Image, zoom: _Zoom, remarks: list[str]) -> Film:
    """Make the frames that are not there yet, each from the file before it: what is resumed has the same bytes."""
    paths = list[Path]()
    known = replace(known, options=dict(known.options) | {"zoom_by": zoom.nearer})
    for number in track(range(1, (zoom.count or 0) + 1), "frames"):
        path = zoom.path(number)
        own = replace(known, options=dict(known.options) | {"frame": number})
        if path.exists():
            _refuse_others(path, own)
        elif not _make_frame(dreamer, own, first, zoom, path, paths[-1] if paths else None):
            say(f"interrupted at frame {number} of {zoom.count}: say the same again to go on")
            break
        paths.append(path)
    options = dict(known.options) | {"zoom": zoom.count, "frames": str(zoom.folder), "fps": zoom.fps}
    whole = replace(known, options=options, remarks=tuple(remarks))
    title, subtitle, note = _captions(dreamer, whole)
    return Film(paths, whole, title, f"{subtitle} · {len(paths)} frames", note, zoom.fps)


def _make_frame(dreamer: _Dreamer, own: Recipe, first: Image.Image, zoom: _Zoom, path: Path, last: Path | None) -> bool:
    """Write a frame and return whether there is one: of an interrupted frame nothing is kept."""
    number = own.options["frame"]
    watched = replace(dreamer, watch=replace(dreamer.watch, label=f"frame {number}"))
    with listen() as remarks:
        try:
            image = first if last is None else zoom.closer(open_picture(last).convert(first.mode))
            dreamt, interrupted = watched.dream(image, number - 1)
        except KeyboardInterrupt:
            interrupted, dreamt = True, None
    if interrupted and last is None:
        raise KeyboardInterrupt
    for remark in remarks if not interrupted else ():
        say(remark)
    if not interrupted and dreamt is not None:
        _drawn(dreamer, replace(own, remarks=tuple(remarks)), dreamt).save(path)
    return not interrupted


def _refuse_others(path: Path, own: Recipe) -> None:
    """Raise OutputError when the file that is there is not the frame that would be made."""
    there, here = (json.loads(each.to_json()) for each in (read_recipe(path), own))
    there, here = (found.pop("options") | found for found in (there, here))
    differing = [
        f"{key} was {there.get(key)!r} and is {here.get(key)!r}"
        for key in sorted({*there, *here} - {"remarks", "versions", "key"})
        if there.get(key) != here.get(key)
    ]
    if differing:
        raise OutputError(
            f"{path} belongs to another film: {'; '.join(differing)}. Give the same options, or another folder"
        )
