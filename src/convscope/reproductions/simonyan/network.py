"""Section 2: the network that is looked at, and its error."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np
import torch
from torch import nn

from ...drawing.tables import Cell, Column, Table
from ...layers import picture_layers
from ...net import Net
from ...studies.intervals import Interval, wilson
from ..claims import Statement, below, every
from ..registration import Found, Unfit, experiment
from ..subject import Subject

_PAPER = ("conv64", "conv256", "conv256", "conv256", "conv256", "full4096", "full4096", "full1000")
_TOP_1, _TOP_5 = 0.397, 0.177
_THOUSAND = 1000

_CLASSIFIES = Statement(
    "network-classifies",
    "The network that is looked at tells its classes apart",
    rule="its top-1 error and, of more than five classes, its top-5 error lie below those of guessing, with their "
    "intervals.",
    paper="39.7% top-1 and 17.7% top-5 error on the validation pictures of ILSVRC-2013 (Krizhevsky et al.'s single "
    "network: 40.7% and 18.2%); of guessing, 99.9% and 99.5%.",
)
_ERROR = Statement(
    "network-error",
    "It makes no more errors than the paper's network",
    rule="on ImageNet's 1,000 classes, the intervals of its top-1 and top-5 errors hold 39.7% and 17.7%, or lie below.",
    paper="39.7% top-1 and 17.7% top-5 error.",
)


@experiment(
    "simonyan",
    10,
    "Section 2",
    "The network and its error",
    did="a network of five convolutions and three fully connected layers (64 filters, four times 256, twice 4,096 "
    "units, 1,000 classes) was trained on 1.2 million pictures of ILSVRC-2013, with cuda-convnet; random parts of its "
    "training pictures were set to zero.",
    claims=(_CLASSIFIES, _ERROR),
    work=0.3,
)
def network(subject: Subject) -> Found:
    """Measure the network's errors, beside the paper's."""
    net = subject.net
    if not subject.known:
        raise Unfit("the pictures have no labels that are classes of the network, so that nothing is right or wrong")
    ranks = _ranks(net, subject)
    classes = net.output.shape[0]
    top_1, top_5 = (wilson(int((ranks >= most).sum()), len(ranks)) for most in (1, 5))
    guessing = [below(top_1, 1 - 1 / classes)] + ([below(top_5, 1 - 5 / classes)] if classes > 5 else [])
    errors = f"{percent(top_1)} top-1" + (f" and {percent(top_5)} top-5" if classes > 5 else "") + " error"
    ours = f"{errors} on {len(ranks):,} pictures of {len({*subject.data.targets} - {-1})} classes"
    numbers = {"top-1": top_1} | ({"top-5": top_5} if classes > 5 else {})
    claims = [_CLASSIFIES.judged(every(guessing), f"{ours}.", numbers=numbers)]
    if classes == _THOUSAND:
        holds = every([top_1.low <= _TOP_1, top_5.low <= _TOP_5])
        claims.append(_ERROR.judged(holds, f"{ours}.", numbers=numbers))
    else:
        claims.append(_ERROR.unjudged(f"the network tells {classes:,} classes apart, the paper's 1,000", f"{ours}."))
    return Found(f"{net.name} has {_count(net):,} parameters.", claims, tables=[_table(net)])


def percent(interval: Interval) -> str:
    """Write a share with its interval."""
    return f"{interval.value:.1%} [{interval.low:.1%}, {interval.high:.1%}]".replace("-", "−")


def points(interval: Interval) -> str:
    """Write a difference of shares with its interval."""
    text = f"{100 * interval.value:.1f} points [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    return text.replace("-", "−")


def _ranks(net: Net, subject: Subject) -> np.ndarray:
    """Return the rank, from 0, that the network gives the class of every picture whose class it knows."""
    truths, found = subject.data.answers, list[int]()
    for rows, pixels in subject.data.batches():
        with torch.inference_mode():
            scores = net(pixels).float().cpu()
        known = [(score, truth) for score, row in zip(scores, rows, strict=True) if (truth := truths[row]) is not None]
        found += [int((score > score[truth]).sum()) for score, truth in known]
    return np.array(found)


def _count(net: Net) -> int:
    return sum(each.numel() for each in net.body.parameters())


def _table(net: Net) -> Table:
    """Return the paper's layers with weights beside the network's."""
    layers = [each for each in picture_layers(net) if each.number is not None or isinstance(each.module, nn.Linear)]
    columns = (
        Column("paper", head="the paper", unbroken=True),
        Column("layer", head=net.name, unbroken=True),
        Column("shape", "size"),
    )
    shown, more = layers[:24], len(layers) - 24
    rows: list[tuple[Cell, ...]] = [
        (paper or "", layer.name if layer else "", tuple(layer.shape) if layer else None)
        for paper, layer in zip_longest(_PAPER, shown)
    ]
    note = "layers with weights; shape: channels × rows × columns" + (f"; {more} more" if more > 0 else "")
    return Table(columns, tuple(rows), title="The layers of both networks", note=note)
