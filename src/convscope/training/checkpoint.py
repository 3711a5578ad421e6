"""The state of a run, and its checkpoint: everything that a killed run needs to end with the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..data.datasets import LabelledPictures
from ..errors import DataError, OptionError, OutputError, WeightsError
from ..zoo.runs import HISTORY, Epoch, History, read_history
from .keeping import Checkpoint, write_checkpoint
from .machines import machine, share_of_work
from .run import CARD, SNAPSHOT, Run, refuse_other_settings, snapshot_of

CHECKPOINT = "checkpoint.pt"
_UNREADABLE = 0.05


@dataclass(frozen=True)
class _Kept:
    """What a checkpoint says beside the states of its parts."""

    epoch: int
    step: int
    seconds: float
    losses: list[float]
    settings: dict[str, Any]
    unreadable: list[str]
    past: list[Epoch]


class State:
    """What changes while a run goes on, and how it is kept."""

    def __init__(self, run: Run) -> None:
        self.run, self.share = run, share_of_work()
        recipe, classes = run.recipe, run.learn.classes
        torch.manual_seed(run.seed)
        self.batch = max(1, min(recipe.batch, len(run.learn)) // self.share.world)
        self.steps = max(1, len(run.learn) // self.share.world // self.batch)
        self.body = recipe.training_body(run.blueprint, len(classes)).to(run.device)
        self.body.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimizer = recipe.optimizer(self.body)
        self.scheduler = recipe.scheduler(self.optimizer, recipe.epochs * self.steps)
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=run.precision == "fp16")  # type: ignore[attr-defined]
        self.net = run.blueprint.net(run.blueprint.body(len(classes)), classes).to(run.device)
        self.history = History(
            run.blueprint.name, classes, run.settings(), machine(run.device, run.precision), run.about
        )
        self.epoch, self.step, self.seconds = 1, 0, 0.0
        self.losses, self.unreadable = list[float](), dict[str, None]()
        self.begun = False
        self.resume()
        replicas = nn.parallel.DistributedDataParallel(self.body) if self.share.world > 1 else self.body
        self.forward: Callable[[Tensor], Tensor] = replicas

    def _parts(self) -> dict[str, Any]:
        return {"body": self.body, "optimizer": self.optimizer, "scheduler": self.scheduler, "scaler": self.scaler}

    def save(self) -> None:
        """Write the checkpoint: everything that a killed run needs to go on."""
        kept = {name: part.state_dict() for name, part in self._parts().items()}
        kept |= {"epoch": self.epoch, "step": self.step, "seconds": self.seconds, "losses": self.losses}
        kept |= {"settings": self.run.settings(), "unreadable": list(self.unreadable)}
        kept["past"] = [vars(epoch) for epoch in self.history.epochs]
        if self.share.rank == 0:
            write_checkpoint(self.run.folder / CHECKPOINT, kept)

    def resume(self) -> None:
        """Go on where the checkpoint in the run's folder stopped, if there is one."""
        path = self.run.folder / CHECKPOINT
        if not path.exists():
            self._refuse_foreign_folder()
            return
        checkpoint = Checkpoint.read(path, _Kept, "remove it to begin anew, or name another folder")
        kept = checkpoint.says
        refuse_other_settings(kept.settings, self.run.settings(), self.run.folder)
        checkpoint.require(self._is_possible(kept), "its epochs do not follow each other")
        checkpoint.load(self._parts())
        self.epoch, self.step, self.seconds = kept.epoch, kept.step, kept.seconds
        self.losses, self.unreadable = kept.losses, dict.fromkeys(kept.unreadable)
        self.history = replace(self.history, epochs=tuple(kept.past), unreadable=tuple(sorted(self.unreadable)))
        self.begun = True

    def _is_possible(self, kept: _Kept) -> bool:
        """Whether a run can have come to a checkpoint; snapshots have no other names than it gives them."""
        named = all(each.snapshot in (None, snapshot_of(each.epoch)) for each in kept.past)
        counted = [each.epoch for each in kept.past] == [*range(1, kept.epoch)] and 0 <= kept.step <= self.steps
        return named and counted

    def save_history(self) -> None:
        """Write the history where the folder does not hold this one."""
        try:
            written = read_history(self.run.folder).epochs == self.history.epochs
        except WeightsError:
            written = False
        if not written:
            self.history.save(self.run.folder)

    def _refuse_foreign_folder(self) -> None:
        """Refuse a folder with results and no checkpoint: they would be overwritten, or taken for this run's."""
        folder = self.run.folder
        try:
            results = [folder / name for name in (HISTORY, CARD) if (folder / name).exists()]
            results += folder.glob(SNAPSHOT.format("*"))
        except OSError as error:
            raise OutputError(f"cannot look into {folder}: {error.strerror or error}") from None
        if results:
            raise OptionError(
                f"{folder} holds {results[0].name} of a run but no {CHECKPOINT}: name another folder with -o"
            )

    def tell(self, line: str) -> None:
        """Tell a line, once for all processes."""
        if self.share.rank == 0:
            self.run.tell(line)

    def note_unreadable(self, pictures: LabelledPictures, indices: Iterable[int]) -> None:
        """Remember pictures that cannot be read. Raises DataError above 5% of all."""
        where = " (held out)" if pictures is self.run.hold else ""
        self.unreadable |= dict.fromkeys(f"{pictures.name(index)}{where}" for index in indices)
        known, everything = len(self.unreadable), len(self.run.learn) + len(self.run.hold)
        if known > _UNREADABLE * everything:
            shown = ", ".join(list(self.unreadable)[:5])
            raise DataError(
                f"{known} of {everything} pictures cannot be read, more than 5%: {shown}"
                f"{', ...' if known > 5 else ''}; replace or remove them"
            )
