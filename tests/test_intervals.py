"""Intervals: known values, exact coverage, and what other libraries compute."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from convscope.errors import OptionError
from convscope.studies.intervals import bootstrap, repeated, wilson


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 10), (5, 10), (10, 10), (3, 7), (1, 5000), (4999, 5000)])
def test_wilsons_interval_is_that_of_scipy(hits: int, n: int) -> None:
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    found = wilson(hits, n)
    assert (found.value, found.n) == (hits / n, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9])
def test_wilsons_interval_holds_the_true_share_about_as_often_as_it_says(share: float) -> None:
    """Exactly, by adding up the binomial distribution."""
    n = 50
    held = [hits for hits in range(n + 1) if wilson(hits, n).low <= share <= wilson(hits, n).high]
    assert 0.92 < sum(stats.binom.pmf(held, n, share)) <= 0.99


def test_a_share_of_no_pictures_is_unknown() -> None:
    found = wilson(0, 0)
    assert math.isnan(found.value) and (found.low, found.high) == (0, 1)
    with pytest.raises(OptionError, match="not 3 of 2"):
        wilson(3, 2)


def test_the_bootstrap_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=80)
    found = bootstrap(lambda rows: float(np.median(values[rows])), 80, draws=4000)
    expected = stats.bootstrap((values,), np.median, n_resamples=4000, method="percentile", rng=0).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.05)
    assert found.value == np.median(values)


def test_the_bootstrap_is_decided_by_its_seed() -> None:
    values = np.arange(30.0)

    def mean(rows: np.ndarray) -> float:
        return float(values[rows].mean())

    assert bootstrap(mean, 30) == bootstrap(mean, 30) != bootstrap(mean, 30, seed=1)


def test_groups_keep_their_number_of_pictures() -> None:
    groups = [0] * 3 + [1] * 9
    seen: set[tuple[int, int]] = set()
    bootstrap(lambda rows: float(seen.add((int((rows < 3).sum()), int((rows >= 3).sum()))) or 0), 12, groups=groups)
    assert seen == {(3, 9)}
    with pytest.raises(OptionError, match="2 groups for 3 pictures"):
        bootstrap(lambda _: 0.0, 3, groups=[0, 1])


def test_statistics_that_are_unknown_for_some_draws_leave_those_out() -> None:
    found = bootstrap(lambda rows: math.nan if 0 not in rows else 2.0, 4)
    assert (found.value, found.low, found.high) == (2, 2, 2)
    assert math.isnan(bootstrap(lambda _: math.nan, 4).low)
    assert math.isnan(bootstrap(lambda rows: 1.0 * len(rows), 1).low)
    assert math.isnan(bootstrap(lambda _: 1.0, 0).value)


def test_repetitions_have_students_interval() -> None:
    """Of 1, 2, 3: t is 4.3027 with two degrees of freedom, as tables have it."""
    found, spread = repeated([1.0, 2.0, 3.0])
    assert (found.value, spread, found.n) == (2, 1, 3)
    assert found.high - found.value == found.value - found.low == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)
    assert math.isnan(repeated([0.5])[0].low) and math.isnan(repeated([0.5])[1]) and math.isnan(repeated([])[0].value)


def test_an_interval_reads_as_text() -> None:
    assert str(wilson(5, 10)) == "0.5 [0.237, 0.763], n = 10"
