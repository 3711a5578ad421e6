"""The runner: everything registered runs here, whoever calls it, and comes back as a drawing that knows its recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from PIL import Image
from torch import Tensor

from . import provenance, registry
from .averaging import over_seeds
from .context import listen, running, say, whole
from .data.images import InputPicture, PictureSource
from .data.pictures import read_pictures
from .data.preprocessing import Size
from .drawing.drawings import Drawing, Heatmap, Picture
from .errors import NetworkError, ObjectiveError, OptionError, PictureError
from .interruptions import orderly
from .net import Net
from .objectives import Objective, Probability
from .predictions import ObjectiveLike, batched, checked_objective, settle, settle_each
from .provenance import footnote, with_remarks
from .recipes import DATA, FAILED, PictureRecord, Recipe, making
from .registry import Entry


@orderly
def explain(
    net: Net,
    picture: Any,
    method: str,
    of: ObjectiveLike = None,
    *,
    size: Size | None = None,
    seeds: int | None = None,
    **options: Any,
) -> Heatmap:
    """Show what in a picture made the network respond as it did.

    Args:
        net: the network; `convscope.load(name)` or `Net(module, ...)`.
        picture: a path, PIL image, array, or tensor (c, h, w) in [0, 1].
        method: the name of a method, such as "grad_cam"; `convscope.list_methods()` lists them.
        of: the objective (see `as_objective`); the top-1 class when not given.
        size: another input side than the network's own, in pixels, or (height, width).
        seeds: of a network that draws random numbers, over how many draws the map is averaged; the caption says how
            far they differ.
        options: the method's own, as its docstring lists them.

    Returns a Heatmap in the pixels of the network's input. Raises a ConvscopeError that says what to do.

    >>> import convscope
    >>> net = convscope.load("zfnet64")
    >>> convscope.explain(net, "sample:chelsea", "grad_cam")  # doctest: +ELLIPSIS
    <Heatmap ...>
    """
    check_net(net, "explain")
    entry = registry.find(method)
    options = entry.check_options(options)
    _check_one_picture(picture)
    prepared = net.prepare(picture, size=size)
    pixels = net.pixels(prepared)
    if seeds is None:
        check_repeatable(net, pixels)
    recipe = provenance.recipe(net, entry, [prepared], of, options, size=size, seeds=seeds)
    with listen() as remarks, making(recipe):
        for remark in prepared.remarks:
            say(remark)
        if seeds is None:
            objective, title = settle(net, pixels, of)
            say(net.behaviour(pixels).remark)
            values = entry.function(net, pixels, objective, **options)[0]
        else:
            values, objective, title = over_seeds(
                net, pixels, of, seeds, lambda one, settled: entry.function(one, pixels, settled, **options)[0]
            )
    check_map(net, values, entry.name)
    return heatmap(net, entry, prepared, values, objective, title, with_remarks(net, recipe, remarks))


@orderly
def attribute(
    net: Net,
    pixels: Tensor,
    method: str,
    of: ObjectiveLike | Sequence[ObjectiveLike] = None,
    **options: Any,
) -> Tensor:
    """Return maps for a batch of pixels, each picture by an objective of its own.

    Args:
        net: the network.
        pixels: (n, c, h, w) in [0, 1], on any device.
        method: the name of a method, as for `explain`.
        of: one objective for all, or a list of n; each picture's top-1 class when not given.
        options: the method's own.

    Returns (n, c, h, w) or (n, 1, h, w), on the network's device. Raises ObjectiveError for another number of
    objectives than pictures, and whatever `explain` raises.

    >>> import convscope
    >>> net = convscope.load("zfnet64")
    >>> pixels = net.read("sample:chelsea").repeat(2, 1, 1, 1)
    >>> convscope.attribute(net, pixels, "grad_cam", of=[3, "relu6:7"]).shape
    torch.Size([2, 1, 64, 64])
    """
    check_net(net, "attribute")
    entry = registry.find(method)
    options = entry.check_options(options)
    if not isinstance(pixels, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PictureError(
            f"attribute reads pixels, a tensor (n, {net.channels}, h, w) in [0, 1], not {type(pixels).__name__}: "
            "net.read(picture) makes them, explain and explain_many take pictures"
        )
    pixels = pixels.to(net.device)
    check_repeatable(net, net.checked(pixels))
    with whole():  # nobody hears here that it is a part
        maps = entry.function(net, pixels, _objectives(net, pixels, of), **options)
    check_map(net, maps, entry.name)
    return maps


def _objectives(net: Net, pixels: Tensor, of: ObjectiveLike | Sequence[ObjectiveLike]) -> Objective:
    if of is None:
        return batched(settle_each(net, pixels, None)[0])
    if not isinstance(of, (list, tuple)):
        return checked_objective(net, of, pixels)  # pyright: ignore[reportArgumentType]
    if len(of) != len(pixels):
        raise ObjectiveError(f"there are {len(of)} objectives for {len(pixels)} pictures: give one, or one per picture")
    settled = [
        settle(net, pixels[row : row + 1], None)[0] if each is None else checked_objective(net, each, pixels)
        for row, each in enumerate(of)
    ]
    return batched(settled)


@orderly
def run(entry: Entry, *inputs: Any, **options: Any) -> Any:
    """Run a view, study or scan: prepare its pictures, check its options, and stamp what it draws with its recipe.

    `inputs` are the network and what the entry takes besides it, in order. Raises OptionError when they do not fit.
    """
    net, sources = _bound(entry, inputs, options)
    options = entry.check_options(options)
    prepared = {
        name: _prepared(net, source, annotation, options)
        for (name, annotation), source in zip(entry.inputs.items(), sources, strict=True)
    }
    sizes = [each.pixels.shape[1:] for each in _flat(prepared) if isinstance(each, InputPicture)]
    pixels = blank(net, sizes[0] if sizes else net.size)
    check_repeatable(net, pixels)
    prepared = _read(entry, net, prepared, options)
    pictures = _flat(prepared)
    recipe = provenance.recipe(net, entry, pictures, options.get("of"), options)
    with listen() as remarks, making(recipe):
        say(net.behaviour(pixels).remark)
        for picture in pictures:
            for remark in getattr(picture, "remarks", ()):
                say(remark)
        drawing: Drawing = entry.function(net, *prepared.values(), **options)
    if isinstance(drawing, Picture):
        drawing = replace(drawing, show=net.show)
    draft = drawing.recipe
    failed = [reason for picture in pictures for reason in getattr(picture, "failed", ())]
    given = [where for picture in pictures for where in getattr(picture, "given", ())]
    settled = (
        {**recipe.settled, **draft.settled} | ({FAILED: failed} if failed else {}) | ({DATA: given} if given else {})
    )
    recipe = replace(recipe, objective=draft.objective, settled=settled)
    recipe = with_remarks(net, recipe, (*draft.remarks, *remarks))
    return drawing.with_recipe(recipe, footnote(net, entry, recipe))


def blank(net: Net, size: tuple[int, int]) -> Tensor:
    """Return one black picture (1, c, h, w), on the network's device."""
    return torch.zeros(1, net.channels, *size, device=net.device)


