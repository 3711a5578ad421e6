"""What a long study keeps on its way, so that a run which was ended goes on where it was."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, BinaryIO
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from ..context import listen, say
from ..errors import OutputError
from ..options import Unrecorded
from ..outputs import write_made
from ..parsing import Document
from ..recipes import current_recipe
from ..running import check_read

Keep = Annotated[
    Path | None,
    "folder that keeps what is finished of a long run: the same call goes on there after it was ended",
    Unrecorded,
]

_SAID = "convscope.remarks"


def kept(folder: Path | None, part: str, make: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """Return a part of a study as the folder has it, else make it, and keep it whole.

    Parts lie below a name of the recipe's key, so that other pictures, weights or options go elsewhere; `part` says
    what tells this one apart. What `make` says is kept with it. Without a folder nothing is kept.
    """
    check_read()
    if folder is None:
        return make()
    place = place_of(folder, part).with_suffix(".npz")
    found = _read(place)
    if found is None:
        with listen() as said:
            values = make()
        write_made(place, lambda to: _write(to, values, said))
        found = values, list(said)
    for remark in found[1]:
        say(remark)
    return found[0]


def place_of(folder: Path, part: str) -> Path:
    """Return where a part of the run under way is kept, without an ending."""
    recipe = current_recipe()
    return Path(folder) / f"{recipe.method}-{recipe.key[:16]}" / re.sub(r"[^A-Za-z0-9]+", "-", part)


def _read(place: Path) -> tuple[Mapping[str, Tensor], list[str]] | None:
    """Return arrays and remarks of a part; None where it is not there, or no such file."""
    try:
        with np.load(place, allow_pickle=False) as arrays:
            said = Document(str(place), bytes(arrays[_SAID]).decode(), OutputError).json(list[str])
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != _SAID}, said
    except (OSError, ValueError, KeyError, BadZipFile, EOFError, OutputError):
        return None


def _write(to: BinaryIO, values: Mapping[str, Tensor], said: list[str]) -> None:
    texts = np.frombuffer(json.dumps([str(each) for each in said]).encode(), np.uint8)
    arrays = {name: value.detach().cpu().numpy() for name, value in values.items()}
    np.savez(to, **{_SAID: texts}, **arrays)  # type: ignore[arg-type]
