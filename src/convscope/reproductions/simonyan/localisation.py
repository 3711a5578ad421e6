"""Section 3.2: localisation by saliency and graph cut, beside boxes that no network has made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ...checks.box_scores import iou
from ...checks.reference_maps import centre
from ...context import listen, track
from ...data.boxes import Box
from ...data.images import InputPicture
from ...drawing.drawings import Gallery, Heatmap
from ...drawing.layout import Sheet, Tile, enlarged
from ...drawing.tables import Cell, Column, Table
from ...errors import OptionError
from ...net import Net
from ...recipes import Recipe
from ...running import attribute
from ...studies.intervals import Interval, bootstrap, wilson
from ...studies.labelled import Labelled
from ...studies.parts import matched
from ...views.graph_cut import segment_map
from ...views.opencv import opencv
from ..claims import Claim, Statement, below, every
from ..registration import Found, Unfit, experiment
from ..sampling import evenly
from ..subject import Subject
from .network import percent, points

_THOUSAND, _SUPERVISED = 1000, 0.5
_FOREGROUND, _BACKGROUND = 0.95, 0.3

_BETTER = Statement(
    "localises-better-than-no-network",
    "Saliency and a graph cut find objects better than boxes without a network",
    rule="its box of the given class has an intersection over union below one half with the object's in fewer pictures "
    "than a box in the middle of half of the area, and than the whole picture: the intervals of both differences lie "
    "below 0.",
    paper="not compared; 46.4% top-5 error in spite of weak supervision.",
)
_LEARNT = Statement(
    "localisation-is-learnt",
    "It is the learnt weights that find the object",
    rule="that error is lower than of the same graph cut on the saliency of a copy with random weights: the interval "
    "of the difference lies below 0.",
    paper="not examined.",
)
_TOP = Statement(
    "localisation-error",
    "Without boxes in training it is as good as a supervised detector of its time",
    rule="on ImageNet's 1,000 classes, its top-5 localisation error lies below 50.0%, with its interval.",
    paper="46.4% top-5 error on the test set of ILSVRC-2013; the authors' entry of 2012, trained with boxes, had "
    "50.0%, the winner of 2013 29.9%.",
)


@experiment(
    "simonyan",
    40,
    "Section 3.2",
    "Localisation by saliency and graph cut",
    did="for each of the top-5 classes, the pixels above the 95% quantile of the saliency map gave a colour model of "
    "the foreground, those below its 30% quantile one of the background, both mixtures of Gaussians; a graph cut, the "
    "largest connected component, and the box around it. A class is right whose box overlaps the object's by half.",
    differs="five Gaussians each and a weight of 50 for neighbours, as OpenCV's GrabCut has them: the paper names "
    "neither. Pictures of networks that read large ones get maps of one crop, others of ten as in the paper.",
    claims=(_BETTER, _LEARNT, _TOP),
    work=3,
)
def localisation(subject: Subject) -> Found:
    """Cut out objects by saliency, and compare their boxes with the true ones and with controls."""
    net = subject.net
    if len(net.output.shape) != 1:
        raise Unfit(f"{net.name} has outputs of shape {net.output.shape}: saliency is of the score of a class")
    opencv()
    data, boxes = _boxed(subject)
    made = _Boxes(subject, data, boxes)
    with listen():  # what is remarked on one map, such as that crops are averaged, is said above
        kept = subject.kept("localisation", data, made.overlaps, boxes=[boxes[row] for row in range(len(data))])
        figure = made.figure()
    found = _Overlaps(kept, subject.seed)
    claims = [_better(found), _learnt(found), _top(found, net)]
    did = (
        f"{len(data)} pictures with boxes, seed {subject.seed}; the objects' boxes cover "
        f"{float(kept['area'].mean()):.0%} of the picture on average."
    )
    return Found(did, claims, figures=[figure], tables=[found.table(net)])


def _boxed(subject: Subject) -> tuple[Labelled, dict[int, list[Box]]]:
    """Return some pictures of which boxes are known, with these."""
    if subject.boxes is None:
        raise Unfit("no boxes around objects are given: boxes=FILE (--boxes FILE), such as a table with columns path, "
                    "left, top, right, bottom")  # fmt: skip
    found: dict[int, list[Box]] = {}
    for row, _, _, box in matched(subject.boxes, subject.data.pictures):
        if row is not None:
            found.setdefault(row, []).append(box)
    if not found:
        raise Unfit(f"{subject.boxes} has boxes of none of the {len(subject.data):,} pictures")
    rows = sorted(found)
    some = evenly([subject.data.targets[row] for row in rows], subject.number(150, 24, 8), subject.seed)
    chosen = [rows[number] for number in some]
    return subject.data.subset(chosen), {at: found[row] for at, row in enumerate(chosen)}


@dataclass(frozen=True)
class _Boxes:
    """Cuts objects out of pictures whose boxes are known."""

    subject: Subject
    data: Labelled
    boxes: Mapping[int, Sequence[Box]]

    def overlaps(self) -> dict[str, Tensor]:
        """Return the best intersection over union of every picture, for classes and controls, and what was right."""
        found: dict[str, list[list[float]]] = {}
        for row in track(range(len(self.data)), "localisation"):
            picture = self.data.input(row)
            for name, values in self._of(row, picture).items():
                found.setdefault(name, []).append(values)
        return {name: torch.tensor(values, dtype=torch.float64) for name, values in found.items()}

    def _of(self, row: int, picture: InputPicture) -> dict[str, list[float]]:
        net, untrained, true = self.subject.net, self.subject.untrained, self.boxes[row]
        width, height = picture.original.size
        pixels = net.pixels(picture)
        with torch.inference_mode():
            top = net(pixels)[0].topk(min(5, net.output.shape[0])).indices.tolist()
        truth = self.data.answers[row] if self.subject.known else None
        given = top[0] if truth is None else truth
        classes = list(dict.fromkeys([*top, given]))
        cut = dict(zip(classes, self._cuts(net, picture, pixels, classes), strict=True))
        middle = tuple(side * edge for edge in (0.5 - 0.5**1.5, 0.5 + 0.5**1.5) for side in (width, height))
        found: dict[str, Sequence[float]] = {
            "given": cut[given],
            "centre box": middle,
            "whole picture": (0, 0, width, height),
            "centre and graph cut": _cut(centre(pixels, [0], 0)[0], picture),
        }
        if untrained is not None:
            (found["random weights"],) = self._cuts(untrained, picture, pixels, [given])
        overlap = {name: [max(iou(tuple(each), box) for box in true)] for name, each in found.items()}  # type: ignore[arg-type]
        overlap["top"] = [max(iou(cut[each], box) for box in true) for each in top]
        overlap["right"] = [float(each == truth) if truth is not None else np.nan for each in top]
        overlap["area"] = [max((box[2] - box[0]) * (box[3] - box[1]) for box in true) / (width * height)]
        return overlap

    def _cuts(self, net: Net, picture: InputPicture, pixels: Tensor, classes: Sequence[int]) -> list[Box]:
        maps = attribute(
            net, pixels.expand(len(classes), -1, -1, -1), "saliency", of=list(classes),
            crops=1 if self.subject.large else 10,
        )  # fmt: skip
        return [_cut(each, picture) for each in maps]

    def figure(self) -> Gallery:
        """Draw some pictures: the map of the given class, what is cut out, and the boxes."""
        net, rows = self.subject.net, list[tuple[Tile, ...]]()
        for row in range(min(len(self.data), self.subject.number(6, 4, 2))):
            picture = self.data.input(row)
            pixels = net.pixels(picture)
            truth = self.data.answers[row] if self.subject.known else None
            with torch.inference_mode():
                of = int(net(pixels)[0].argmax()) if truth is None else truth
            map_ = attribute(net, pixels, "saliency", of=of, crops=1 if self.subject.large else 10)[0]
            rows.append(_tiles(picture, map_, self.boxes[row], net.class_name(of)))
        sheet = Sheet(
            f"Localisation by {net.name}",
            tuple(rows),
            "white: the box of the data; orange: that of the graph cut",
            columns=("picture and class", "saliency", "graph cut"),
        )
        return Gallery(sheet, {"boxes": torch.tensor([list(self.boxes[row][0]) for row in range(len(rows))])})


_SIDE = 200
_TRUE, _OURS = (255, 255, 255), (226, 88, 34)


def _tiles(picture: InputPicture, map_: Tensor, true: Sequence[Box], name: str) -> tuple[Tile, ...]:
    shown = enlarged(picture.original.convert("RGB"), _SIDE)
    painted = Heatmap(map_, picture, Recipe()).map_image(shown.size)
    cut, factor = shown.copy(), shown.width / picture.original.width
    found = _cut(map_, picture)
    drawing = ImageDraw.Draw(cut)
    for box, colour in (*((each, _TRUE) for each in true), (found, _OURS)):
        left, top, right, bottom = (edge * factor for edge in box)
        drawing.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=3)
    best = max(iou(found, box) for box in true)
    return Tile(shown, name), Tile(painted), Tile(cut, f"intersection over union {best:.2f}")


def _cut(map_: Tensor, picture: InputPicture) -> Box:
    """Return the box of the object that a map (1, h, w) marks; without extent where it marks nothing."""
    original: Image.Image = picture.original.convert("RGB")
    values = Heatmap(map_.detach().cpu(), picture, Recipe()).spread(original.size)
    try:
        top, left, bottom, right = segment_map(values, original, foreground=_FOREGROUND, background=_BACKGROUND).box
    except OptionError:
        return 0.0, 0.0, 0.0, 0.0
    return float(left), float(top), float(right), float(bottom)


_ROWS = {
    "given": "saliency and graph cut",
    "random weights": "the same, random weights",
    "centre and graph cut": "a spot in the middle and graph cut",
    "centre box": "box in the middle, half of the area",
    "whole picture": "whole picture",
}


@dataclass(frozen=True)
class _Overlaps:
    """Intersections over union, (n, 1) or of the top classes (n, 5), and which of these are right, NaN if unknown."""

    values: Mapping[str, Tensor]
    seed: int

    def missed(self, name: str) -> np.ndarray:
        """Return in which pictures a box overlaps the object by less than half."""
        return (self.values[name][:, 0] < 0.5).numpy().astype(float)

    def error(self, name: str) -> Interval:
        missed = self.missed(name)
        return wilson(int(missed.sum()), len(missed))

    def less(self, name: str) -> Interval:
        """Return by how much the error is higher than that of a control, negative where it is lower."""
        each = self.missed("given") - self.missed(name)
        return bootstrap(lambda rows: float(each[rows].mean()), len(each), seed=self.seed)

    def top(self, most: int, name: str = "top") -> Interval | None:
        """Return the error of which a picture is free that has a right class with a box that overlaps by half."""
        right = self.values["right"][:, :most]
        if bool(right.isnan().any()):
            return None
        overlap = self.values[name][:, :most] if name == "top" else self.values[name]
        found = ((right > 0) & (overlap >= 0.5)).any(1)
        return wilson(int((~found).sum()), len(found))

    def table(self, net: Net) -> Table:
        """Return the errors of saliency and of its controls."""
        columns = (
            Column("box", unbroken=True),
            Column("error", head="box error, class given", unbroken=True),
            Column("top-1", head="top-1 error", unbroken=True),
            Column("top-5", head="top-5 error", unbroken=True),
        )
        rows = list[tuple[Cell, ...]]()
        for name, title in _ROWS.items():
            if name in self.values:
                tops = [self.top(most, "top" if name == "given" else name) for most in (1, 5)]
                if name in ("random weights",):  # only made for the given class
                    tops = [None, None]
                rows.append((title, percent(self.error(name)), *(percent(each) if each else "" for each in tops)))
        n = len(self.values["given"])
        note = f"error: intersection over union below one half, or a wrong class; n = {n:,} pictures"
        return Table(columns, tuple(rows), title=f"Localisation by {net.name}", note=note)


def _better(found: _Overlaps) -> Claim:
    gaps = {name: found.less(name) for name in ("centre box", "whole picture")}
    return _BETTER.judged(
        every([below(gap) for gap in gaps.values()]),
        f"Box error {percent(found.error('given'))}; of the box in the middle {percent(found.error('centre box'))}, of "
        f"the whole picture {percent(found.error('whole picture'))} (differences {points(gaps['centre box'])} and "
        f"{points(gaps['whole picture'])}).",
        numbers=gaps,
    )


def _learnt(found: _Overlaps) -> Claim:
    if "random weights" not in found.values:
        return _LEARNT.unjudged("the network cannot be copied, or has no weights")
    gap = found.less("random weights")
    return _LEARNT.judged(
        below(gap),
        f"Box error {percent(found.error('given'))}, with random weights {percent(found.error('random weights'))} "
        f"(difference {points(gap)}).",
        numbers={"difference": gap},
    )


def _top(found: _Overlaps, net: Net) -> Claim:
    error = found.top(5)
    if error is None:
        return _TOP.unjudged("the pictures have no labels that are classes of the network")
    ours = f"Top-5 localisation error {percent(error)}."
    classes = net.output.shape[0]
    if classes != _THOUSAND:
        return _TOP.unjudged(f"the network tells {classes:,} classes apart, the paper's 1,000", ours)
    return _TOP.judged(below(error, _SUPERVISED), ours, numbers={"top-5 error": error})
