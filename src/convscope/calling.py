"""How a body is called: what it reads besides the picture, and what of its result is looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map_only

from .errors import NetworkError

Output = str | int | Callable[[Any], Tensor]
"""What of a body's result is looked at: its entry of a dict or tuple, or a function of it."""

Extra = Sequence[Any] | Mapping[str, Any] | Callable[[Tensor], Sequence[Any] | Mapping[str, Any]]
"""What a body reads besides the picture: arguments by position or by name, or a function that makes them."""

Call = Callable[[Callable[..., Any], Tensor], Any]
"""How a body is called: a function of the body and of what it reads, (n, c, h, w)."""


@dataclass(frozen=True)
class Calling:
    """How a body is called; `name` is the network's, for errors, and the others are options of Net."""

    name: str
    output: Output | None = None
    extra: Extra | None = None
    input: int | str = 0
    call: Call | None = None

    def __post_init__(self) -> None:
        place = self.input
        if type(place) not in (int, str) or place == "" or (isinstance(place, int) and place < 0):
            raise NetworkError(
                f"input is the place of the picture among the body's inputs, from 0, or its name, not {place!r}"
            )
        if self.call is not None and self.extra is not None:
            raise NetworkError("call says all of what the body reads: give call or extra, not both")
        if not (self.extra is None or isinstance(self.extra, (list, tuple, Mapping)) or callable(self.extra)):
            raise NetworkError(
                "extra is a list of what the body reads besides the picture, a dict by name, or a function of its "
                f"input, not {type(self.extra).__name__}: a single one is given as extra=[...]"
            )

    def __call__(self, body: Callable[..., Any], inputs: Tensor, row: tuple[int, int] | None = None) -> Tensor:
        """Call the body on what it reads, and pick the tensor to look at; `row` is that of a batch of so many."""
        if self.call is not None:
            return self.picked(self.call(body, inputs))
        given = self.extra(inputs) if callable(self.extra) else self.extra or ()
        given = tree_map_only(Tensor, lambda t: _for_batch(t, inputs, row), given)
        named = dict(given) if isinstance(given, Mapping) else {}
        placed = [] if isinstance(given, Mapping) else list(given)
        if isinstance(self.input, str):
            named[self.input] = inputs
        elif self.input > len(placed):
            raise NetworkError(
                f"input {self.input} follows {self.input} others: give them, as in Net(..., extra=[...])"
            )
        else:
            placed.insert(self.input, inputs)
        return self.picked(body(*placed, **named))

    def picked(self, result: Any) -> Tensor:
        """Return the tensor to look at. Raises NetworkError where there is none."""
        picked = result
        if callable(self.output):
            picked = self.output(result)
        elif self.output is not None:
            if isinstance(result, Tensor):
                raise NetworkError(f"{self.name} returns a tensor, with no {self.output!r} to choose: leave out output")
            try:
                picked = result[self.output]
            except (KeyError, IndexError, TypeError):
                raise NetworkError(f"there is no output {self.output!r}: {self._no_tensor(result)}") from None
        if not isinstance(picked, Tensor):
            raise NetworkError(self._no_tensor(picked))
        return picked

    def _no_tensor(self, returned: Any) -> str:
        what = type(returned).__name__
        if isinstance(returned, Mapping) and returned:
            keys = [repr(key) for key in returned]
            there = f"{what} with {', '.join(keys)}"
            return f"{self.name} returns {there}, not a tensor: choose, as in Net(..., output={keys[0]})"
        if isinstance(returned, (tuple, list)) and returned and isinstance(returned[0], Tensor):
            return f"{self.name} returns {what} of {len(returned)}, not a tensor: choose, as in Net(..., output=0)"
        return (
            f"{self.name} returns {what}, not a tensor: say what to look at by a function of it, "
            "as in Net(..., output=lambda result: ...)"
        )


def _for_batch(tensor: Tensor, inputs: Tensor, row: tuple[int, int] | None) -> Tensor:
    """Bring what is read besides the picture to its device, and repeat it for a batch, or take what is of one row."""
    tensor = tensor.to(inputs.device)
    if row is not None and tensor.ndim > 0 and len(tensor) == row[1]:
        return tensor[row[0] : row[0] + 1]
    alone = tensor.ndim > 0 and len(tensor) == 1 and len(inputs) > 1
    return tensor.expand(len(inputs), *tensor.shape[1:]) if alone else tensor
