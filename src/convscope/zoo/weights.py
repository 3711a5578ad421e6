"""Reading weights: never running code, choosing what of a file fits, and saying exactly what does not."""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import WeightsError
from ..fingerprints import check_finite
from ..quiet import quiet
from . import pickles
from .pickles import StandIn
from .sources import split

_STATE = ("state_dict", "model", "model_state_dict")
"""Where checkpoints keep the network's state dict, beside that of its optimizer and averaged ones."""

_AVERAGED = re.compile(r"(^|[._])(ema|averaged|average|swa|shadow)([._]|$)")
"""Parts of a file that hold averages of the weights over the training's steps."""

_JUDGING = re.compile(
    r"(loss|criterion|criteria|metric|accuracy|auroc|f1|precision|recall|confusion|n_averaged|pos_weight)"
    r"|^(acc|ap|map|iou|train|val|valid|test)(_|\d|$)"
)
"""Buffers and weights of what judges a network in its training."""

_WRAPPERS = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
"""What DataParallel, torch.compile and the like put into names, anywhere."""

_DEEPEST = 4

_LONGEST_LIST = 8 * 2**20

_PICKLES = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))

_CHANGED = ". If its layers were changed, build it by a function of your own: file:my_model.py:build"


@dataclass
class Part:
    """A state dict within a file: where it lies, "state_dict" or "" for the file itself; versions as torch has them."""

    name: str
    tensors: dict[str, Tensor]
    versions: Any = None


_HYPER_PARAMETERS = ("hyper_parameters", "hparams", "args", "config", "cfg")
"""Under which a checkpoint keeps them: Lightning's first, then those of scripts."""


@dataclass
class State:
    """What a weights file holds, and the tensors of it that are taken: at first those of its likeliest part."""

    path: Path
    parts: tuple[Part, ...]
    asked: str = ""
    hyper_parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the checkpoint says of its network, plain values only."""
    takes_all: str = ""
    """The parameter that takes all hyper-parameters in one, where the checkpoint names it."""
    tensors: dict[str, Tensor] = field(init=False)
    versions: Any = field(init=False)
    note: str = field(init=False, default="")
    """What a caption must say of what was taken."""

    def __post_init__(self) -> None:
        first = min(self.parts, key=_rank)
        self.tensors, self.versions = first.tensors, first.versions

    def rename(self, pattern: str, replacement: str) -> None:
        """Rename keys by a regular expression, for files with names of an older version."""
        for part in self.parts:
            part.tensors = {re.sub(pattern, replacement, key): value for key, value in part.tensors.items()}
        self.__post_init__()

    def unwrap(self, names: Collection[str]) -> None:
        """Take the part and the prefix ("model.", "module.") under which most of a network's names are found.

        Between several that fit as well, the plain weights come before averaged ones, and the note says so. Raises
        WeightsError where that does not decide.
        """
        choices = [choice for part in self.parts for choice in _choices(part, names, self.asked)]
        most = max((choice.count for choice in choices), default=0)
        if 2 * most < len(names) or not most:  # another network's, as `fit_weights` says
            self._refuse_unless_likely()
            return
        best = sorted((choice for choice in choices if choice.count == most), key=lambda choice: choice.rank)
        if len(best) > 1 and best[0].rank == best[1].rank:
            self._refuse_undecided([choice.name for choice in best])
        taken = best[0]
        self.tensors = taken.tensors
        self.versions = taken.part.versions if not taken.prefix else None
        others = [choice.name for choice in best[1:]]
        said = [f"weights under {taken.name!r} of {self.path.name}, which also has {_listed(others)}"] if others else []
        said += [f"left out of {self.path.name}: {_listed(taken.beside)}"] if taken.beside else []
        self.note = "; ".join(said)

    def _refuse_unless_likely(self) -> None:
        """Raise WeightsError where nothing says which part of the file is meant."""
        if self.asked:
            found = _listed([part.name for part in self.parts])
            raise WeightsError(f"{self.path} has nothing under {self.asked!r} that fits; it holds {found}")
        ranks = sorted(_rank(part)[:2] for part in self.parts)
        if len(ranks) > 1 and ranks[0] == ranks[1]:
            self._refuse_undecided([part.name for part in self.parts])

    def _refuse_undecided(self, found: list[str]) -> None:
        raise WeightsError(
            f"{self.path} holds several state dicts, {_listed(found)}: name one, as in "
            f"weights='{self.path.name}#{found[0]}'"
        )


@dataclass(frozen=True)
class _Choice:
    """Tensors of a part below a prefix, under a network's own names; `beside` are the other parts of the part."""

    part: Part
    prefix: str
    count: int
    tensors: dict[str, Tensor]
    beside: tuple[str, ...]

    @property
    def name(self) -> str:
        return ".".join(filter(None, (self.part.name, self.prefix.rstrip("."))))

    @property
    def rank(self) -> tuple[bool, bool, bool]:
        return (*_rank(self.part)[:2], bool(_AVERAGED.search(self.prefix)))


