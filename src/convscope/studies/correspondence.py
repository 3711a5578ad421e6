"""Correspondence: does covering the same part of several pictures change features in the same way?

After Zeiler and Fergus (arXiv:1311.2901v3, sec. 4.3, Fig. 8 and Table 1): a part is covered in every picture, and the
signs of what this changes of a layer's features, -1, 0 or 1, are compared between pictures, by the share of features in
which they differ. A part that the network finds again from picture to picture differs less than random places do. Three
nulls tell what that means: random places of the same sizes, a random place that is the same in all pictures (whose
changes fall on the same units, whatever it shows), and pairs of different parts; a copy of the network with random
weights is the control. Parts are boxes in a table. The paper's pictures show dogs of one size and pose; here they are
moved and scaled so that their parts lie at the same places. Without a table the part is where the channel responds most
that is strongest over all pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from .. import baselines
from ..attribution.occlusion import BaselineOption, Patch
from ..attribution.places import places as where_units_lie
from ..checks.random_weights import randomised
from ..context import say, track
from ..data.boxes import Box
from ..data.images import InputPicture
from ..data.pictures import Picture, Pictures
from ..drawing.study import Study
from ..errors import OptionError
from ..layers import before_classes, default_convolutions, find_layer, last_spatial_layer
from ..net import Net
from ..options import Range
from ..recipes import Recipe
from ..registry import view
from ..tapping import tap
from ..tracing import Layer
from .correspondence_sheet import NULLS, Compared, gist_of, sheet_of, table_of
from .keeping import Keep, kept
from .labelled import Labelled, Limit, Seed, drawn
from .parts import Places, Rect, aligned, around, complete, marked, random_rect, seen

FACES = Path(__file__).with_name("faces.csv")
"""Eyes and noses of 18 cats and dogs that look at the camera, in validation pictures of Tiny ImageNet."""

_EXACT = 1e-5
"""A change below this share of the layer's largest is none: it may be rounding."""

Boxes = Annotated[
    str | Path | None,
    "the parts: a table (.csv) with columns path, class (the part's name), left, top, right, bottom, in pixels of the "
    "pictures' files, or COCO or VOC; 'faces' for eyes and noses in validation pictures of Tiny ImageNet; by default "
    "the strongest channel's place",
]


class _Marked(Labelled):
    """The pictures of which a table marks parts, where there is one: of many, no others are read."""

    @classmethod
    def chosen(cls, pictures: Pictures, targets: Sequence[int], options: Mapping[str, Any]) -> list[int]:
        """Return the rows of the pictures that are compared."""
        boxes = options["boxes"]
        if boxes is None:
            return super().chosen(pictures, targets, options)
        rows = sorted(_boxes(boxes, list(pictures)))
        if len(rows) < len(pictures):
            say(f"{len(rows):,} of {len(pictures):,} pictures, of which {boxes} marks parts")
        some = drawn([targets[row] for row in rows], 0, options["limit"], options["seed"])
        return [rows[number] for number in some]


def _boxes(boxes: str | Path, pictures: Sequence[Picture]) -> dict[int, dict[str, Box]]:
    return marked(FACES if str(boxes) == "faces" else boxes, pictures)


