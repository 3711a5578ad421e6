"""The run without data leaves nothing behind: whatever a network's code keeps, and wherever, it is real afterwards."""

from __future__ import annotations

import dataclasses
import functools
import threading
import types
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from convscope import Net
from convscope.surroundings import Surroundings

TABLES: dict[Any, Tensor] = {}
TABLE: Tensor | None = None
CURRENT: list[Any] = ["cpu"]
SEEN: dict[str, Tensor] = {}


OF_THE_THREAD = threading.local()


@dataclasses.dataclass(slots=True)
class Slotted:
    """What a table is kept in."""

    table: Tensor | None = None


def table(x: Tensor) -> Tensor:
    """A position table as networks build theirs: of the picture's size, on its device."""
    return torch.ones(x.shape[-2:], device=x.device, dtype=x.dtype)


def in_a_global_dictionary(self: Keeps, x: Tensor) -> Tensor:
    return TABLES.setdefault(tuple(x.shape[-2:]), table(x))


def in_a_global_name(self: Keeps, x: Tensor) -> Tensor:
    global TABLE  # noqa: PLW0603
    if TABLE is None:
        TABLE = table(x)
    return TABLE


def in_a_class_attribute(self: Keeps, x: Tensor) -> Tensor:
    if type(self).grid is None:
        type(self).grid = table(x)
    return type(self).grid


def in_a_new_class_attribute(self: Keeps, x: Tensor) -> Tensor:
    if not hasattr(Keeps, "made"):
        Keeps.made = table(x)
    return Keeps.made


def in_a_class_dictionary(self: Keeps, x: Tensor) -> Tensor:
    return self.shared.setdefault(tuple(x.shape[-2:]), table(x))


@functools.lru_cache
def _cached(height: int, width: int) -> Tensor:
    return torch.ones(height, width, device=CURRENT[0])


def in_an_lru_cache(self: Keeps, x: Tensor) -> Tensor:
    CURRENT[0] = x.device
    return _cached(*x.shape[-2:])


def in_a_closure(self: Keeps, x: Tensor) -> Tensor:
    return self.enclosed(x)


def in_a_default(self: Keeps, x: Tensor, kept: list[Tensor] = []) -> Tensor:  # noqa: B006  as people write it
    if not kept:
        kept.append(table(x))
    return kept[0]


def in_an_object(self: Keeps, x: Tensor) -> Tensor:
    if self.holder.table is None:
        self.holder.table = table(x)
    return self.holder.table


def in_a_slot(self: Keeps, x: Tensor) -> Tensor:
    if self.slotted.table is None:
        self.slotted.table = table(x)
    return self.slotted.table


def in_an_object_of_the_thread(self: Keeps, x: Tensor) -> Tensor:
    if not hasattr(OF_THE_THREAD, "table"):
        OF_THE_THREAD.table = table(x)
    return OF_THE_THREAD.table


def in_nested_containers(self: Keeps, x: Tensor) -> Tensor:
    if "table" not in self.nested["a"]:
        self.nested["a"]["table"] = table(x)
        self.recent.append(self.nested["a"]["table"])
    return self.recent[-1]


def in_a_late_buffer(self: Keeps, x: Tensor) -> Tensor:
    if not hasattr(self, "late"):
        self.register_buffer("late", table(x), persistent=False)
    return self.late


def on_a_function(self: Keeps, x: Tensor) -> Tensor:
    if not hasattr(table, "kept"):
        table.kept = table(x)  # type: ignore[attr-defined]
    return table.kept  # type: ignore[attr-defined]


def in_a_dictionary_of_hooks(self: Keeps, x: Tensor) -> Tensor:
    return SEEN["before"] if "before" in SEEN else table(x)


WAYS: list[Callable[[Keeps, Tensor], Tensor]] = [
    in_a_global_dictionary, in_a_global_name, in_a_class_attribute, in_a_new_class_attribute, in_a_class_dictionary,
    in_an_lru_cache, in_a_closure, in_a_default, in_an_object, in_a_slot,
    in_an_object_of_the_thread, in_nested_containers, in_a_late_buffer, on_a_function,
    in_a_dictionary_of_hooks,
]  # fmt: skip


class Keeps(nn.Module):
    """A convolution and a table of positions, made at the first pass and kept in some way."""

    grid: ClassVar[Tensor | None] = None
    made: ClassVar[Tensor]
    shared: ClassVar[dict[Any, Tensor]] = {}

    def __init__(self, way: Callable[[Keeps, Tensor], Tensor]) -> None:
        super().__init__()
        self.way, self.conv = way, nn.Conv2d(3, 4, 3, padding=1)
        self.holder, self.nested, self.recent = types.SimpleNamespace(table=None), defaultdict(dict), deque(maxlen=2)
        self.slotted = Slotted()
        inner: dict[str, Tensor] = {}
        first: Tensor | None = None

        def enclosed(x: Tensor) -> Tensor:
            nonlocal first
            first = table(x) if first is None else first
            return inner.setdefault("table", first)

        self.enclosed = enclosed
        self.conv.register_forward_hook(lambda module, inputs, output: SEEN.update(conv=output))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return (y * self.way(self, y)).mean((2, 3))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_network_that_keeps_tensors_runs_after_its_layers_were_listed(way: Callable[[Keeps, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    SEEN.clear()
    body = Keeps(way)
    x = torch.rand(2, 3, 16, 16)
    expected = body.conv(x).mean((2, 3))
    SEEN.clear()
    assert Net(body, size=16, channels=3).layers["conv"].shape == (4, 16, 16)
    assert not SEEN, "a hook of one's own has kept an output without data"
    torch.testing.assert_close(body(x), expected)
    assert not SEEN["conv"].is_meta


def test_what_was_there_before_is_put_back_as_it_was() -> None:
    """Another size's table, a real one, survives; so do entries that others added meanwhile."""
    body = Keeps(in_a_closure)
    old = body.holder.table = torch.ones(3)
    beside = Surroundings(body)
    body.holder.table = torch.ones(4, device="meta")
    body.nested["real"] = {"table": torch.ones(2)}
    beside.__exit__()
    assert body.holder.table is old
    assert body.nested["real"]["table"].tolist() == [1, 1]
