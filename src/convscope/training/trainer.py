"""The training loop: seeded, resumable to the same bytes, on one device or many.

What is computed depends on the settings alone: augmentation is drawn from (seed, epoch, picture), dropout from (seed,
step), and everything else is in the checkpoint. So a run that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.transforms import v2

from ..context import track
from ..data.batches import Batch, Prepared, Share, batches
from ..data.datasets import LabelledPictures
from ..errors import DataError, OptionError, TrainingError, WeightsError
from ..net import Net
from ..outputs import check_folder, write
from ..zoo.blueprints import Blueprint
from ..zoo.runs import HISTORY, Epoch, History, metadata, read_history
from .recipes import Recipe

CHECKPOINT = "checkpoint.pt"
SNAPSHOTS = (1, 2, 5, 10, 20)
_LOOK_EVERY = 20
_UNREADABLE = 0.05


@dataclass
class Run:
    """A training run: what it is asked for, where it writes, and how far it is.

    Attributes:
        blueprint, recipe, learn, hold, seed: what is trained, how, on what, and the seed.
        folder: where the checkpoint, the history and the snapshots go.
        snapshots: epochs whose network is kept; the last one always is.
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
            "processes": _share().world,
            "snapshots": sorted(set(self.snapshots)),
            "pictures": len(self.learn),
            "held out": len(self.hold),
            "data": self.learn.digest + self.hold.digest,
            **self.recipe.to_dict(),
        }


def train(run: Run) -> History:
    """Train a network, or go on where the run in its folder stopped; return the whole history.

    Raises TrainingError when the loss is not finite (the snapshots before it stay), DataError when more than 5 % of the
    pictures cannot be read, OptionError when the folder holds a run with other settings, OutputError when a file
    cannot be written (the one before it stays whole).
    """
    check_folder(run.folder)
    cards = [run.device] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cards), _repeatable():
        state = _State(run)
        state.tell(_summary(run, state))
        while state.epoch <= run.recipe.epochs:
            _one_epoch(run, state)
        return state.history


def _summary(run: Run, state: _State) -> str:
    pictures = f"{len(run.learn):,} pictures of {len(run.learn.classes)} classes, {len(run.hold):,} held out"
    parameters = sum(p.numel() for p in state.net.body.parameters())
    begin = f", from epoch {state.epoch}" + (f", step {state.step}" if state.step else "") if state.begun else ""
    if state.epoch > run.recipe.epochs:
        return f"the run in {run.folder} is finished: {run.recipe.epochs} epochs"
    return (
        f"{run.blueprint.name}, {parameters:,} parameters: {pictures}; {run.recipe.epochs} epochs of "
        f"{state.steps} steps{begin}; {run.precision} on {run.device}; in {run.folder}"
    )