@view(
    "Correspondence",
    kind="study",
    group="study",
    paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, sec. 4.3, Fig. 8 and Table 1",
)
def correspondence(
    net: Net,
    data: _Marked,
    *,
    boxes: Boxes = None,
    layers: Annotated[
        list[str] | None,
        "layers whose features are compared; by default a convolution in the middle, the last layer with spatial "
        "positions and the last before the classes",
    ] = None,
    align: Annotated[
        bool, "move and scale pictures of which two parts or more are marked, so that these lie at the same places"
    ] = True,
    patch: Patch = None,
    draws: Annotated[int, "number of random places in each picture to compare with", Range(1)] = 10,
    baseline: BaselineOption = "mean",
    untrained: Annotated[bool, "also a copy with random weights, as a control"] = True,
    limit: Limit = 50,
    seed: Seed = 0,
    keep: Keep = None,
) -> Study:
    """Compare how covering the same part, different ones, or random places, changes features of several pictures.

    The values are `differences` (networks; parts and, last, three nulls; layers; pictures; pictures): the share, 0 to
    1, of features whose change has another sign in the other picture; NaN for a picture with itself. Raises OptionError
    for fewer than two pictures or several sizes, and for boxes outside of their picture.
    """  # fmt: skip
    chosen = [find_layer(net, name) for name in layers] if layers else _three(net)
    pictures, places = _marked(data, boxes) if boxes is not None else _strongest(data, patch)
    if align and len(places) > 1:
        pictures, places = aligned(pictures, places)
    plan = _Plan(chosen, places, *_random(pictures, places, draws, seed), baseline)
    networks = {"trained": net} | ({"random weights": randomised(net, seed=seed)} if untrained else {})
    found = [
        kept(keep, name, lambda each=each: {"differences": plan.differences(each, pictures)})["differences"]
        for name, each in track(list(networks.items()), "correspondence")
    ]
    names = tuple(layer.name or "the output" for layer in chosen)
    compared = Compared(tuple(networks), (*places, *NULLS), names, torch.stack(found), seed)
    covered = [[plan.cover(net, net.pixels(picture), rects[row]) for row, picture in enumerate(pictures)]
               for rects in (*places.values(), plan.random[0])]  # fmt: skip
    settled = {
        "layers": [layer.name for layer in chosen],
        "places": {name: [*map(list, each)] for name, each in places.items()},
    }
    values = {"differences": compared.values}
    note = f"baseline {baseline}, {draws} random places"
    figure = sheet_of(compared, net, pictures, covered, [*places.values(), plan.random[0]], note)
    return Study(gist_of(compared), table_of(compared, net), figure, values, Recipe(settled=settled))


