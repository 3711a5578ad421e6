"""Frames of a camera: decoded within bounds, looked at by the network, and answered with small images."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..atlas.crops import Projected
from ..atlas.tiles import contrast, grey_zero
from ..atlas.units import count_units
from ..data.image_files import open_image
from ..data.images import InputPicture
from ..drawing import colours
from ..drawing.tiles import magnitude_scale, signed_scale
from ..errors import ConvscopeError, LayerError, NetworkError, PictureError
from ..net import Net
from ..predictions import read_output
from ..tapping import tap
from ..tracing import Layer
from .activations import Activation, Witness, activate
from .network_pages import Projection

MOST_BYTES = 1 << 20
"""Bytes of a frame: a camera's whole picture as JPEG has half as many."""

_MOST_PIXELS = 1 << 21
_KINDS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")

_SIDE, _NUMBERS = 64, 1 << 19
"""The longest side of a map that is sent, and how many numbers there are of all maps of a frame."""

_SAMPLED = 1 << 15
"""Numbers of which a scale is found."""

_FIRST = 5


def decoded(content: bytes) -> Image.Image:
    """Open a frame, JPEG or PNG, whose size is known to be small. Raises PictureError for all else."""
    if len(content) > MOST_BYTES:
        raise PictureError(f"a frame may have {MOST_BYTES >> 20} MB, this one has more: send a smaller picture")
    if not content.startswith(_KINDS):
        raise PictureError("a frame is a picture as JPEG or PNG, and this is neither")
    try:
        image = open_image(io.BytesIO(content), "the frame")
    except ConvscopeError:
        raise
    except Exception:  # Pillow's decoders raise anything
        raise PictureError("the frame is damaged or cut short: send it again") from None
    if image.width * image.height > _MOST_PIXELS:
        size = f"{image.width} × {image.height}"
        raise PictureError(f"a frame may have {_MOST_PIXELS:,} pixels, this one has {size}: send a smaller picture")
    return image


@dataclass(frozen=True)
class Sheet:
    """The maps of all units of a layer as one image of 256 colours: so many across, each of some rows and columns.

    The colours go from `low` to `high`, the same for all of them.
    """

    content: bytes
    across: int
    rows: int
    columns: int
    low: float
    high: float


@dataclass(frozen=True)
class Watched:
    """What a network makes of a frame: a layer's maps, what it says, and a unit's activation, or why there is none."""

    maps: Sheet
    said: list[tuple[int, str, float, str]]
    word: str
    activation: Activation | None
    refused: str


def watch(
    net: Net,
    prepared: InputPicture,
    shown: Layer,
    of: Layer,
    unit: int,
    at: tuple[int, int] | None,
    method: Projection,
) -> Watched:
    """Run a network once on a frame: `shown` gives the maps, a unit of the layer `of` the projection."""
    pixels = net.pixels(prepared)
    maps, output = Witness(shown), _output(net)
    witnesses = [maps, output] if output else [maps]
    activation, refused = None, ""
    try:
        activation = activate(net, pixels, of, unit, at, method, witnesses)
    except ConvscopeError as error:
        refused = str(error)
    unread = [each.layer for each in witnesses if each.activity is None]
    if unread:
        with torch.inference_mode():
            readings = tap(net, pixels, unread)
        for each in witnesses:
            each.activity = readings[each.layer] if each.activity is None else each.activity
    said, word = _said(net, output)
    assert maps.activity is not None
    return Watched(_sheet(shown, maps.activity), said, word, activation, refused)


def _output(net: Net) -> Witness | None:
    try:
        return Witness(net.output)
    except NetworkError:  # several tensors: the layers can be looked at
        return None


def _said(net: Net, output: Witness | None) -> tuple[list[tuple[int, str, float, str]], str]:
    if output is None or output.activity is None:
        return [], ""
    try:
        head, numbers = read_output(net, output.activity, 1)
    except ConvscopeError:  # outputs that are no list of numbers
        return [], ""
    found = numbers[0].topk(min(_FIRST, numbers.shape[1]))
    pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
    return [(at, net.class_name(at), value, head.text(value)) for at, value in pairs], head.word


def _sheet(layer: Layer, activity: Tensor) -> Sheet:
    """Lay out the maps of a layer's activity (1, ...), averaged where they are large."""
    if not layer.positions and len(layer.shape) != 1:
        raise LayerError(f"{layer.title} has several entries for each picture, so no maps: choose another layer")
    maps = layer.by_position(activity)[0] if layer.positions else activity.reshape(count_units(layer), 1, 1)
    maps = maps.float().cpu()
    count, side = len(maps), max(maps.shape[1:])
    room = min(_SIDE, max(1, math.isqrt(_NUMBERS // count)))
    if side > room:
        rows, columns = (max(1, extent * room // side) for extent in maps.shape[1:])
        maps = F.adaptive_avg_pool2d(maps, (rows, columns))
    values = maps.numpy()
    rows, columns = values.shape[1:]
    sample = values.reshape(-1)[:: max(1, values.size // _SAMPLED)]
    sample = sample[np.isfinite(sample)] if np.isfinite(sample).any() else np.zeros(1, np.float32)
    scale = signed_scale(sample) if values.min() < 0 else magnitude_scale(sample)
    across = math.ceil(math.sqrt(count))
    whole = np.full((-(-count // across) * across, rows, columns), scale.low, np.float32)
    whole[:count] = values
    laid = whole.reshape(-1, across, rows, columns).swapaxes(1, 2).reshape(-1, across * columns)
    share = np.nan_to_num((laid - scale.low) / (scale.high - scale.low)).clip(0, 1)
    image = Image.fromarray((share * 255 + 0.5).astype(np.uint8), "L")
    image.putpalette(colours.table(scale.colours).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return Sheet(buffer.getvalue(), across, rows, columns, scale.low, scale.high)


def projection_image(net: Net, found: Projected) -> bytes:
    """Return a projection as it is, pixel by pixel: grey is 0."""
    projection = found.projection.float().cpu().numpy()
    buffer = io.BytesIO()
    grey_zero(projection, contrast(projection), net.show).save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()
