"""Sharing one body among threads: it stays frozen until its last user leaves, and hooks act for their own pass alone.

A body is any module, and two bodies may have parts in common. Flags are changed when the first user of a part comes and
restored when the last one goes, whoever that is; in between nothing is looked through again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from .interruptions import held_back

Hook = Callable[[nn.Module, Any, Any], Any]

# Re-entrant, because a generator that is thrown away may leave `frozen` while this very thread enters it.
_lock = threading.RLock()


class _Flag:
    """A flag that is off while anybody needs it so: `training` of a module, or `requires_grad` of a parameter."""

    __slots__ = ("name", "part", "users")

    def __init__(self, part: nn.Module | Tensor, name: str) -> None:
        self.part, self.name, self.users = part, name, 0

    def take(self) -> None:
        self.users += 1
        self._set(False)

    def leave(self) -> None:
        if self.users == 1:
            self._set(True)
            _flags.pop(id(self.part), None)
        self.users -= 1

    def _set(self, value: bool) -> None:
        attributes = vars(self.part)
        if self.name in attributes:  # a module's own, without the search that its `__setattr__` makes
            attributes[self.name] = value
        else:
            setattr(self.part, self.name, value)


class _Hold:
    """What one body has switched off, and how many use it."""

    __slots__ = ("body", "flags", "users")

    def __init__(self, body: nn.Module) -> None:
        self.body, self.users = body, 0
        self.flags: list[_Flag] = []

    def take(self) -> None:
        """Switch off what is on, and what others have switched off and would switch on again."""
        try:
            for part, name in _parts(self.body):
                if getattr(part, name, False) or id(part) in _flags:
                    flag = _flags.setdefault(id(part), _Flag(part, name))
                    self.flags.append(flag)
                    flag.take()
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Switch on again what was on. A flag that cannot be keeps none of the others from it."""
        _holds.pop(id(self.body), None)
        failed: BaseException | None = None
        while self.flags:
            try:
                self.flags.pop().leave()
            except BaseException as error:
                failed = error
        if failed is not None:
            raise failed


# Both hold what they are about, so that nothing else can have its id.
_holds: dict[int, _Hold] = {}
_flags: dict[int, _Flag] = {}


def _parts(body: nn.Module) -> Iterator[tuple[nn.Module | Tensor, str]]:
    """Yield every module and parameter of a body once, with the name of the flag that it has."""
    seen, stack = set[int](), [body]
    while stack:
        module = stack.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield module, "training"
        stack += [part for part in module._modules.values() if part is not None]
        for parameter in module._parameters.values():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                yield parameter, "requires_grad"


@contextmanager
def frozen(body: nn.Module) -> Generator[None]:
    """Put a body in eval mode without trainable parameters, and restore every flag when its last user has left.

    Any number of threads may do so at a time. Inside, doing it again costs nothing.
    """
    with held_back():
        hold = _enter(body)
        try:
            yield
        finally:
            with _lock:
                hold.users -= 1
                if not hold.users:
                    hold.leave()


def _enter(body: nn.Module) -> _Hold:
    with _lock:
        hold = _holds.get(id(body))
        if hold is None:
            hold = _Hold(body)
            hold.take()
            _holds[id(body)] = hold
        hold.users += 1
        return hold


_own: ContextVar[tuple[object, ...]] = ContextVar("whose hooks act here", default=())


@contextmanager
def hooked(
    hooks: Iterable[tuple[nn.Module, Hook]], entering: Iterable[tuple[nn.Module, Callable[[], None]]] = ()
) -> Generator[None]:
    """Register forward hooks that act only on passes made inside the block, by this thread.

    What a hook returns, unless None, replaces the module's output, as in torch. Those of `entering` are called without
    arguments before a module runs.
    """
    owner = object()
    handles = list[Any]()
    with held_back():
        token = _own.set((*_own.get(), owner))
        try:
            with _lock:  # torch numbers hooks without one
                for module, hook in hooks:
                    # TorchScript's own method refuses, though Python calls a scripted part's hooks like any other's.
                    handles.append(nn.Module.register_forward_hook(module, _guarded(owner, hook)))
                for module, enter in entering:
                    handles.append(nn.Module.register_forward_pre_hook(module, _entering(owner, enter)))
            yield
        finally:
            _own.reset(token)
            with _lock:
                for handle in handles:
                    handle.remove()


def _guarded(owner: object, hook: Hook) -> Hook:
    def act(module: nn.Module, inputs: Any, output: Any) -> Any:
        return hook(module, inputs, output) if owner in _own.get() else None

    return act


def _entering(owner: object, enter: Callable[[], None]) -> Callable[[nn.Module, Any], None]:
    def act(module: nn.Module, inputs: Any) -> None:
        if owner in _own.get():
            enter()

    return act


@contextmanager
def own_modes() -> Generator[None]:
    """Compute plain tensors also in inference mode, and keep the grad mode, whatever a body does to it.

    What a body caches must serve a later backward pass; and a body that switches the mode by calls, off and on again,
    may be left in between.
    """
    before = torch.is_grad_enabled()
    try:
        if torch.is_inference_mode_enabled():
            with torch.inference_mode(False), torch.no_grad():
                yield
        else:
            yield
    finally:
        if torch.is_grad_enabled() != before:
            torch.set_grad_enabled(before)
