"""Which pictures an experiment takes: drawn at random by a seed, evenly over classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..studies.labelled import Labelled


def evenly(targets: Sequence[int], count: int, seed: int) -> list[int]:
    """Draw rows at random, as many of each class as there are, up to a count in all, and return them in order."""
    found = np.array(targets)
    generator = np.random.default_rng(seed)
    mixed = [generator.permutation(np.flatnonzero(found == target)) for target in sorted(set(targets))]
    rounds = [rows[at] for at in range(max(map(len, mixed))) for rows in mixed if at < len(rows)]
    if len(rounds) > count and len(mixed) > count:  # fewer than classes: not always the first ones
        rounds = [mixed[at][0] for at in generator.permutation(len(mixed))]
    return sorted(int(row) for row in rounds[:count])


def of_classes(data: Labelled, classes: int, each: int, seed: int) -> Labelled:
    """Return so many pictures of each of so many classes, both drawn at random; all where there are fewer."""
    found = np.array(data.targets)
    generator = np.random.default_rng(seed)
    present = sorted(set(found.tolist()) - {-1})
    chosen = sorted(generator.permutation(present)[:classes].tolist())
    rows = [generator.permutation(np.flatnonzero(found == target))[:each] for target in chosen]
    return data.subset(sorted(int(row) for row in np.concatenate(rows)))
