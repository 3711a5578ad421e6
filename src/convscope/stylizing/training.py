"""`train_style`: train a network that paints any picture in one style, by gradient descent on a perceptual loss."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor
from torchvision.transforms import v2

from ..context import say, track
from ..data import storage
from ..data.batches import Batch, Prepared, Share, batches
from ..data.datasets import LabelledPictures
from ..data.images import open_shown
from ..data.pictures import SHARD_SUFFIXES, read_pictures
from ..data.preprocessing import Preprocessing
from ..drawing.layout import number
from ..errors import DataError, OptionError, OutputError, PictureError, TrainingError
from ..interruptions import orderly
from ..locks import lock
from ..net import Net
from ..outputs import check_file, write_bytes
from ..provenance import versions
from ..synonyms import OPTIONS, hint
from ..synthesis.monitor import Monitor
from ..training.keeping import Checkpoint, write_checkpoint
from ..training.run import refuse_other_settings
from ..zoo.runs import facts, metadata
from .loss import PerceptualLoss
from .network import KIND, StyleNet
from .painting import painted_at_own_size, to_tensor
from .settings import Settings

_LOOK = 10
"""Steps between two looks at the loss: each makes a GPU wait."""

_MINUTES = 5.0
"""How often a checkpoint is written."""

_UNREADABLE = 0.05
_SMALLEST_STYLE = 32

_SHOWN = 512
"""The longest side of a preview, in pixels."""


@orderly
def train_style(
    net: Net,
    style: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    workers: int = 2,
    preview: Path | None = None,
    preview_every: int = 200,
    preview_of: str | Path | None = None,
    **options: Any,
) -> Path:
    """Train a network that paints any picture in one style, and write it as a style file; return its path.

    Args:
        net: the network of the perceptual loss: any that reads colour, best VGG. Its `value_range`
            and `window` say how deep pictures become 8-bit ones.
        style: the style picture, at least 32 pixels a side.
        data: a folder of training pictures, at any depth; or a .tar, .parquet or .arrow file of them.
        out: the style file (.safetensors). With the .checkpoint beside it the same call resumes, also to more steps.
        workers: processes that load pictures.
        preview: write a picture and the network's version of it to this file, every `preview_every` steps.
        preview_of: the picture of the preview; default: the first of the data.
        options: as in `Settings`.

    Raises OptionError, PictureError, DataError, OutputError before anything is computed; OptionError when `out` was
    begun with other settings; TrainingError when the loss is no longer finite: `out` then holds the weights before.
    After an interruption `out` holds the weights so far.
    """
    names = Settings.__dataclass_fields__
    unknown = [name for name in options if name not in names]
    if unknown:
        near = hint(unknown[0], OPTIONS, {name: f"{name}=" for name in names})
        raise OptionError(f"train_style has no option {unknown[0]!r}; {near}")
    if workers < 0:
        raise OptionError(f"workers must be at least 0, not {workers}")
    settings, out = Settings(**options), Path(out)
    check_output(out)
    monitor = Monitor("training a style", preview, preview_every)
    display = replace(net.preprocessing, fit=None)
    loss = PerceptualLoss.of(net, open_style(style, display), settings)
    pictures = replace(find_data(data), shown=display if net.window or net.value_range else None)
    shown = (open_shown(preview_of, display)[0] if preview_of else pictures.open(0)) if preview else None
    with torch.random.fork_rng(devices=[]), lock(out.with_suffix(".lock"), str(out)):
        _Run(loss, settings, pictures, Path(style).name, out, monitor, shown, workers).train()
    return out


def check_output(out: Path) -> None:
    """Refuse a style file that cannot be written. Raises OutputError."""
    if out.suffix != ".safetensors":
        raise OutputError(f"a style file ends in .safetensors: use {out.stem}.safetensors, not {out}")
    check_file(out)


def open_style(picture: str | Path, display: Preprocessing | None = None) -> Image.Image:
    """Open the style picture in colour, as figures show it, and say what must be said of that.

    Raises PictureError for one that is too small to have a style.
    """
    image, remarks = open_shown(picture, display or Preprocessing(None))
    for remark in remarks:
        say(remark)
    if min(image.size) < _SMALLEST_STYLE:
        raise PictureError(
            f"{picture} has {image.width} × {image.height} pixels: a style picture needs at least "
            f"{_SMALLEST_STYLE} a side"
        )
    return image


def find_data(data: str | Path) -> LabelledPictures:
    """Find training pictures at any depth of a folder, or in a .tar, .parquet or .arrow file.

    Raises DataError when there are none.
    """
    path = storage.at(data)
    if path.suffix.lower() not in SHARD_SUFFIXES and not path.is_dir():
        raise DataError(f"there is no folder {path}" + (" (it is a file)" if path.exists() else ""))
    try:
        pictures = read_pictures(str(path))
    except PictureError as error:
        raise DataError(str(error)) from None
    return LabelledPictures(pictures, tuple(range(len(pictures))), (0,) * len(pictures), ("any",))


@dataclass(frozen=True)
class _Kept:
    """What a checkpoint says beside the states of network and optimizer."""

    step: int
    settings: dict[str, Any]
    unreadable: list[str]


@dataclass(eq=False)
class _Run:
    """A training run and its progress."""

    loss: PerceptualLoss
    settings: Settings
    pictures: LabelledPictures
    style: str
    out: Path
    monitor: Monitor
    shown: Image.Image | None
    workers: int
    step: int = 0
    summary: str = ""
    recent: list[Tensor] = field(default_factory=list[Tensor])
    unreadable: dict[str, None] = field(default_factory=dict[str, None])

    def __post_init__(self) -> None:
        self.device = self.loss.net.device
        torch.manual_seed(self.settings.seed)
        self.net = StyleNet(self.settings.width, self.settings.blocks).to(self.device)
        # One kernel for all of a step.
        fused = self.device.type in ("cpu", "cuda")
        self.adam = torch.optim.Adam(self.net.parameters(), lr=self.settings.rate, fused=fused)
        self.batch = min(self.settings.batch, len(self.pictures))
        self.resume()
        self.good = self.step, self.weights()

    def record(self) -> dict[str, Any]:
        """Return everything that decides the result, the number of steps apart."""
        own = asdict(replace(self.settings, style_size=self.settings.style_size or self.settings.size))
        own |= {"content_layer": self.loss.content, "style_layers": ", ".join(s.layer for s in self.loss.styles)}
        net = self.loss.net
        own |= {"through": net.name, "weights": net.digest, "picture": self.style, "picture_digest": self.loss.style}
        own |= {"network": KIND, "pictures": len(self.pictures), "data": self.pictures.digest}
        if shown := self.pictures.shown:
            own |= {"value_range": str(shown.value_range), "window": str(shown.window)}
        return {key: value for key, value in own.items() if key != "steps"}

    def weights(self) -> dict[str, Tensor]:
        return {key: value.detach().to("cpu", copy=True) for key, value in self.net.state_dict().items()}

    @property
    def checkpoint(self) -> Path:
        return self.out.with_suffix(".checkpoint")

    def save(self) -> None:
        """Write the checkpoint: everything that a killed run needs to resume."""
        state = {"net": self.net.state_dict(), "adam": self.adam.state_dict(), "step": self.step}
        state |= {"settings": self.record(), "unreadable": list(self.unreadable)}
        write_checkpoint(self.checkpoint, state)

    def resume(self) -> None:
        """Resume from the checkpoint, if there is one; never overwrite the result of another run."""
        if not self.checkpoint.exists():
            if self.out.exists():
                raise OptionError(
                    f"{self.out} exists, without a {self.checkpoint.name} to resume from: use another file"
                )
            return
        otherwise = f"remove it and {self.out.name} to start over, or use another file"
        checkpoint = Checkpoint.read(self.checkpoint, _Kept, otherwise)
        kept = checkpoint.says
        refuse_other_settings(kept.settings, self.record(), self.checkpoint)
        if kept.step > self.settings.steps:
            raise OptionError(
                f"the run of {self.out} has taken {kept.step} steps, more than {self.settings.steps}: ask for as "
                "many or more, or use another file"
            )
        checkpoint.load({"net": self.net, "adam": self.adam})
        self.step, self.unreadable = kept.step, dict.fromkeys(kept.unreadable)

    def export(self, step: int, weights: dict[str, Tensor]) -> None:
        """Write the style file."""
        record = {**self.record(), "steps": step, **versions()}
        content = save(weights, metadata=metadata(record))
        write_bytes(self.out, content, durable=True)

    def train(self) -> None:
        """Take the remaining steps."""
        begun, saved = self.step, time.monotonic()
        try:
            left = range(self.step, self.settings.steps)
            for _, batch in zip(
                track(left, lambda: f"{self.monitor.label}{self.summary}"), self._batches(), strict=False
            ):
                self._learn(batch)
                if self.step % _LOOK == 0:
                    self._look()
                self._preview()
                if time.monotonic() - saved > _MINUTES * 60:
                    self._look()
                    self.save()
                    saved = time.monotonic()
            self._look()
        except KeyboardInterrupt:
            if self.step > begun:
                self._finish()
                say(
                    f"interrupted after {self.step} of {self.settings.steps} steps: {self.out} holds the weights so "
                    "far; run the same command again to resume"
                )
            raise
        if self.step > begun or not self._is_exported():
            self._finish()

    def _is_exported(self) -> bool:
        """Whether the style file is that of the steps taken: a run may have been killed before it wrote it."""
        expected = {**self.record(), "steps": self.step}
        return {key: value for key, value in facts(self.out).items() if key in expected} == expected

    def _finish(self) -> None:
        self.save()
        self.export(self.step, self.weights())
        if self.unreadable:
            shown = ", ".join(list(self.unreadable)[:10]) + (", ..." if len(self.unreadable) > 10 else "")
            say(f"skipped {len(self.unreadable)} unreadable pictures: {shown}")

    def _batches(self) -> Iterator[Batch]:
        """Yield batches forever, starting with the next step's."""
        size = self.settings.size
        crop = v2.Compose(
            [v2.RandomResizedCrop(size, scale=(0.25, 1.0), antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()]
        )
        each = len(self.pictures) // self.batch
        epoch, start = divmod(self.step, each)
        while True:
            prepared = Prepared(self.pictures, [crop], 3, (self.settings.seed * 100_003 + epoch) * 1_000_003 % 2**62)
            yield from batches(prepared, self.batch, share=Share(), workers=self.workers, shuffled=True, start=start)
            epoch, start = epoch + 1, 0

    def _learn(self, batch: Batch) -> None:
        self._note(batch.unreadable)
        if len(batch.labels):
            pixels = batch.pixels.to(self.device, non_blocking=True).float() / 255
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.amp):
                costs = self.loss(self.net(pixels), pixels)
            self.adam.zero_grad()
            costs.sum().backward()
            self.adam.step()
            self.recent.append(costs.detach())
        self.step += 1

    def _note(self, indices: tuple[int, ...]) -> None:
        """Remember pictures that cannot be read. Raises DataError above 5% of all."""
        self.unreadable |= dict.fromkeys(self.pictures.name(index) for index in indices)
        count = len(self.unreadable)
        if count > _UNREADABLE * len(self.pictures):
            shown = ", ".join(list(self.unreadable)[:5]) + (", ..." if count > 5 else "")
            raise DataError(
                f"{count} of {len(self.pictures)} pictures are unreadable, more than 5%: {shown}; replace or "
                "remove them"
            )

    def _look(self) -> None:
        """Look at the costs and keep the weights. Raises TrainingError when costs or weights are not finite."""
        if not self.recent:
            return
        costs = torch.stack(self.recent).mean(0).cpu()
        self.recent.clear()
        if not costs.isfinite().all() or not all(bool(value.isfinite().all()) for value in self.net.parameters()):
            self._stop_at_nan()
        self.good = self.step, self.weights()
        content, style, *others = costs.tolist()
        self.summary = f" · content {number(content)}, style {number(style)}, others {number(sum(others))}"

    def _stop_at_nan(self) -> None:
        step, weights = self.good
        if step:
            self.export(step, weights)
        kept = f"{self.out} holds the weights of step {step}" if step else "there are no weights before it"
        raise TrainingError(
            f"the loss is not finite after {self.step} steps: {kept}. Use a rate below {self.settings.rate:g}"
        )

    def _preview(self) -> None:
        if self.shown is None or self.monitor.preview is None or self.step % self.monitor.every:
            return
        image = self.shown.convert("RGB")
        image.thumbnail((_SHOWN, _SHOWN))
        painted = painted_at_own_size(self.net, image, _SHOWN)
        self.monitor.show(torch.stack([to_tensor(np.asarray(image))[0], painted]))
