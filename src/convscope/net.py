"""Net: any image model as a frozen, eval-mode function of pixels that knows its layers and classes."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from inspect import signature
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from . import bodies, dry_run, fingerprints
from .assumptions import NOT_NORMALISED, Assumption, of_size
from .behaviour import Behaviour, behaviour_of, drawing, unread_layers
from .calling import Call, Calling, Extra, Output
from .context import say
from .data import images
from .data.class_names import ClassNames, class_names
from .data.display import Display, Window, to_image
from .data.preprocessing import Preprocessing, Size, checked_bands, checked_range, checked_window, fit_of, per_channel
from .data.rasters import Raster, check_range
from .errors import ConvscopeError, LayerError, NetworkError, OptionError, PictureError, nearest, told
from .heads import Head, HeadKind, check_kind, settled_head
from .interruptions import orderly
from .kept import Kept
from .recipes import NetworkSource
from .renames import renamed
from .sharing import frozen, own_modes
from .synonyms import OPTIONS, hint
from .tracing import OUTPUT, Layer, traced_layers
from .wiring import Wiring, wiring

ORDERS = ("RGB", "BGR")

_OTHERWISE = (
    "if it reads another size, say so, as in Net(..., size=64); if it reads more than a picture, give the rest, with a "
    "first dimension of 1, as in Net(..., extra=[torch.zeros(1, 5)]); if it takes a dict or a list, Net(..., "
    "call=lambda body, pixels: body({'image': pixels})). A function of a file: network may return such a Net"
)

_SIDE = 224
"""The side of the input where nobody gives one."""

_ANOTHER = 32
"""So many pixels more make another size for any network that takes more than one."""

_LARGE = 4
"""So many times the area of the network's own pictures is more than is looked at."""

_SIZES = 256
"""Sizes of pictures of which it is kept how the network treats them."""

_tracing, _looking = threading.RLock(), threading.RLock()


