"""`predict_many`: what a network says of many pictures, read ahead and in batches, and what is true of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..assumptions import Assumption
from ..batching import Halving
from ..context import listen, say, track
from ..data.images import InputPicture
from ..data.loading import Counted, Loaded, read_ahead
from ..data.pictures import Picture, Pictures, read_pictures
from ..data.preprocessing import Size
from ..errors import NetworkError, OptionError, PictureError
from ..heads import Head
from ..interruptions import orderly
from ..net import Net
from ..predictions import answers
from ..provenance import network_record, versions, with_remarks
from ..recipes import Recipe
from .normalisations import say_likelier_normalisation
from .predicted import Predictions
from .prediction import Prediction
from .truth import Truth, find_truth, outcomes

_SCORE = Assumption(
    "one number per picture is taken for a score: where it is a logit, state it, as in Net(..., head='sigmoid') or "
    "--head sigmoid, and it is read as a probability",
    "a score",
    ("head",),
)
_BATCH = {"cpu": 8}
_BATCH_ELSEWHERE = 64


def prediction(where: str, head: Head, numbers: Tensor, truth: int | None, top: int) -> Prediction:
    """Return the prediction of one picture from what `answers` gives for it, (k,)."""
    numbers = numbers.double().cpu()
    if head.kind == "value":
        return Prediction(where, tuple(range(len(numbers)))[:top], tuple(numbers[:top].tolist()))
    if len(numbers) == 1:
        numbers = torch.cat([1 - numbers, numbers])
    # Stable, so that equal numbers stand in the order of the classes.
    values, order = numbers.sort(descending=True, stable=True)
    said = Prediction(where, tuple(order[:top].tolist()), tuple(values[:top].tolist()))
    if truth is None:
        return said
    return replace(said, truth=truth, rank=order.tolist().index(truth), truth_value=float(numbers[truth]))


@orderly
def predict_many(
    net: Net,
    data: Any,
    *,
    top: int = 5,
    labels: str | Path | None = None,
    names: str | Path | None = None,
    size: Size | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    interrupted: Callable[[Predictions], None] | None = None,
) -> Predictions:
    """Return what a network says of many pictures and, where they have labels, how right it is.

    Args:
        net: the network.
        data: whatever `convscope.data.read_pictures` reads: paths, folders with or without a folder for each class,
            tar or Parquet files, data sets, loaders, tensors, or a list of those.
        top: how many classes to keep of each picture, the largest first.
        labels: a table of labels (.csv) with columns path and label; "none" where folders are no classes; by default
            the labels of the source, else the folders that pictures lie in, where these are classes of the network.
        names: a table of names that stand for labels: .csv (label, name), .json or .txt.
        size: another input side than the network's own, in pixels, or (height, width).
        batch_size: how many pictures at once; 8 on a CPU and 64 elsewhere by default, fewer where memory runs out.
        workers: threads that read and prepare pictures; by default one per processor, at most 8.
        interrupted: called with what is said so far where ctrl-C ends the run, before KeyboardInterrupt goes on.

    A picture that cannot be read has an `error` instead of classes. Raises DataError for labels of which some, or in a
    table all, are no classes; NetworkError where the output is not (n, k).

    >>> import convscope
    >>> said = convscope.predict_many(convscope.load("zfnet64"), ["sample:chelsea"])
    >>> said.classes[said[0].choices[0]]
    'tabby'
    """
    if top < 1:
        raise OptionError(f"top is at least 1, not {top}")
    pictures = read_pictures(data)
    if len(net.output.shape) > 1:
        raise NetworkError(
            f"{net.name} gives outputs of shape {('n', *net.output.shape)}, not (n, classes): it says nothing of a "
            f"picture as a whole. Name a part of it to explain: explain(net, picture, 'grad_cam', of={_part(net)!r}), "
            f"convscope grad-cam PICTURE --of {_part(net)}; or let Net(..., output=...) make numbers per picture of it"
        )
    with listen() as remarks:
        truth = find_truth(net, pictures, labels, names)
        run = _Run(net, truth, top, size, batch_size or _BATCH.get(net.device.type, _BATCH_ELSEWHERE))
        try:
            run.over(pictures, workers)
        except KeyboardInterrupt:
            if interrupted is not None and run.said:
                interrupted(run.predictions(remarks))
            raise
        say_likelier_normalisation(net, pictures, truth, size)
        if run.head == Head("value", certain=False):
            say(_SCORE)
    return run.predictions(remarks)


def _part(net: Net) -> str:
    """Return an objective about the middle of an output that is no list of classes."""
    return f":0@{','.join(str(side // 2) for side in net.output.shape[1:])}" if len(net.output.shape) == 3 else ":0"


class _Run:
    def __init__(self, net: Net, truth: Truth, top: int, size: Size | None, batch: int) -> None:
        self.net, self.truth, self.top, self.size, self.batch = net, truth, top, size, batch
        self.head = net.head
        self.halving = Halving("predict")
        self.said: list[Prediction] = []
        self.assumed: set[str] = set()

    def predictions(self, remarks: Sequence[str]) -> Predictions:
        """Return what was said so far."""
        net = self.net
        recipe = Recipe(
            method="predict",
            network=network_record(net),
            weights=net.digest,
            size=self.size,
            options={"top": self.top},
            versions=versions(),
        )
        recipe = with_remarks(net, recipe, remarks)
        classes = self.truth.classes or outcomes(net)
        return Predictions(net.name, self.head, classes, tuple(self.said), self.truth.known, recipe)

    def over(self, pictures: Pictures, workers: int | None) -> None:
        """Ask about every picture, in order."""
        loaded = read_ahead(pictures, lambda content: self.net.prepare(content, size=self.size), workers=workers)
        waiting: list[Loaded[InputPicture]] = []
        for item in track(Counted(loaded, pictures), "predict"):
            waiting.append(item)
            if len(waiting) == self.batch:
                self.said += self._said(waiting)
                waiting = []
        self.said += self._said(waiting)

    def _said(self, items: Sequence[Loaded[InputPicture]]) -> list[Prediction]:
        said: dict[int, Prediction] = {}
        shapes: dict[Any, list[int]] = {}
        for row, item in enumerate(items):
            if item.value is None:
                said[row] = self._failed(item.picture, str(item.error))
            else:
                self._say_assumed(item.value.remarks)
                shapes.setdefault(item.value.pixels.shape, []).append(row)
        for rows in shapes.values():
            for piece in self.halving.over(lambda part, rows=rows: self._piece(items, rows[part]), slice(0, len(rows))):
                said |= piece
        return [said[row] for row in range(len(items))]

    def _say_assumed(self, remarks: Sequence[str]) -> None:
        """Say what was assumed of pictures, of all alike once."""
        for each in remarks:
            if isinstance(each, Assumption) and each.short not in self.assumed:
                self.assumed.add(each.short)
                say(each)

    def _piece(self, items: Sequence[Loaded[InputPicture]], rows: list[int]) -> dict[int, Prediction]:
        """Ask of some pictures in one batch; where that fails, one by one, so that a bad one spoils no other."""
        try:
            self.head, numbers = answers(self.net, self.net.pixels(*(items[row].value for row in rows)))  # type: ignore[arg-type]
        except (PictureError, NetworkError) as error:
            if len(rows) > 1:
                return {row: each for one in rows for row, each in self._piece(items, [one]).items()}
            return {rows[0]: self._failed(items[rows[0]].picture, str(error))}
        return {
            row: prediction(picture.where, self.head, number, self.truth.of(picture), self.top)
            for row, number in zip(rows, numbers, strict=True)
            for picture in (items[row].picture,)
        }

    def _failed(self, picture: Picture, reason: str) -> Prediction:
        return replace(Prediction(picture.where, error=reason), truth=self.truth.of(picture))