@contextmanager
def _repeatable() -> Generator[None]:
    """Ask cuDNN for algorithms that give the same result twice, where it is used."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def precision_of(asked: str, device: torch.device) -> str:
    """Return the precision that "auto" stands for: bf16 where the machine computes in it, else fp32."""
    if asked not in ("auto", "bf16", "fp16", "fp32"):
        raise OptionError(f"precision is auto, bf16, fp16 or fp32, not {asked!r}")
    if asked == "fp16" and device.type != "cuda":
        raise OptionError("fp16 trains on CUDA devices only: use bf16 or fp32")
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    if device.type != "cpu":
        return "fp32"
    fast = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return "bf16" if any(getattr(torch.cpu, name, lambda: False)() for name in fast) else "fp32"


class _State:
    """What changes while a run goes on, and how it is kept."""

    def __init__(self, run: Run) -> None:
        self.run, self.share = run, _share()
        recipe, classes = run.recipe, run.learn.classes
        torch.manual_seed(run.seed)
        self.batch = max(1, min(recipe.batch, len(run.learn)) // self.share.world)
        self.steps = max(1, len(run.learn) // self.share.world // self.batch)
        self.body = recipe.training_body(run.blueprint, len(classes)).to(run.device)
        self.body.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimiser = recipe.optimiser(self.body)
        self.scheduler = recipe.scheduler(self.optimiser, recipe.epochs * self.steps)
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=run.precision == "fp16")  # type: ignore[attr-defined]
        self.net = run.blueprint.net(run.blueprint.body(len(classes)), classes).to(run.device)
        self.history = History(run.blueprint.name, classes, run.settings(), machine(run), run.about)
        self.epoch, self.step, self.seconds = 1, 0, 0.0
        self.losses, self.unreadable = list[float](), dict[str, None]()
        self.begun = False
        self.resume()
        spread = nn.parallel.DistributedDataParallel(self.body) if self.share.world > 1 else self.body
        self.forward: Callable[[Tensor], Tensor] = spread

    def _parts(self) -> dict[str, Any]:
        return {"body": self.body, "optimiser": self.optimiser, "scheduler": self.scheduler, "scaler": self.scaler}

    def save(self) -> None:
        """Write the checkpoint: everything that a killed run needs to go on."""
        kept = {name: part.state_dict() for name, part in self._parts().items()}
        kept |= {"epoch": self.epoch, "step": self.step, "seconds": self.seconds, "losses": self.losses}
        kept |= {"settings": self.run.settings(), "unreadable": list(self.unreadable)}
        kept["past"] = [vars(epoch) for epoch in self.history.epochs]
        if self.share.rank == 0:
            content = BytesIO()  # torch.save to a full disk raises RuntimeError, not OSError
            torch.save(kept, content)
            write(self.run.folder / CHECKPOINT, lambda to: to.write_bytes(content.getbuffer()))

    def resume(self) -> None:
        """Go on where the checkpoint in the run's folder stopped, if there is one."""
        path = self.run.folder / CHECKPOINT
        if not path.exists():
            self._refuse_foreign_folder()
            return
        try:
            kept: dict[str, Any] = torch.load(path, map_location=self.run.device, weights_only=True)
            refuse_other_settings(kept["settings"], self.run.settings(), self.run.folder)
            for name, part in self._parts().items():
                part.load_state_dict(kept[name])
            past = tuple(Epoch(**epoch) for epoch in kept["past"])
            self.epoch, self.step, self.seconds = kept["epoch"], kept["step"], kept["seconds"]
            self.losses, self.unreadable = kept["losses"], dict.fromkeys(kept["unreadable"])
        except OptionError:
            raise
        except Exception as error:  # torch raises anything on a damaged file
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise WeightsError(
                f"{path} is damaged ({reason}): remove it to begin anew, or name another folder"
            ) from None
        self.history = replace(self.history, epochs=past, unreadable=tuple(sorted(self.unreadable)))
        self.begun = True
        if past and self.share.rank == 0 and not self._history_is_written():
            self.history.save(self.run.folder)

    def _history_is_written(self) -> bool:
        try:
            return read_history(self.run.folder).epochs == self.history.epochs
        except WeightsError:
            return False

    def _refuse_foreign_folder(self) -> None:
        """Refuse a folder that holds a run without a checkpoint: its snapshots would be overwritten."""
        if (self.run.folder / HISTORY).exists():
            raise OptionError(
                f"{self.run.folder} holds the results of a run but no {CHECKPOINT}: name another folder with -o"
            )

    def tell(self, line: str) -> None:
        """Tell a line, once for all processes."""
        if self.share.rank == 0:
            self.run.tell(line)

    def note_unreadable(self, pictures: LabelledPictures, indices: Iterable[int]) -> None:
        """Remember pictures that cannot be read. Raises DataError above 5 % of all."""
        where = " (held out)" if pictures is self.run.hold else ""
        self.unreadable |= dict.fromkeys(f"{pictures.name(index)}{where}" for index in indices)
        known, everything = len(self.unreadable), len(self.run.learn) + len(self.run.hold)
        if known > _UNREADABLE * everything:
            shown = ", ".join(list(self.unreadable)[:5])
            raise DataError(
                f"{known} of {everything} pictures cannot be read, more than 5 %: {shown}"
                f"{', ...' if known > 5 else ''}; replace or remove them"
            )


