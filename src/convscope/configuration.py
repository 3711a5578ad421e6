"""What a user has named once: networks, data and defaults, in convscope.toml or a pyproject's [tool.convscope].

The file lies in a folder that somebody else may have made. So it is looked for no higher than the home folder and the
border of the file system, it counts only where nobody else can change it, and nothing that it names runs code before
the user trusts it (`trust`). Whatever uses something of it calls `in_use`, which names the file once.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from . import addresses, trust
from .errors import ConfigurationError
from .parsing import Document, read_bytes, shown
from .synonyms import OPTIONS, hint

FILE, PROJECT = "convscope.toml", "pyproject.toml"

_log = logging.getLogger(__name__)
said: set[str] = set()
"""What was said of configurations already: each is named once in a process, or in a run of the command line."""


@dataclass(frozen=True)
class Network:
    """A network that a user has named: what `load` is given. `reading` is as `load` takes it."""

    name: str
    where: str
    load: str
    weights: str = "default"
    epoch: int | None = None
    reading: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Configuration:
    """What a configuration file says, its paths absolute; empty where there is no file.

    `net` is the network of commands that name none; what it and `networks` load is as it was written, because sources
    say what is a path (`zoo.configured`). `data` are locations of pictures by name; `defaults` are values of commands'
    options as they were written, those of one command in a mapping of its own; `plugins` are modules by name, or paths
    of Python files, which register what they add.
    """

    path: Path | None = None
    net: str | None = None
    networks: Mapping[str, Network] = field(default_factory=dict[str, Network])
    data: Mapping[str, str] = field(default_factory=dict[str, str])
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    plugins: tuple[str, ...] = ()
    sha256: str = ""

    @property
    def is_trusted(self) -> bool:
        """Whether the user lets it run code."""
        return self.path is None or trust.holds(self.path, self.sha256)

    def require_trust(self, where: str, what: str, otherwise: str) -> None:
        """Raise ConfigurationError unless the user trusts it.

        Args:
            where: the place in the configuration that asks for it, and what it asks for.
            what: why it must be trusted for that: "which runs code".
            otherwise: what the user can do instead of trusting it.
        """
        if self.path is not None and not self.is_trusted:
            raise ConfigurationError(f"{where}, {what}. {trust.refusal(self.path, self.sha256)}. {otherwise}")

    def leads_out(self, text: str) -> bool:
        """Whether a path in the file leads to somewhere outside the file's folder, such as a storage."""
        if self.path is None:
            return False
        if addresses.is_remote(text):
            return True
        return not Path(self.placed("path", text)).resolve().is_relative_to(self.path.parent.resolve())

    def in_use(self) -> None:
        """Name the file where something of it is used: once, to whoever listens to the log; the command line does."""
        if self.path is not None:
            say(logging.INFO, f"using {self.path}")

    def placed(self, key: str, value: Any) -> Any:
        """Return a value of the file with the path it holds, if it holds one, taken from the file's folder."""
        if self.path is None or not isinstance(value, str) or key not in _PLACED:
            return value
        return _PLACED[key](self.path.parent, value)


def read(folder: Path | None = None) -> Configuration:
    """Read the nearest configuration from a folder upwards, the working directory by default.

    In one folder convscope.toml comes before pyproject.toml; a pyproject.toml without [tool.convscope] does not count,
    nor does a file that others than the user can change, unless it is trusted. The search ends at the home folder, and
    at the border of the file system.
    Raises ConfigurationError, which names file and table, for what cannot be read or is not known.
    """
    for position in _searched(folder):
        for path in (position / FILE, position / PROJECT):
            content = _usable(path)
            if content is not None:
                return _configuration(path, content)
    return Configuration()


def read_file(path: Path) -> Configuration:
    """Read a configuration that the user names, whoever it belongs to. Raises ConfigurationError."""
    path = path.parent.resolve() / path.name
    content = _content(path)
    if content is None:
        raise ConfigurationError(
            f"{path} is no configuration of convscope: name {FILE}, or a {PROJECT} with a table [tool.convscope]"
        )
    return _configuration(path, content)


