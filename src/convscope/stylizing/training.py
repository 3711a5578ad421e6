"""`train_style`: learn to paint any picture in one style.

    loss  =  content |phi(y) - phi(x)|^2 / |phi(x)|^2  +  style mean |G(y) - G(s)|^2 / |G(s)|^2  +  tv TV(y)

for a picture x, what the network makes of it y, the style picture s, the activity phi of a layer of any network, and
its Gram matrix G, of several layers (Johnson, Alahi & Fei-Fei 2016, arXiv:1603.08155, eq. 2-5). Costs are relative, as
everywhere in `likeness`, and so the same weights do for any network; TV is per value. Added to the paper's is the style
cost of the pixels themselves: zfnet64 hardly sees how bright a picture is, and paints all too dark without it.

Layers are the first rectified ones of a size. On VGG the content layer is relu3_1, after Johnson's code, which reads
relu3_3 (the paper's text names relu2_2), and the style layers are relu1_1 to relu4_1.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor
from torchvision.transforms import v2

from ..context import say, track
from ..data.batches import Batch, Prepared, Share, batches
from ..data.datasets import LabelledPictures
from ..data.opening import open_picture
from ..data.pictures import SHARD_SUFFIXES, read_pictures
from ..drawing.layout import number
from ..errors import DataError, OptionError, OutputError, PictureError, TrainingError, WeightsError, nearest
from ..layers import first_of_stages, spatial_layer
from ..net import Net
from ..outputs import check_folder, write
from ..synthesis.ascent import Watch
from ..synthesis.likeness import Content, Style, gram
from ..tapping import tap
from ..terms import total_variation
from ..tracing import PIXELS
from ..training.run import refuse_other_settings
from ..zoo.runs import metadata
from .network import KIND, StyleNet
from .painting import digest, painted_at_own_size, to_tensor
from .settings import Settings

_LOOK = 10
"""Steps between two looks at the loss: each makes a GPU wait."""

_MINUTES = 5.0
"""How often a checkpoint is written."""

_UNREADABLE = 0.05
_SMALLEST_STYLE = 32

_CONTENT_STEP = 4
_STYLE_STEP = 8
"""The largest steps between places, in pixels, of the layers read by default: on VGG those of Johnson's."""

_SHOWN = 512
"""The longest side of a preview, in pixels."""


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
    """Train a network that paints any picture in the style of one, and write it as a style file; return its path.

    Args:
        net: the network that judges: any that reads colour, best VGG.
        style: the picture whose style is learnt, at least 32 pixels a side.
        data: a folder of any pictures, however deep; or a .tar, .parquet or .arrow file of them.
        out: the style file (.safetensors). Beside it lies a .checkpoint: asked for the same again, a training goes on
            from there, also to more steps.
        workers: processes that load pictures.
        preview: write a picture and what the network makes of it to this picture, every `preview_every` steps.
        preview_of: which picture; the first of the data by default.
        options: as in `Settings`.

    Raises OptionError, PictureError, DataError, OutputError before anything is computed; OptionError when `out` was
    begun with other settings; TrainingError when the loss is no number any more: what was learnt before is then in
    `out`. After an interruption `out` holds what there is.
    """
    known = Settings.__dataclass_fields__
    unknown = [name for name in options if name not in known]
    if unknown:
        raise OptionError(f"train_style has no option {unknown[0]!r}; nearest: {nearest(unknown[0], known)}")
    if workers < 0:
        raise OptionError(f"workers is 0 or more, not {workers}")
    settings, out = Settings(**options), Path(out)
    check_output(out)
    watch = Watch("learning a style", preview, preview_every)
    judge = Judge.of(net, open_style(style), settings)
    pictures = find_data(data)
    shown = (open_picture(preview_of) if preview_of else pictures.open(0)) if preview else None
    with torch.random.fork_rng(devices=[]):
        _Run(judge, settings, pictures, Path(style).name, out, watch, shown, workers).train()
    return out


def check_output(out: Path) -> None:
    """Refuse a style file that cannot be written. Raises OutputError."""
    if out.suffix != ".safetensors":
        raise OutputError(f"a style is written to a .safetensors file, not {out}: name {out.stem}.safetensors")
    if out.is_dir():
        raise OutputError(f"cannot write {out}: it is a folder; name a file in it")
    check_folder(out.parent)


def open_style(picture: str | Path) -> Image.Image:
    """Open the style picture in colour. Raises PictureError for one that is too small to have a style."""
    image = open_picture(picture).convert("RGB")
    if min(image.size) < _SMALLEST_STYLE:
        raise PictureError(
            f"{picture} has {image.width} x {image.height} pixels: a style takes at least {_SMALLEST_STYLE} a side"
        )
    return image


