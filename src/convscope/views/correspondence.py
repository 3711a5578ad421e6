"""Correspondence: does covering the same part of several pictures change features in the same way?

After Zeiler and Fergus (arXiv:1311.2901v3, sec. 4.3, Fig. 8 and Table 1): a part is covered in every picture, and the
signs of what this changes of a layer's features are compared between pictures, by the share of features in which they
differ. A part that the network finds again from picture to picture differs less than random places do. The paper's
parts, eyes and noses of dogs, were marked by hand; without such marks the part is where the channel responds most that
is strongest over all pictures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from typing import Annotated

import numpy as np
import torch
from PIL import ImageDraw
from torch import Tensor

from .. import baselines
from ..attribution.occlusion import BaselineOption, Patch
from ..attribution.places import places as where_units_lie
from ..data.images import InputPicture
from ..drawing.drawings import Gallery
from ..drawing.layout import Sheet, Tile
from ..drawing.tiles import fitted, tile_side
from ..errors import OptionError
from ..layers import before_classes, find_layer, last_spatial_layer, spatial_layer
from ..net import Net
from ..options import Range
from ..recipes import Recipe
from ..registry import view
from ..tapping import tap
from ..tracing import Layer
from .inputs import stem

_EXACT = 1e-5
"""A change below this share of the layer's largest is none: it may be rounding."""

_PART = re.compile(r"([^()]*?)((?:\(\s*\d+\s*,\s*\d+\s*\)\s*)+)")
_PLACE = re.compile(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)")

Places = list[tuple[int, int]]
"""The row and column of a part's middle, a place for each picture."""