def _configuration(path: Path, content: Any) -> Configuration:
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path}: [tool.convscope] is a table, not {shown(content)}")
    _check(f"{path}", content, _TOP)
    base = Configuration(path, defaults=content.get("defaults", {}))
    for command, options in base.defaults.items():
        inner = options.values() if isinstance(options, dict) else [options]
        if not all(isinstance(v, (str, int, float, bool)) or _is_plain_list(v) for v in inner):
            raise ConfigurationError(f"{path}, [defaults]: {command} is a value, or a table of one command's values")
    data = content.get("data", {})
    _check(f"{path}, [data]", data, dict.fromkeys(data, _TEXT))
    for name in data:
        _check_name(f"[data] {name} of {path}", name)
    return Configuration(
        path,
        content.get("net"),
        {name: _network(base, name, table) for name, table in content.get("networks", {}).items()},
        {name: base.placed("data", value) for name, value in data.items()},
        base.defaults,
        tuple(_plugin(base, name) for name in content.get("plugins", [])),
        sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest(),
    )


def located(text: str) -> str:
    """Return the place that a name of [data] stands for, also before a slash ("pets/cat.jpg"), or else the text.

    Raises ConfigurationError where it is not there, or where the working directory holds something of that name too.
    """
    settings = read()
    name, slash, rest = text.partition("/")
    if name not in settings.data:
        return text
    where = f"{settings.path}, [data] {name}"
    if os.path.exists(text):  # noqa: PTH110  False also for a name of more than 255 characters
        raise ConfigurationError(f"{text!r} is here too, and in {where}: write ./{text} for the one here")
    position = settings.data[name] + (slash + rest if rest else "")
    remote = addresses.is_remote(position)
    if remote:
        said = addresses.public(position)
        settings.require_trust(f"{where} is {said}", "which is asked in your name", f"Or name it yourself: {said}")
    there = remote or os.path.exists(position)  # noqa: PTH110
    if not position.startswith("torchvision:") and not there:
        raise ConfigurationError(f"{where}: there is no {position}")
    settings.in_use()
    return position


def _searched(folder: Path | None) -> Iterator[Path]:
    """Yield a folder and those above it: up to the home folder, or to the border of the file system."""
    try:
        start = (folder or Path.cwd()).resolve()
    except OSError:  # the working directory was removed
        return
    try:
        home = Path.home().resolve()
    except RuntimeError:
        home = None
    device: int | None = None
    for position in (start, *start.parents):
        try:
            there = position.stat().st_dev
        except OSError:
            return
        if device not in (None, there):
            return
        device = there
        yield position
        if position == home:
            return


def _usable(path: Path) -> dict[str, Any] | None:
    """Return what a file says, None where there is none, or where somebody else can change it."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        ours = trust.is_ours(path)
    except OSError:  # not there, or nothing that may be looked at
        return None
    if ours or (trust.is_known(path) and read_file(path).is_trusted):
        return _content(path)
    if path.name == FILE or _is_convscopes(path):
        command = f"convscope trust {shlex.quote(str(path))}"
        say(logging.WARNING, f"{path} is not used, because others than you can change it; to use it: {command}")
    return None


def _is_convscopes(project: Path) -> bool:
    """Whether a project that is not read any further means convscope, at a glance."""
    try:
        with project.open("rb") as file:
            return b"tool.convscope" in file.read(1 << 20)
    except OSError:
        return False


def _content(path: Path) -> dict[str, Any] | None:
    """Return convscope's part of a file, None where a project has no such part."""
    content = _toml(path)
    if path.name == FILE:
        return content
    tool = content.get("tool")
    return tool.get("convscope") if isinstance(tool, dict) else None


def say(level: int, text: str) -> None:
    """Log what a user should know of a configuration, once."""
    if text not in said:
        said.add(text)
        _log.log(level, text)


def _toml(path: Path) -> dict[str, Any]:
    content = read_bytes(path, ConfigurationError)
    if path.name != FILE and b"convscope" not in content:  # somebody else's project may be as it likes
        return {}
    return Document.decoded(content, str(path), ConfigurationError).toml()


def _network(base: Configuration, name: str, table: Any) -> Network:
    where = f"[networks.{name}] of {base.path}"
    if not isinstance(table, dict):
        raise ConfigurationError(f"{where} is a table: write [networks.{name}], and below it load = '...'")
    _check_name(where, name)
    if "extra" in table:
        raise ConfigurationError(f"{where}: extra cannot be said here; say it in a function: load = 'file:my.py:build'")
    _check(where, table, _NETWORK)
    if "load" not in table:
        raise ConfigurationError(f"{where} has no load: say what it is, as in load = 'caffe:deploy.prototxt'")
    reading = {key: base.placed(key, value) for key, value in table.items()}
    own = {key: reading.pop(key) for key in ("load", "weights", "epoch") if key in reading}
    return Network(name, where, **own, reading=reading)


