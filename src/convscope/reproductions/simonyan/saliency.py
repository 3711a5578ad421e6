"""Fig. 2: saliency of the top-1 class, of one crop and averaged over ten, with random weights as control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...baselines import baseline_pixels
from ...checks.similarity import strength
from ...context import listen
from ...drawing.drawings import Gallery, Heatmap
from ...drawing.layout import Sheet, Tile, enlarged
from ...net import Net
from ...predictions import first_choices
from ...ranks import rank_correlation
from ...recipes import Recipe
from ...running import attribute
from ...studies.changing import shifted
from ...studies.intervals import Interval, bootstrap
from ...studies.labelled import Labelled
from ..claims import Claim, Statement, above, below
from ..registration import Found, Unfit, experiment
from ..subject import Subject

_STEP, _SHARE, _ALIKE = 8 / 255, 0.05, 0.5

_CHANGES = Statement(
    "salient-pixels-change-the-score",
    "Salient pixels need to be changed the least to change the score the most",
    rule="the 5% of pixels with the largest saliency, all colours changed by 8 of 255 grey levels against the "
    "gradient's sign, lower the score of the top-1 class more than 5% of pixels drawn at random: the interval of the "
    "difference, as a share of the first drop, lies above 0.",
    paper="the reading of the magnitude of the derivative; no numbers.",
)
_WEIGHTS = Statement(
    "saliency-depends-on-weights",
    "The map shows what was learnt",
    rule="the rank correlation of maps with those of a copy with random weights, of the same class, lies below 0.5, "
    "with its interval over pictures.",
    paper="not examined; it is the control of Adebayo et al. (arXiv:1810.03292), which a map of the picture's edges "
    "would fail.",
)
_CROPS = Statement(
    "ten-crops-are-steadier",
    "The mean of ten crops is steadier than the map of one",
    rule="when the picture moves by one pixel down and to the right, the map of ten crops moves with it more closely: "
    "the interval of the difference of both rank correlations lies above 0.",
    paper="maps are averaged over ten cropped and mirrored pictures; why is not measured.",
)


@experiment(
    "simonyan",
    30,
    "Fig. 2",
    "Saliency maps",
    did="for the top-1 class of pictures of ILSVRC-2013's test set, the gradient of its score in one pass back, the "
    "largest magnitude over colours in every pixel, averaged over ten cropped and mirrored pictures.",
    differs="ten crops of 7/8 of the side are enlarged to the picture's size; the score is that before the softmax, as "
    "in the paper.",
    claims=(_CHANGES, _WEIGHTS, _CROPS),
    work=2,
)
def saliency(subject: Subject) -> Found:
    """Compute saliency maps, and what becomes of them with random weights and under a shift."""
    net = subject.net
    if len(net.output.shape) != 1:
        raise Unfit(f"{net.name} has outputs of shape {net.output.shape}: saliency is of the score of a class")
    data = subject.some(60, 8)
    with listen():  # that ten crops are averaged is said above
        kept = subject.kept("saliency", data, lambda: _measured(subject, data))
        figure = _figure(subject, data)
    found = {name: value for name, value in kept.items() if name.startswith("by ")}
    words = {name.removeprefix("by "): _over(value, subject.seed) for name, value in found.items()}
    drop, other = kept["drop"], kept["random drop"]
    share = _over((drop - other) / drop.abs().clamp(min=1e-9), subject.seed)
    steadier = _over(found["by ten crops, shifted"] - found["by one crop, shifted"], subject.seed)
    claims = [
        _CHANGES.judged(
            above(share),
            f"Pixels at random lower it by {1 - share.value:.0%} of what the salient ones do (difference "
            f"{_word(share, '%')}).",
            numbers={"difference": share},
        ),
        _follows(words),
        _CROPS.judged(
            above(steadier),
            f"Rank correlation under a shift by one pixel {_word(words['ten crops, shifted'])} of ten crops, "
            f"{_word(words['one crop, shifted'])} of one; difference {_word(steadier)}.",
            numbers={"difference": steadier},
        ),
    ]
    return Found(f"{len(data)} pictures, seed {subject.seed}.", claims, figures=[figure])


def _follows(words: Mapping[str, Interval]) -> Claim:
    if "random weights" not in words:
        return _WEIGHTS.unjudged("the network cannot be copied, or has no weights")
    alike = words["random weights"]
    return _WEIGHTS.judged(below(alike, _ALIKE), f"Rank correlation {_word(alike)}.", numbers={"correlation": alike})


def _measured(subject: Subject, data: Labelled) -> dict[str, Tensor]:
    """Return one number for each picture and comparison."""
    found: dict[str, list[float]] = {}
    generator = torch.Generator().manual_seed(subject.seed)
    for _, pixels in data.batches(4, "saliency"):
        classes: list[int] = first_choices(subject.net, pixels)
        made = _maps(subject, pixels, classes)
        for name, change in _drops(subject.net, pixels, classes, made.gradient, generator).items():
            found.setdefault(name, []).extend(change)
        pairs = {"one crop, shifted": made.moved(made.one, made.one_moved)}
        pairs["ten crops, shifted"] = made.moved(made.ten, made.ten_moved)
        if made.random is not None:
            pairs["random weights"] = [
                rank_correlation(strength(a), strength(b)) for a, b in zip(made.one, made.random, strict=True)
            ]
        for name, values in pairs.items():
            found.setdefault(f"by {name}", []).extend(values)
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in found.items()}


@dataclass(frozen=True)
class _Maps:
    """Of some pictures: gradients (n, c, h, w), and maps (n, 1, h, w), as they are and of pictures moved by a pixel."""

    gradient: Tensor
    one: Tensor
    ten: Tensor
    one_moved: Tensor
    ten_moved: Tensor
    random: Tensor | None

    @staticmethod
    def moved(maps: Tensor, after: Tensor) -> list[float]:
        """Return how alike maps of moved pictures are to the maps, moved as well."""
        return [
            rank_correlation(strength(a[:, :-1, :-1]), strength(b[:, 1:, 1:])) for a, b in zip(maps, after, strict=True)
        ]


def _maps(subject: Subject, pixels: Tensor, classes: Sequence[int]) -> _Maps:
    net, untrained = subject.net, subject.untrained
    further = shifted(pixels, 1, 1, "edge", baseline_pixels(net, pixels, "mean"))
    one, ten, one_moved, ten_moved = (
        attribute(net, each, "saliency", of=list(classes), crops=crops).cpu()
        for each, crops in ((pixels, 1), (pixels, 10), (further, 1), (further, 10))
    )
    random = None if untrained is None else attribute(untrained, pixels, "saliency", of=list(classes)).cpu()
    return _Maps(attribute(net, pixels, "gradient", of=list(classes)), one, ten, one_moved, ten_moved, random)


def _drops(
    net: Net, pixels: Tensor, classes: Sequence[int], gradient: Tensor, generator: torch.Generator
) -> dict[str, list[float]]:
    """Return how much scores fall when the most salient pixels change, and when others drawn at random do."""
    salient = gradient.abs().amax(1).flatten(1)
    count = max(1, round(_SHARE * salient.shape[1]))
    noise = torch.rand(salient.shape, generator=generator).to(salient)
    found = dict[str, list[float]]()
    rows = range(len(pixels))
    with torch.inference_mode():
        before = net(pixels)[rows, list(classes)]
        for name, order in (("drop", salient), ("random drop", noise)):
            chosen = torch.zeros_like(salient).scatter_(1, order.topk(count, 1).indices, 1)
            change = _STEP * gradient.sign() * chosen.reshape(len(pixels), 1, *pixels.shape[2:])
            found[name] = (before - net(pixels - change)[rows, list(classes)]).double().cpu().tolist()
    return found


def _over(values: Tensor, seed: int) -> Interval:
    numbers = values.numpy()
    return bootstrap(lambda rows: float(numbers[rows].mean()), len(numbers), seed=seed)


def _word(interval: Interval, unit: str = "") -> str:
    how = ".0%" if unit else ".2f"
    return f"{interval.value:{how}} [{interval.low:{how}}, {interval.high:{how}}]".replace("-", "−")


_SIDE = 180


def _figure(subject: Subject, data: Labelled) -> Gallery:
    """Draw some pictures with their maps."""
    net, rows, values = subject.net, list[tuple[Tile, ...]](), dict[str, list[Tensor]]()
    some = min(len(data), subject.number(5, 4, 2))
    for row in range(some):
        picture = data.input(row)
        pixels = net.pixels(picture)
        of = first_choices(net, pixels)[0]
        maps = {
            "one crop": attribute(net, pixels, "saliency", of=of),
            "ten crops": attribute(net, pixels, "saliency", of=of, crops=10),
        }
        if subject.untrained is not None:
            maps["random weights"] = attribute(subject.untrained, pixels, "saliency", of=of)
        shown = enlarged(picture.original.convert("RGB"), _SIDE)
        tiles = [Tile(shown, net.class_name(of))]
        for name, map_ in maps.items():
            values.setdefault(name.replace(" ", "_"), []).append(map_[0].cpu())
            tiles.append(Tile(Heatmap(map_[0], picture, Recipe()).map_image(shown.size)))
        rows.append(tuple(tiles))
    columns = ("picture and top-1 class", "one crop", "ten crops", "random weights")[: len(rows[0])]
    sheet = Sheet(f"Saliency of {net.name}", tuple(rows), "each on a scale of its own, from 0", columns=columns)
    return Gallery(sheet, {name: torch.stack(each) for name, each in values.items() if _alike(each)})


def _alike(maps: Sequence[Tensor]) -> bool:
    return len({each.shape for each in maps}) == 1
