"""Sources of networks: what may stand before the colon in `load("timm:resnet18")`, each one record.

A source of the package is a module of `zoo/` with a statement `SOURCE = Source(...)` of literals. The statement is read
from the module's text, and the module is imported when a network is built: `convscope nets` and `--help` must not
import torch. A plugin calls `register(Source(...))`. Nothing else in the package names a source.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .. import plugins
from ..errors import NetworkError, OptionError

Address = str | Callable[..., Any]
"""A function, or where it is: "package.module:function", or ".module:function" in `convscope.zoo`."""

FOLDER = Path(__file__).parent

_STATEMENT = re.compile(r"^SOURCE = (Source\((?:.*\)|.*\n(?:.*\n)*?\)))$", re.MULTILINE)
_PREFIX = re.compile(r"[a-z][a-z0-9_-]+")


@dataclass(frozen=True)
class Source:
    """Where networks come from.

    Args:
        prefix: what stands before the colon; at least two letters, because one is a drive.
        build: the function (model, weights, *, seed, reading) -> Net, `model` being what stands after the colon,
            `weights` "default", the path of a file or None, `reading` options of `Net` that override the source's.
        help: one phrase for help and documentation: what its networks are.
        follows: what stands after the colon, for help: "NAME", "FILE.onnx".
        path: whether that is a path, at which it may end (":function" may come after it).
        holds_weights: whether the network comes with its weights inside.
        runs_code: whether loading one runs code of the user's: a configuration that names it must be trusted.
        endings: of the files it reads, so that a name without the prefix is understood.
        own_units: whether `mean` is in the source's own units, or a file of its own.
        needs: modules that must be installed, by the extra named `extra`.
        names: the function () -> names, that lists its networks without importing torch.
        inspect: the function (model) -> NetworkInfo, which downloads nothing.
        counted: whether there are so many that they are counted rather than listed.
    """

    prefix: str
    build: Address
    help: str = ""
    follows: str = "NAME"
    path: bool = False
    holds_weights: bool = False
    runs_code: bool = False
    endings: tuple[str, ...] = ()
    own_units: bool = False
    needs: tuple[str, ...] = ()
    extra: str = ""
    names: Address | None = None
    inspect: Address | None = None
    counted: bool = False

    @property
    def form(self) -> str:
        """How a network of it is written, for help: "timm:NAME"."""
        return f"{self.prefix}:{self.follows}"

    @property
    def missing(self) -> list[str]:
        """The modules that it needs and that are not installed."""
        return [module for module in self.needs if not _installed(module)]

    @property
    def install(self) -> str:
        """What to type where a module is missing."""
        return f"pip install 'convscope[{self.extra}]'" if self.extra else f"pip install {' '.join(self.needs)}"

    def require(self, model: str) -> None:
        """Raise NetworkError, which says what to install, where a module is missing that a network needs."""
        if self.missing:
            needs = " and ".join(module.rpartition(".")[2] for module in self.needs)
            raise NetworkError(f"{self.prefix}:{model} needs {needs}: {self.install}")

    def networks(self) -> list[str]:
        """List its networks, with the prefix; none where it cannot tell."""
        return [f"{self.prefix}:{name}" for name in resolve(self.names)()] if self.names else []

    def file(self, model: str) -> Path:
        """Return the path that a model begins with: my_model.py of "my_model.py:build"."""
        ends = "|".join(re.escape(ending) for ending in self.endings)
        match = re.match(rf"(.+?(?:{ends}))(?::[^/\\]*)?$", model) if ends else None
        return Path(match[1] if match else model)


def resolve(address: Address) -> Callable[..., Any]:
    """Return the function at an address, importing its module."""
    if not isinstance(address, str):
        return address
    module, _, function = address.partition(":")
    return getattr(import_module(module, __package__), function)


def sources() -> dict[str, Source]:
    """Return all sources by prefix: libraries first, then those of files, then those of plugins, which are imported."""
    plugins.load_or_warn()
    return declared()


def declared() -> dict[str, Source]:
    """Return all sources by prefix without importing plugins."""
    return {**_shipped(), **_REGISTERED}


def register(source: Source) -> Source:
    """Add a source, as a plugin does. Raises OptionError for a prefix that cannot be, or is another source's."""
    if not _PREFIX.fullmatch(source.prefix):
        raise OptionError(f"a source's prefix is small letters, digits and dashes, two at least; not {source.prefix!r}")
    if declared().get(source.prefix, source) != source:
        raise OptionError(f"there is a source {source.prefix!r} already: choose another prefix")
    _REGISTERED[source.prefix] = source
    return source


def split(name: str) -> tuple[Source | None, str]:
    """Take "timm:resnet18" apart into its source and what follows; without a source where it has none."""
    prefix, _, model = name.partition(":")
    if not model:
        return None, name
    source = declared().get(prefix) or sources().get(prefix)
    return (source, model) if source else (None, name)


def by_ending(ending: str) -> Source | None:
    """Return the source that reads files of an ending."""
    return next((source for source in sources().values() if ending in source.endings), None)


def forms() -> str:
    """List how networks of every source are written: "torchvision:NAME, timm:NAME, ..."."""
    return ", ".join(source.form for source in declared().values())


def anchored(folder: Path, name: str) -> str:
    """Return a network's name with the path that it holds, if it holds one, taken from a folder."""
    source, model = split(name)
    return f"{source.prefix}:{folder / Path(model).expanduser()}" if source and source.path else name


_REGISTERED: dict[str, Source] = {}


@cache
def _shipped() -> Mapping[str, Source]:
    declared = sorted(declarations(FOLDER), key=lambda source: (source.path, source.counted, not source.names))
    return {source.prefix: source for source in declared}


def declarations(folder: Path) -> Iterable[Source]:
    """Read the sources that the modules of a folder declare, without importing them.

    Raises TypeError for a statement that holds more than literals.
    """
    for path in sorted(folder.rglob("*.py")):
        match = _STATEMENT.search(path.read_text(encoding="utf-8"))
        if match and path.name != Path(__file__).name:
            yield _declared(match[1], path)


def _declared(statement: str, path: Path) -> Source:
    call = ast.parse(statement, mode="eval").body
    assert isinstance(call, ast.Call)
    try:
        options = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        return Source(*map(ast.literal_eval, call.args), **options)
    except (ValueError, TypeError) as error:
        raise TypeError(f"SOURCE in {path} is read without running it, so it holds literals only: {error}") from None


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # of the package around it
        return False
