"""`EvolutionRecorder`: how units come about, drawn while a network is trained, by a loop of the user's own.

The training must not notice: its result is the same to the last bit, with or without a recorder.
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
import warnings
from collections.abc import Collection, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from ..behaviour import restored_numbers
from ..data.pictures import read_pictures
from ..drawing.drawings import Gallery
from ..errors import AtlasError, DataError, OptionError, told
from ..interruptions import orderly
from ..net import Net
from ..outputs import check_folder
from ..running import blank, check_repeatable
from .crops import METHODS, Method
from .evolution import units_of
from .finding import Found
from .moments import Moment, drawn, label, moment_of, read_moment, save_moment, spread, tile_image
from .snapshots import layers_of

_FILE = "epoch-{:05d}.safetensors"
_NAMED = r"epoch-(\d+)\.safetensors"
_FIGURE = "evolution.png"


class Writer(Protocol):
    """What takes pictures of a training, such as TensorBoard's `SummaryWriter`."""

    def add_image(self, tag: str, img_tensor: Any, global_step: int, *, dataformats: str) -> Any: ...


class EvolutionRecorder:
    """Draw what units respond to most, over and over while their network is trained.

    Args:
        net: the network that is trained: a Net of it, or the module itself with options of `Net`.
        pictures: whatever `convscope.data.read_pictures` reads; some hundred are enough. They are read once and kept in
            memory, as the network reads them.
        folder: where `evolution.png` is written, and what it is made of; a training that goes on adds to it.
        layers: names, numbers of convolutions or patterns; by default a low, a middle and a high convolution.
        units: of each layer, numbers, or so many at random, as "random:8"; four by default.
        every: record every so many epochs, or those named, as [1, 2, 5, 10, 20].
        method: how a unit is projected: "deconvnet", "guided" or "gradient".
        writer: TensorBoard's `SummaryWriter`, or whatever has its `add_image`, to which the tiles go as well.
        batch_size: pictures in one pass; 8 on a CPU and 64 elsewhere by default.
        options: those of `Net`, for a module: `mean`, `std`, `size` and others.

    `step(epoch)` is called after an epoch. The training is left as it is to the last bit: modes, gradients, buffers and
    random numbers. What goes wrong in a step is a warning. `seconds` is how long all steps took. Raises
    a ConvscopeError for a network, layers, units or pictures that cannot be used, and AtlasError for a folder with
    another evolution.

    >>> import convscope
    >>> from tempfile import mkdtemp
    >>> net = convscope.load("lenet5")
    >>> recorder = convscope.EvolutionRecorder(net, "sample:chelsea", folder=mkdtemp(), layers=["conv2"], units=[0])
    >>> recorder.step(1).name
    'evolution.png'
    """

    @orderly
    def __init__(
        self,
        net: nn.Module,
        pictures: Any,
        *,
        folder: str | Path,
        layers: Sequence[str] = (),
        units: Sequence[int] | str | None = None,
        every: int | Collection[int] = 1,
        method: Method = "deconvnet",
        writer: Writer | None = None,
        batch_size: int = 0,
        **options: Any,
    ) -> None:
        if method not in METHODS:
            raise OptionError(f"method is {', '.join(METHODS)}, not {method!r}")
        if isinstance(every, int) and every < 1:
            raise OptionError(f"every is a whole number of epochs, at least 1, or the epochs themselves, not {every}")
        if isinstance(net, Net) and options:
            raise OptionError(
                f"{', '.join(options)} are options of a Net, and this is one: net.changed(...) takes them"
            )
        self.net = net if isinstance(net, Net) else Net(net, **options)
        self.folder, self.every, self.writer = Path(folder), every, writer
        self.method: Method = method
        self.epoch, self.seconds, self._last = 0, 0.0, 0
        check_folder(self.folder)
        self._batch = batch_size
        with undisturbed(self.net):
            check_repeatable(self.net, blank(self.net, self.net.size))
            self.layers = layers_of(self.net, layers)
            self.units = units_of(self.net, [layer.name for layer in self.layers], units)
            self._pixels = _read(self.net, pictures)
        self._moments = self._before()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Record the last epoch where it is not, and nothing failed."""
        if kind is None and self.epoch and self._last != self.epoch and _first_process():
            self._record(self.epoch)

    def step(self, epoch: int | None = None) -> Path | None:
        """Record an epoch that has ended, if it is one of those to record.

        `epoch` is its number, from 1 on (0 is before the training), counted up when not given. Returns the figure's
        path; None where nothing was recorded.
        """
        self.epoch = self.epoch + 1 if epoch is None else epoch
        wanted = self.epoch % self.every == 0 if isinstance(self.every, int) else self.epoch in self.every
        return self._record(self.epoch) if wanted and _first_process() else None

    def drawing(self) -> Gallery:
        """Return the figure of the epochs recorded so far. Raises AtlasError before the first."""
        recorded = [self._moments[epoch] for epoch in sorted(self._moments) if epoch <= self.epoch or not self.epoch]
        if not recorded:
            raise AtlasError("nothing is recorded yet: call step(epoch) after an epoch")
        shown = [recorded[at] for at in spread(len(recorded))]
        return drawn(self.net, shown, self.units, self.method, len(self._pixels), self._content)

    def callback(self) -> Any:
        """Return a callback for a Trainer of Lightning, which records after each epoch of the training.

        Pictures go to the trainer's TensorBoard as well, where it has one. Raises OptionError without Lightning.
        """
        return _callback(self)

    @orderly
    def _record(self, epoch: int) -> Path | None:
        start, self._last = time.perf_counter(), epoch
        try:
            with undisturbed(self.net):
                found = Found(self.net, self._pixels, self.layers, self._batch)
                self._moments[epoch], _ = moment_of(f"epoch {epoch}", found, self.units, self.method)
                save_moment(self.folder / _FILE.format(epoch), self._moments[epoch], self._key)
                path = self.drawing().save(self.folder / _FIGURE)
            if self.writer is not None:
                self._write(self.writer, self._moments[epoch], epoch)
        except Exception as error:  # a training of days must not end for a figure
            warnings.warn(f"the evolution of epoch {epoch} is not recorded: {told(error)}", stacklevel=3)
            return None
        finally:
            self.seconds += time.perf_counter() - start
        return path

    def _write(self, writer: Writer, moment: Moment, epoch: int) -> None:
        """Hand a strip of tiles of each layer to TensorBoard, whose slider goes through the training."""
        for layer, strip in strips(moment, self.units, self.net.show).items():
            writer.add_image(f"evolution/{layer or 'output'}", strip, epoch, dataformats="HWC")

    def _before(self) -> dict[int, Moment]:
        """Read what was recorded in the folder before. Raises AtlasError where it is of something else."""
        files = {re.fullmatch(_NAMED, path.name): path for path in self.folder.glob("epoch-*.safetensors")}
        return {int(name[1]): read_moment(path, self._key) for name, path in files.items() if name}

    @cached_property
    def _content(self) -> str:
        return hashlib.sha256(self._pixels.numpy().tobytes()).hexdigest()

    @cached_property
    def _key(self) -> str:
        """What moments must have in common to be shown beside each other."""
        said = repr((sorted(self.units.items()), self.method, self._content, self.net.reads))
        return hashlib.sha256(said.encode()).hexdigest()


def _read(net: Net, pictures: Any) -> Tensor:
    """Read all pictures (n, c, h, w), on the CPU. Raises DataError for none."""
    read = [net.read(picture.read())[0].cpu() for picture in read_pictures(pictures)]
    if not read:
        raise DataError("there are no pictures: give some that the units may respond to")
    sizes = {tuple(each.shape) for each in read}
    if len(sizes) > 1:
        raise DataError(f"pictures that are tensors have one size, not {' and '.join(map(str, sorted(sizes)))}")
    return torch.stack(read)


def _first_process() -> bool:
    """Whether this process is the one that writes, of those that train together."""
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


@contextmanager
def undisturbed(net: Net) -> Generator[None]:
    """Leave a network in training as it is: besides what every Net keeps, its buffers and all random numbers.

    Inside, autocast is off and gradients can be computed, whatever is in force outside.
    """
    with ExitStack() as stack:
        stack.enter_context(restored_numbers(net.device))
        stack.enter_context(_restored_buffers(net.body))
        stack.enter_context(torch.autocast(net.device.type, enabled=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(net.held())
        yield


@contextmanager
def _restored_buffers(body: nn.Module) -> Generator[None]:
    """Put back buffers that a forward pass writes to also in eval mode."""
    before = [
        (module, name, buffer, buffer.detach().clone())
        for module in body.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for module, name, buffer, content in before:
            module._buffers[name] = buffer
            if not torch.equal(buffer, content):
                with torch.no_grad():
                    buffer.copy_(content)


def strips(moment: Moment, wanted: dict[str, list[int]], show: Sequence[int]) -> dict[str, np.ndarray]:
    """Return the tiles of each layer's units beside one another, (h, w, 3) in 8 bits."""
    made: dict[str, np.ndarray] = {}
    for layer, units in wanted.items():
        shown = [moment.units[label(layer, unit)].shown for unit in units]
        tiles = [np.asarray(tile_image(each, show)) for each in shown if each is not None]
        if tiles:
            made[layer] = np.concatenate(tiles, 1)
    return made


def _callback(recorder: EvolutionRecorder) -> Any:
    base = _lightning()

    class EvolutionCallback(base):
        """Record after each epoch of the training."""

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if not trainer.is_global_zero:
                return
            if recorder.writer is None:
                experiments = (getattr(logger, "experiment", None) for logger in trainer.loggers)
                recorder.writer = next((each for each in experiments if hasattr(each, "add_image")), None)
            recorder.step(trainer.current_epoch + 1)

    return EvolutionCallback()


def _lightning() -> Any:
    """Return the class of Lightning's callbacks: that of the package in use, where both are there."""
    names = ("lightning.pytorch", "pytorch_lightning")
    for name in sorted(names, key=lambda name: name not in sys.modules):
        with suppress(ImportError):
            return import_module(name).Callback
    raise OptionError(
        "a callback needs Lightning: pip install lightning; a loop of your own needs no more than recorder.step(epoch) "
        "after each epoch"
    )
