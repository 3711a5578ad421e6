"""Networks trained anew within a study, by the project's own trainer: decided by settings alone, and resumable."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.datasets import LabelledPictures
from ..data.pictures import Pictures
from ..training.recipes import Recipe
from ..training.run import Run
from ..training.trainer import train
from ..zoo.blueprints import Blueprint
from ..zoo.own_networks import trained
from .keeping import Keep, kept, place_of
from .labelled import Labelled

_STEPS = 150
"""Steps that a training takes by default, however few pictures there are."""

_EPOCHS = 100
_BATCH = 32


def recipe_for(plain: Recipe, pictures: int, epochs: int | None, rate: float | None) -> Recipe:
    """Return a recipe for a few pictures: small batches, and epochs enough for 150 steps, 100 at most.

    Of pictures shown larger late in a training, and of averages over places, a short one takes no notice.
    """
    batch = min(plain.batch, _BATCH, pictures)
    epochs = epochs or min(_EPOCHS, max(10, math.ceil(_STEPS * batch / pictures)))
    # The peak for batches of 128 pictures, scaled with the batch.
    peak = rate if rate is not None else plain.rate * batch / plain.batch
    return replace(plain, epochs=epochs, batch=batch, rate=peak, sizes=((0.0, (1.0,)),), whole=((0.0, 0.5),))


@dataclass(frozen=True)
class Lesson:
    """A network to train on some pictures of a data set: `learn` are rows of it, and `seed` decides the rest."""

    blueprint: Blueprint
    recipe: Recipe
    data: Labelled
    learn: np.ndarray
    seed: int

    def ranks(self, test: np.ndarray, keep: Keep, part: str) -> np.ndarray:
        """Return the rank, from 0, that the trained network gives the class of each picture, NaN for others.

        Of the pictures that were learnt from, too. What is finished is kept; a training that was ended goes on.
        """

        def make() -> dict[str, Tensor]:
            with _folder(keep, part) as folder:
                return {"ranks": torch.from_numpy(self._trained(test, folder))}

        found = kept(keep, part, make)
        if keep is not None:  # the checkpoint has served
            shutil.rmtree(place_of(keep, part), ignore_errors=True)
        return found["ranks"].numpy()

    def _trained(self, test: np.ndarray, folder: Path) -> np.ndarray:
        whole = _pictures(self.data)
        _, first = np.unique([whole.labels[row] for row in test], return_index=True)
        run = Run(
            self.blueprint,
            self.recipe,
            whole.only(self.learn.tolist()),
            whole.only(test[first].tolist()),  # measured after every epoch, for which one of each class will do
            folder,
            seed=self.seed,
            snapshots=(),
            device=self.data.net.device,
            workers=0,
            tell=lambda _: None,
        )
        train(run)
        net = trained(self.blueprint, folder, None).to(self.data.net.device)
        rows = np.concatenate([self.learn, test])
        ranks = np.full(len(self.data), np.nan, np.float32)
        labels = torch.tensor(whole.labels)
        for batch, pixels in self.data.subset(rows.tolist()).read_by(net).batches():
            with torch.inference_mode():
                scores = net(pixels).float().cpu()
            own = labels[rows[batch]]
            ranks[rows[batch]] = (scores > scores.gather(1, own[:, None])).sum(1).numpy()
        return ranks


@contextmanager
def _folder(keep: Keep, part: str) -> Generator[Path]:
    """Give the folder of a training: below what is kept, or one that is removed."""
    if keep is not None:
        yield place_of(keep, part)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "run"


def _pictures(data: Labelled) -> LabelledPictures:
    """Return the pictures as the trainer takes them, named by their contents, with the classes that they have."""
    named = tuple(replace(picture, name=content) for picture, content in zip(data.pictures, data.hashes, strict=True))
    present = sorted({*data.targets})
    labels = tuple(present.index(target) for target in data.targets)
    classes = tuple(data.classes[target] for target in present)
    return LabelledPictures(Pictures([named]), tuple(range(len(data))), labels, classes, data.net.preprocessing)