def _bound(entry: Entry, inputs: Sequence[Any], options: dict[str, Any]) -> tuple[Net, list[Any]]:
    """Return the network and the inputs of a call, given by position or by name."""
    names = ["net", *entry.inputs]
    call = f"convscope.{entry.name}({', '.join(names)}, ...)"
    order = [*names, *entry.options]
    if len(inputs) > len(order):
        raise OptionError(
            f"{entry.name} was given {len(inputs) - len(order)} values too many: after {', '.join(names)} it takes "
            f"{', '.join(entry.options) or 'no more'}"
        )
    placed = dict(zip(order, inputs, strict=False))
    for name in placed:
        if name in options:
            raise OptionError(f"{entry.name} was given {name} twice, by position and by name: give it once")
    options |= {name: placed.pop(name) for name in entry.options if name in placed}
    values = placed | {name: options.pop(name) for name in names if name in options}
    missing = [name for name in names if name not in values]
    if missing:
        raise OptionError(f"{entry.name} needs {' and '.join(missing)}: {call}")
    check_net(values["net"], entry.name)
    return values["net"], [values[name] for name in entry.inputs]


class Unread(BaseException):
    """An input was asked for what is in its pictures before it was read."""


_listed_only: ContextVar[bool] = ContextVar("nothing is read yet", default=False)


def check_read() -> None:
    """Raise Unread where nothing is read yet: whoever begins long work, or writes, calls this."""
    if _listed_only.get():
        raise Unread


class Input(Protocol):
    """What an input may be annotated with that reads its own source, such as a data set with labels."""

    @classmethod
    def listed(cls, net: Net, source: Any, options: Mapping[str, Any]) -> Self:
        """List what the function is given, of a source and the entry's options; what is in it raises Unread."""
        ...

    def read(self) -> Self:
        """Read it."""
        ...

    @property
    def is_read(self) -> bool:
        """Whether it is read."""
        ...

    @property
    def record(self) -> PictureRecord:
        """Which pictures they are."""
        ...

    @property
    def failed(self) -> Sequence[str]:
        """Why some could not be read, and were left out."""
        ...

    @property
    def remarks(self) -> Sequence[str]:
        """What must be said of them."""
        ...

    @property
    def given(self) -> Sequence[str]:
        """The addresses that were given, where all sources have one."""
        ...


