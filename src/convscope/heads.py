"""Heads: what the numbers of a network's output mean, and which of them are probabilities.

A network's source, its user or its last operation says what its output is. Where nobody does, several outputs are taken
for the scores of exclusive classes, and what is shown of them is called their softmax, not a probability.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor
from torch.overrides import TorchFunctionMode

from .calls import name_of, tensors
from .errors import NetworkError

HeadKind = Literal["softmax", "sigmoid", "probability", "value"]

MEANINGS = {
    "softmax": "scores of exclusive classes",
    "sigmoid": "one logit per label",
    "probability": "probabilities already",
    "value": "numbers that are none",
}
"""What the outputs are, by the word for it."""

STATE = "state it with Net(..., head=...), on the command line --head"

_ROUNDING = 1e-3


@dataclass(frozen=True)
class Head:
    """What an output (n, k) or (n, k, h, w) is. `certain` says that the user, the source or an operation says so."""

    kind: HeadKind
    certain: bool = True

    @property
    def word(self) -> str:
        """What the numbers that `read` returns are called."""
        if self.kind == "value":
            return "value" if self.certain else "score"
        return "probability" if self.certain else "softmax"

    @property
    def equals(self) -> str:
        """What stands before a number of `read` in a caption: "p =", and "softmax" where that is assumed."""
        return "p =" if self.certain and self.kind != "value" else self.word

    def of(self, output: Tensor) -> Head:
        """Return the head with what an output shows: numbers that sum to 1 need no softmax.

        Raises NetworkError for what is said to be probabilities and is none.
        """
        if self.kind == "probability" and not _within_unit(output):
            low, high = float(output.min()), float(output.max())
            raise NetworkError(
                f"the output is not a probability, as head='probability' says: it goes from {low:.3g} to {high:.3g}; "
                "logits are head='softmax' (exclusive classes) or 'sigmoid' (labels), other numbers 'value'"
            )
        return self if self.certain or self.kind != "softmax" or not sums_to_one(output) else Head("probability")

    def read(self, output: Tensor) -> Tensor:
        """Return what is shown of an output: probabilities, or the values themselves."""
        kind = self.of(output.detach()).kind
        return output.softmax(1) if kind == "softmax" else output.sigmoid() if kind == "sigmoid" else output

    def text(self, number: float) -> str:
        """Write one of the numbers that `read` returns: probabilities in hundredths, values in three digits."""
        if self.kind == "value":
            return f"{number:.3g}"
        return f"{number:.2f}" if number >= 0.01 else f"{number:.1g}"

    def exclusive(self, output: Tensor) -> bool:
        """Whether one class at most is right, so that the largest output is the answer."""
        return self.kind == "softmax" or (self.kind == "probability" and output.shape[1] > 1 and sums_to_one(output))


@dataclass(frozen=True, eq=False)
class Answer:
    """What a network says of one picture: its head, and the numbers (k,) that this reads."""

    head: Head
    numbers: Tensor


def sums_to_one(output: Tensor) -> bool:
    """Whether an output's numbers are probabilities of exclusive classes: never negative, 1 together."""
    return bool(output.min() >= 0) and bool(((output.sum(1) - 1).abs() < _ROUNDING).all())


def _within_unit(output: Tensor) -> bool:
    return bool(output.min() >= -_ROUNDING) and bool(output.max() <= 1 + _ROUNDING)


def check_kind(head: Any) -> HeadKind | None:
    """Return the word for a head as it was given. Raises NetworkError for another."""
    if head is not None and head not in get_args(HeadKind):
        meanings = ", ".join(f"{word!r} ({meaning})" for word, meaning in MEANINGS.items())
        raise NetworkError(f"head is one of {meanings}; not {head!r}")
    return head


def settled_head(kind: HeadKind | None, operation: str, shape: tuple[int, ...], name: str) -> Head:
    """Return the head of an output of `shape`, without the batch, that ends in an operation.

    `kind` is what was said, None where nothing was. Raises NetworkError for the softmax of a single number.
    """
    inside = _INSIDE.get(operation)
    single = not shape or shape[0] == 1
    if kind == "softmax" and single:
        raise NetworkError(
            f"{name} has one output, and the softmax of one number is always 1: head='sigmoid' where it is a logit, "
            "'value' where it is none"
        )
    if kind is not None:
        # Who says "sigmoid" of a network that ends in one does not ask for a second.
        return Head("probability" if inside == kind else kind)
    if inside is not None:
        return Head("probability")
    if operation == "log_softmax":  # whose softmax is the probability
        return Head("softmax")
    classes = len(shape) in (1, 3) and not single and operation != "logsigmoid"
    return Head("softmax" if classes else "value", certain=False)


_INSIDE = {"softmax": "softmax", "sigmoid": "sigmoid", "expit": "sigmoid", "special_expit": "sigmoid"}
"""Operations whose results are probabilities."""

_KEEPING = frozenset(
    """view reshape flatten unflatten squeeze unsqueeze contiguous clone detach to type type_as float double half
    bfloat16 getitem select narrow permute transpose movedim swapaxes t T clamp clip dropout interpolate upsample
    upsample_nearest upsample_bilinear expand chunk split unbind view_as reshape_as cat concat concatenate stack"""
    .split()
)  # fmt: skip
"""Operations after which probabilities still are probabilities."""


class LastOperations(TorchFunctionMode):
    """Note on every tensor the operation that gave it its meaning; moving or cutting numbers changes none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = name_of(func)
        sources = {last_operation(each) for each in tensors(args)} if name in _KEEPING else {name}
        output = func(*args, **(kwargs or {}))
        for out in tensors(output):
            out._convscope_operation = min(sources) if len(sources) == 1 else name  # type: ignore[attr-defined]
        return output


def last_operation(tensor: Tensor) -> str:
    """Return the name of the operation that gave a tensor its meaning, "" where nobody noted it."""
    return getattr(tensor, "_convscope_operation", "")
