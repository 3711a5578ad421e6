"""Which pictures are learnt from and which are tested on: drawn class by class, and refused where there are too few."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..context import say
from ..errors import DataError
from .labelled import HOW_LABELLED, Labelled

_TRAIN = 30
"""Pictures of each class to learn from, as in the paper's Tables 4 and 7."""

_FEW = 10
"""Below so many pictures of a class to test on, it is said that they are few."""


def checked(data: Labelled) -> Labelled:
    """Return the pictures that have a label. Raises DataError for fewer than two classes with a picture."""
    rows = [row for row, target in enumerate(data.targets) if target >= 0]
    present = [name for name, count in data.counts.items() if count]
    if not rows:
        raise DataError(f"none of {len(data):,} pictures has a label: {HOW_LABELLED}")
    if len(present) < 2:
        raise DataError(
            f"all pictures are of one class, {present[0]!r}, and here classes are told apart: {HOW_LABELLED}"
        )
    if len(rows) < len(data):
        say(f"{len(data) - len(rows):,} pictures without a label are left out")
    return data.subset(rows) if len(rows) < len(data) else data


@dataclass(frozen=True)
class Split:
    """How many pictures of each class are learnt from, and at most how many others are tested on."""

    train: int
    test: int

    @classmethod
    def of(cls, data: Labelled, train: int | None, test: int) -> Split:
        """Settle how many pictures of each class are learnt from. Raises DataError where a class has too few."""
        counts = {name: count for name, count in data.counts.items() if count}
        smallest = min(counts, key=counts.__getitem__)
        least = counts[smallest]
        if least < 2:
            raise DataError(
                f"class {smallest!r} has one picture: one to learn from and another to test on are needed; add "
                "pictures or leave the class out"
            )
        if train is None:
            train = min(_TRAIN, max(1, least * 2 // 3))
            if train < _TRAIN:
                say(f"{train} pictures of each class to learn from, because class {smallest!r} has {least}")
        if least <= train:
            few = [f"{name!r} ({count})" for name, count in counts.items() if count <= train]
            raise DataError(
                f"{len(few)} of {len(counts)} classes have too few pictures to learn from {train} and test on another: "
                f"{', '.join(few[:5])}{', ...' if len(few) > 5 else ''}; with train={least - 1} or less all would do"
            )
        if least - train < _FEW:
            say(
                f"class {smallest!r} has {least - train} picture{'s' * (least - train > 1)} to test on: too few for "
                "more than a rough number"
            )
        return cls(train, test)


def draws(data: Labelled, split: Split, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw for every fold the rows that are learnt from and those that are tested on, sorted by class."""
    targets = np.array(data.targets)
    found = list[tuple[np.ndarray, np.ndarray]]()
    for fold in range(folds):
        random = np.random.default_rng([seed, fold])
        mixed = [random.permutation(np.flatnonzero(targets == target)) for target in np.unique(targets)]
        learn = np.concatenate([rows[: split.train] for rows in mixed])
        test = np.concatenate([rows[split.train : split.train + split.test] for rows in mixed])
        found.append((learn, test))
    return found
