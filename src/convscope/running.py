"""explain: one picture, one objective, one method, one drawing."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from . import registry
from .context import listen
from .data.images import InputPicture
from .drawing.drawings import Heatmap, Recipe
from .errors import NetworkError, ObjectiveError
from .net import Net
from .objectives import WHOLE_OUTPUT, Objective, Probability, Unit, as_objective, probabilities
from .tapping import tap
from .terms import judges_making

ObjectiveLike = str | int | Objective | Callable[[Tensor], Tensor] | None


def predict(net: Net, pixels: Tensor) -> Tensor:
    """Return class probabilities (n, classes): the softmax of the output, or the output where it is one already.

    Raises NetworkError when the output is not (n, classes) or is NaN.
    """
    with torch.inference_mode():
        output = net(pixels).float()
    if output.ndim != 2:
        shape = tuple(output.shape)
        raise NetworkError(f"{net.name} gives outputs of shape {shape}, not (n, classes): ask with of={_how(output)}")
    check_output(net, output)
    return probabilities(output)


def _how(output: Tensor) -> str:
    """Say how to ask about an output that is not (n, classes)."""
    if output.ndim == 1:
        return repr(WHOLE_OUTPUT)
    if output.ndim != 4:
        return "a function of the output that gives one number per picture"
    return repr(f":0@{output.shape[2] // 2},{output.shape[3] // 2}") + ", a channel at a row and column"


def check_output(net: Net, output: Tensor) -> None:
    """Raise NetworkError when an output holds NaN or infinite values."""
    if not torch.isfinite(output).all():
        raise NetworkError(
            f"{net.name} answers with NaN or infinite values for this picture: no map of it would mean anything"
        )


def explain(
    net: Net, picture: Any, method: str, of: ObjectiveLike = None, *, size: int | None = None, **options: Any
) -> Heatmap:
    """Ask what in a picture made the network answer as it did.

    Args:
        net: the network; `convscope.load(name)` or `Net(module, ...)`.
        picture: a path, PIL image, array, or tensor (c, h, w) in [0, 1].
        method: the name of a registered method, such as "grad_cam"; the table in the README lists them.
        of: the objective (see `as_objective`); the network's first choice when not given.
        size: another input side than the network's own, in pixels.
        options: the method's own, as its docstring lists them.

    Returns a Heatmap in the pixels of the network's input. Raises a ConvscopeError that says what to do.
    """
    if not isinstance(net, Net):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise NetworkError(
            f"explain needs a Net, not {type(net).__name__}: wrap it, as Net(module, mean=..., std=..., size=...)"
        )
    entry = registry.find(method)
    entry.check_options(options)
    view = net.prepare(picture, size=size)
    pixels = net.pixels(view)
    objective, title = settle(net, pixels, of)
    with listen() as remarks:
        values = entry.function(net, pixels, objective, **options)[0]
    _check_map(net, values, entry.name)
    return Heatmap(
        values=values.detach(),
        picture=view,
        recipe=recipe(net, method, [view], str(objective), options | ({"size": size} if size else {}), remarks),
        title=title,
        subtitle=f"{entry.title} · {net.name}" + (f" · {view.name}" if view.name else ""),
        note=footnote(net, entry, remarks),
        unit=_unit(entry, objective),
        signed=entry.signed,
        projects=entry.projects,
    )


def _check_map(net: Net, values: Tensor, method: str) -> None:
    if not torch.isfinite(values).all():
        raise NetworkError(f"{method} gave NaN or infinite values on {net.name}: its weights or activations overflow")


def _unit(entry: registry.Entry, objective: Objective) -> str:
    asked = all(isinstance(term, Probability) for _, term in objective.terms)
    return entry.unit.replace("score", "probability") if asked else entry.unit


def settle(net: Net, pixels: Tensor, of: ObjectiveLike) -> tuple[Objective, str]:
    """Settle the objective, and say it in plain words with the network's answer.

    Without one, the first choice is asked about; of a network that gives one number per picture, this number.
    """
    if of is None and not net.output.shape:
        of = WHOLE_OUTPUT
    if of is None:
        probabilities = predict(net, pixels)[0]
        first = int(probabilities.argmax())
        return as_objective(net, first), _class_title(net, first, probabilities)
    objective = as_objective(net, of).at("max")
    for _, term in objective.terms:
        if judges_making(term):
            raise ObjectiveError(f"{term} judges a picture that is being made, not a given one: ask maximize or dream")
    index = objective.class_index
    if index is not None and len(net.output.shape) == 1:
        return objective, _class_title(net, index, predict(net, pixels)[0])
    with torch.inference_mode():
        readings = tap(net, pixels, objective.layers)
        value = float(objective.score(readings))
    check_output(net, torch.tensor(value))
    where = _strongest(objective, readings)
    title = objective.title(net)
    return objective, f"{title[:1].upper()}{title[1:]}{where}, {value:.3g}: what made it respond?"


def _class_title(net: Net, index: int, probabilities: Tensor) -> str:
    share, first = float(probabilities[index]), int(probabilities.argmax()) == index
    shown = f"{share:.2f}" if share >= 0.01 else f"{share:.1g}"
    return f"{net.class_name(index)}, {shown}: what {'made it say so' if first else 'speaks for it'}?"


def _strongest(objective: Objective, readings: dict[str, Tensor]) -> str:
    """Name the place of a single channel that was asked for at its strongest place."""
    _, term = objective.terms[0]
    if len(objective.terms) > 1 or not isinstance(term, Unit) or term.position != "max" or term.channel is None:
        return ""
    channel = readings[term.layer][0, term.channel]
    if channel.ndim != 2:
        return ""
    y, x = divmod(int(channel.argmax()), channel.shape[1])
    return f" at its strongest place (row {y}, column {x})"


def footnote(net: Net, entry: registry.Entry, remarks: list[str]) -> str:
    """Gather what a reader must know: remarks of this run, the network's note, the method's caveat."""
    first, _, rest = net.note.partition("; ")
    made_up = first.startswith("random")
    lines = [f"{net.name} has {first}: this explains nothing it has learnt.", rest] if made_up else [net.note]
    lines += ["; ".join(remarks)]
    lines += [f"{entry.title}: {entry.caveat}." if entry.caveat else ""]
    return "\n".join(line for line in lines if line)


def recipe(
    net: Net, method: str, views: list[InputPicture], objective: str, options: dict[str, Any], remarks: list[str]
) -> Recipe:
    """Write down how a drawing is made."""
    return Recipe(
        method=method,
        network=net.name + (f", {net.output_name}" if net.output_name else "") + (f" ({net.note})" if net.note else ""),
        weights=net.digest,
        pictures=tuple(f"{view.name or 'array'} {view.digest}" for view in views),
        objective=objective,
        options={key: value for key, value in options.items() if value is not None},
        remarks=tuple(remarks),
        convscope=version("convscope"),
        torch=torch.__version__,
    )
