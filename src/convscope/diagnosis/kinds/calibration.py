"""Calibration: whether what the network says with 80% is right in 80% of the cases.

After Guo et al., "On calibration of modern neural networks" (arXiv:1706.04599). The expected calibration error of a
perfectly calibrated network is above 0, too, the more so the fewer pictures there are: it is compared with what chance
alone would give.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...evaluation.quality import BINS
from ...studies.intervals import bootstrap
from ..drawn import lines_of
from ..evidence import Evidence
from ..finding import Finding, Healthy, Missing, Said, Unseen
from ..grading import percent, severity
from ..observing import TEMPERATURES, Observed
from ..registration import kind

_LEAST, _WORST = 0.05, 0.3
_FEWEST = 100
_DRAWS = 300
_MEASURE = "expected calibration error"


@kind(
    "calibration",
    "Calibration",
    helps="Temperature scaling: divide the scores by a number that is fitted on pictures held back.",
    disproof="A calibration error no larger than chance on other pictures of what the network is meant for.",
)
def calibration(evidence: Evidence) -> Iterator[Said]:
    """Compare the probability of first choices with the share of right ones."""
    observed = evidence.data
    known = observed.known
    if observed.head is None or observed.head.kind in ("value", "sigmoid"):
        raise Missing("it needs one answer for each picture, with a probability")
    n = len(known)
    if n < _FEWEST:
        yield Unseen(
            "calibration", f"{n} pictures with labels are too few to tell an error from chance: give 100 or more"
        )
        return
    confidence = np.array([each.values[0] for each in known])
    right = np.array([each.rank == 0 for each in known])
    found = bootstrap(lambda rows: error(confidence[rows], right[rows]), n, seed=evidence.seed)
    chance = by_chance(confidence, evidence.seed)
    claimed, true = float(confidence.mean()), float(right.mean())
    told = f"its first choice has a probability of {percent(claimed)} on average and is right in {percent(true)}"
    numbers = f"expected calibration error {found.value:.3f}; up to {chance:.3f} by chance"
    if found.value < _LEAST or found.value <= chance:
        yield Healthy("calibration", n, f"{told} of {n:,} pictures ({numbers})")
        return
    word = "too sure" if claimed > true else "not sure enough"
    yield Finding(
        "calibration",
        "",
        (),
        severity(found.value, _LEAST, _WORST),
        n,
        f"the network is {word}: {told} of {n:,} pictures ({numbers})",
        _MEASURE,
        found.value,
        (found.low, found.high),
        helps=_temperature(observed, n, sure=claimed > true),
        evidence=_reliability(confidence, right),
    )


def error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the expected calibration error of probabilities (n,) and whether each was right (n,)."""
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, confidence - right, BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def by_chance(confidence: np.ndarray, seed: int) -> float:
    """Return the error below which 97.5% of perfectly calibrated networks of these probabilities stay."""
    chance = np.random.default_rng(seed)
    drawn = [error(confidence, chance.random(len(confidence)) < confidence) for _ in range(_DRAWS)]
    return float(np.quantile(drawn, 0.975))


def _temperature(observed: Observed, n: int, *, sure: bool) -> str:
    """Say which temperature would help, and by how much."""
    if observed.losses is None:
        return ""
    losses = observed.losses / n
    best, now = int(losses.argmin()), int(np.abs(np.log(TEMPERATURES)).argmin())
    training = "Label smoothing, mixup or earlier stopping" if sure else "Less label smoothing, mixup or weight decay"
    return (
        f"Temperature scaling: on these pictures, scores divided by {TEMPERATURES[best]:.2f} would lower the mean log "
        f"loss from {losses[now]:.3f} to {losses[best]:.3f}; fit it on pictures held back. {training} in "
        "training."
    )


def _reliability(confidence: np.ndarray, right: np.ndarray):
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    there = counts > 0
    said = (np.bincount(bins, confidence, BINS)[there] / counts[there]).tolist()
    true = (np.bincount(bins, right, BINS)[there] / counts[there]).tolist()
    return lines_of(
        said, {"the network": true, "perfectly calibrated": said}, ("probability of the first choice", "share right")
    )