def _rank(part: Part) -> tuple[bool, bool, int]:
    """Return what sorts the likelier part before the others: no average, under a usual name, more tensors."""
    averaged = bool(_AVERAGED.search(part.name))
    return averaged, part.name.rpartition(".")[2] not in ("", *_STATE), -len(part.tensors)


def _plain(name: str) -> str:
    """Return a name without what wraps modules."""
    return ".".join(piece for piece in name.split(".") if piece not in _WRAPPERS)


def _choices(part: Part, names: Collection[str], asked: str) -> Iterator[_Choice]:
    """Yield every prefix of a part under which names of a network are found; only what is asked for, if anything is."""
    own = {_plain(name): name for name in names}
    held = {_plain(key): key for key in part.tensors}
    if len(own) < len(names) or len(held) < len(part.tensors):  # then wrappers tell names apart
        own, held = {name: name for name in names}, {key: key for key in part.tensors}
    counts = Counter(prefix for key in held for prefix in _prefixes(key, own))
    within = asked.removeprefix(part.name).strip(".") if asked.startswith(part.name) else None
    for prefix, count in counts.items():
        if asked and (within is None or (within and f"{_plain(within)}." != prefix)):
            continue
        if prefix and "" in counts and counts[""] >= count:
            continue
        below = {key.removeprefix(prefix): held[key] for key in held if key.startswith(prefix)}
        tensors = {own.get(key, key): part.tensors[name] for key, name in below.items()}
        others = dict.fromkeys(key.partition(".")[0] for key in held if not key.startswith(prefix))
        beside = tuple(other for other in others if not _JUDGING.search(other))
        yield _Choice(part, prefix, count, tensors, beside)


def _prefixes(key: str, names: Collection[str]) -> Iterator[str]:
    at = 0
    while True:
        if key[at:] in names:
            yield key[:at]
        at = key.find(".", at) + 1
        if not at:
            return


def read_weights(path: Path) -> State:
    """Read the state dicts of a .safetensors file, or of a .pt, .pth, .ckpt or .bin file, without running any of it.

    They may lie in a checkpoint among other things, as training frameworks write it; "FILE#PART" asks for one. Objects
    beside tensors are left out unread. Raises WeightsError for a missing, damaged or hostile file, and for a whole
    module, whose class would have to be run.
    """
    path, asked = _asked(path)
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}" + _folder(path))
    try:
        content = unpickled(path)
    except (MemoryError, WeightsError):
        raise
    except Exception as error:  # torch and pickle raise anything on a damaged file: AssertionError, TypeError, ...
        if path.suffix != ".safetensors" and _head(path) not in (b"PK", *_PICKLES):
            raise WeightsError(
                f"{path} is not a weights file or is damaged: it begins as neither archive nor pickle"
            ) from None
        if isinstance(error, UnpicklingError) and "it calls " in str(error):
            raise WeightsError(
                f"{path} is refused: {error}, and loading it would run code. Weights need none of that: "
                "torch.save(model.state_dict(), path)"
            ) from None
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise WeightsError(f"{path} is not a weights file or is damaged: {reason}") from None
    parts = tuple(_parts(content, ""))
    if not parts:
        _refuse_modules(content, path)
        raise WeightsError(f"{path} holds {type(content).__name__} without tensors, not a state dict")
    takes_all = content.get("hparams_name") if isinstance(content, Mapping) else None
    return State(path, parts, asked, _hyper_parameters(content), takes_all if isinstance(takes_all, str) else "")


def _hyper_parameters(content: Any) -> dict[str, Any]:
    """Return the numbers and texts that training frameworks keep beside weights, lists and dicts of them included."""
    held = [content.get(name) for name in _HYPER_PARAMETERS] if isinstance(content, Mapping) else []
    items = [item for each in held if isinstance(each, Mapping) for item in each.items()]
    return {str(key): value for key, value in items if _plain_value(value)}


def _plain_value(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_plain_value, value))
    if type(value) is dict:  # and no stand-in
        return all(isinstance(key, str) and _plain_value(each) for key, each in cast(dict[Any, Any], value).items())
    return value is None or type(value) in (int, float, str, bool)


def _asked(path: Path) -> tuple[Path, str]:
    """Part "FILE#PART" where there is no file of that whole name."""
    file, mark, part = str(path).partition("#")
    return (Path(file), part) if mark and not path.exists() else (path, "")


def _folder(path: Path) -> str:
    if (path / ".metadata").is_file():
        return (
            ": it is a distributed checkpoint; make one file of it by torch.distributed.checkpoint.format_utils."
            f"dcp_to_torch_save({path.name!r}, 'weights.pth')"
        )
    return " (it is a folder)" if path.is_dir() else ""


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2)


