"""Table 2: how often the network is right."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...drawing.tables import Cell, Column, Table
from ...predictions import answers
from ...studies.intervals import Interval, wilson
from ...studies.labelled import Labelled
from ..claims import Statement
from ..registration import Found, Unfit, experiment
from ..subject import Subject

_BEATS = Statement(
    "beats-krizhevsky",
    "The network errs less often than Krizhevsky's",
    rule="the interval of its top-1 error lies below the error of a network of Krizhevsky's architecture that was "
    "trained on the same pictures by the same recipe.",
    paper="38.4% top-1 and 16.5% top-5 error of one network on ImageNet's validation pictures; the replication of "
    "Krizhevsky's 40.5% and 18.1%.",
)

_TABLE_2 = (
    ("Krizhevsky et al., one network", 0.407, 0.182),
    ("replication of it", 0.405, 0.181),
    ("one network as in Fig. 3", 0.384, 0.165),
    ("five networks (a)", 0.367, 0.153),
    ("one network, layers 3 to 5 of 512, 1,024, 512 maps (b)", 0.375, 0.160),
    ("six networks, (a) and (b)", 0.360, 0.147),
)
"""Validation errors of the paper's Table 2, top-1 and top-5."""


@experiment(
    "zeiler-fergus",
    80,
    "Table 2",
    "How often it is right",
    did="networks were trained for 70 epochs on the 1.3 million pictures of ImageNet 2012, about twelve days on one "
    "GPU, and tested on its 50,000 validation pictures of 1,000 classes; several networks' answers were averaged.",
    differs="another network, other classes and pictures, and one crop of each picture.",
    claims=(_BEATS,),
    work=2,
)
def accuracy(subject: Subject) -> Found:
    """Count how often the class is the first choice, and among the first five."""
    if not subject.known:
        raise Unfit("the labels of these pictures are no classes of the network, or there are none")
    rows: list[tuple[Cell, ...]] = [(name, one, None, None, five, None, None, None) for name, one, five in _TABLE_2]
    own = _ranks(subject, subject.data)
    rows.append((f"{subject.net.name}, pictures it has not learnt", *_errors(own)))
    if subject.learnt is not None:
        rows.append((f"{subject.net.name}, pictures it has learnt", *_errors(_ranks(subject, subject.learnt))))
    error, classes = _wrong(own, 1), len(own["classes"])
    columns = (
        Column("what"),
        *(Column(name, "number", head, ".1%") for name, head in zip(_NAMES, _HEADS, strict=True)),
        Column("n", "whole"),
    )
    table = Table(columns, tuple(rows), title="Errors, the paper's on ImageNet", note="from, to: Wilson's interval")
    claim = _BEATS.unjudged(
        "no network of Krizhevsky's architecture was trained on these classes by the same recipe (convscope train "
        "alexnet-zf does, in days)",
        f"Top-1 error {error.value:.1%} [{error.low:.1%}, {error.high:.1%}], n = {error.n:,}, {classes} classes.",
    )
    return Found(f"{error.n:,} pictures of {classes} classes.", [claim], tables=[table])


_NAMES = ("top1", "top1_low", "top1_high", "top5", "top5_low", "top5_high")
_HEADS = ("top-1 error", "from", "to", "top-5 error", "from", "to")


def _ranks(subject: Subject, data: Labelled) -> Mapping[str, Tensor]:
    """Return how many classes come before the true one, of every picture whose class is known."""

    def make() -> Mapping[str, Tensor]:
        found = list[Tensor]()
        truths = data.answers
        for rows, pixels in data.batches(label="accuracy"):
            _, said = answers(subject.net, pixels)
            for row, numbers in zip(rows, said.double().cpu(), strict=True):
                if (truth := truths[row]) is not None:
                    found.append(torch.stack([torch.tensor(truth), (numbers > numbers[truth]).sum()]))
        return {"found": torch.stack(found)}

    values = subject.kept("accuracy", data, make)["found"]
    return {"ranks": values[:, 1], "classes": values[:, 0].unique()}


def _wrong(found: Mapping[str, Tensor], first: int) -> Interval:
    return wilson(int((found["ranks"] >= first).sum()), len(found["ranks"]))


def _errors(found: Mapping[str, Tensor]) -> tuple[Cell, ...]:
    one, five = _wrong(found, 1), _wrong(found, 5)
    return (one.value, one.low, one.high, five.value, five.low, five.high, one.n)