def reads_itself(annotation: Any) -> bool:
    """Whether an input's annotation is an `Input`."""
    return isinstance(getattr(annotation, "record", None), property)


def _prepared(net: Net, source: Any, annotation: Any, options: Mapping[str, Any]) -> Any:
    """Return a picture, several, or an `Input`, as the network reads them where the function asks for that."""
    if reads_itself(annotation):
        return source if isinstance(source, annotation) else annotation.listed(net, source, options)
    if annotation is InputPicture:
        _check_one_picture(source)
        return net.prepare(source)
    if annotation not in (list[InputPicture], list[PictureSource]):
        return source
    several = isinstance(source, (list, tuple)) or (isinstance(source, Tensor) and source.ndim == 4)
    sources = list(source if several else [source])
    if annotation == list[PictureSource]:
        return [found for each in sources for found in _addresses(each)]
    pictures = [net.prepare(picture) for picture in sources]
    sizes = sorted({picture.pixels.shape[1:] for picture in pictures})
    if len(sizes) != 1:
        shown = " and ".join(f"{height} × {width}" for height, width in sizes) or "none"
        raise PictureError(f"one sheet shows pictures of one size, not {shown}")
    return pictures


def _flat(inputs: Mapping[str, Any]) -> list[Any]:
    return [each for value in inputs.values() for each in (value if isinstance(value, list) else [value])]


def _read(entry: Entry, net: Net, inputs: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Read what is listed, after the function has refused what it can without: it runs until it asks for a picture."""
    listed = [name for name, kind in entry.inputs.items() if reads_itself(kind) and not inputs[name].is_read]
    if listed:
        token = _listed_only.set(True)
        try:
            with listen(), running(tracker=lambda steps, _: steps), suppress(Unread):
                entry.function(net, *inputs.values(), **options)
        finally:
            _listed_only.reset(token)
    return inputs | {name: inputs[name].read() for name in listed}


def _addresses(source: Any) -> list[Any]:
    """Return the addresses of the pictures that a folder, a pattern or an archive stands for, else what was given."""
    if not isinstance(source, (str, Path)):
        return [source]
    return [picture.where for picture in read_pictures([source])]


def heatmap(
    net: Net, entry: Entry, picture: InputPicture, values: Tensor, objective: Objective, title: str, recipe: Recipe
) -> Heatmap:
    """Draw the map of one picture, with what a reader must know beneath it."""
    return Heatmap(
        values=values.detach(),
        picture=picture,
        recipe=replace(recipe, objective=str(objective)),
        title=title,
        subtitle=f"{entry.title} · {net.name}" + (f" · {picture.name}" if picture.name else ""),
        note=footnote(net, entry, recipe),
        unit=_unit(entry, objective),
        signed=entry.signed,
        projects=entry.projects,
    )


def check_map(net: Net, values: Tensor, method: str) -> None:
    """Raise NetworkError when a map holds NaN or infinite values."""
    if not torch.isfinite(values).all():
        raise NetworkError(f"{method} gave NaN or infinite values on {net.name}: its weights or activations overflow")


def check_repeatable(net: Net, pixels: Tensor) -> None:
    """Raise NetworkError when a network gives another answer each time for pictures like `pixels` (n, c, h, w)."""
    behaviour = net.behaviour(pixels)
    if not behaviour.random:
        return
    ways = "take that out of its forward pass"
    if behaviour.seedable:
        ways = (
            "switch that off in eval mode, fix its numbers by Net(..., seed=0) or --net-seed 0, or average over some "
        )
        ways += "by explain(..., seeds=8)"
    if "dropout" in behaviour.random:
        ways = ways.replace("switch that off in eval mode", "pass training=self.training to it")
    raise NetworkError(f"{net.name} is random, with another answer each time: {behaviour.random}; {ways}")


def check_net(net: Any, caller: str) -> None:
    """Raise NetworkError when a network is not wrapped in a Net."""
    if not isinstance(net, Net):
        raise NetworkError(
            f"{caller} needs a Net, not {type(net).__name__}: wrap it, as Net(module, mean=..., std=..., size=...)"
        )


def _check_one_picture(picture: Any) -> None:
    if isinstance(picture, (list, tuple)) and not isinstance(picture, Image.Image):
        raise PictureError(
            f"expected one picture, not a {type(picture).__name__} of {len(picture)}: for many, "
            "explain_many(net, pictures, method)"
        )


def _unit(entry: Entry, objective: Objective) -> str:
    words = {term.head.word if isinstance(term, Probability) else "score" for _, term in objective.terms}
    return entry.unit.replace("score", min(words)) if len(words) == 1 else entry.unit
