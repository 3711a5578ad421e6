"""`stylize`: paint a picture with a trained style network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..context import listen, say
from ..data.hashing import content_hash
from ..data.images import open_shown
from ..data.preprocessing import Preprocessing, checked_window
from ..drawing.drawings import Picture
from ..errors import OptionError
from ..interruptions import orderly
from ..provenance import picture_record, versions
from ..recipes import Recipe
from ..synthesis.colour import LUMA
from .network import STEP, read_style
from .settings import KeepColour, Strength, Tile
from .tiles import paint

_LEAST = 16
"""The smallest side that is painted: smaller pictures are padded by reflection."""


@orderly
def stylize(
    picture: Any,
    style: str | Path,
    *,
    tile: Tile = 1024,
    strength: Strength = 1.0,
    keep_colour: KeepColour = False,
    device: str | torch.device = "cpu",
    window: Sequence[float] | str | None = None,
) -> Picture:
    """Paint a picture, at its own size, in the style of a file that `train_style` wrote.

    Args:
        picture: anything that `open_picture` reads: a path, an image, an array. Alpha is composited on white.
        style: the style file.
        tile: longest side painted at once, in pixels. Larger pictures are tiled, without a seam.
        strength: weight of the painted picture in the result, 0 to 1; the rest is the original.
        keep_colour: change the luminance alone (Gatys et al. 2016, arXiv:1606.05897).
        device: the device to compute on.
        window: the values that are painted as black and white, as the picture stores them, or "auto", as `Net` has it.

    Returns values (3, h, w) in [0, 1]. Raises WeightsError for a file that is no style file, PictureError, OptionError,
    OutOfMemory. Johnson et al. 2016, arXiv:1603.08155.
    """
    if not 0 <= strength <= 1:
        raise OptionError(f"strength must be in [0, 1], not {strength}")
    style = Path(style)
    net, record = read_style(style)
    with listen() as remarks:
        image, read = open_shown(picture, Preprocessing(None, window=checked_window(window)))
        for remark in read:
            say(remark)
        painted = painted_at_own_size(net.to(device), image, tile)
    for remark in remarks:
        say(remark)
    original = to_tensor(np.asarray(image))[0]
    if keep_colour:
        weights = torch.tensor(LUMA)[:, None, None]
        painted = (original + ((painted - original) * weights).sum(0)).clamp_(0, 1)
    if strength < 1:
        painted = original.lerp_(painted, strength)
    options: dict[str, Any] = {"tile": tile, "strength": strength, "keep_colour": keep_colour, "training": record}
    if window is not None:
        options["window"] = window if isinstance(window, str) else list(window)
    name = Path(picture).name if isinstance(picture, (str, Path)) else "array"
    recipe = Recipe(
        method="stylize",
        network={"name": style.name, "picture": record.get("picture"), "through": record.get("through")},
        weights=content_hash(style)[:16],
        pictures=(picture_record(picture),),
        options=options,
        remarks=tuple(remarks),
        versions=versions(),
    )
    return Picture(painted, recipe, f"{name} as {record.get('picture', 'a style')}", f"painted by {style.name}")


def painted_at_own_size(net: Any, image: Image.Image, tile: int) -> Tensor:
    """Paint an RGB image at its own size; return values (3, h, w) in [0, 1] on the CPU."""
    array = np.asarray(image)
    padding = [max(_LEAST, -(-side // STEP) * STEP) - side for side in array.shape[:2]]
    pixels = to_tensor(np.pad(array, ((0, padding[0]), (0, padding[1]), (0, 0)), mode="reflect"))
    device = next(net.parameters()).device
    return paint(net, pixels.to(device), tile=tile)[0, :, : image.height, : image.width].cpu()


def to_tensor(array: np.ndarray) -> Tensor:
    """Convert bytes (h, w, 3) to pixels (1, 3, h, w) in [0, 1]."""
    return torch.from_numpy(array.transpose(2, 0, 1).copy())[None].float().div_(255)


def digest(image: Image.Image) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of an image's bytes."""
    return hashlib.sha256(image.tobytes()).hexdigest()[:16]
