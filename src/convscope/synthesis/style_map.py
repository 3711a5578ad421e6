"""What each layer holds of content and of style: Fig. 1 of Gatys et al. 2015, arXiv:1508.06576."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..context import keep_part
from ..drawing.layout import Sheet, Tile
from ..errors import OptionError
from ..net import Net
from ..registry import Entry
from .style_pictures import scaled
from .style_problem import StyleProblem

_LARGEST_TILE = 256


def refuse_for_map(options: dict[str, Any], entry: Entry) -> None:
    """Raise OptionError for options that a map, which takes every layer by itself and starts from noise, has not."""
    for name, value in options.items():
        if value != entry.options[name].default:
            raise OptionError(f"a map shows every layer by itself, starting from noise: leave out {name}, or map")


def reconstruct(problem: StyleProblem) -> dict[str, list[Tensor]]:
    """Reconstruct content from each layer, and style from the layers up to it, until done or interrupted."""
    content, names = problem.pixels(problem.size), problem.layers.style
    first = problem.initial(content, "noise")
    rows: dict[str, list[Tensor]] = {"content": [], "style": []}
    for count, name in enumerate(names, 1):
        for row, pictures in rows.items():
            terms = (
                problem.content_terms(content, [name])
                if row == "content"
                else problem.style_terms(problem.size, names[:count])
            )
            try:
                result = problem.minimize([(1 / len(terms), term) for term in terms], first, f"{row} of {name}")
            except KeyboardInterrupt as end:
                if not rows["content"]:
                    raise
                keep_part(end, f"interrupted before the {row} of {name}")
                return rows
            pictures.append(result.pixels[0].clamp(0, 1))
            if result.interrupted:
                return rows
    return rows


def map_sheet(problem: StyleProblem, rows: dict[str, list[Tensor]]) -> Sheet:
    """Lay the reconstructions out: a column for each layer, content above style."""
    names, styles = problem.layers.style, problem.styles.pictures
    count = len(rows["content"])
    tiles: list[tuple[Tile | None, ...]] = []
    for original, pictures in zip((problem.content, styles[0]), rows.values(), strict=True):
        image = original.image(scaled(problem.net, original, problem.size)[0].cpu().numpy())
        shown = [Tile(_fitted(original.image(pixels.cpu().numpy()))) for pixels in pictures]
        tiles.append((Tile(_fitted(image), original.name), *shown, *[None] * (count - len(shown))))
    mixed = f" (of {len(styles)}, mixed)" if len(styles) > 1 else ""
    return Sheet(
        f"Content and style in each layer of {problem.net.name}",
        tuple(tiles),
        "content: reconstruction from noise with the layer's activity · style: reconstruction with the Gram matrices "
        f"of the style picture{mixed} in this layer and all before it · {problem.search.steps} steps each",
        columns=("picture", *(f"{name} · {_reach(problem.net, name)}" for name in names[:count])),
        labels=("content", "style"),
    )


def map_values(rows: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    """Return the reconstructions `content` and `style`, (layers, c, h, w) in [0, 1]."""
    return {row: torch.stack(pictures) for row, pictures in rows.items() if pictures}


def _reach(net: Net, name: str) -> str:
    field = net.layer(name).lattice
    return "sees all" if field.shared else f"sees {field.size[0]:g} px"


def _fitted(image: Image.Image) -> Image.Image:
    ratio = _LARGEST_TILE / max(image.size)
    size = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    return image.convert("RGB").resize(size, Image.Resampling.NEAREST if ratio >= 2 else Image.Resampling.LANCZOS)
