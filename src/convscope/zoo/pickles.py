"""A pickle module for `torch.load` that builds tensors and plain containers, and calls nothing that a file names.

Checkpoints hold more than tensors: hyper-parameters, numpy numbers, dates, loops of a framework. Whatever a pickle
names and is not needed for a tensor becomes a `StandIn`, an empty object that takes any arguments and any state.
Nothing is imported, so that there is nothing to run; what a file can only name to run it is refused, to say so.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, _utils

_HOSTILE_MODULES = frozenset(
    "os posix nt sys subprocess shutil socket runpy importlib ctypes pty code codeop commands webbrowser".split()
)
_HOSTILE_BUILTINS = frozenset("eval exec execfile compile open __import__ input breakpoint".split())


class StandIn(dict[Any, Any]):
    """What stands for an object of a class, or the result of a function, that is not imported; `origin` is its name.

    What the file would have put into it as into a dict, stays; `state` is what it would have been given.
    """

    origin = ""
    state: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __new__(cls, *args: Any, **kwargs: Any) -> StandIn:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *args: Any, **kwargs: Any) -> StandIn:
        """Give what a function that was looked up in an object would give: nothing."""
        return type(self)()

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]  # it may be a key
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def append(self, item: Any) -> None:
        """Let go what a list would keep."""

    extend = add = append


class _Bytes:
    """The type of storage of a tensor that names its own."""

    dtype = torch.uint8


class Unpickler(pickle._Unpickler):
    """Read a pickle without importing what it names.

    The one in Python: that in C takes memory by numbers that a damaged file makes up.
    """

    def __init__(self, file: Any, **options: Any) -> None:
        super().__init__(file, **options)
        self._stand_ins: dict[str, type[StandIn]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        # torch.load would look up the source of a module that a file of the old format names.
        super().__setattr__(name, _storages_only(value) if name == "persistent_load" else value)

    def load(self) -> Any:
        """Read one pickle."""
        try:
            return super().load()
        except MemoryError:
            raise pickle.UnpicklingError("it says that something in it is larger than the memory") from None

    def find_class(self, module_name: str, global_name: str) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return what builds a tensor or a container, or else a class of stand-ins of that name."""
        if module_name.partition(".")[0] in _HOSTILE_MODULES or (
            module_name in ("builtins", "__builtin__") and global_name in _HOSTILE_BUILTINS
        ):
            raise pickle.UnpicklingError(f"it calls {module_name}.{global_name}")
        if (module_name, global_name) == ("torch.storage", "UntypedStorage"):
            return _Bytes()
        if module_name == "torch" and isinstance(getattr(torch, global_name, None), torch.dtype):
            return getattr(torch, global_name)
        built = _BUILT.get((module_name, global_name))
        if built is not None:
            # A new function each time, so that no file can set an attribute of one that others use.
            return _copy(built)
        origin = f"{module_name}.{global_name}"
        return self._stand_ins.setdefault(origin, type("StandIn", (StandIn,), {"origin": origin}))


def load(file: Any, **options: Any) -> Any:
    """Read one pickle, as `pickle.load` does."""
    return Unpickler(file, **options).load()


def _storages_only(persistent_load: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read(saved: Any) -> Any:
        if isinstance(saved, tuple) and saved[:1] == ("module",):
            return saved[1]
        return persistent_load(saved)

    return read


def _copy(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        return function(*args)

    return call


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    return _utils._rebuild_tensor(storage, offset, size, stride)


def _typed_tensor(storage: Any, offset: int, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any) -> Any:
    return _utils._rebuild_tensor_v3(storage, offset, size, stride, False, OrderedDict(), dtype)


def _parameter(data: Any, *rest: Any) -> Any:
    return data


def _of_a_subclass(build: Callable[..., Any], kind: Any, args: Any, state: Any) -> Any:
    return build(*args)


def _ordered(*args: Any) -> Any:
    return OrderedDict(*args)


def _dict(*args: Any) -> Any:
    return {}


_BUILT: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type"): _of_a_subclass,
    ("torch._tensor", "_rebuild_from_type_v2"): _of_a_subclass,
    ("collections", "OrderedDict"): _ordered,
    ("collections", "defaultdict"): _dict,
}
"""What tensors and state dicts are made of, by the name that files have for it."""