def unpickled(path: Path) -> Any:
    """Return what a file of torch's holds, without running any of it. Raises anything for a damaged one."""
    if path.suffix == ".safetensors":
        return load_file(path)
    if zipfile.is_zipfile(path):
        _check_archive(path)
    elif tarfile.is_tarfile(path):
        raise ValueError("it is a tar archive, as torch wrote before 2018: load it once with an old torch")
    with quiet():
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=pickles)


def _check_archive(path: Path) -> None:
    """Refuse TorchScript, which torch would hand to another reader, and archives that no torch has written."""
    script = WeightsError(
        f"{path} is TorchScript, which is not read as weights: keep its numbers alone by "
        f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pth')"
    )
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise script
        # A compressed file can be a thousand times larger when read; torch writes none.
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("it is compressed, which torch.save does not do")
        # What is in the file beside numbers, about 150 bytes a tensor, is read whole.
        if any(m.filename.endswith("data.pkl") and m.file_size > _LONGEST_LIST for m in archive.infolist()):
            raise ValueError(f"its list of tensors has more than {_LONGEST_LIST >> 20} MiB")
    # torch's reader and Python's may be made to see different files: torch's decides what is loaded.
    seen: Any = torch._C.PyTorchFileReader(str(path))
    if "constants.pkl" in seen.get_all_records():
        raise script


def _parts(content: Any, name: str, depth: int = _DEEPEST) -> Iterator[Part]:
    """Yield every mapping with tensors that a checkpoint holds, the outermost first."""
    if not isinstance(content, Mapping) or depth < 0:
        return
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield Part(name, tensors, getattr(content, "_metadata", None))
    for key, value in content.items():
        if isinstance(key, str) and not key.startswith("optimizer"):
            yield from _parts(value, f"{name}.{key}" if name else key, depth - 1)


def _refuse_modules(content: Any, path: Path) -> None:
    """Raise WeightsError for what is a module or other object, with the lines that make weights of it."""
    inside = [("", content), *(content.items() if isinstance(content, Mapping) else ())]
    for key, value in inside:
        if isinstance(value, StandIn):
            where = f"[{key!r}]" if key else ""
            raise WeightsError(
                f"{path} is refused: it holds more than tensors, {_sort(value)}, and loading it would run code. "
                f"Where its classes are at hand and the file is trusted, three lines make weights of it: import torch; "
                f"model = torch.load({path.name!r}, weights_only=False){where}; "
                "torch.save(model.state_dict(), 'weights.pth')"
            )


def _sort(value: StandIn) -> str:
    module = isinstance(value.state, Mapping) and "_modules" in value.state
    origin = "".join(letter if letter.isprintable() else "?" for letter in value.origin)
    return f"{'a whole module' if module else 'an object'} ({origin})"


def fit_weights(body: nn.Module, state: State, *, network: str) -> None:
    """Load a state dict into a module, or raise WeightsError naming the keys and shapes that do not fit."""
    own = body.state_dict()
    state.unwrap(own)
    tensors = state.tensors
    missing = [key for key in own if key not in tensors and not key.endswith("num_batches_tracked")]
    heads = {key.partition(".")[0] for key in own}
    extra = [key for key in tensors if key not in own]
    shapes = [
        f"{key} is {tuple(tensors[key].shape)} in the file, {tuple(value.shape)} in the network"
        for key, value in own.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    # What judges a network in training lies beside its layers, under names that it does not have itself.
    own_extra = [key for key in extra if (first := key.partition(".")[0]) in heads or not _JUDGING.search(first)]
    problems = [
        *_count("missing from the file", missing),
        *_count("unknown to the network", own_extra),
        *_count("of another shape", shapes),
    ]
    if problems:
        source, _ = split(network)
        changed = _CHANGED if source is not None and not source.path else ""
        raise WeightsError(f"{state.path} does not fit {network}: {'; '.join(problems)}{changed}")
    # Some modules (MNASNet, batch norm) ask which version wrote the file; a file that does not say is taken as current.
    prepared = OrderedDict((key, value) for key, value in tensors.items() if key in own)
    prepared._metadata = state.versions or own._metadata  # type: ignore[attr-defined]
    body.load_state_dict(prepared, strict=False)
    check_finite(body, str(state.path))


def _count(what: str, items: list[str]) -> list[str]:
    if not items:
        return []
    return [f"{len(items)} {what} ({', '.join(items[:3])}{', ...' if len(items) > 3 else ''})"]


def _listed(names: Collection[str]) -> str:
    shown = [repr(name) for name in list(names)[:4]]
    return ", ".join(shown) + (", ..." if len(names) > 4 else "")
