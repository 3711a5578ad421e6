"""DeepDream: amplify what a layer already sees in a picture, from coarse to fine.

Mordvintsev, Olah and Tyka, "Inceptionism: Going Deeper into Neural Networks" (2015), and its notebook, dream.ipynb of
google/deepdream: gradient ascent on a layer's energy over octaves of the picture. With a guide, each position is drawn
towards the position of another picture that it is most similar to. In a film, each frame is the dream of the enlarged
middle of the one before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from PIL import Image

from ..context import say
from ..data.images import PictureSource, Whole, resized
from ..data.limits import check_pixels
from ..drawing.drawings import Picture
from ..drawing.films import Film
from ..errors import OptionError
from ..net import Net
from ..objectives import Objective
from ..options import Range
from ..recipes import Recipe
from ..registry import view
from .ascent import Seed
from .dream_objective import dream_objective
from .monitor import Monitor, Preview, PreviewEvery
from .octaves import OctaveAscent, octave_count
from .optimizers import Optimizer
from .zoom_film import Zoom, make_frames


@view(
    "DeepDream",
    paper="Mordvintsev, Olah & Tyka 2015, Inceptionism; google/deepdream, dream.ipynb",
    caveat="shows what the layer makes of a picture, not what is in it",
    films="zoom",
    group="make",
)
def dream(
    net: Net,
    picture: PictureSource,
    *,
    of: Annotated[
        str | int | Objective | None, "what to maximize: layer:channel, a class, sums; a layer stands for its energy"
    ] = None,
    layer: Annotated[str | None, "the layer whose energy is maximized, or that is guided; default: a late one"] = None,
    guide: Annotated[PictureSource | None, "a second picture: what the layer sees there is amplified here"] = None,
    size: Annotated[int | None, "longer side of the dream in pixels; default: the picture's", Range(1)] = None,
    octaves: Annotated[
        int | None, "number of octaves; default: as many as have at least half the network's input side"
    ] = None,
    octave_scale: Annotated[float, "ratio of the sides of successive octaves", Range(1, open=True)] = 1.4,
    steps: Annotated[int, "steps per octave", Range(1)] = 10,
    rate: Annotated[float, "step size: mean change of a pixel value in [0, 1]", Range(0, open=True)] = 0.01,
    jitter: Annotated[int, "maximum random shift per step, in pixels; more where the picture is tiled", Range(0)] = 32,
    tile: Annotated[
        int, "longest side in pixels that the network sees at once; larger octaves are tiled", Range(64)
    ] = 384,
    zoom: Annotated[
        int | None, "number of frames of a zoom film, each the dream of the enlarged middle of the last"
    ] = None,
    zoom_by: Annotated[float, "zoom per frame, as a fraction of the sides"] = 0.05,
    frames: Annotated[Path | str | None, "folder of the film's frames; an interrupted film resumes from there"] = None,
    fps: Annotated[float, "frames per second of the film"] = 12.0,
    seed: Seed = 0,
    preview: Preview = None,
    preview_every: PreviewEvery = 10,
) -> Picture | Film:
    """Amplify what a layer sees in a picture, from coarse to fine, until anybody can see it.

    The picture keeps its size and aspect; its values are (c, h, w) in [0, 1]. With `zoom` it becomes a film. Raises
    OptionError for options that do not go together, ObjectiveError for an objective about one position, OutputError for
    a folder that holds another film, SynthesisError when no gradient reaches the picture.
    """
    image, name = _opened(net, picture, size)
    objective = dream_objective(net, of, layer, guide)
    count = octave_count(net, image, octaves, octave_scale)
    optimizer = Optimizer(steps, kind="ascent", rate=rate, scaling="mean")
    monitor = Monitor("dreaming", preview, preview_every)
    dreamer = OctaveAscent(net, objective, count, octave_scale, optimizer, jitter, tile, seed, monitor)
    title, subtitle = _captions(dreamer, name)
    draft = Recipe(objective=str(objective), settled={"octaves": count, "size": max(image.size)})
    if zoom is None and frames is None:
        pixels, _ = dreamer.dream(image)
        return Picture(pixels[0], draft, title, subtitle)
    if not isinstance(image, Image.Image):
        raise OptionError("a film is made of an 8-bit picture in grey or RGB: its frames are such files")
    film = Zoom(zoom, zoom_by, Path(frames) if frames else None, fps)
    paths = make_frames(dreamer, image, film, lambda pixels: Picture(pixels[0], draft, title, subtitle))
    return Film(paths, draft, title, f"{subtitle} · {len(paths)} frames", fps=fps)


def _opened(net: Net, picture: Any, size: int | None) -> tuple[Whole, str]:
    """Open a picture at its own size and aspect, or with its longer side scaled to `size`; return it with its name."""
    whole = net.whole(picture)
    width, height = whole.size
    ratio = (size or max(width, height)) / max(width, height)
    to = max(1, round(width * ratio)), max(1, round(height * ratio))
    check_pixels(*to, "the dream")
    if ratio < 1:
        say(f"reduced to {to[0]} × {to[1]} pixels; the picture has {width} × {height}")
    return resized(whole, to, Image.Resampling.LANCZOS), Path(picture).name if isinstance(picture, (str, Path)) else ""


def _captions(dreamer: OctaveAscent, name: str) -> tuple[str, str]:
    """Return title and subtitle."""
    octaves = f"{dreamer.octaves} octaves of {dreamer.optimizer.steps} steps"
    subtitle = f"DeepDream · {dreamer.net.name} · {octaves}" + (f" · {name}" if name else "")
    return f"Dream: {dreamer.objective.title(dreamer.net)}", subtitle
