"""Fig. 7: a grey square over the picture; and whether the deconvnet's projections are true."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ...attribution.occlusion import squares_over
from ...context import listen, track
from ...incremental.occlusions import Occluder
from ...net import Net
from ...ranks import rank_correlation
from ...running import attribute
from ...studies.intervals import Interval, bootstrap
from ...studies.labelled import Labelled
from ...tapping import tap
from ...views.occlusion_study import occlusion_study
from ..claims import Statement, above, every
from ..numbers import minus
from ..registration import Found, experiment
from ..subject import Subject

_TRUE = Statement(
    "projections-are-true",
    "Covering what a map's projection shows lowers the map's activation more than covering elsewhere",
    rule="for the strongest map of the last layer with positions, the rank correlation, over the positions of the "
    "square, of the drop of its activation and the energy of its projection under the square is above 0, and above "
    "that with the projection of another picture (the shuffled control), both as means over pictures with their "
    "intervals.",
    paper="shown for three pictures, without a number: when the parts that the projection shows are covered, the "
    "activation of the map falls. It is the paper's own check of its projections.",
)

_SHOWN = 2


@experiment(
    "zeiler-fergus",
    60,
    "Fig. 7",
    "What is covered",
    did="a grey square moved over three pictures (a Pomeranian, a car wheel, an Afghan hound); it shows the summed "
    "activation of the map of layer 5 that is strongest without the square, its projection, the probability of the "
    "true class, and the first choice, at every position. It gives neither the square's size nor its step.",
    differs="a square of a seventh of the picture's side, in steps of half of that.",
    claims=(_TRUE,),
    work=4,
)
def occlusion(subject: Subject) -> Found:
    """Compare drops of the strongest map's activation with its projection's energy, against a shuffled control."""
    data = subject.some(60, 12)
    shown = [occlusion_study(subject.net, data.pictures[row].read()) for row in range(min(_SHOWN, len(data)))]
    did = (
        f"{len(data)} pictures, seed {subject.seed}, and a copy with random weights; the figures show {len(shown)} of "
        "them."
    )
    if len(data) < 2:
        return Found(did, [_TRUE.unjudged("one picture has no other's projection for a control")], figures=shown)
    own = _correlations(subject, data)
    untrained = subject.untrained
    other = None if untrained is None else _correlations(subject, data.read_by(untrained))
    parts = judged_by(own, subject.seed)
    told = "" if other is None else f"; untrained {_means(other)}"
    claim = _TRUE.judged(
        every([above(each) for each in parts.values()]),
        minus(
            f"Mean rank correlation {parts['own']}, with another picture's projection {own[:, 1].mean():.2f} "
            f"(difference {parts['more than shuffled']}){told}."
        ),
        numbers=parts,
        untrained=None if other is None else every([above(each) for each in judged_by(other, subject.seed).values()]),
    )
    return Found(did, [claim], figures=shown)


def _means(correlations: np.ndarray) -> str:
    own, shuffled = correlations.mean(0)
    return f"{own:.2f} and {shuffled:.2f}"


def judged_by(correlations: np.ndarray, seed: int) -> dict[str, Interval]:
    """Return the two numbers of the rule, of correlations (pictures, own and shuffled)."""
    each = {"own": correlations[:, 0], "more than shuffled": correlations[:, 0] - correlations[:, 1]}
    return {
        name: bootstrap(lambda rows, values=values: float(values[rows].mean()), len(values), seed=seed)
        for name, values in each.items()
    }


def _correlations(subject: Subject, data: Labelled) -> np.ndarray:
    """Return rank correlations (pictures, 2) of drops with the picture's own projection, and with the next one's."""

    def make() -> Mapping[str, Tensor]:
        with listen():  # that a channel is projected from its strongest place is no news
            found = [_looked(data.net, data, row) for row in track(range(len(data)), "occlusion")]
        drops, energies = zip(*found, strict=True)
        others = (*energies[1:], energies[0])
        pairs = zip(drops, energies, others, strict=True)
        return {"correlations": torch.tensor([[rank_correlation(d, e), rank_correlation(d, o)] for d, e, o in pairs])}

    return subject.kept("occlusion", data, make)["correlations"].double().numpy()


def _looked(net: Net, data: Labelled, row: int) -> tuple[Tensor, Tensor]:
    """Return the drop of the strongest map's activation at each position of the square, and the energy under it."""
    study = occlusion_study(net, data.pictures[row].read())
    unit = str(study.recipe.settled["unit"])
    pixels = net.pixels(data.input(row))
    squares = squares_over(pixels, None, None)
    layer, _, channel = unit.rpartition(":")
    with torch.inference_mode():
        clean = float(tap(net, pixels, [layer])[layer][0, int(channel)].float().sum())
    projection = attribute(net, pixels, "deconvnet", of=f"{unit}@max")[0].float().cpu()
    return clean - torch.as_tensor(study.numbers()["activity"]).flatten(), energy_under(projection, squares)


def energy_under(projection: Tensor, squares: Occluder) -> Tensor:
    """Return the summed squares of a projection (c, h, w) under each position of a square."""
    energy = projection.square().sum(0)
    count = squares.grid[0] * squares.grid[1]
    return torch.stack([energy[squares.box(number)].sum() for number in range(count)])
