"""What a network says of pictures, and which objective that settles when none is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .errors import NetworkError, ObjectiveError, PictureError
from .net import Net
from .objectives import WHOLE_OUTPUT, Objective, ObjectiveBatch, Unit, as_objective, probabilities
from .tapping import tap
from .terms import judges_making

ObjectiveLike = str | int | Objective | Callable[[Tensor], Tensor] | None


def predict(net: Net, pixels: Tensor) -> Tensor:
    """Return class probabilities (n, classes): the softmax of the output, or the output where it is one already.

    Pixels (n, c, h, w) in [0, 1]. Raises NetworkError when the output is not (n, classes) or is NaN, PictureError for
    what is not pixels.

    >>> import convscope
    >>> net = convscope.load("zfnet64")
    >>> convscope.predict(net, net.read("sample:chelsea")).shape
    torch.Size([1, 100])
    """
    if not isinstance(pixels, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PictureError(
            f"predict reads pixels, a tensor (n, {net.channels}, h, w) in [0, 1], not {type(pixels).__name__}: "
            f"predict(net, net.read({pixels!r}))"
        )
    with torch.inference_mode():
        output = net(pixels).float()
    if output.ndim != 2:
        shape = tuple(output.shape)
        raise NetworkError(f"{net.name} gives outputs of shape {shape}, not (n, classes): use of={_example(output)}")
    check_output(net, output)
    return probabilities(output)


def _example(output: Tensor) -> str:
    """Return an objective for an output that is not (n, classes)."""
    if output.ndim == 1:
        return repr(WHOLE_OUTPUT)
    if output.ndim != 4:
        return "a function of the output that gives one number per picture"
    return repr(f":0@{output.shape[2] // 2},{output.shape[3] // 2}") + ", a channel at a row and column"


def check_output(net: Net, output: Tensor) -> None:
    """Raise NetworkError when an output holds NaN or infinite values."""
    if not torch.isfinite(output).all():
        raise NetworkError(f"the output of {net.name} holds NaN or infinity for this picture; no map can be computed")


def settle(net: Net, pixels: Tensor, of: ObjectiveLike) -> tuple[Objective, str]:
    """Return the objective for one picture (1, c, h, w), and its title with what the network says of it.

    When none is given it is the top-1 class; of a network that gives one number per picture, this number.
    """
    objectives, titles = settle_each(net, pixels, of)
    return objectives[0], titles[0]


def settle_each(net: Net, pixels: Tensor, of: ObjectiveLike) -> tuple[list[Objective], list[str]]:
    """Return the objective of each picture of a batch (n, c, h, w), and its title."""
    if of is None and not net.output.shape:
        of = WHOLE_OUTPUT
    if of is None:
        shares = predict(net, pixels)
        top = shares.argmax(1).tolist()
        titles = [_class_title(net, index, row) for index, row in zip(top, shares, strict=True)]
        classes = {index: as_objective(net, index) for index in set(top)}
        return [classes[index] for index in top], titles
    objective = checked_objective(net, of)
    index = objective.class_index
    if index is not None and len(net.output.shape) == 1:
        titles = [_class_title(net, index, row) for row in predict(net, pixels)]
    else:
        titles = _titles(net, pixels, objective)
    return [objective] * len(pixels), titles


def checked_objective(net: Net, of: ObjectiveLike) -> Objective:
    """Return an objective about given pictures, units at their strongest position. Raises ObjectiveError."""
    objective = as_objective(net, of).at("max")  # type: ignore[arg-type]
    for _, term in objective.terms:
        if judges_making(term):
            raise ObjectiveError(
                f"{term} judges a picture that is being made, not a given one: it is for maximize and dream"
            )
    return objective


def _titles(net: Net, pixels: Tensor, objective: Objective) -> list[str]:
    with torch.inference_mode():
        readings = tap(net, pixels, objective.layers)
        values = objective.score(readings).float()
    check_output(net, values)
    title = objective.title(net)
    return [
        f"{title[:1].upper()}{title[1:]}{_strongest(objective, readings, row)}, {float(value):.3g}: "
        "what made it respond?"
        for row, value in enumerate(values)
    ]


def _class_title(net: Net, index: int, shares: Tensor) -> str:
    share, top = float(shares[index]), int(shares.argmax()) == index
    shown = f"{share:.2f}" if share >= 0.01 else f"{share:.1g}"
    return f"{net.class_name(index)}, {shown}: what {'made it say so' if top else 'speaks for it'}?"


def _strongest(objective: Objective, readings: dict[str, Tensor], row: int) -> str:
    """Name the position of a single channel that is read at its strongest one."""
    _, term = objective.terms[0]
    if len(objective.terms) > 1 or not isinstance(term, Unit) or term.position != "max" or term.channel is None:
        return ""
    channel = readings[term.layer][row, term.channel]
    if channel.ndim != 2:
        return ""
    y, x = divmod(int(channel.argmax()), channel.shape[1])
    return f" at its strongest position (row {y}, column {x})"


def batched(objectives: Sequence[Objective]) -> Objective:
    """Return one objective for a batch whose pictures each have their own."""
    first = objectives[0]
    return first if all(each == first for each in objectives) else ObjectiveBatch(tuple(objectives))