@view("Correspondence", paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, sec. 4.3, Fig. 8 and Table 1")
def correspondence(
    net: Net,
    pictures: list[InputPicture],
    *,
    parts: Annotated[
        list[str] | None,
        "parts to cover, each a name and the row and column of its middle in every picture, in pixels "
        "of what the network reads: 'nose (30,40) (28,44)'; by default the strongest channel's place",
    ] = None,
    layers: Annotated[
        list[str] | None,
        "layers whose features are compared; by default the last with spatial positions and the last "
        "before the classes",
    ] = None,
    patch: Patch = None,
    draws: Annotated[int, "number of random places to compare with", Range(1)] = 10,
    baseline: BaselineOption = "mean",
    seed: Annotated[int, "seed of the random places"] = 0,
) -> Gallery:
    """Compare how covering the same part, or random places, changes features of several pictures.

    The values are `differences` (parts and, last, random places; layers): the mean share, 0 to 1, of features whose
    change has another sign in another picture, and its standard deviation over pairs of pictures as `deviations`.
    Raises OptionError for fewer than two pictures or several sizes, and for parts without a place in each picture.
    """  # fmt: skip
    sizes = {picture.pixels.shape for picture in pictures}
    if len(pictures) < 2 or len(sizes) > 1:
        raise OptionError(
            "correspondence compares pictures with each other: give at least two, and where they differ in size, one "
            "size for all, as net.sized(224) or --size 224"
        )
    chosen = [find_layer(net, name) for name in layers] if layers else _two(net)
    side = patch or max(1, min(pictures[0].pixels.shape[1:]) // 7)
    named = _named(parts, pictures) if parts else _strongest(net, pictures)
    generator = np.random.default_rng(seed)
    random = [_random(pictures, side, generator) for _ in range(draws)]
    own = [_features(net, net.pixels(picture), chosen) for picture in pictures]
    means, deviations = list[list[float]](), list[list[float]]()
    for sets in (*([places] for places in named.values()), random):
        pairs = torch.cat([_differences(net, pictures, places, side, own, chosen, baseline) for places in sets], 1)
        means.append(pairs.mean(1).tolist())
        deviations.append(pairs.std(1, correction=0).tolist())
    labels = tuple(
        f"{name}\n" + "\n".join(map(_line, chosen, row, spread))
        for name, row, spread in zip([*named, "random places"], means, deviations, strict=True)
    )
    rows = [[*_covered(net, pictures, places, side, baseline)] for places in (*named.values(), random[0])]
    sheet = Sheet(
        f"Correspondence in {net.name}",
        tuple(map(tuple, rows)),
        "share of features that covering changes in another direction in another picture, mean ± standard deviation "
        f"over pairs · {side} px squares, baseline {baseline} · random: {draws} draws, the first is shown",
        "",
        tuple(stem(picture) or str(number) for number, picture in enumerate(pictures, 1)),
        labels,
    )
    places = {name: [list(place) for place in chosen_places] for name, chosen_places in named.items()}
    settled = {"layers": [layer.name for layer in chosen], "patch": side, "places": places}
    values = {"differences": torch.tensor(means), "deviations": torch.tensor(deviations)}
    return Gallery(sheet, values, Recipe(settled=settled))


def _two(net: Net) -> list[Layer]:
    """Return the paper's layers 5 and 7: the last with spatial positions, and what the classes are read from."""
    return list(dict.fromkeys((spatial_layer(net, last_spatial_layer(net).name), before_classes(net))))


def _line(layer: Layer, mean: float, deviation: float) -> str:
    return f"{layer.name}: {mean:.3f} ± {deviation:.3f}"


def _named(parts: Sequence[str], pictures: Sequence[InputPicture]) -> dict[str, Places]:
    """Read parts, such as "nose (30,40) (28,44)"."""
    named = dict[str, Places]()
    for number, text in enumerate(parts, 1):
        match = _PART.fullmatch(text.strip())
        places = [(int(y), int(x)) for y, x in _PLACE.findall(match[2])] if match else []
        if len(places) != len(pictures):
            raise OptionError(
                f"a part has a place (row,column) in each of the {len(pictures)} pictures, as in "
                f"'nose {' '.join(['(30,40)'] * len(pictures))}', not {text!r}"
            )
        for place, picture in zip(places, pictures, strict=True):
            height, width = picture.pixels.shape[1:]
            if place[0] >= height or place[1] >= width:
                raise OptionError(
                    f"the place {place} of {text!r} lies outside of its picture, which has {height} rows and {width} "
                    "columns as the network reads it"
                )
        named[(match[1].strip() if match else "") or f"part {number}"] = places
    return named


def _strongest(net: Net, pictures: Sequence[InputPicture]) -> dict[str, Places]:
    """Return where the channel of the last layer responds most that is the strongest over all pictures."""
    layer = spatial_layer(net, last_spatial_layer(net).name)
    with torch.inference_mode():
        readings = [tap(net, net.pixels(picture), [layer.name])[layer.name] for picture in pictures]
    maps = [layer.by_position(reading)[0].float() for reading in readings]
    channel = int(torch.stack([each.flatten(1).amax(1) for each in maps]).mean(0).argmax())
    places: Places = []
    for activity, picture in zip(maps, pictures, strict=True):
        rows, columns = where_units_lie(net, layer, net.pixels(picture), "field")
        row, column = divmod(int(activity[channel].argmax()), activity.shape[2])
        height, width = picture.pixels.shape[1:]
        places.append((round(min(max(rows[row], 0), height - 1)), round(min(max(columns[column], 0), width - 1))))
    return {f"{layer.name}:{channel}": places}


def _random(pictures: Sequence[InputPicture], side: int, generator: np.random.Generator) -> Places:
    """Draw a place for each picture at which the whole square lies inside."""
    places: Places = []
    for picture in pictures:
        height, width = picture.pixels.shape[1:]
        corner = generator.integers(0, (max(height - side, 0) + 1, max(width - side, 0) + 1))
        places.append((int(corner[0]) + side // 2, int(corner[1]) + side // 2))
    return places


def _cover(net: Net, pixels: Tensor, place: tuple[int, int], side: int, baseline: str) -> Tensor:
    """Return pixels (1, c, h, w) with the baseline in a square."""
    top, left = (max(0, at - side // 2) for at in place)
    inside = (..., slice(top, top + side), slice(left, left + side))
    covered = pixels.clone()
    covered[inside] = baselines.baseline_pixels(net, pixels, baseline)[inside]
    return covered


def _covered(net: Net, pictures: Sequence[InputPicture], places: Places, side: int, baseline: str) -> list[Tile]:
    tiles = list[Tile]()
    for picture, place in zip(pictures, places, strict=True):
        pixels = _cover(net, net.pixels(picture), place, side, baseline)[0]
        image = fitted(picture.image(pixels.cpu().numpy()), tile_side(len(pictures) + 2))
        top, left = (max(0, at - side // 2) for at in place)
        scale = image.width / pixels.shape[2]
        edges = (left * scale, top * scale, (left + side) * scale - 1, (top + side) * scale - 1)
        ImageDraw.Draw(image).rectangle(edges, outline="#e0007a")  # the baseline's colour may be the picture's
        tiles.append(Tile(image))
    return tiles


def _features(net: Net, pixels: Tensor, layers: Sequence[Layer]) -> list[Tensor]:
    """Return the features of layers, flat, on the CPU."""
    with torch.inference_mode():
        readings = tap(net, pixels, [layer.name for layer in layers])
    return [readings[layer.name][0].double().flatten().cpu() for layer in layers]


def _differences(
    net: Net,
    pictures: Sequence[InputPicture],
    places: Places,
    side: int,
    own: Sequence[Sequence[Tensor]],
    layers: Sequence[Layer],
    baseline: str,
) -> Tensor:
    """Return the share of features whose change has another sign in the other picture, (layers, pairs)."""
    signs = list[list[Tensor]]()
    for picture, place, features in zip(pictures, places, own, strict=True):
        covered = _features(net, _cover(net, net.pixels(picture), place, side, baseline), layers)
        signs.append([_signs(before, after) for before, after in zip(features, covered, strict=True)])
    return torch.tensor(
        [
            [float((first != second).double().mean()) for first, second in combinations(row, 2)]
            for row in zip(*signs, strict=True)
        ]
    )


def _signs(before: Tensor, after: Tensor) -> Tensor:
    """Return -1, 0 or 1 for every feature: whether covering lowered it, left it alone or raised it."""
    change = before - after
    return torch.where(change.abs() > _EXACT * float(before.abs().max()), change, 0).sign()
