"""What a network says of pictures, and which objective that settles when none is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .context import say
from .errors import NetworkError, ObjectiveError, PictureError
from .heads import Answer, Head
from .interruptions import orderly
from .net import Net
from .objectives import WHOLE_OUTPUT, Objective, ObjectiveBatch, Unit, as_objective, check_real, objective_for
from .tapping import tap
from .terms import judges_making

ObjectiveLike = str | int | Objective | Callable[[Tensor], Tensor] | None


@orderly
def predict(net: Net, pixels: Tensor) -> Tensor:
    """Return class probabilities (n, classes), by the head: softmax or sigmoid of the output, or itself.

    Pixels (n, c, h, w) in [0, 1]. Raises NetworkError when the output is not (n, classes), is NaN, or is no
    probability, PictureError for what is not pixels.

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
    head, numbers = answers(net, pixels)
    if head.kind == "value":
        raise NetworkError(
            f"{net.name} gives a {head.word}, not probabilities: net(pixels) returns it; where it is a logit say so, "
            "as in Net(..., head='sigmoid')"
        )
    return numbers


def answers(net: Net, pixels: Tensor) -> tuple[Head, Tensor]:
    """Return what a network says of pixels, (n, k): probabilities where its head has some, and the head.

    Raises NetworkError when the output is not (n, k) or holds NaN, ObjectiveError when it holds no real numbers.
    """
    with torch.inference_mode():
        output = net(pixels)
    return read_output(net, output, len(pixels))


def read_output(net: Net, output: Tensor, count: int) -> tuple[Head, Tensor]:
    """Return what an output for so many pictures says, as `answers` does."""
    check_real(output, f"the output of {net.name}")
    output = output.float()
    if output.ndim == 1:  # one number per picture
        output = output[:, None]
    if output.ndim != 2:
        shape = tuple(output.shape)
        raise NetworkError(f"{net.name} gives outputs of shape {shape}, not (n, classes): use of={_example(output)}")
    if len(output) != count:
        raise NetworkError(
            f"{net.name} gives {len(output)} rows for {count} picture{'s' * (count != 1)}: what it reads "
            "besides the picture has a first dimension of 1, as in Net(..., extra=[torch.tensor([3])])"
        )
    check_output(net, output)
    head = net.head.of(output)
    return head, head.read(output)


def first_choices(net: Net, pixels: Tensor) -> list[int]:
    """Return the output to explain of each picture when none is named: its top-1 class or label.

    Raises ObjectiveError where outputs are no classes, and one must be named.
    """
    head, numbers = answers(net, pixels)
    return _first_choices(net, head, numbers)


def _first_choices(net: Net, head: Head, numbers: Tensor) -> list[int]:
    count = numbers.shape[1]
    if head.kind == "value" and count > 1:
        raise ObjectiveError(
            f"{net.name} gives {count} values, none of which is its answer: name one, as of={count - 1}, a sum such as "
            f"'0 - 0.5*{count - 1}', or a direction of them, 'direction(output, file.npy)'"
        )
    if count > 1 and not head.exclusive(numbers):
        say("several labels may hold at once: the most confident one is explained")
    return numbers.argmax(1).tolist()


def _example(output: Tensor) -> str:
    """Return an objective for an output that is not (n, classes)."""
    if output.ndim == 1:
        return repr(WHOLE_OUTPUT)
    if output.ndim != 4:
        return "a function of the output that gives one number per picture"
    position = f":0@{output.shape[2] // 2},{output.shape[3] // 2}"
    return f"{position!r}, a channel at a row and column, or ':0', its mean over all"


def check_output(net: Net, output: Tensor) -> None:
    """Raise NetworkError when an output holds NaN or infinite values."""
    if not torch.isfinite(output).all():
        raise NetworkError(f"the output of {net.name} holds NaN or infinity for this picture; no map can be computed")


def settle(net: Net, pixels: Tensor, of: ObjectiveLike) -> tuple[Objective, str]:
    """Return the objective for one picture (1, c, h, w), and its title with what the network says of it.

    When none is given it is the top-1 class; of a network that gives one number per picture, this number.
    """
    objectives, titles, _ = settle_each(net, pixels, of)
    return objectives[0], titles[0]


def settle_each(
    net: Net, pixels: Tensor, of: ObjectiveLike
) -> tuple[list[Objective], list[str], list[Answer] | list[None]]:
    """Return the objective of each picture of a batch (n, c, h, w), its title, and the answer where that was asked."""
    if of is None and not net.output.shape:
        of = WHOLE_OUTPUT
    objective = None if of is None else checked_objective(net, of, pixels)
    if objective is not None and (objective.class_index is None or len(net.output.shape) != 1):
        return [objective] * len(pixels), _titles(net, pixels, objective), [None] * len(pixels)
    head, numbers = answers(net, pixels)
    if objective is not None:
        indices = [objective.class_index or 0] * len(pixels)
    else:
        indices = _first_choices(net, head, numbers)
    objectives = {index: as_objective(net, index) for index in set(indices)}
    titles = [_class_title(net, head, index, row) for index, row in zip(indices, numbers, strict=True)]
    return [objectives[index] for index in indices], titles, [Answer(head, row) for row in numbers]


def checked_objective(net: Net, of: ObjectiveLike, pixels: Tensor) -> Objective:
    """Return an objective about given pictures, units at their strongest position. Raises ObjectiveError."""
    objective = objective_for(net, of, pixels)  # type: ignore[arg-type]
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


def _class_title(net: Net, head: Head, index: int, numbers: Tensor) -> str:
    name, shown = net.class_name(index), head.text(float(numbers[index]))
    if head.kind == "value":
        return f"{name[:1].upper()}{name[1:]}, {head.word} {shown}: what raises it?"
    said = float(numbers[index]) >= 0.5 or (head.exclusive(numbers[None]) and int(numbers.argmax()) == index)
    word = "" if head.certain else f"{head.word} "
    return f"{name}, {word}{shown}: what {'made it say so' if said else 'speaks for it'}?"


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
