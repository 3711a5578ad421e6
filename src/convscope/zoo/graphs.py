"""Graphs: networks that come as a list of calls, in ONNX files and exported programs, as modules with named layers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import NetworkError, OptionError, PictureError, nearest
from ..net import Net

_CONSTANTS = "(constants)"
_SIDE = 224

MOST_NUMBERS = 2**26
"""A layer with more numbers than this for one picture is not believed: 256 MiB of 32 bits."""


@dataclass(frozen=True)
class Step:
    """One call: a layer's name, the values that it reads ("" for none) and those that it returns.

    `sizes` says that it looks at a tensor's shape alone, which a batch does not have one by one; `changes` that
    it works in place, so that it counts even where nobody reads what it returns.
    """

    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sizes: bool = False
    changes: bool = False


class Graph(nn.Module):
    """A network as steps between a picture and its outputs.

    Args:
        steps: the calls in order; `modules` has the module of each layer.
        constants: tensors by name that no step computes.
        picture: the name of what the network reads.
        outputs: names of what it returns: one tensor, or a dict of several.

    Raises ValueError when a value is read that is neither computed nor constant.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        modules: dict[str, nn.Module],
        constants: dict[str, Tensor],
        *,
        picture: str,
        outputs: Sequence[str],
    ) -> None:
        super().__init__()
        self.picture, self.outputs = picture, tuple(outputs)
        self.size: tuple[int, int] | None = None
        self.steps = _needed(steps, self.outputs)
        read = {name for step in self.steps for name in step.inputs if name} | set(outputs)
        unknown = read - constants.keys() - {picture, *(name for step in self.steps for name in step.outputs)}
        if unknown:
            raise ValueError(f"nothing computes {sorted(unknown)[0]!r}, which is read")
        self._keys = {name: f"constant_{i}" for i, name in enumerate(n for n in constants if n in read)}
        held = nn.Module()
        for name, key in self._keys.items():
            held.register_buffer(key, constants[name])
        self.add_module(_CONSTANTS, held)
        for step in self.steps:
            _add(self, step.layer, modules[step.layer])
        self._done = _last_uses(self.steps, {*self.outputs, picture})

    def forward(self, picture: Tensor) -> Any:
        values: dict[str, Any] = {self.picture: picture}
        for step, done in zip(self.steps, self._done, strict=True):
            try:
                results = self.results(step, values)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError) as error:
                self._blame_the_size(picture, step, error)
                raise
            values.update(zip(step.outputs, results, strict=True))
            for name in done:
                values.pop(name, None)
        found = {name: self.value(name, values) for name in self.outputs}
        return found if len(found) > 1 else found[self.outputs[0]]

    def _blame_the_size(self, picture: Tensor, step: Step, error: Exception) -> None:
        """Say so when a file's numbers are those of another size."""
        height, width = picture.shape[-2:]
        if self.size and (height, width) != self.size:
            made = f"{self.size[0]}x{self.size[1]}"
            raise PictureError(
                f"a picture of {height}x{width} pixels does not fit a file for {made}: layer {step.layer!r} fails. "
                "Leave out the size, or export the network for it"
            ) from error

    def results(self, step: Step, values: dict[str, Any]) -> tuple[Any, ...]:
        """Run one step on values at hand."""
        result = self.get_submodule(step.layer)(*(self.value(name, values) for name in step.inputs))
        return tuple(result) if isinstance(result, (tuple, list)) else (result,)

    def value(self, name: str, values: dict[str, Any]) -> Any:
        """Return a value by name: computed, constant, or None for what is left out."""
        if name in values or not name:
            return values.get(name)
        return self.get_submodule(_CONSTANTS).get_buffer(self._keys[name])


@dataclass(frozen=True)
class Slot:
    """The place of the nth thing that a call reads."""

    index: int


