"""What a network says of one picture, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """What a network says of one picture.

    `choices` are the numbers of classes with `values` beside them, the largest first (of a head without classes, all
    outputs in their order). `truth` is the class of its label, `rank` how many classes come before it, and
    `truth_value` what the network says of it; None where nothing is known. `error` says why nothing could be said.
    """

    where: str
    choices: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    truth: int | None = None
    rank: int | None = None
    truth_value: float | None = None
    error: str = ""

    @property
    def wrong(self) -> bool | None:
        """Whether the first choice is not the true class; None where either is unknown."""
        return None if self.rank is None else self.rank > 0
