"""Duplicates: units with the same weights, which answer alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import atanh, sqrt, tanh

from torch import Tensor

from ..drawn import maps
from ..evidence import Evidence
from ..finding import Finding, Healthy, Said, Unseen
from ..grading import severity
from ..registration import kind
from ..sites import Site
from ..weights import reading_weights

_SAME = 0.98
"""The cosine of two filters, and the correlation of their answers, from which on they are the same."""

_WORST = 0.5
_PICTURES = 64
_MEASURE = "the lowest correlation of two such units' answers"


@kind(
    "duplicate",
    "Duplicated units",
    helps="Fewer units in the layer; dropout, or more weight decay, in training; other random weights at the start. "
    "One unit of each group can stand for all, with the next layer's weights added up.",
    disproof="A picture on which the units of one group answer differently.",
)
def duplicate(evidence: Evidence) -> Iterator[Said]:
    """Look for units whose weights point the same way and whose answers go together."""
    alike: dict[str, list[tuple[int, int]]] = {}
    looked, closest, where = 0, -1.0, ""
    for site in evidence.sites:
        cosines = _cosines(site)
        if cosines is None:
            continue
        looked += 1
        alike[site.name] = [(a, b) for a, b in (cosines >= _SAME).nonzero().tolist() if a < b]
        if float(cosines.max()) > closest:
            closest, where = float(cosines.max()), site.title
    found = False
    sites = [site for site in evidence.sites if alike.get(site.name)]
    passed = evidence.passed(sites, _PICTURES) if sites else {}
    for site in sites:
        together = _correlated(passed[site.name], alike[site.name])
        if together:
            found = True
            yield _finding(evidence, site, together)
    if not looked:
        yield Unseen("duplicate", "no layer has several units whose weights can be read")
    elif not found:
        told = (
            f"in none of {looked} layers two units have the same weights and answer alike: the closest two filters, in"
        )
        yield Healthy("duplicate", looked, f"{told} {where}, have a cosine of {closest:.3f}")


def _cosines(site: Site) -> Tensor | None:
    """Return the cosines of every two filters, -1 with itself and where one has no weight but 0."""
    weights = reading_weights(site)
    if weights is None or len(weights) < 2:
        return None
    flat = weights.flatten(1)
    sizes = flat.norm(dim=1)
    unit = flat / sizes.clamp(min=1e-12)[:, None]
    cosines = unit @ unit.T
    cosines[sizes == 0] = cosines[:, sizes == 0] = -1
    return cosines.fill_diagonal_(-1)


def _correlated(passed: Tensor, pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int, float]]:
    """Return the pairs whose answers go together, with their correlation; what answers nothing goes with nothing."""
    values = passed.double()
    values = values - values.mean(0)
    values = values / values.norm(dim=0).clamp(min=1e-12)
    found = [(a, b, float(values[:, a] @ values[:, b])) for a, b in pairs]
    return [each for each in found if each[2] >= _SAME]


def _groups(pairs: Sequence[tuple[int, int, float]]) -> list[list[int]]:
    """Return units in groups of those that are alike."""
    groups: list[set[int]] = []
    for a, b, _ in pairs:
        joined = [group for group in groups if a in group or b in group]
        groups = [group for group in groups if group not in joined] + [{a, b}.union(*joined)]
    return sorted(sorted(group) for group in groups)


def _finding(evidence: Evidence, site: Site, pairs: list[tuple[int, int, float]]) -> Finding:
    groups = _groups(pairs)
    units = sorted(unit for group in groups for unit in group)
    _, pixels = evidence.sample(_PICTURES)
    n, least = len(pixels), min(correlation for *_, correlation in pairs)
    shown = "; ".join(" and ".join(map(str, group)) for group in groups[:4])
    more = f" and {len(groups) - 4} groups more" if len(groups) > 4 else ""
    spare = len(units) - len(groups)
    correlation = f"{least:.3f}{'' if least >= 0.9995 else ' or more'}"
    told = (
        f"{len(units)} of {site.units:,} units of {site.title} repeat one another ({shown}{more}): their filters have "
        f"a cosine of {_SAME} or more, and their answers to {n} pictures a correlation of {correlation}; {spare} "
        "could be left out"
    )
    return Finding(
        "duplicate",
        site.name,
        tuple(units),
        severity(spare / site.units, 0, _WORST),
        n,
        told,
        _MEASURE,
        least,
        _fisher(least, n),
        evidence=maps(evidence, site, groups[0][:4]),
    )


def _fisher(correlation: float, n: int) -> tuple[float, float]:
    """Return the 95% interval of a correlation over n pictures, by Fisher's transformation."""
    at, reach = atanh(min(correlation, 1 - 1e-9)), 1.96 / sqrt(max(n - 3, 1))
    return tanh(at - reach), tanh(at + reach)
