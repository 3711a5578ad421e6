"""The training loop: seeded, resumable to the same bytes, on one device or many.

What is computed depends on the settings alone: augmentation is drawn from (seed, epoch, picture), dropout from (seed,
step), and everything else is in the checkpoint. So a run that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from ..context import track
from ..data.batches import Batch, Prepared, batches
from ..errors import DataError, TrainingError
from ..locks import lock
from ..outputs import check_folder
from ..zoo.runs import Epoch, History
from .checkpoint import State
from .evaluation import correct
from .exporting import export, write_snapshot
from .machines import gathered, share_of_work
from .run import LOCK, Run, snapshot_of

_LOOK_EVERY = 20


def train(run: Run) -> History:
    """Train a network, or go on where the run in its folder stopped; return the whole history.

    Raises TrainingError when the loss is not finite (the snapshots before it stay), DataError when more than 5% of the
    pictures cannot be read, OptionError when the folder holds a run with other settings, OutputError when a file
    cannot be written (the one before it stays whole), or another process trains in the folder.
    """
    check_folder(run.folder)
    cards = [run.device] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cards), _repeatable(), _alone(run):
        state = State(run)
        _complete(run, state)
        state.tell(_summary(run, state))
        while state.epoch <= run.recipe.epochs:
            _one_epoch(run, state)
        return state.history


def _summary(run: Run, state: State) -> str:
    pictures = f"{len(run.learn):,} pictures of {len(run.learn.classes)} classes, {len(run.hold):,} held out"
    parameters = sum(p.numel() for p in state.net.body.parameters())
    begin = f", from epoch {state.epoch}" + (f", step {state.step}" if state.step else "") if state.begun else ""
    if state.epoch > run.recipe.epochs:
        return f"the run in {run.folder} is finished: {run.recipe.epochs} epochs"
    return (
        f"{run.blueprint.name}, {parameters:,} parameters: {pictures}; {run.recipe.epochs} epochs of "
        f"{state.steps} steps{begin}; {run.precision} on {run.device}; in {run.folder}"
    )


def _alone(run: Run) -> AbstractContextManager[None]:
    """Have the run's folder for this process, and those that `torchrun` started with it."""
    return lock(run.folder / LOCK, f"the folder {run.folder}") if share_of_work().rank == 0 else nullcontext()


def _complete(run: Run, state: State) -> None:
    """Write what a run that was killed after its checkpoint had still to write of the epoch."""
    if state.history.epochs and state.share.rank == 0:
        last = state.history.epochs[-1]
        if last.snapshot and not state.step and not (run.folder / last.snapshot).exists():
            export(state.body, state.net)
            write_snapshot(run, state.net, last)
        state.save_history()