def refuse_other_settings(kept: dict[str, Any], asked: dict[str, Any], folder: Path) -> None:
    """Raise OptionError with the differences when a run was begun with other settings."""
    differ = [
        f"{key} was {kept.get(key)}, now {asked.get(key)}"
        for key in {**kept, **asked}
        if kept.get(key) != asked.get(key)
    ]
    if differ:
        raise OptionError(
            f"the run in {folder} was begun with other settings: {'; '.join(differ)}. "
            "Ask for the same to go on, or name another place with -o"
        )


def _one_epoch(run: Run, state: _State) -> None:
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
    rate = state.optimiser.param_groups[0]["lr"]
    _export(run, state)
    right = _right(run, state)
    if not right:
        raise DataError("no held-out picture can be read")
    accuracy = sum(right) / len(right)
    if run.recipe.schedule == "plateau":
        state.scheduler.step(accuracy)
    state.seconds += time.monotonic() - began
    _finish_epoch(run, state, rate, accuracy)


def _export(run: Run, state: _State) -> None:
    """Bring the network that ships up to date. Raises TrainingError when its weights are not finite."""
    if dist.is_initialized():
        for buffer in state.body.buffers():  # every process has its own statistics of batch norm
            dist.broadcast(buffer, 0)
    export(state.body, state.net)
    if not all(bool(value.isfinite().all()) for value in state.net.body.state_dict().values()):
        raise TrainingError(f"the weights are not finite in 16 bits after epoch {state.epoch}: {_advice(run, state)}")


def _advice(run: Run, state: _State) -> str:
    last = [epoch.epoch for epoch in state.history.snapshots]
    kept = f"the last good snapshot is that of epoch {last[-1]}" if last else "there is no snapshot yet"
    return f"try a lower --rate than {run.recipe.rate:g}; {kept}, in {run.folder}"


def _checkpoint_within(state: _State, began: float) -> float:
    now = time.monotonic()
    state.seconds += now - began
    state.save()
    return now


def _one_step(run: Run, state: _State, batch: Batch) -> Tensor:
    """Take one step and return its loss, still on the device."""
    # Drawn anew at every step, so that a resumed run drops what an uninterrupted one drops.
    torch.manual_seed(_seed(run, state.epoch) + state.step)
    pixels, labels = (t.to(run.device, non_blocking=True) for t in (batch.pixels, batch.labels))
    inputs = state.net.normalise(pixels.float() / 255).to(memory_format=torch.channels_last)
    with autocast(run):
        scores = state.forward(inputs)
        loss = F.cross_entropy(scores.float(), labels, label_smoothing=run.recipe.smoothing)
    state.optimiser.zero_grad()
    state.scaler.scale(loss).backward()
    state.scaler.step(state.optimiser)
    state.scaler.update()
    run.recipe.limit(state.body, run.blueprint)
    if run.recipe.schedule == "onecycle":
        state.scheduler.step()
    return loss.detach()


def autocast(run: Run) -> torch.autocast:
    """Compute in the run's precision inside the block."""
    kind = torch.float16 if run.precision == "fp16" else torch.bfloat16
    return torch.autocast(run.device.type, kind, enabled=run.precision != "fp32")


def _look_at_losses(state: _State, fresh: list[Tensor]) -> None:
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


def _finish_epoch(run: Run, state: _State, rate: float, accuracy: float) -> None:
    """Write the snapshot, the checkpoint and the history, in this order: a kill in between loses at most an epoch."""
    loss = sum(state.losses) / max(1, len(state.losses))
    if not state.losses:
        raise DataError("no batch of pictures could be read")
    name = None
    if state.epoch in run.snapshots or state.epoch == run.recipe.epochs:
        name = f"epoch-{state.epoch:03d}.safetensors"
    entry = Epoch(state.epoch, loss, rate, accuracy, round(state.seconds, 1), name)
    state.unreadable = dict.fromkeys(_gathered(list(state.unreadable)))
    state.history = replace(
        state.history, epochs=(*state.history.epochs, entry), unreadable=tuple(sorted(state.unreadable))
    )
    state.epoch, state.step, state.seconds, state.losses = state.epoch + 1, 0, 0.0, []
    if name and state.share.rank == 0:
        _write_snapshot(run, state.net, entry)
    state.save()
    if state.share.rank == 0:
        state.history.save(run.folder)
    left = sum(e.seconds for e in state.history.epochs[-3:]) / len(state.history.epochs[-3:])
    left *= run.recipe.epochs - entry.epoch
    kept = "  kept" if name else ""
    state.tell(
        f"epoch {entry.epoch:>3}/{run.recipe.epochs}  loss {loss:.3f}  accuracy {accuracy:.1%}  "
        f"{entry.seconds:.0f} s, {left / 60:.0f} min left{kept}"
    )


