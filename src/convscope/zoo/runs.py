"""A training run on disk: its history, its snapshots, and what each snapshot says of itself.

A folder holds `history.json`, one `epoch-NNN.safetensors` per snapshot and, once it is finished, `card.md`. The
networks that ship with the package lie in such folders too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ..errors import OptionError, WeightsError
from ..outputs import write_text
from ..parsing import Document

HISTORY = "history.json"
_KEY = "convscope"


@dataclass(frozen=True)
class Epoch:
    """One epoch: mean loss, learning rate, held-out accuracy (0 to 1), seconds, and its snapshot's file name."""

    epoch: int
    loss: float
    rate: float
    accuracy: float
    seconds: float
    snapshot: str | None = None


@dataclass(frozen=True)
class History:
    """What a run was asked for and how it went, epoch by epoch."""

    network: str
    classes: tuple[str, ...]
    settings: Mapping[str, Any]
    machine: str = ""
    about: str = ""
    epochs: tuple[Epoch, ...] = ()
    unreadable: tuple[str, ...] = field(default=())

    @property
    def snapshots(self) -> tuple[Epoch, ...]:
        """The epochs that can be loaded."""
        return tuple(epoch for epoch in self.epochs if epoch.snapshot)

    def save(self, folder: Path) -> Path:
        """Write it into the run's folder."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        return write_text(folder / HISTORY, text + "\n")


def shipped(name: str) -> Path:
    """Return where a network's own run lies in the package, whether or not it ships."""
    return Path(str(resources.files(__name__.rpartition(".")[0]) / "trained" / name))


@cache
def shipping() -> tuple[str, ...]:
    """List the networks that ship with weights."""
    folder = shipped("")
    return tuple(sorted(path.parent.name for path in folder.glob(f"*/{HISTORY}")))


def read_history(folder: Path) -> History:
    """Read a run's history. Raises WeightsError when the folder holds none, or a damaged one."""
    path = folder / HISTORY
    if not path.is_file():
        raise WeightsError(f"{folder} is not a training run: it has no {HISTORY}")
    return Document.read(path, WeightsError).json(History)


def snapshot(folder: Path, epoch: int | None) -> Path:
    """Find the snapshot of an epoch, or the last one. Raises OptionError naming those that exist."""
    history = read_history(folder)
    kept = {kept.epoch: str(kept.snapshot) for kept in history.snapshots}
    if not kept:
        raise WeightsError(f"{folder} has no snapshot yet")
    if epoch is None:
        epoch = max(kept)
    if epoch not in kept:
        raise OptionError(f"{history.network} has no snapshot of epoch {epoch}; there are {', '.join(map(str, kept))}")
    return folder / kept[epoch]


@dataclass(frozen=True)
class _Facts:
    """What is read of a snapshot's own words."""

    network: str = ""
    classes: tuple[str, ...] = ()


def facts(path: Path) -> dict[str, Any]:
    """Read what a snapshot says of itself (network, epoch, classes, accuracy); empty for other weights files.

    Raises WeightsError for what is said in another way than `metadata` says it.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_KEY, "{}")
    except Exception:  # a damaged file is reported by the reader of its tensors
        return {}
    document = Document(f"what {path} says of itself", text, WeightsError)
    try:
        content = document.json(dict[str, Any])
    except WeightsError:  # somebody else's entry of that name
        return {}
    document.shaped(content, _Facts)
    return content


def metadata(content: Mapping[str, Any]) -> dict[str, str]:
    """Return what to write into a snapshot: one entry, so that equal snapshots are equal files."""
    text = json.dumps(dict(content), ensure_ascii=False, sort_keys=True)
    return {_KEY: text.encode("utf-8", "backslashreplace").decode()}  # classes by folders with any bytes as names
