"""Outliers: filters so strong that they dominate their layer, as in Zeiler and Fergus's first layer (Fig. 6a)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..drawn import filters, ranked
from ..evidence import Evidence
from ..finding import Finding, Healthy, Said, Unseen
from ..grading import counted, listed, severity
from ..registration import kind
from ..sites import Site
from ..weights import reading_weights

_LEAST, _WORST = 8.0, 40.0
"""Times the root mean square of the layer's middle filter: from where on it is reported, and the worst."""

_ABOVE = 3.0
"""Times that of the strongest filter that is none."""

_FEWEST = 6
_MEASURE = "root mean square of a filter, of the layer's middle one"


@kind(
    "outlier",
    "Filters that dominate their layer",
    helps="Weight decay, or a limit on each filter's root mean square, as Zeiler and Fergus set it (0.1 in their first "
    "layer); normalisation after the layer.",
    disproof="The network answers as before with the filter scaled down to the strength of the others.",
)
def outlier(evidence: Evidence) -> Iterator[Said]:
    """Look for filters whose root mean square is far above that of all others of their layer."""
    looked, strongest, where = 0, 0.0, ""
    found = False
    for site in evidence.sites:
        weights = reading_weights(site)
        if weights is None or len(weights) < _FEWEST:
            continue
        sizes = weights.flatten(1).square().mean(1).sqrt()
        middle = float(sizes.median())
        if middle == 0:
            continue
        looked += 1
        units = _standing_out(sizes / middle)
        if units:
            found = True
            yield _finding(evidence, site, weights, sizes / middle, units)
        elif float(sizes.max()) / middle > strongest:
            strongest, where = float(sizes.max()) / middle, site.title
    if not looked:
        yield Unseen("outlier", f"no layer has {_FEWEST} filters or more whose weights can be read")
    elif not found:
        told = (
            f"in none of {looked} layers one filter dominates: the strongest, in {where}, is {strongest:.2g} times as"
        )
        yield Healthy("outlier", looked, f"{told} strong as its layer's middle one")


def _standing_out(sizes: Tensor) -> list[int]:
    """Return the filters that stand out from the others, by a gap: a layer of many sizes has no outlier."""
    order = sizes.argsort(descending=True)
    for count in range(1, max(2, len(sizes) // 10)):
        last, following = float(sizes[order[count - 1]]), float(sizes[order[count]])
        if last < _LEAST:
            return []
        if last >= _ABOVE * following:
            return sorted(order[:count].tolist())
    return []


def _finding(evidence: Evidence, site: Site, weights: Tensor, sizes: Tensor, units: list[int]) -> Finding:
    others = torch.ones(len(sizes), dtype=torch.bool)
    others[units] = False
    strongest, next_one = float(sizes[units].max()), float(sizes[others].max())
    one = len(units) == 1
    told = (
        f"{counted(len(units), site.units)} of {site.title} ({listed(units)}) {'has' if one else 'have'} weights up to "
        f"{strongest:.3g} times as strong as the layer's middle filter; the strongest other one has {next_one:.2g}"
    )
    shown = filters(evidence.net, weights, units, sizes) if site.layer.number == 1 else None
    return Finding(
        "outlier",
        site.name,
        tuple(units),
        severity(strongest, _LEAST, _WORST),
        len(weights),
        told,
        _MEASURE,
        strongest,
        evidence=shown or ranked(sizes, units, _MEASURE, site.title),
    )