def find_data(data: str | Path) -> LabelledPictures:
    """Find pictures to learn from in a folder, however deep, or in a .tar, .parquet or .arrow file.

    Raises DataError when there are none.
    """
    path = Path(data)
    if not path.is_dir() and path.suffix.lower() not in SHARD_SUFFIXES:
        raise DataError(f"there is no folder {path}" + (" (it is a file)" if path.exists() else ""))
    try:
        pictures = read_pictures(path)
    except PictureError as error:
        raise DataError(str(error)) from None
    return LabelledPictures(pictures, tuple(range(len(pictures))), (0,) * len(pictures), ("any",))


@dataclass(frozen=True, eq=False)
class Judge:
    """What a painting costs, as a network sees it, given what it was painted from."""

    net: Net
    content: str
    styles: tuple[Style, ...]
    colours: Style
    weights: Tensor
    style: str

    @classmethod
    def of(cls, net: Net, style: Image.Image, settings: Settings) -> Judge:
        """Read the style picture, (shorter side `style_size`), by the layers asked for. Raises LayerError."""
        if net.channels != 3:
            raise OptionError(
                f"{net.name} reads grey pictures: a style takes a network that reads colour, such as zfnet64"
            )
        content, names = _layers(net, settings)
        short = min(style.size)
        size = tuple(max(1, round(side * (settings.style_size or settings.size) / short)) for side in style.size)
        pixels = to_tensor(np.asarray(style.resize((size[0], size[1]), Image.Resampling.LANCZOS))).to(net.device)
        with torch.no_grad():
            seen = tap(net, pixels, names)
        styles = tuple(Style(name, gram(seen[name].float())) for name in names)
        parts = settings.content_weight, settings.style_weight, settings.tv_weight, settings.colour_weight
        colours = Style(PIXELS, gram(pixels))
        return cls(net, content, styles, colours, torch.tensor(parts, device=net.device), digest(style))

    def __call__(self, painted: Tensor, pixels: Tensor) -> Tensor:
        """Return the weighted costs of content, style, total variation and colours, (4,), means over pictures."""
        with torch.no_grad():
            target = tap(self.net, pixels, [self.content])[self.content].float()
        seen = tap(self.net, painted, [self.content, *(style.layer for style in self.styles)])
        content = Content(self.content, target).read(seen[self.content].float())
        style = torch.stack([style.read(seen[style.layer].float()) for style in self.styles]).mean(0)
        variation = total_variation(painted.float()) / painted[0].numel()
        colours = self.colours.read(painted.float())
        return torch.stack([content.mean(), style.mean(), variation.mean(), colours.mean()]) * self.weights


def _layers(net: Net, settings: Settings) -> tuple[str, list[str]]:
    sizes = first_of_stages(net)
    fine = [layer.name for layer in sizes if max(layer.field.step) <= _CONTENT_STEP]
    content = settings.content_layer or (fine or [sizes[0].name])[-1]
    asked = [name.strip() for name in (settings.style_layers or "").split(",") if name.strip()]
    styles = asked or [layer.name for layer in sizes if max(layer.field.step) <= _STYLE_STEP] or [content]
    return spatial_layer(net, content, purpose="the content").name, [
        spatial_layer(net, name, purpose="the style").name for name in styles
    ]


