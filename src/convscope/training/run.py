"""A training run: what is trained, how, on what, and where its results go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..data.datasets import LabelledPictures
from ..errors import OptionError
from ..zoo.blueprints import Blueprint
from .machines import share_of_work
from .recipes import Recipe

SNAPSHOTS = (1, 2, 5, 10, 20)
SNAPSHOT = "epoch-{}.safetensors"
CARD = "card.md"
LOCK = "run.lock"


@dataclass
class Run:
    """A training run: its settings, and where it writes.

    Attributes:
        blueprint, recipe, learn, hold, seed: what is trained, how, on what, and the seed.
        folder: where the checkpoint, the history and the snapshots go.
        snapshots: epochs whose weights are kept; the last one always is.
        device: where to compute.
        precision: "bf16", "fp16" (with a gradient scaler) or "fp32".
        workers: processes that load pictures, per device.
        minutes: how often a checkpoint is written within an epoch.
        about: a sentence on the data and their licence, for the card.
        tell: called with a line of text after every epoch.
    """

    blueprint: Blueprint
    recipe: Recipe
    learn: LabelledPictures
    hold: LabelledPictures
    folder: Path
    seed: int = 0
    snapshots: Sequence[int] = SNAPSHOTS
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "fp32"
    workers: int = 2
    minutes: float = 10.0
    about: str = ""
    tell: Callable[[str], None] = print

    def settings(self) -> dict[str, Any]:
        """Return everything that decides the result; a run resumes with equal settings only."""
        return {
            "network": self.blueprint.name,
            "seed": self.seed,
            "precision": self.precision,
            "processes": share_of_work().world,
            "snapshots": sorted(set(self.snapshots)),
            "pictures": len(self.learn),
            "held out": len(self.hold),
            "data": self.learn.digest + self.hold.digest,
            **self.recipe.to_dict(),
        }


def snapshot_of(epoch: int) -> str:
    """Return the name of an epoch's snapshot."""
    return SNAPSHOT.format(f"{epoch:03d}")


def refuse_other_settings(kept: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Raise OptionError with the differences when a run was begun with other settings."""
    differ = [
        f"{key} was {kept.get(key)}, now {now.get(key)}" for key in {**kept, **now} if kept.get(key) != now.get(key)
    ]
    if differ:
        raise OptionError(
            f"the run in {folder} was begun with other settings: {'; '.join(differ)}. "
            "Use the same settings to resume, or another folder with -o"
        )