def _write_snapshot(run: Run, net: Net, epoch: Epoch) -> None:
    told = {
        "network": run.blueprint.name,
        "epoch": epoch.epoch,
        "accuracy": epoch.accuracy,
        "classes": list(net.classes),
        "seed": run.seed,
    }
    tensors = {key: value.half().cpu().contiguous() for key, value in net.body.state_dict().items()}
    content = save(tensors, metadata=metadata(told))
    write(run.folder / str(epoch.snapshot), lambda to: to.write_bytes(content))


def export(trained: nn.Module, net: Net) -> None:
    """Put a trained body's weights into the network that ships: batch norm folded in, rounded to 16 bits.

    What is measured afterwards is what a reader of the snapshot gets.
    """
    state = {key: value.clone() for key, value in trained.state_dict().items()}
    children = dict(trained.named_children())
    for (name, layer), (other, norm) in zip(children.items(), list(children.items())[1:], strict=False):
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            was = trained.training
            trained.eval()
            folded = fuse_conv_bn_eval(layer, norm)
            trained.train(was)
            state = {key: value for key, value in state.items() if not key.startswith(f"{other}.")}
            state |= {f"{name}.{key}": value for key, value in folded.state_dict().items()}
    net.body.load_state_dict({key: value.half().float() for key, value in state.items()})


def _right(run: Run, state: _State) -> list[bool]:
    """Return for every held-out picture that could be read whether it is named right."""
    told: list[Tensor] = []
    for pixels, labels in held_out(run, state.net, state):
        with torch.inference_mode():
            told.append(state.net(pixels).argmax(1).eq(labels).cpu())
    right = torch.cat(told).tolist() if told else []
    return _gathered(right)


def held_out(
    run: Run, net: Net, state: _State | None = None, size: int | None = None
) -> Iterable[tuple[Tensor, Tensor]]:
    """Load the held-out pictures as the network reads them: pixels (n, c, h, w) in [0, 1] and classes (n,)."""
    side = size or run.blueprint.size
    fit = net.fit.scaled(side)
    look = v2.Compose([v2.Resize(fit.resize, antialias=True), v2.CenterCrop(side), v2.PILToTensor()])
    prepared = Prepared(run.hold, [look], run.blueprint.channels, run.seed)
    share = _share() if state else Share()
    for batch in batches(prepared, 250, share=share, workers=run.workers):
        if state:
            state.note_unreadable(run.hold, batch.unreadable)
        if len(batch.labels):
            yield (batch.pixels.to(run.device).float() / 255), batch.labels.to(run.device)


def _gathered(values: list[Any]) -> list[Any]:
    if not dist.is_initialized():
        return values
    everyone: list[list[Any]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(everyone, values)
    return [value for values in everyone for value in values]


def _seed(run: Run, epoch: int) -> int:
    return (run.seed * 100_003 + epoch) * 1_000_003 % 2**62


def _share() -> Share:
    return Share(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Share()


@contextmanager
def processes(device: torch.device) -> Generator[torch.device]:
    """Join the other processes of `torchrun`, if it started this one; the block computes on the device given."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def machine(run: Run) -> str:
    """Describe what computes: processor or graphics card, and the versions."""
    if run.device.type == "cuda":
        what = f"{_share().world} x {torch.cuda.get_device_name(run.device)}"
    else:
        what = f"{_processor()}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    return f"{what}; torch {torch.__version__.split('+')[0]}, Python {platform.python_version()}, {run.precision}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
