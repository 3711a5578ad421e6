"""Surroundings: what a module's code can write to beside the module, put back after a run without data.

A twin takes what a pass writes to the module. But code also keeps tensors elsewhere: in class attributes, globals,
closures, `lru_cache`, objects that modules share, and dictionaries that somebody's hooks fill. A tensor without data
that stayed there would be found by the next real pass.
"""

from __future__ import annotations

import sys
from collections import UserDict, deque
from collections.abc import Iterator
from functools import _lru_cache_wrapper, partial
from threading import local
from types import CellType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from torch import Tensor, nn

_FOREIGN = {*sys.stdlib_module_names, "torch", "torchvision", "timm", "numpy", "PIL", "convscope"} - {"__main__"}
"""Packages that keep no tensors of a network beside its modules."""

_MOST = 20_000
"""How many objects are looked at, the nearest first."""


class Surroundings:
    """Everything that a module's code can reach by name and write to, as it is now.

    Leaving the block puts back each place that holds a tensor without data by then, and empties caches of functions
    that were filled.
    """

    def __init__(self, body: nn.Module) -> None:
        self.places: list[tuple[Any, Any]] = []
        self.caches: list[tuple[_lru_cache_wrapper[Any], int]] = []
        known = set[int]()
        waiting: deque[Any] = deque(body.modules())
        while waiting and len(known) < _MOST:
            value = waiting.popleft()
            if id(value) in known:
                continue
            known.add(id(value))
            if isinstance(value, _lru_cache_wrapper):
                self.caches.append((value, value.cache_info().misses))
            if _is_place(value):
                self.places.append((value, _content(value)))
            waiting.extend(_within(value))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        for place, before in self.places:
            if _lacks_data(place, before):
                _put_back(place, before)
        for cache, misses in self.caches:
            if cache.cache_info().misses != misses:
                cache.cache_clear()


def _is_place(value: Any) -> bool:
    """Whether a value has parts that can be written over, of which not too many: a network's state is small."""
    if isinstance(value, (dict, list, set, deque)):
        return len(value) <= _MOST
    return isinstance(value, CellType) or bool(_slots(value)) or (isinstance(value, type) and not _foreign(value))


def _within(value: Any) -> Iterator[Any]:
    """Yield what can be reached from a value."""
    if isinstance(value, FunctionType):
        yield from value.__closure__ or ()
        yield from (value.__defaults__, value.__kwdefaults__, value.__dict__)
        if not _foreign(value):
            yield value.__globals__
    elif isinstance(value, (MethodType, partial, _lru_cache_wrapper, staticmethod, classmethod, property)):
        names = ("__func__", "__self__", "func", "args", "keywords", "__wrapped__", "fget")
        yield from (getattr(value, name, None) for name in names)
    elif isinstance(value, nn.Module):
        yield from (type(value), *vars(value).values())
    elif isinstance(value, type) and not _foreign(value):
        yield from (*value.__bases__, *list(vars(value).values()))
    elif isinstance(value, tuple) or _is_place(value):
        yield from _values(_content(value))
    if not isinstance(value, (nn.Module, Tensor, ModuleType, type, FunctionType)):
        yield _attributes(value)


def _attributes(value: Any) -> dict[str, Any] | None:
    """Return an object's own attributes, where it is of a class that may hold a network's state."""
    return getattr(value, "__dict__", None) if isinstance(value, _HOLDERS) or not _foreign(type(value)) else None


_HOLDERS = (SimpleNamespace, UserDict, WeakKeyDictionary, WeakValueDictionary, local)
"""Python's own classes of objects that hold what somebody puts there."""


def _slots(value: Any) -> list[str]:
    """Return the names of the slots of an object that has any."""
    if isinstance(value, type) or _foreign(type(value)):
        return []
    named = [vars(kind).get("__slots__", ()) for kind in type(value).__mro__]
    return [name for slots in named for name in ((slots,) if isinstance(slots, str) else slots) if hasattr(value, name)]


def _foreign(value: Any) -> bool:
    return (getattr(value, "__module__", None) or "builtins").split(".")[0] in _FOREIGN


def _content(place: Any) -> dict[Any, Any] | list[Any]:
    """Return a copy of what a place holds, one level deep."""
    if isinstance(place, CellType):
        try:
            return [place.cell_contents]
        except ValueError:  # still empty
            return []
    if isinstance(place, type):
        return dict(vars(place))
    if slots := _slots(place):
        return {name: getattr(place, name) for name in slots}
    return dict(place) if isinstance(place, dict) else list(place)


def _values(content: Any) -> list[Any]:
    return list(content.values()) if isinstance(content, dict) else list(content)


def _lacks_data(place: Any, before: Any) -> bool:
    """Whether a place holds a tensor without data that it did not hold before."""
    old = {id(value) for value in _values(before)}
    return any(id(value) not in old and _is_without_data(value) for value in _values(_content(place)))


def _is_without_data(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_meta
    if isinstance(value, (dict, list, tuple, set, deque)):
        return any(_is_without_data(part) for part in _values(value))
    if isinstance(value, nn.Module):
        return any(parameter.is_meta for parameter in value.parameters())
    own = None if isinstance(value, (type, ModuleType)) else _attributes(value)
    return any(isinstance(part, Tensor) and part.is_meta for part in (own or {}).values())


def _put_back(place: Any, before: Any) -> None:
    if isinstance(place, CellType):
        if before:
            place.cell_contents = before[0]
        else:
            del place.cell_contents
    elif isinstance(place, dict):
        for name in [name for name in place if name not in before]:
            del place[name]
        place.update(before)
    elif isinstance(before, dict):
        now: Any = _content(place)
        for name in [name for name in now if name not in before]:
            delattr(place, name)
        for name, value in before.items():
            if name not in now or now[name] is not value:
                setattr(place, name, value)
    else:
        place.clear()
        place.extend(before) if isinstance(place, (list, deque)) else place.update(before)