def _three(net: Net) -> list[Layer]:
    """Return a convolution in the middle, and the paper's layers 5 and 7: the last with positions, and the features."""
    convolutions = default_convolutions(net, 3)
    return list(dict.fromkeys((convolutions[len(convolutions) // 2], last_spatial_layer(net), before_classes(net))))


def _marked(data: Labelled, boxes: str | Path) -> tuple[list[InputPicture], Places]:
    """Return the pictures of which all parts are marked and seen, and their boxes."""
    found = _boxes(boxes, data.pictures)
    parts, rows = complete(found)
    pictures = [data.input(row) for row in rows]
    rects = [
        [seen(picture, part, found[row][part]) for part in parts] for row, picture in zip(rows, pictures, strict=True)
    ]
    good = [number for number, each in enumerate(rects) if None not in each]
    if len(good) < len(rows):
        say(f"{len(rows) - len(good)} pictures are left out: the network does not see one of their parts")
    _check([pictures[number] for number in good])
    places: Places = {part: [rect for number in good if (rect := rects[number][at])] for at, part in enumerate(parts)}
    return [pictures[number] for number in good], places


def _strongest(data: Labelled, patch: int | None) -> tuple[list[InputPicture], Places]:
    """Return squares where the channel of the last layer responds most that is the strongest over all pictures."""
    net, pictures = data.net, [data.input(row) for row in range(len(data))]
    _check(pictures)
    height, width = pictures[0].pixels.shape[1:]
    side = patch or max(1, min(height, width) // 7)
    layer = last_spatial_layer(net)
    with torch.inference_mode():
        readings = [tap(net, net.pixels(picture), [layer.name])[layer.name] for picture in pictures]
    maps = [layer.by_position(reading)[0].float() for reading in readings]
    channel = int(torch.stack([each.flatten(1).amax(1) for each in maps]).mean(0).argmax())
    found = list[Rect]()
    for activity, picture in zip(maps, pictures, strict=True):
        rows, columns = where_units_lie(net, layer, net.pixels(picture), "field")
        row, column = divmod(int(activity[channel].argmax()), activity.shape[2])
        found.append(around(rows[row], columns[column], side, height, width))
    return pictures, {f"{layer.name}:{channel}": found}


def _check(pictures: Sequence[InputPicture]) -> None:
    if len(pictures) < 2 or len({picture.pixels.shape for picture in pictures}) > 1:
        raise OptionError(
            "correspondence compares pictures with each other: give at least two, and where they differ in size, one "
            "size for all, as net.sized(224) or --size 224"
        )


def _random(
    pictures: Sequence[InputPicture], places: Places, draws: int, seed: int
) -> tuple[list[list[Rect]], list[list[Rect]]]:
    """Draw places of the size of a part, so many times: one that is the same in all pictures, and one in each."""
    generator = np.random.default_rng(seed)
    height, width = pictures[0].pixels.shape[1:]
    sizes, every = list(places.values()), range(len(pictures))
    one, each = list[list[Rect]](), list[list[Rect]]()
    for draw in range(draws):
        part = sizes[draw % len(sizes)]
        one.append([random_rect(part[0], height, width, generator)] * len(pictures))
        each.append([random_rect(part[row], height, width, generator) for row in every])
    return one, each


@dataclass(frozen=True)
class _Plan:
    """What is covered, and which layers are read."""

    layers: Sequence[Layer]
    places: Mapping[str, Sequence[Rect]]
    same: Sequence[Sequence[Rect]]
    random: Sequence[Sequence[Rect]]
    baseline: str

    def cover(self, net: Net, pixels: Tensor, rect: Rect) -> Tensor:
        """Return pixels (1, c, h, w) with the baseline in a box."""
        top, bottom, left, right = rect
        inside = (..., slice(top, bottom), slice(left, right))
        covered = pixels.clone()
        covered[inside] = baselines.baseline_pixels(net, pixels, self.baseline)[inside]
        return covered

    def differences(self, net: Net, pictures: Sequence[InputPicture]) -> Tensor:
        """Return differing shares (parts and nulls; layers; pictures; pictures)."""
        sets = [*self.places.values(), *self.same, *self.random]
        signs = [
            self._signs(net, net.pixels(picture), [each[row] for each in sets]) for row, picture in enumerate(pictures)
        ]
        count = len(self.places)
        layers = list[Tensor]()
        for at, _ in enumerate(self.layers):
            of = torch.stack([each[at] for each in signs])  # (pictures, sets, features)
            parts = [differing(of[:, part], of[:, part]) for part in range(count)]
            others = [differing(of[:, a], of[:, b]) for a, b in permutations(range(count), 2)]
            draws = [differing(of[:, draw], of[:, draw]) for draw in range(count, of.shape[1])]
            nothing = torch.full_like(parts[0], torch.nan)
            same, random = (torch.stack(each).mean(0) for each in (draws[: len(self.same)], draws[len(self.same) :]))
            layers.append(torch.stack([*parts, torch.stack(others or [nothing]).mean(0), same, random]))
        return torch.stack(layers, 1)

    def _signs(self, net: Net, pixels: Tensor, rects: Sequence[Rect]) -> list[Tensor]:
        """Return, for each layer, what covering boxes does to each feature: -1, 0 or 1 (boxes, features)."""
        covered = torch.cat([pixels, *(self.cover(net, pixels, rect) for rect in rects)])
        with torch.inference_mode():
            readings = tap(net, covered, [layer.name for layer in self.layers])
        return [signs(readings[layer.name].double().flatten(1).cpu()) for layer in self.layers]


def signs(features: Tensor) -> Tensor:
    """Return the signs (n, f) of what covering took from features (1 + n, f), of which the first are uncovered."""
    own = features[:1]
    change = own - features[1:]
    return torch.where(change.abs() > _EXACT * own.abs().max(), change, 0).sign().to(torch.int8)


def differing(first: Tensor, second: Tensor) -> Tensor:
    """Return the share of signs (n, features) that differ between rows of both (n, n); NaN for a row with itself."""
    shares = torch.stack([(first != row).double().mean(1) for row in second], 1)
    return shares.fill_diagonal_(torch.nan)
