"""Checkpoints of trainings on disk: signed, so that damage is found, and read without running anything in them.

Torch reads a file in which a bit has turned, and a training would go on with wrong numbers. So a checkpoint ends with
the SHA-256 of what is before it, as the comment of the archive that it is. What is read is then held against what the
training would hold by now: whoever wrote it, it can name no file and end in no later error.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..errors import WeightsError
from ..outputs import write_bytes
from ..parsing import Document
from ..zoo.weights import unpickled

T = TypeVar("T")

_COMMENT = 64
"""Bytes of the comment: a SHA-256 in hexadecimal digits. The two bytes before it say how long it is."""


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint whole, and wait for the disk. Raises OutputError."""
    buffer = BytesIO()  # torch.save to a full disk raises RuntimeError, not OSError
    torch.save(content, buffer)
    write_bytes(path, signed(buffer.getvalue()), durable=True)


def signed(archive: bytes) -> bytes:
    """Return an archive without a comment with its SHA-256 as its comment."""
    body = archive[:-2] + _COMMENT.to_bytes(2, "little")
    return body + sha256(body).hexdigest().encode()


@dataclass(frozen=True)
class Checkpoint(Generic[T]):
    """A checkpoint that was read: what it says, and the states of parts, by name; `otherwise` is said of damage."""

    path: Path
    otherwise: str
    says: T
    states: dict[str, Any]

    @classmethod
    def read(cls, path: Path, shape: type[T], otherwise: str) -> Checkpoint[T]:
        """Read a checkpoint; what it says is held against a shape, a dataclass. Raises WeightsError for damage."""
        with _in_words(path, otherwise):
            content = path.read_bytes()
            if sha256(content[:-_COMMENT]).hexdigest().encode() != content[-_COMMENT:]:
                raise ValueError("its checksum is missing or wrong")
            del content
            kept = cast("dict[str, Any]", unpickled(path))
            if type(kept) is not dict:
                raise ValueError("it holds no table")
            return cls(path, otherwise, Document(str(path), "", WeightsError).shaped(kept, shape), kept)

    def load(self, parts: Mapping[str, Any]) -> None:
        """Give each part (a module, an optimizer, a schedule) its state. Raises WeightsError where one does not fit."""
        with _in_words(self.path, self.otherwise):
            for name, part in parts.items():
                _check_alike(self.states[name], _expected(part, self.states[name]), name)
            for name, part in parts.items():
                part.load_state_dict(self.states[name])

    def require(self, holds: bool, what: str) -> None:
        """Raise WeightsError unless it holds what a checkpoint says."""
        if not holds:
            raise WeightsError(f"{self.path} is damaged ({what}): {self.otherwise}")


@contextmanager
def _in_words(path: Path, otherwise: str) -> Generator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # torch raises anything on a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0].removeprefix(f"{path}: ")[:200]
        raise WeightsError(f"{path} is damaged ({reason}): {otherwise}") from None


def _expected(part: Any, kept: Any) -> Any:
    """Return a state as that of a part must look; an optimizer has more to keep once it has made a step."""
    if not isinstance(part, Optimizer) or not (isinstance(kept, Mapping) and kept.get("state")):
        return part.state_dict()
    stepped = deepcopy(part)
    for group in stepped.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    stepped.step()
    return stepped.state_dict()


def _check_alike(kept: Any, expected: Any, place: str) -> None:
    """Raise ValueError where a state differs from an expected one in more than its numbers."""
    if isinstance(expected, Tensor):
        tensor = isinstance(kept, Tensor)
        fits = tensor and (kept.shape, kept.dtype, kept.layout) == (expected.shape, expected.dtype, expected.layout)
    elif isinstance(expected, Mapping):
        fits = isinstance(kept, Mapping) and kept.keys() == cast("Mapping[Any, Any]", expected).keys()
    elif isinstance(expected, (list, tuple)):
        fits = type(kept) is type(cast(Any, expected)) and len(kept) == len(cast("Sequence[Any]", expected))
    else:
        fits = type(kept) is type(expected) or {type(kept), type(expected)} == {int, float}
    if not fits:
        raise ValueError(f"{place} is not what this training holds")
    if isinstance(expected, Mapping):
        for key, value in cast("Mapping[Any, Any]", expected).items():
            _check_alike(kept[key], value, f"{place}.{key}")
    elif isinstance(expected, (list, tuple)):
        for number, value in enumerate(cast("Sequence[Any]", expected)):
            _check_alike(kept[number], value, f"{place}[{number}]")
