"""Plugins: modules of other packages, or files, whose import registers methods, views and sources of networks.

A package names them by the entry point group `convscope.plugins`, a user by `plugins = [...]` in convscope.toml.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

from . import configuration, trust
from .code_files import AsWritten
from .configuration import Configuration
from .errors import ConfigurationError

GROUP = "convscope.plugins"

_failures: dict[str, str] = {}
_loaded: set[str] = set()


def names() -> tuple[str, ...]:
    """List the plugins: modules by name, files by path, those of installed packages first."""
    return tuple(dict.fromkeys([*_installed(tuple(sys.path)), *_trusted().plugins]))


@functools.cache
def _installed(where: tuple[str, ...]) -> tuple[str, ...]:
    """List the plugins of the packages that are installed where Python looks for them."""
    return tuple(point.value.partition(":")[0] for point in entry_points(group=GROUP))


def _trusted() -> Configuration:
    """Return the configuration whose plugins run: none where the user has not trusted it."""
    settings = _settings()
    return settings if settings.plugins and settings.is_trusted else Configuration()


def _settings() -> Configuration:
    try:
        return configuration.read()
    except ConfigurationError:  # said by whatever needs the configuration
        return Configuration()


def withheld() -> str:
    """Say which plugins are not used because the user has not trusted the configuration that names them, or ""."""
    settings = _settings()
    if settings.path is None or not settings.plugins or settings.is_trusted:
        return ""
    why = trust.refusal(settings.path, settings.sha256)
    return f"the plugins of {settings.path} are not used. {why}"


def load() -> dict[str, str]:
    """Import every plugin that is not yet, and return why some cannot be, by name; each failure is returned once."""
    failures: dict[str, str] = {}
    for name in names():
        if name in _loaded or name in _failures:
            continue
        _loaded.add(name)  # before it is imported, for it may itself ask what is registered
        try:
            _import(name)
        except Exception as error:  # whatever a plugin raises, the rest works
            _loaded.discard(name)
            failures[name] = f"{type(error).__name__}: {error}"
        if name in _trusted().plugins:
            _trusted().in_use()
    _failures.update(failures)
    return failures


def load_or_warn() -> None:
    """Import every plugin that is not yet; one that cannot be imported is named in a warning, and the rest works."""
    if withheld():
        configuration.say(logging.WARNING, withheld())
    for plugin, error in load().items():
        warnings.warn(f"the plugin {plugin} cannot be used: {error}", stacklevel=3)


def sources() -> Iterator[Path]:
    """Yield the source file of every plugin, without importing it."""
    for name in names():
        path = source(name)
        if path is not None and path.is_file():
            yield path


def _import(name: str) -> None:
    if not name.endswith(".py"):
        importlib.import_module(name)
        return
    module = f"convscope_plugin_{Path(name).stem}"
    spec = importlib.util.spec_from_file_location(module, name, loader=AsWritten(module, name))
    if spec is None or spec.loader is None or not Path(name).is_file():
        raise FileNotFoundError(f"there is no file {name}")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[module] = loaded
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[module]
        raise


def source(name: str) -> Path | None:
    """Find a module's file; the packages around it are looked for and not imported."""
    if name.endswith(".py"):
        return Path(name)
    top, *inner = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not inner and spec.origin:
        return Path(spec.origin)
    folders = [Path(folder).joinpath(*inner) for folder in spec.submodule_search_locations or ()]
    places = [place for folder in folders for place in (folder.with_suffix(".py"), folder / "__init__.py")]
    return next((place for place in places if place.is_file()), None)