class Call(nn.Module):
    """A function as a layer: `args` and `kwargs` hold a `Slot` where something is read."""

    def __init__(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.function, self.args, self.kwargs = function, tuple(args), kwargs or {}

    def forward(self, *given: Any) -> Any:
        return self.function(*_filled(self.args, given), **_filled(self.kwargs, given))

    def extra_repr(self) -> str:
        return getattr(self.function, "__name__", "")


class Creation(Call):
    """A function that makes a tensor of numbers alone, where the network is."""

    def __init__(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        super().__init__(function, args, kwargs)
        self.register_buffer("here", torch.empty(0), persistent=False)

    def forward(self, *given: Any) -> Any:
        with self.get_buffer("here").device:
            return super().forward(*given)


def _filled(value: Any, given: Sequence[Any]) -> Any:
    if isinstance(value, Slot):
        return given[value.index]
    if type(value) in (tuple, list):
        return type(value)(_filled(item, given) for item in value)
    if isinstance(value, dict):
        return {key: _filled(item, given) for key, item in value.items()}
    return value


class Reshape(nn.Module):
    """Give a tensor other dimensions; 0 keeps a dimension, -1 takes what is left.

    `leads` says how many entries along the first dimension one picture has before and after, so that places of a
    picture of another size are not taken for pictures. Raises RuntimeError where numbers do not fit.
    """

    def __init__(self, sizes: Sequence[int], leads: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.sizes, self.leads = tuple(sizes), leads

    def forward(self, x: Tensor) -> Tensor:
        result = x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(self.sizes)])
        if self.leads and len(result) * self.leads[0] != len(x) * self.leads[1]:
            raise RuntimeError(f"shape {tuple(x.shape)} cannot become {self.sizes} for each picture")
        return result


class Each(nn.Module):
    """Run a layer for every picture of a batch by itself, and put the results side by side.

    `leads` says for every input how many entries along the first dimension one picture has; None where all pictures
    share it.
    """

    def __init__(self, inner: nn.Module, leads: Sequence[int | None]) -> None:
        super().__init__()
        self.inner, self.leads = inner, tuple(leads)

    def forward(self, *given: Any) -> Any:
        count = next(len(value) // lead for value, lead in zip(given, self.leads, strict=True) if lead)
        if count == 1:
            return self.inner.forward(*given)
        # `forward` and not the call: hooks see the batch once, at this module.
        parts = [
            self.inner.forward(*(v[i * k : (i + 1) * k] if k else v for v, k in zip(given, self.leads, strict=True)))
            for i in range(count)
        ]
        if isinstance(parts[0], Tensor):
            return torch.cat(parts)
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def layer_names(positions: Sequence[tuple[Sequence[str], str]]) -> list[str]:
    """Name the layers of a graph, each by the module that made the call and, where it made several, the operation.

    `places` has for every call the path of its module and the operation's name. No name is the beginning of another.
    """
    paths = [tuple(map(_identifier, path)) for path, _ in positions]
    inside = {path[:n] for path in paths for n in range(1, len(path))}
    names: list[str] = []
    taken: set[tuple[str, ...]] = set()
    for path, (_, operation) in zip(paths, positions, strict=True):
        alone = path and paths.count(path) == 1 and path not in inside
        name = path if alone else (*path, _identifier(operation))
        stem, number = name[-1], 0
        while name in taken or name in inside or (not alone and name in paths):
            number += 1
            name = (*name[:-1], f"{stem}_{number}")
        taken.add(name)
        names.append(".".join(name))
    return names


def _identifier(part: str) -> str:
    """Return part of a layer's name without what a module's attribute cannot be called."""
    plain = re.sub(r"\W+", "_", part, flags=re.ASCII)[:100] or "_"
    return f"{plain}_" if hasattr(nn.Module, plain) or hasattr(_EMPTY, plain) else plain


_EMPTY = nn.Module()


def _needed(steps: Sequence[Step], outputs: Iterable[str]) -> list[Step]:
    """Leave out steps whose results nobody reads."""
    needed, kept = set(outputs), list[Step]()
    for step in reversed(steps):
        if step.changes or needed & set(step.outputs):
            kept.append(step)
            needed |= set(step.inputs)
    return kept[::-1]


def _last_uses(steps: Sequence[Step], kept: set[str]) -> list[list[str]]:
    """Say after which step each value is no longer read."""
    last = {name: i for i, step in enumerate(steps) for name in (*step.inputs, *step.outputs)}
    done: list[list[str]] = [[] for _ in steps]
    for name, i in last.items():
        if name not in kept:
            done[i].append(name)
    return done


def _add(root: nn.Module, name: str, module: nn.Module) -> None:
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, module)


def as_net(
    body: Graph, path: Path, shape: tuple[int, Any, Any], notes: list[str], reading: dict[str, Any], *, single: bool
) -> Net:
    """Wrap the graph of a file that reads pictures of `shape` (c, h, w); h and w are None where it leaves them open.

    `single` says that the file was made for one picture at a time. Captions say what was guessed. Raises what
    `fit_to_batches` raises.
    """
    channels, *sides = shape
    size: Any = reading.get("size", tuple(sides))
    if None in (size if isinstance(size, tuple) else ()):
        size = _SIDE
        notes = [*notes, f"read at {_SIDE}x{_SIDE} pixels, since the file leaves the size open"]
    if "mean" not in reading and "std" not in reading:
        notes = [*notes, "reads pixels in [0, 1] as they are, since no mean and std were given"]
    height, width = (size, size) if isinstance(size, int) else size
    fit_to_batches(body.eval(), (channels, height, width), name=path.name, single=single)
    own: dict[str, Any] = {"name": path.stem, "note": "; ".join(notes), "channels": channels}
    options: dict[str, Any] = own | reading | {"size": size}
    return Net(body, **options)


def refuse_weights(name: str, weights: object) -> None:
    """Raise OptionError for weights that are given besides a file that has its own."""
    if weights != "default":
        raise OptionError(
            f"{name} has its weights inside: leave out weights, or load the Python model by file:MY_MODEL.py:build"
        )


def one_input(names: Sequence[str], path: Path) -> str:
    """Return the name of what reads the picture. Raises NetworkError where a file reads more or nothing."""
    if len(names) != 1:
        raise NetworkError(
            f"{path} has {len(names)} inputs ({', '.join(map(repr, names)) or 'none'}), and one picture is given: wrap "
            "the Python model, as in load('file:MY_MODEL.py:build', extra=...)"
        )
    return names[0]


def refuse_batches(count: int | None, path: Path) -> None:
    """Raise NetworkError for a file that was made for a fixed number of pictures above one."""
    if count is not None and count > 1:
        raise NetworkError(f"{path} takes {count} pictures at a time: export it for one, or for a batch of any size")


def refuse_operations(names: set[str], path: Path, version: str = "") -> None:
    """Raise NetworkError that names all operations that are not known, at once."""
    if names:
        what = f"{len(names)} operation{'s' if len(names) > 1 else ''}{version}"
        raise NetworkError(
            f"{path} uses {what} not known here ({', '.join(sorted(names))}): load the Python model by "
            "file:MY_MODEL.py:build"
        )


def chosen_outputs(names: Sequence[str], path: Path, reading: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the outputs of a file that are looked at, and notes that say so.

    They are one, the first where nothing is asked for, or all where a function in `reading` chooses. Raises OptionError
    for an output that does not exist, NetworkError where there is none.
    """
    if not names:
        raise NetworkError(f"{path} returns no tensor")
    asked = reading.get("output", 0)
    if callable(asked):
        return list(names), []
    reading.pop("output", None)
    numbered = isinstance(asked, int) and -len(names) <= asked < len(names)
    chosen = names[asked] if numbered else str(asked)
    if chosen not in names:
        there = nearest(chosen, names)
        raise OptionError(f"{path} has no output {asked!r}; it has {len(names)}: {there}, or by number as in output=0")
    return [chosen], [f"its output {chosen!r} of {len(names)}"] if len(names) > 1 else []


def fit_to_batches(graph: Graph, shape: tuple[int, int, int], *, name: str, single: bool) -> None:
    """Make a graph take several pictures at once, whatever it was exported for, and see that it runs.

    Two random pictures of `shape` (c, h, w) go through the network together and each by itself. Where that is not the
    same, or it was made for a `single` picture, they go through layer by layer: one that does not keep them apart, such
    as a reshape to (1, 512), is replaced by one that does. Raises NetworkError where a layer does not run, would fill
    the memory, or mixes the pictures of a batch whatever is done.
    """
    dtype = next((p.dtype for p in graph.parameters() if p.is_floating_point()), torch.float32)
    if 2 * math.prod(shape) > MOST_NUMBERS:
        raise NetworkError(f"{name} reads {shape[1]}x{shape[2]} pixels, which is too many: give a smaller size=")
    both = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    both[1] *= torch.linspace(0, 1, shape[2])  # two pictures of noise alone look alike to a network
    with torch.no_grad():
        if single or not _Trial(graph, both, name).as_it_is():
            _Trial(graph, both, name).layer_by_layer()
    graph.size = shape[1:]


class _Trial:
    """Two pictures on their way through a graph, together and by themselves."""

    def __init__(self, graph: Graph, both: Tensor, name: str) -> None:
        self.graph, self.name = graph, name
        self.both: dict[str, Any] = {graph.picture: both}
        self.alone: list[dict[str, Any]] = [{graph.picture: both[i : i + 1].clone()} for i in range(2)]
        self.moving = {graph.picture}

    def as_it_is(self) -> bool:
        """Whether the network keeps the pictures of a batch apart."""
        for step, done in zip(self.graph.steps, self.graph._done, strict=True):
            self._by_themselves(step)
            self._forget(done)
        try:
            got = self.graph(self.both[self.graph.picture].clone())
        except Exception:  # made for one picture, it may raise anything on two
            return False
        named = got if isinstance(got, dict) else {self.graph.outputs[0]: got}
        return all(_apart(got, *(values[key] for values in self.alone)) for key, got in named.items())

    def layer_by_layer(self) -> None:
        """Follow both pictures through every layer, and repair those that do not keep them apart."""
        for step, done in zip(self.graph.steps, self.graph._done, strict=True):
            first, second = self._by_themselves(step)
            if step.sizes or not self.moving & set(step.inputs):
                results = self.graph.results(step, self.both)
            else:
                self.moving.update(step.outputs)
                results = self._together(step, first, second)
            self.both.update(zip(step.outputs, results, strict=True))
            self._forget(done)

    def _forget(self, names: list[str]) -> None:
        for values in (self.both, *self.alone):
            for name in names:
                values.pop(name, None)

    def _by_themselves(self, step: Step) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        self._weigh(step)
        try:
            first, second = (self.graph.results(step, values) for values in self.alone)
            if len(first) != len(step.outputs):
                raise ValueError(f"it returns {len(first)} tensors, and {len(step.outputs)} are expected")
        except Exception as error:  # whatever a layer raises on numbers that do not fit
            raise NetworkError(f"{self.name} does not run: layer {step.layer!r} fails ({said(error)})") from None
        for values, results in zip(self.alone, (first, second), strict=True):
            values.update(zip(step.outputs, results, strict=True))
        return first, second

    def _together(self, step: Step, first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return what a layer makes of both pictures at once, repairing it where they are not kept apart."""
        given = {name: self.both[name] for name in step.inputs if name in self.both}
        for module in (None, *self._repairs(step, first)):
            if module is not None:
                self.graph.set_submodule(step.layer, module)
            try:
                got = self.graph.results(step, given)
                if all(_apart(*triple) for triple in zip(got, first, second, strict=True)):
                    _round_alike(got, first, second)
                    return got
            except Exception:  # a layer made for one picture may raise anything on two
                continue
        raise NetworkError(
            f"{self.name} takes one picture at a time: layer {step.layer!r} mixes the pictures of a batch. "
            "Export it again with a batch of any size (a dynamic first dimension)"
        )

    def _repairs(self, step: Step, first: tuple[Any, ...]) -> list[nn.Module]:
        values = [self.graph.value(name, self.alone[0]) for name in step.inputs]
        moving = [name in self.moving for name in step.inputs]
        repairs: list[nn.Module] = []
        source = values[moving.index(True)]
        if moving.count(True) == len(first) == 1 and _same_numbers(source, first[0]):
            before, after = _lead(source), _lead(first[0])
            if before and after:
                repairs.append(Reshape((-1, *first[0].shape[1:]), (before, after)))
        leads = [_lead(value) if moves else None for value, moves in zip(values, moving, strict=True)]
        if any(leads):
            repairs.append(Each(self.graph.get_submodule(step.layer), leads))
        return repairs

    def _weigh(self, step: Step) -> None:
        """Run a layer without data first, so that a damaged size is seen before it fills the memory."""
        module = self.graph.get_submodule(step.layer)
        held = {k: v.to("meta") for k, v in (*module.named_parameters(), *module.named_buffers())}
        given = [self.graph.value(name, self.alone[0]) for name in step.inputs]
        given = [v.to("meta") if isinstance(v, Tensor) and v.is_floating_point() else v for v in given]
        try:
            found = torch.func.functional_call(module, held, tuple(given))
        except Exception:  # it says so itself when it runs with data
            return
        for result in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(result, Tensor) and result.numel() > MOST_NUMBERS:
                raise NetworkError(
                    f"{self.name} is damaged or needs smaller pictures: layer {step.layer!r} would have "
                    f"{result.numel():,} numbers for one picture, {MOST_NUMBERS:,} at most are computed"
                )


def _apart(got: Any, first: Any, second: Any) -> bool:
    """Whether what came of two pictures together is what came of each, side by side."""
    if not isinstance(got, Tensor):
        return got == first == second
    expected = torch.cat((first, second))
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return False
    if not got.is_floating_point() or not got.numel():
        return torch.equal(got, expected)
    # Rounding depends on the batch; what mixes two pictures changes them by as much as they differ.
    unlike, largest = (v.nan_to_num(0, 0, 0).abs().max() for v in (first - second, expected))
    near = (got - expected).abs() <= 1e-3 * unlike + 100 * torch.finfo(got.dtype).eps * largest
    return bool((near | (got == expected) | (got.isnan() & expected.isnan())).all())


def _round_alike(got: Sequence[Any], first: Sequence[Any], second: Sequence[Any]) -> None:
    """Take what a batch rounds differently out of it, in place, so that it does not grow from layer to layer."""
    for result, *alone in zip(got, first, second, strict=True):
        if isinstance(result, Tensor) and not torch.equal(result, expected := torch.cat(alone)):
            result.copy_(expected)


def _lead(value: Any) -> int | None:
    """How many entries one picture has along the first dimension."""
    return len(value) if isinstance(value, Tensor) and value.ndim else None


def _same_numbers(source: Any, result: Any) -> bool:
    return (
        isinstance(source, Tensor)
        and isinstance(result, Tensor)
        and source.numel() == result.numel()
        and torch.equal(source.reshape(-1), result.reshape(-1))
    )


def said(error: Exception) -> str:
    """Return the beginning of what an error of another library says."""
    words = " ".join(str(error).split())[:200]
    return words if " " in words else f"{type(error).__name__}: {words}".removesuffix(": ")
