"""What can go wrong: every error says what was asked, what exists, and the corrected call."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterable
from itertools import dropwhile
from pathlib import Path

_OURS, _TORCH = str(Path(__file__).parent), str(Path("-packages/torch"))


_LONGEST = 2000

_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
"""What a terminal obeys or does not show: control characters, marks of direction, bytes of names that are not UTF-8.

Joiners (U+200C, U+200D) are not among them: Persian and Indian words, and many emoji, are written with them.
"""


class ConvscopeError(Exception):
    """The root of every error that convscope raises on purpose. Its text is one line that any terminal may be shown.

    `exit_code` is the command line's (docs/predict.md lists them all).
    """

    exit_code = 2

    def __str__(self) -> str:
        return one_line(super().__str__())


class PictureError(ConvscopeError):
    """A picture that cannot be read, or that the network cannot take."""


class NetworkError(ConvscopeError):
    """A network that does not exist, or that does not behave as one."""


class WeightsError(ConvscopeError):
    """A weights file that cannot be read, does not fit, carries code, or holds NaN."""


class LayerError(ConvscopeError):
    """A layer that does not exist, does not run, or runs more than once."""


class ObjectiveError(ConvscopeError):
    """A class, channel, place or expression that cannot be resolved."""


class OptionError(ConvscopeError):
    """An unknown method, or an option that a method does not have."""


class ConfigurationError(ConvscopeError):
    """A configuration file that cannot be read, or says what cannot be."""


class RuleError(ConvscopeError):
    """A backward rule that is not defined on this network, or could not be applied everywhere."""


class DataError(ConvscopeError):
    """Pictures to learn from that are missing, of one class, or cannot be read."""


class StorageError(DataError):
    """A storage that does not answer, or lets nobody in: not the fault of a picture, so that no run skips it."""


class TrainingError(ConvscopeError):
    """A training run that went wrong: its loss is not finite."""


class SynthesisError(ConvscopeError):
    """A picture that could not be made: its unit never moves, or the loss is not finite."""


class OutOfMemory(ConvscopeError):  # noqa: N818  reads as what happened
    """Memory ran out, also with the smallest batch."""


class RecipeError(ConvscopeError):
    """A recipe that is missing, cannot be read, or cannot be followed any more."""


class PluginError(ConvscopeError):
    """A plugin that cannot be imported, or that registers what exists already."""


class OutputError(ConvscopeError):
    """An output that cannot be written."""


class AtlasError(ConvscopeError):
    """An atlas is none, is of something else, or a picture that it names is not the one that was scanned."""


class PicturesFailed(ConvscopeError):  # noqa: N818  reads as what happened
    """Some of several pictures could not be read or explained; the others are done."""

    exit_code = 3


class ConditionFailed(ConvscopeError):  # noqa: N818  reads as what happened
    """A condition does not hold that the user stated."""

    exit_code = 1


def nearest(asked: str, existing: Iterable[str], *, count: int = 3, prefix: str = "") -> str:
    """Return the names most like the one asked for, quoted (with a prefix) and joined; all when few exist."""
    names = [str(name) for name in existing if str(name)]
    folded: dict[str, str] = {}
    for name in names:
        folded.setdefault(name.lower(), name)
    close = [folded[low] for low in difflib.get_close_matches(asked.lower(), folded, n=count, cutoff=0.5)]
    shown = close or names[:8]
    more = "" if close or len(names) <= 8 else f", ... ({len(names)} in all)"
    return ", ".join(repr(prefix + name) for name in shown) + more


def one_line(text: str) -> str:
    """Return a text in one line, cut where it is very long, with control characters written out.

    Texts may hold names from files of others, and a terminal obeys what such names may hold.
    """
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 4 :]}"
    return visible(re.sub(r"\s*[\r\n]\s*", " ", text))


def visible(text: str, keep: str = "") -> str:
    """Return a text with what a terminal obeys, or does not show, written out as JSON does: \\u001b."""
    return _UNSEEN.sub(lambda found: found[0] if found[0] in keep else as_json(found[0]), text)


def named(picture: str, reason: str) -> str:
    """Return why a picture failed, with its name in front where the reason does not begin with it, or a path to it."""
    told = reason.startswith(picture) or reason.partition(": ")[0].partition(" is ")[0].endswith(f"/{picture}")
    return reason if told else f"{picture}: {reason}"


def as_json(characters: str) -> str:
    """Return characters as the escapes of a JSON string."""
    return "".join(f"\\u{unit:04x}" for unit in memoryview(characters.encode("utf-16", "surrogatepass")).cast("H")[1:])


def told(error: BaseException) -> str:
    """Return what somebody else's error says, on one line, and the line of their code that raised it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if lines and "TorchScript interpreter" in lines[0]:  # what went wrong comes after its own traceback
        lines = [lines[-1].partition(": ")[2] or lines[-1]]
    where = their_line(traceback.extract_tb(error.__traceback__))
    return (f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__) + where


def networks_own(error: BaseException) -> bool:
    """Whether an error comes from inside a network that convscope called."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return str(Path(_OURS, "calling.py")) in files and _OURS not in files[-1]


def their_line(frames: traceback.StackSummary) -> str:
    """Return ", in line 7 of model.py" for the innermost frame of what convscope called, outside torch, or ""."""
    called = dropwhile(lambda frame: _OURS not in frame.filename, frames)
    theirs = [frame for frame in called if not any(part in frame.filename for part in (_OURS, _TORCH))]
    return f", in line {theirs[-1].lineno} of {Path(theirs[-1].filename).name}" if theirs else ""