def _check_name(where: str, name: str) -> None:
    """Refuse a name that already means something: "sample:chelsea", "timm:resnet18", a file."""
    if not re.fullmatch(r"[^:/\\]+", name):
        raise ConfigurationError(f"{where}: a name has no colon and no slash, which tell sources and files")


def _plugin(base: Configuration, name: str) -> str:
    """Return the name of a module, or the path of a Python file. Raises ConfigurationError for what is neither."""
    if not name.endswith(".py"):
        if not all(part.isidentifier() for part in name.split(".")):
            raise ConfigurationError(
                f"{base.path}: plugins names {name!r}, which is neither a module, as in 'my_package.plugin', nor a "
                "Python file, as in 'tools/plugin.py'"
            )
        return name
    path = base.placed("path", name)
    if not Path(path).is_file():
        raise ConfigurationError(f"{base.path}: plugins names {name!r}, and there is no file {path}")
    return path


_Kind = tuple[str, Callable[[Any], bool]]


def _is_plain_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, (str, int, float)) for part in value)


def _is_whole(value: Any) -> bool:
    return type(value) is int


def _is_numbers(value: Any) -> bool:
    several = value if isinstance(value, list) and value else [value]
    return all(type(part) in (int, float) for part in several)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def _is_side(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, list) and len(value) == 2 and all(map(_is_whole, value)))


def _is_wholes(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_whole, cast("list[Any]", value)))


_TEXT: _Kind = ("text in quotes", _is_text)
_WHOLE: _Kind = ("a whole number", _is_whole)
_SIDE: _Kind = ("a whole number or [height, width]", _is_side)
_TABLE: _Kind = ("a table", lambda value: isinstance(value, dict))
_TOP = {
    "net": _TEXT,
    "networks": _TABLE,
    "data": _TABLE,
    "defaults": _TABLE,
    "plugins": ("a list of modules or Python files in quotes", _is_texts),
}
_NETWORK: dict[str, _Kind] = {
    "load": _TEXT,
    "weights": _TEXT,
    "epoch": _WHOLE,
    "mean": ("a number, one per channel, 'imagenet' or a file", lambda value: _is_numbers(value) or _is_text(value)),
    "std": ("a number, one per channel or 'imagenet'", lambda value: _is_numbers(value) or value == "imagenet"),
    "size": _SIDE,
    "resize": _SIDE,
    "interpolation": _TEXT,
    "fit": _TEXT,
    "value_range": ("[black, white], two numbers", lambda value: isinstance(value, list) and _is_numbers(value)),
    "window": (
        "[black, white], two numbers, or 'auto'",
        lambda value: (isinstance(value, list) and _is_numbers(value)) or value == "auto",
    ),
    "show": ("a whole number or a list of three", lambda value: _is_whole(value) or _is_wholes(value)),
    "channels": _WHOLE,
    "order": _TEXT,
    "classes": (
        "a file, a list of names, a table of names by index or 'imagenet'",
        lambda value: _is_text(value) or _is_texts(value) or isinstance(value, dict),
    ),
    "seed": _WHOLE,
    "head": ("'softmax', 'sigmoid', 'probability' or 'value'", _is_text),
    "output": ("a key in quotes or a whole number", lambda value: _is_text(value) or _is_whole(value)),
}


def _check(where: str, table: Mapping[str, Any], kinds: Mapping[str, _Kind]) -> None:
    for key, value in table.items():
        if key not in kinds:
            near = hint(key, OPTIONS, {name: repr(name) for name in kinds})
            raise ConfigurationError(f"{where} has no key {key!r}; {near}")
        words, fits = kinds[key]
        if not fits(value):
            raise ConfigurationError(f"{where}: {key} is {words}, not {value!r}")


def _path(folder: Path, text: str) -> str:
    try:
        return str(folder / Path(text).expanduser())
    except RuntimeError:  # the home of a user that there is not
        return str(folder / text)


def _weights(folder: Path, text: str) -> str:
    return text if text.lower() in ("default", "none") else _path(folder, text)


def _path_or_imagenet(folder: Path, text: str) -> str:
    return text if text == "imagenet" else _path(folder, text)


def _data(folder: Path, text: str) -> str:
    if addresses.is_remote(text):
        return text
    parts = text.split(":", 2)  # torchvision:MNIST:FOLDER
    return ":".join([*parts[:2], _path(folder, parts[2])]) if len(parts) == 3 else _path(folder, text)


_PLACED: dict[str, Callable[[Path, str], str]] = {
    "weights": _weights,
    "mean": _path_or_imagenet,
    "classes": _path_or_imagenet,
    "data": _data,
    "path": _path,
}