@dataclass(eq=False)
class _Run:
    """A training: what it is asked for, and how far it is."""

    judge: Judge
    settings: Settings
    pictures: LabelledPictures
    style: str
    out: Path
    watch: Watch
    shown: Image.Image | None
    workers: int
    step: int = 0
    said: str = ""
    fresh: list[Tensor] = field(default_factory=list[Tensor])
    unreadable: dict[str, None] = field(default_factory=dict[str, None])

    def __post_init__(self) -> None:
        self.device = self.judge.net.device
        torch.manual_seed(self.settings.seed)
        self.net = StyleNet(self.settings.width, self.settings.blocks).to(self.device)
        # One kernel for all of a step.
        fused = self.device.type in ("cpu", "cuda")
        self.adam = torch.optim.Adam(self.net.parameters(), lr=self.settings.rate, fused=fused)
        self.batch = min(self.settings.batch, len(self.pictures))
        self.resume()
        self.good = self.step, self.weights()

    def told(self) -> dict[str, Any]:
        """Return everything that decides the result, the number of steps apart."""
        own = asdict(replace(self.settings, style_size=self.settings.style_size or self.settings.size))
        own |= {"content_layer": self.judge.content, "style_layers": ", ".join(s.layer for s in self.judge.styles)}
        net = self.judge.net
        own |= {"through": net.name, "weights": net.digest, "picture": self.style, "picture_digest": self.judge.style}
        own |= {"network": KIND, "pictures": len(self.pictures), "data": self.pictures.digest}
        return {key: value for key, value in own.items() if key != "steps"}

    def weights(self) -> dict[str, Tensor]:
        return {key: value.detach().to("cpu", copy=True) for key, value in self.net.state_dict().items()}

    # Keeping --------------------------------------------------------------------------------------------------------

    @property
    def checkpoint(self) -> Path:
        return self.out.with_suffix(".checkpoint")

    def save(self) -> None:
        """Write the checkpoint: everything that a killed run needs to go on."""
        kept = {"net": self.net.state_dict(), "adam": self.adam.state_dict(), "step": self.step}
        kept |= {"told": self.told(), "unreadable": list(self.unreadable)}
        content = BytesIO()  # torch.save to a full disk raises RuntimeError, not OSError
        torch.save(kept, content)
        write(self.checkpoint, lambda to: to.write_bytes(content.getbuffer()))

    def resume(self) -> None:
        """Go on where the checkpoint stopped, if there is one; never write over what another run made."""
        if not self.checkpoint.exists():
            if self.out.exists():
                raise OptionError(
                    f"{self.out} exists, and no {self.checkpoint.name} to go on from: name another file with -o"
                )
            return
        try:
            kept: dict[str, Any] = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            refuse_other_settings(kept["told"], self.told(), self.checkpoint)
            self.net.load_state_dict(kept["net"])
            self.adam.load_state_dict(kept["adam"])
            self.step, self.unreadable = kept["step"], dict.fromkeys(kept["unreadable"])
        except OptionError:
            raise
        except Exception as error:  # torch raises anything on a damaged file
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise WeightsError(
                f"{self.checkpoint} is damaged ({reason}): remove it and {self.out.name} to begin anew, or name "
                "another file"
            ) from None

    def export(self, step: int, weights: dict[str, Tensor]) -> None:
        """Write the style file."""
        told = {**self.told(), "steps": step, "convscope": version("convscope"), "torch": torch.__version__}
        content = save(weights, metadata=metadata(told))
        write(self.out, lambda to: to.write_bytes(content))

    # Learning -------------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Take the steps that are left."""
        begun, saved = self.step, time.monotonic()
        try:
            left = range(self.step, self.settings.steps)
            for _, batch in zip(track(left, lambda: f"learning a style{self.said}"), self._batches(), strict=False):
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
                    f"interrupted after {self.step} of {self.settings.steps} steps: {self.out} holds what there is; "
                    "the same command goes on"
                )
            raise
        if self.step > begun or not self.out.exists():
            self._finish()

    def _finish(self) -> None:
        self.save()
        self.export(self.step, self.weights())
        if self.unreadable:
            shown = ", ".join(list(self.unreadable)[:10]) + (", ..." if len(self.unreadable) > 10 else "")
            say(f"skipped {len(self.unreadable)} that cannot be read: {shown}")

    def _batches(self) -> Iterator[Batch]:
        """Yield batches for ever, from the one on that the next step takes."""
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
                costs = self.judge(self.net(pixels), pixels)
            self.adam.zero_grad()
            costs.sum().backward()
            self.adam.step()
            self.fresh.append(costs.detach())
        self.step += 1

    def _note(self, indices: tuple[int, ...]) -> None:
        """Remember pictures that cannot be read. Raises DataError above 5 % of all."""
        self.unreadable |= dict.fromkeys(self.pictures.name(index) for index in indices)
        known = len(self.unreadable)
        if known > _UNREADABLE * len(self.pictures):
            shown = ", ".join(list(self.unreadable)[:5]) + (", ..." if known > 5 else "")
            raise DataError(
                f"{known} of {len(self.pictures)} pictures cannot be read, more than 5 %: {shown}; replace or remove "
                "them"
            )

    def _look(self) -> None:
        """Look at the costs; keep the weights before them. Raises TrainingError when they are no numbers."""
        if not self.fresh:
            return
        costs = torch.stack(self.fresh).mean(0).cpu()
        self.fresh.clear()
        if not costs.isfinite().all() or not all(bool(value.isfinite().all()) for value in self.net.parameters()):
            self._stop_at_nan()
        self.good = self.step, self.weights()
        content, style, *others = costs.tolist()
        self.said = f" · content {number(content)}, style {number(style)}, others {number(sum(others))}"

    def _stop_at_nan(self) -> None:
        step, weights = self.good
        if step:
            self.export(step, weights)
        kept = f"{self.out} holds what was learnt in {step}" if step else "nothing was learnt yet"
        raise TrainingError(
            f"the loss is not a number after {self.step} steps: {kept}. Try a lower --rate than {self.settings.rate:g}"
        )

    def _preview(self) -> None:
        if self.shown is None or self.watch.preview is None or self.step % self.watch.every:
            return
        image = self.shown.convert("RGB")
        image.thumbnail((_SHOWN, _SHOWN))
        painted = painted_at_own_size(self.net, image, _SHOWN)
        self.watch.show(torch.stack([to_tensor(np.asarray(image))[0], painted]))