class Net(nn.Module):
    """Wrap an image model so that it reads pixels (n, c, h, w) in [0, 1] and normalises them itself.

    The model is used in place and left as it was: every forward pass runs in eval mode with frozen parameters and
    restores the flags it changed.

    Args:
        body: the model; pixels (n, c, h, w) in, one tensor out, or what `output` makes one of.
        mean, std: per channel, in units of pixels in [0, 1]; the body sees (pixels - mean) / std, without them pixels
            as they are. What is not given of these and of the size is assumed, and figures say so first.
        size: the input's side, or (height, width), in pixels; 224 when not given.
        resize: what the picture's shorter side is scaled to before the centre is cut, `size` when not given; or
            (height, width) to scale to, whatever its proportions.
        classes: the names of the outputs: in order, a dict by index (`id2label`) or by name (`class_to_idx`), or the
            path of a file of one of these (.txt, .csv, .json).
        head: what the outputs are: "softmax" (scores of exclusive classes), "sigmoid" (one logit per label),
            "probability" (probabilities already) or "value" (numbers that are none, as of a regression). When not
            given, the last operation tells; without a softmax or sigmoid there, several outputs are taken for scores of
            classes, of which captions show what they then call "softmax".
        name: what captions and recipes call the network.
        channels: 1 for grey, 3 for RGB; read off the first convolution when not given.
        interpolation: "bilinear", "bicubic", "lanczos" or "nearest", for `read`.
        note: what a reader of any figure must know, such as "random weights, seed 0".
        order: "RGB", or "BGR" for a body that reads blue first. Pixels, mean and std are RGB all the same.
        output: for a body that returns a dict or a tuple, the key or place of the tensor to look at; or a function of
            what the body returns to a tensor (n, ...), such as the score of one box of a detector.
        fit: how a picture of other proportions fits: "cover" (scaled until the input is covered, the centre cut out),
            "contain" (all of it, padded with the mean colour) or "stretch" (both sides scaled to the input's); the last
            two use the whole picture and leave `resize` aside.
        value_range: the values of deeper pictures than 8 bits, as (black, white), that become 0 and 1; by default the
            type's own from 0 on (65,535 for uint16), and [0, 1] for floating point. 8-bit pictures are 0 to 255.
        show: the band that figures show in grey, or the three that they show as red, green and blue, numbered from 0;
            the first three by default, of two bands the first.
        window: the values that figures show as black and white, as pictures store them, as (3500, 23000), or "auto" for
            those that 99% of a picture's values lie between; by default so where they would be too dark, or too pale,
            to see. It changes no number.
        extra: what the body reads besides the picture: a list (by position), a dict (by name), or a function of the
            body's input (n, c, h, w) that returns one of the two. Tensors of one entry are repeated for a batch.
        input: which of the body's inputs the picture is: its place, or its name; `extra` are the others.
        seed: of a body that draws random numbers also in eval mode, the seed that every forward pass of a picture
            begins with, so that its answer is the same each time; without one its pictures are not explained.
        call: how to call a body that takes something else than a tensor (n, c, h, w): a function of the body and that
            tensor, as in `lambda body, pixels: body({"image": pixels})` or `body(list(pixels))`.

    Raises NetworkError when the body is not a module, OptionError for an option that there is not, WeightsError when a
    parameter is NaN or infinite.
    """

    def __new__(cls, *_: Any, **options: Any) -> Self:
        """Refuse unknown options. Raises OptionError with the one that was meant."""
        known = signature(cls.__init__).parameters
        for name in options:
            if name not in known:
                near = hint(name, OPTIONS, {each: f"{each}=" for each in known if each not in ("self", "body")})
                raise OptionError(f"Net has no option {name!r}; {near}")
        return super().__new__(cls)

    def __init__(
        self,
        body: nn.Module,
        *,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        size: int | tuple[int, int] | None = None,
        resize: int | tuple[int, int] | None = None,
        classes: ClassNames = (),
        name: str = "",
        channels: int | None = None,
        interpolation: str = "bilinear",
        note: str = "",
        order: str = "RGB",
        output: Output | None = None,
        extra: Extra | None = None,
        head: HeadKind | None = None,
        input: int | str = 0,
        seed: int | None = None,
        call: Call | None = None,
        fit: str = "cover",
        value_range: Sequence[float] | None = None,
        show: int | Sequence[int] | None = None,
        window: Sequence[float] | str | None = None,
    ) -> None:
        options = {key: value for key, value in locals().items() if key not in ("self", "body", "__class__")}
        super().__init__()
        bodies.check_module(body)
        if isinstance(body, Net):
            raise NetworkError("this is a Net already: use it as it is")
        self.body = body = bodies.unwrapped(body)
        self._options = options
        self.name = name or bodies.kind(body)
        bodies.check_ready(body, self.name)
        self.classes = options["classes"] = class_names(classes)
        self._shared_names = {name for name, count in Counter(self.classes).items() if count > 1}
        self.note = note
        self._calling = Calling(self.name, output, extra, input, call)
        self._head: HeadKind | None = check_kind(head)
        self.seed = _checked_seed(seed)
        self._holds_compiled = bodies.holds_compiled(body)
        self.source: NetworkSource | None = None
        self._layers: dict[str, Layer] | None = None
        self._wiring: Wiring | None = None
        self._digest: tuple[Any, str] = (None, "")
        self._assumed: tuple[Assumption, ...] = (NOT_NORMALISED,) if mean is std is None else ()
        self._behaviours: Kept[Any, Behaviour] = Kept(_SIZES)
        self.channels = channels or bodies.first_channels(body)
        self.mean = per_channel(0.0 if mean is None else mean, self.channels, "mean")
        self.std = per_channel(1.0 if std is None else std, self.channels, "std")
        if order not in ORDERS or (order == "BGR" and self.channels != 3):
            raise NetworkError(f"order is RGB or BGR, the latter for 3 channels; not {order!r} for {self.channels}")
        self.order = order
        self.fit = fit_of(_SIDE if size is None else size, resize, interpolation, fit)
        self.value_range = checked_range(value_range)
        self.show = checked_bands(show, self.channels)
        self.window: Window | None = checked_window(window)
        fingerprints.check_finite(body, self.name)
        if size is None:
            self._assumed = (of_size(self.fit.size), *self._assumed)

    def __getattr__(self, name: str) -> Any:
        # A property that raises an AttributeError ends here, where a module would say that it has no such attribute.
        asked = getattr(type(self), name, None)
        if not isinstance(asked, property) or asked.fget is None:
            return super().__getattr__(name)
        try:
            return asked.fget(self)
        except AttributeError as error:
            raise NetworkError(f"the {name} of {self.name} cannot be told: {told(error)}") from error

    @property
    def output_name(self) -> str:
        """What a function given as `output` says of itself, for captions; "" without one, or of a lambda."""
        output = self._calling.output
        name = str(getattr(output, "__name__", output)) if callable(output) else ""
        return "" if name == "<lambda>" else name

    @property
    def size(self) -> tuple[int, int]:
        """The input's (height, width) in pixels."""
        return self.fit.size

    def sized(self, size: Size) -> Net:
        """Return the same network, its weights shared, reading pictures of another side or (height, width)."""
        fit = self.fit.scaled(size)
        said = f"input {fit.size[0]} × {fit.size[1]} pixels"
        note = f"{self.note}; {said}" if self.note else said
        return self.changed(size=fit.size, resize=fit.resize, note=note)

    def changed(self, **options: Any) -> Net:
        """Return the same network, its weights shared, with other options of Net."""
        if "classes" in options:
            options["classes"] = class_names(options["classes"])
        net = Net(self.body, **self._options | options)
        net._assumed = tuple(each for each in self._assumed if not {*each.options} & {*options})
        if self.source is not None and all(map(_written, options.values())):
            net.source = replace(self.source, changed={**self.source.changed, **options})
        return net

    def assuming(self, *assumptions: Assumption) -> Net:
        """Return the same network, whose figures say first what was assumed of it, the latest first."""
        net = copy(self)
        # What is known better now takes the place of what was assumed of the same.
        settled = {each.options for each in assumptions if each.options}
        net._assumed = tuple(
            dict.fromkeys((*assumptions, *(each for each in self._assumed if each.options not in settled)))
        )
        return net

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        """What was assumed of the network because nobody said it; its size only where it runs at others as well."""
        return tuple(each for each in self._assumed if each.options != ("size",) or self._takes_other_sizes)

    @cached_property
    def _takes_other_sizes(self) -> bool:
        return self.runs_at(*(side + _ANOTHER for side in self.size))

    def seeded(self, seed: int | None) -> Net:
        """Return the same network, drawing the random numbers of another seed."""
        net = copy(self)
        net.seed = _checked_seed(seed)
        net._options, net._behaviours = self._options | {"seed": seed}, Kept(_SIZES)
        if self.source is not None:
            net.source = replace(self.source, changed={**self.source.changed, "seed": seed})
        return net

    @property
    def reads(self) -> dict[str, Any]:
        """How pictures become the body's input, as a recipe holds it."""
        resize = self.fit.resize
        return {
            "size": list(self.fit.size),
            "resize": list(resize) if isinstance(resize, tuple) else resize,
            "interpolation": self.fit.interpolation,
            "channels": self.channels,
            "order": self.order,
            "mean": list(self.mean),
            "std": list(self.std),
            "head": self._head,
            # What most networks have no use for is not written for them.
            **({"fit": self.fit.mode} if self.fit.mode != "cover" else {}),
            **({"value_range": list(self.value_range)} if self.value_range else {}),
        }

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures are read: their cut, bands and values, and how they are shown."""
        return Preprocessing(self.fit, self.channels, self.value_range, self.show, self.mean, self.window)

    @property
    def _first(self) -> Tensor:
        return bodies.first_float(self.body)

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return self._first.device

    view = renamed("view", "prepare")

    def prepare(self, picture: Any, *, size: Size | None = None) -> images.InputPicture:
        """Read a picture as the network will see it, and remember the original; one that was read is taken as it is."""
        if isinstance(picture, images.InputPicture) and size is None:
            return picture
        if isinstance(picture, Tensor):
            return self._prepared_tensor(picture)
        fit = self.fit if size is None else self.fit.scaled(size)
        return images.prepare(picture, replace(self.preprocessing, fit=fit))

    def prepare_whole(self, picture: Any) -> images.InputPicture:
        """Read a whole picture at its own size and aspect, and say what must be said of it."""
        if isinstance(picture, Tensor):
            return self._prepared_tensor(picture)
        prepared = images.prepare(picture, replace(self.preprocessing, fit=None))
        for remark in prepared.remarks:
            say(remark)
        return prepared

    def whole(self, picture: Any) -> images.Whole:
        """Open a picture in the network's bands at its own size, and say what must be said of it."""
        if isinstance(picture, Tensor):
            return Raster.of(self._prepared_tensor(picture).pixels)
        whole, _, remarks = images.open_whole(picture, self.preprocessing)
        for remark in remarks:
            say(remark)
        return whole

    def image(self, pixels: Tensor | np.ndarray) -> Image.Image:
        """Show pixels (c, h, w) as an 8-bit picture, in the bands that `show` names."""
        return to_image(pixels.detach().float().cpu().numpy() if isinstance(pixels, Tensor) else pixels, self.show)

    def _prepared_tensor(self, pixels: Tensor) -> images.InputPicture:
        pixels = self.checked(pixels[None] if pixels.ndim == 3 else pixels)
        if len(pixels) != 1:
            raise PictureError(f"expected one picture, not a batch of {len(pixels)}: shape {tuple(pixels.shape)}")
        seen = pixels[0].detach().float().cpu().numpy()
        check_range(float(seen.min()), float(seen.max()), "the tensor")
        height, width = seen.shape[1:]
        display = Display.of(Raster.of(seen), self.show, self.window)
        remarks = (f"shown from {display.black:.3g} (black) to {display.white:.3g} (white)",)
        return images.InputPicture(
            display.image(seen),
            seen,
            (0, 0, width, height),
            source=pixels,
            remarks=remarks if display.stretched else (),
            display=display,
        )

    def read(self, picture: Any, *, size: Size | None = None) -> Tensor:
        """Read a picture into pixels (1, c, h, w) in [0, 1] on the network's device.

        A path, PIL image or array is scaled and its centre cut out; a tensor (c, h, w) or (1, c, h, w) is taken as it
        is. Raises PictureError when it cannot be read or is outside [0, 1].
        """
        return self.pixels(self.prepare(picture, size=size))

    def pixels(self, *pictures: images.InputPicture) -> Tensor:
        """Return what the network reads of prepared pictures of one size, (n, c, h, w), on its device."""
        return torch.from_numpy(np.stack([picture.pixels for picture in pictures])).to(self.device)

    @orderly
    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (n, c, h, w) in [0, 1] to the body's output, (n, classes) for a classifier.

        Raises PictureError for a wrong shape or a picture too small for the network.
        """
        with self.blaming_the_size(pixels):
            return self.run(pixels)

    @orderly
    def run(self, pixels: Tensor) -> Tensor:
        """Do what `forward` does, but let an error about the size be the network's own."""
        passes = self.passes(pixels)
        return passes[0]() if len(passes) == 1 else torch.cat([one() for one in passes])

    def passes(self, pixels: Tensor) -> list[Callable[[], Tensor]]:
        """Return the forward passes for pixels (n, c, h, w): one, or one for each picture where `behaviour` says so."""
        pixels = self.checked(pixels)
        if self._first.is_meta and not pixels.is_meta:
            bodies.check_data(self.body, self.name)
        if len(pixels) < 2 or not self.behaviour(pixels).alone:
            return [partial(self._pass, pixels, None, self.seed)]
        return [partial(self._pass, pixels, row, self.seed) for row in range(len(pixels))]

    @orderly
    def behaviour(self, pixels: Tensor) -> Behaviour:
        """Say how the network treats pictures like these (n, c, h, w), from a few passes when first asked.

        Whole photographs, which go through it in tiles or smaller, are taken as pictures of the network's own size.
        """
        if pixels.is_meta:
            return Behaviour()
        if math.prod(pixels.shape[2:]) > _LARGE * math.prod(self.size):
            pixels = pixels.new_zeros(1, self.channels, *self.size)
        with _looking:  # one thread looks, and the others wait for what it finds
            look = partial(behaviour_of, self.body, self._pass, pixels, self.seed)
            return self._behaviours.of(_size_key(pixels), look)

    def behaves_alike(self, pixels: Tensor, known: Tensor) -> None:
        """Take the network to treat pictures like `pixels` as it treats those like `known`, without looking."""
        behaviour = self.behaviour(known)
        with _looking:
            self._behaviours.of(_size_key(pixels), lambda: behaviour)

    @orderly
    def _pass(self, pixels: Tensor, row: int | None = None, seed: int | None = None) -> Tensor:
        """Run the body once, on all pictures of a batch or on that of one row."""
        pictures = pixels if row is None else pixels[row : row + 1]
        around = bodies.surroundings(self.body, pixels.device, holds_compiled=self._holds_compiled)
        with frozen(self.body), own_modes(), around, drawing(seed, pixels.device):
            return self._calling(self.body, self.normalise(pictures), None if row is None else (row, len(pixels)))

    def held(self) -> AbstractContextManager[None]:
        """Keep the body frozen for many passes, so that its modules are not looked through for each."""
        return frozen(self.body)

    @contextmanager
    def blaming_the_size(self, pixels: Tensor) -> Generator[None]:
        """Turn an error inside the block into a PictureError where it is due to the picture's size alone.

        The network is tried on other sizes: no hook of one's own may be attached any more when the block is left.
        """
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError, ValueError) as error:
            self._blame_the_size(pixels, error)
            raise

    def normalise(self, pixels: Tensor) -> Tensor:
        """Map pixels in [0, 1] to what the body reads, in the body's type."""
        mean, std = (torch.tensor(v, dtype=pixels.dtype, device=pixels.device) for v in (self.mean, self.std))
        inputs = ((pixels - mean[:, None, None]) / std[:, None, None]).to(self._first.dtype)
        return inputs.flip(1) if self.order == "BGR" else inputs

    def checked(self, pixels: Tensor) -> Tensor:
        """Return pixels as they are. Raises PictureError for what the network does not read."""
        if pixels.ndim != 4 or pixels.shape[1] != self.channels or 0 in pixels.shape[2:]:
            instead = self._reads_instead() or _laid_out(tuple(pixels.shape[1:]), self.channels)
            raise PictureError(
                f"{self.name} reads pixels of shape (n, {self.channels}, height, width), not {tuple(pixels.shape)}"
                f"{instead and f'; {instead}'}"
            )
        if not pixels.is_floating_point():
            divided = {torch.uint8: "pixels / 255", torch.bool: "pixels.float()"}.get(pixels.dtype)
            divided = "pixels.abs()" if pixels.is_complex() else divided
            raise PictureError(
                f"{self.name} reads floating point pixels in [0, 1], not {pixels.dtype}: "
                + (f"use {divided}" if divided else "divide by the value of white, as pixels / 4095 of 12 bits")
            )
        return pixels

    def _blame_the_size(self, pixels: Tensor, error: Exception) -> None:
        """Say so when the network fails on a picture's size alone."""
        size = tuple(pixels.shape[-2:])
        if size == self.size or self.runs_at(*size) or not self.runs_at(*self.size):
            return
        sides = range(1, min(self.size) + 1)
        smallest = sides[bisect_left(sides, True, key=lambda side: self.runs_at(side, side), hi=len(sides) - 1)]
        least = f"{self.name} needs at least {smallest}x{smallest}"
        if min(size) >= smallest:
            least = f"{self.name} reads {self.size[0]}x{self.size[1]}"
        raise PictureError(f"a picture of {size[0]}x{size[1]} pixels does not fit: {least}") from error

    def runs_at(self, height: int, width: int) -> bool:
        """Whether the network runs on a picture of that size, by a run without data."""
        try:
            dry_run.trace(self.body, (self.channels, height, width), self._calling)
        except Exception:  # whatever a model raises, it did not run
            return False
        return True

    def _reads_instead(self) -> str:
        return "" if self._calling.call else bodies.reads_instead(self.body)

    def _traced(self) -> list[dry_run.Execution]:
        height, width = self.size
        try:
            return dry_run.trace(self.body, (self.channels, height, width), self._calling)
        except (ConvscopeError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
            if 'missing the required "forward"' in str(error):
                raise NetworkError(f"{self.name} has no forward(): {bodies.with_forward(self.body)}") from error
            raise NetworkError(
                f"{self.name} does not run on a picture of {height}x{width} pixels ({told(error)}): "
                f"{self._reads_instead() or _OTHERWISE}"
            ) from error
        except Exception as error:  # a mistake in the body's own code, such as an attribute that it lacks
            raise NetworkError(f"{self.name} fails in its forward pass: {told(error)}") from error

    @property
    def layers(self) -> Mapping[str, Layer]:
        """Every layer that runs, by name, in the order in which they finish."""
        return self._layers or self._found()

    @orderly
    def _found(self) -> Mapping[str, Layer]:
        with _tracing:  # one thread looks, and the others wait for what it finds
            if self._layers is None:
                self._layers = self._marked(traced_layers(self.body, self._traced()))
            return self._layers

    @property
    def wiring(self) -> Wiring:
        """Which layer reads which, and the functions between layers, found when first asked."""
        return self._wiring or self._wired()

    @orderly
    def _wired(self) -> Wiring:
        height, width = self.size
        with _tracing:
            if self._wiring is None and self.layers:  # whatever is wrong with the network, they say
                self._wiring = wiring(self.body, (self.channels, height, width), self._calling)
            assert self._wiring is not None
            return self._wiring

    def _marked(self, layers: dict[str, Layer]) -> dict[str, Layer]:
        """Mark the layers that do not depend on the picture, by two passes where there may be some."""
        suspects = {name for name, layer in layers.items() if not layer.reads_picture}
        if not suspects and not self._calling.extra:
            return layers
        pixels = torch.zeros(1, self.channels, *self.size, device=self.device)
        unread = (
            ()
            if pixels.is_meta
            else unread_layers(self.body, self._pass, pixels, layers if self._calling.extra else suspects, suspects)
        )
        return {name: replace(layer, reads_picture=name not in unread) for name, layer in layers.items()}

    @property
    def output(self) -> Layer:
        """The output as a layer. Raises NetworkError when it is not a tensor, or has not as many classes as names."""
        if OUTPUT not in self.layers:
            raise NetworkError(f"{self.name} does not return a tensor: say what to look at, as in Net(..., output=0)")
        output = self.layers[OUTPUT]
        if self.classes and (len(output.shape) == 1 or output.spatial) and len(self.classes) != output.shape[0]:
            raise NetworkError(
                f"{self.name} has {len(self.classes)} class names for {output.shape[0]} outputs: give one name each"
                + self._names_meant(output.shape[0])
            )
        return output

    def _names_meant(self, count: int) -> str:
        """Guess what went wrong with names that are one too many."""
        if len(self.classes) != count + 1:
            return ""
        if count == 1:
            return f"; one output is that of one class, as classes=[{self.classes[1]!r}]"
        spare = next((at for at in (0, -1) if "background" in self.classes[at].lower()), None)
        return "" if spare is None else f"; without the background: classes=names[{'1:' if spare == 0 else ':-1'}]"

    @property
    def head(self) -> Head:
        """What the output's numbers are. Raises NetworkError for a head that the output cannot have."""
        output = self.output
        return settled_head(self._head, output.operation, output.shape, self.name)

    def layer(self, name: str | int) -> Layer:
        """Find a layer by its dotted name, or by n for the nth convolution in execution order.

        A module that is itself called "3" comes before the third convolution. Raises LayerError with the nearest names
        when there is none, or with the calls when it runs more than once.
        """
        name = str(name)
        if name in self.layers:
            return self.layers[name]
        twins = [key for key in self.layers if key.partition("#")[0] == name]
        if twins:
            raise LayerError(
                f"layer {name!r} of {self.name} runs {len(twins)} times: ask for {' or '.join(map(repr, twins))}"
            )
        for alias, module in self.body.named_modules(remove_duplicate=False):
            if alias == name:
                return self._alias(name, module)
        if name.isdigit():
            return self.convolution(int(name))
        raise LayerError(f"{self.name} has no layer {name!r}; nearest: {nearest(name, self.layers)}")

    def convolution(self, number: int) -> Layer:
        """Find the nth convolution in execution order, from 1. Raises LayerError when there are fewer."""
        found = [layer for layer in self.layers.values() if layer.number is not None]
        for layer in found:
            if layer.number == number:
                return layer
        raise LayerError(f"{self.name} has {len(found)} convolutions, numbered from 1: there is no {number}")

    def _alias(self, name: str, module: nn.Module) -> Layer:
        """Find a module that is registered under several names by its first name."""
        first = next(key for key, part in self.body.named_modules() if part is module)
        if first == name:
            opaque = bodies.in_one_piece(self.body)
            if opaque:
                raise LayerError(f"layer {name!r} of {self.name} cannot be read: {opaque}")
            raise LayerError(f"layer {name!r} of {self.name} exists but does not run, or does not return a tensor")
        return self.layer(first)

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the weights and buffers."""
        bodies.check_data(self.body, self.name)
        state = list(bodies.weights(self.body))
        marks = fingerprints.marks(state)
        if self._digest[0] != marks:
            self._digest = marks, fingerprints.sha256(state)
        return self._digest[1]

    def __repr__(self) -> str:
        height, width = self.size
        classes = f"{len(self.classes)} named classes" if self.classes else ""
        weights = f"weights {self._digest[1]}" if self._digest[1] else ""  # as far as known: it takes a while
        parts = (f"{self.channels} x {height} x {width} pixels", classes, weights, self.note)
        return f"<Net {self.name}: {', '.join(filter(None, parts))}>"

    def class_name(self, index: int) -> str:
        """Return the name of a class; without names "class 7", or "output 7" where outputs are no classes."""
        if index < len(self.classes):
            name = self.classes[index]
            return f"{name} ({index})" if name in self._shared_names else name
        if self.output.shape[:1] == (1,):
            return "the output" if self.head.kind == "value" else "the positive class"
        return f"output {index}" if self.head.kind == "value" else f"class {index}"


def _laid_out(shape: tuple[int, ...], channels: int) -> str:
    """Say how pixels of another shape, without the batch, become those of so many channels; "" where nobody knows."""
    if len(shape) == 3 and shape[-1] == channels and shape[0] != channels:
        return "channels come first in tensors: pixels.movedim(-1, -3)"
    if len(shape) == 3 and shape[0] == 1 and channels == 3:
        return f"grey as {channels} channels is pixels.expand(-1, {channels}, -1, -1)"
    return ""


def _size_key(pixels: Tensor) -> tuple[Any, ...]:
    """Return what pictures have in common that a network treats in one way."""
    return tuple(pixels.shape[1:]), pixels.dtype, pixels.device


def _written(value: Any) -> bool:
    """Whether a file can hold an option's value."""
    if isinstance(value, (list, tuple)):
        return all(map(_written, value))
    return value is None or isinstance(value, (str, int, float, bool))


def _checked_seed(seed: int | None) -> int | None:
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**64):
        raise NetworkError(f"seed is a whole number from 0 on, or None, not {seed!r}")
    return seed