@contextmanager
def _repeatable() -> Generator[None]:
    """Ask cuDNN for algorithms that give the same result twice, where it is used."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def _one_epoch(run: Run, state: State) -> None:
    """Learn from every picture once, measure, and keep what there is to keep."""
    began = time.monotonic()
    transforms = run.recipe.transforms(state.epoch, run.blueprint.size)
    prepared = Prepared(run.learn, transforms, run.blueprint.channels, _seed(run, state.epoch))
    loader = batches(prepared, state.batch, share=state.share, workers=run.workers, shuffled=True, start=state.step)
    state.body.train()
    fresh: list[Tensor] = []
    saved = began
    for batch in track(loader, f"epoch {state.epoch}/{run.recipe.epochs}"):
        state.note_unreadable(run.learn, batch.unreadable)
        if len(batch.labels):
            fresh.append(_one_step(run, state, batch))
        elif state.share.world > 1:  # the other processes would wait for this one's gradients for ever
            raise DataError(f"none of {len(batch.unreadable)} pictures of a step can be read: remove them")
        state.step += 1
        if len(fresh) >= _LOOK_EVERY:
            _look_at_losses(state, fresh)
            if time.monotonic() - saved > run.minutes * 60:
                saved = _checkpoint_within(state, began)
                began = saved
    _look_at_losses(state, fresh)
    rate = state.optimizer.param_groups[0]["lr"]
    _export(run, state)
    right = correct(run, state)
    if not right:
        raise DataError("no held-out picture can be read")
    accuracy = sum(right) / len(right)
    if run.recipe.schedule == "plateau":
        state.scheduler.step(accuracy)
    state.seconds += time.monotonic() - began
    _finish_epoch(run, state, rate, accuracy)


def _export(run: Run, state: State) -> None:
    """Bring the network that ships up to date. Raises TrainingError when its weights are not finite."""
    if dist.is_initialized():
        for buffer in state.body.buffers():  # every process has its own statistics of batch norm
            dist.broadcast(buffer, 0)
    export(state.body, state.net)
    if not all(bool(value.isfinite().all()) for value in state.net.body.state_dict().values()):
        raise TrainingError(f"the weights are not finite in 16 bits after epoch {state.epoch}: {_advice(run, state)}")


def _advice(run: Run, state: State) -> str:
    last = [epoch.epoch for epoch in state.history.snapshots]
    kept = f"the last good snapshot is that of epoch {last[-1]}" if last else "there is no snapshot yet"
    return f"try a lower --rate than {run.recipe.rate:g}; {kept}, in {run.folder}"


def _checkpoint_within(state: State, began: float) -> float:
    now = time.monotonic()
    state.seconds += now - began
    state.save()
    return now


def _one_step(run: Run, state: State, batch: Batch) -> Tensor:
    """Take one step and return its loss, still on the device."""
    # Drawn anew at every step, so that a resumed run drops what an uninterrupted one drops.
    torch.manual_seed(_seed(run, state.epoch) + state.step)
    pixels, labels = (t.to(run.device, non_blocking=True) for t in (batch.pixels, batch.labels))
    inputs = state.net.normalise(pixels.float() / 255).to(memory_format=torch.channels_last)
    with autocast(run):
        scores = state.forward(inputs)
        loss = F.cross_entropy(scores.float(), labels, label_smoothing=run.recipe.smoothing)
    state.optimizer.zero_grad()
    state.scaler.scale(loss).backward()
    state.scaler.step(state.optimizer)
    state.scaler.update()
    run.recipe.limit(state.body, run.blueprint)
    if run.recipe.schedule == "onecycle":
        state.scheduler.step()
    return loss.detach()


def autocast(run: Run) -> torch.autocast:
    """Compute in the run's precision inside the block."""
    kind = torch.float16 if run.precision == "fp16" else torch.bfloat16
    return torch.autocast(run.device.type, kind, enabled=run.precision != "fp32")


def _look_at_losses(state: State, fresh: list[Tensor]) -> None:
    """Bring losses over from the device, now and then only. Raises TrainingError when one is not finite."""
    values = torch.stack(fresh).tolist() if fresh else []
    fresh.clear()
    for position, value in enumerate(values):
        if not abs(value) < float("inf"):
            step = state.step - len(values) + position + 1
            raise TrainingError(
                f"the loss is {value} at step {step} of epoch {state.epoch}: {_advice(state.run, state)}"
            )
    state.losses += values


def _finish_epoch(run: Run, state: State, rate: float, accuracy: float) -> None:
    """Write the checkpoint, the snapshot and the history, in this order: `_complete` makes up for a kill in between."""
    loss = sum(state.losses) / max(1, len(state.losses))
    if not state.losses:
        raise DataError("no batch of pictures could be read")
    name = None
    if state.epoch in run.snapshots or state.epoch == run.recipe.epochs:
        name = snapshot_of(state.epoch)
    entry = Epoch(state.epoch, loss, rate, accuracy, round(state.seconds, 1), name)
    state.unreadable = dict.fromkeys(gathered(list(state.unreadable)))
    state.history = replace(
        state.history, epochs=(*state.history.epochs, entry), unreadable=tuple(sorted(state.unreadable))
    )
    state.epoch, state.step, state.seconds, state.losses = state.epoch + 1, 0, 0.0, []
    state.save()
    if name and state.share.rank == 0:
        write_snapshot(run, state.net, entry)
    if state.share.rank == 0:
        state.history.save(run.folder)
    left = sum(e.seconds for e in state.history.epochs[-3:]) / len(state.history.epochs[-3:])
    left *= run.recipe.epochs - entry.epoch
    kept = "  kept" if name else ""
    state.tell(
        f"epoch {entry.epoch:>3}/{run.recipe.epochs}  loss {loss:.3f}  accuracy {accuracy:.1%}  "
        f"{entry.seconds:.0f} s, {left / 60:.0f} min left{kept}"
    )


def _seed(run: Run, epoch: int) -> int:
    return (run.seed * 100_003 + epoch) * 1_000_003 % 2**62
