"""What is kept for later stays bounded, however long a process runs."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from convscope import Net, layers
from convscope.behaviour import Behaviour
from convscope.drawing import fonts
from convscope.kept import Kept


def test_the_last_results_that_were_asked_for_are_kept() -> None:
    kept, found = Kept[int, int](3), list[int]()

    def of(key: int) -> int:
        return kept.of(key, lambda: found.append(key) or key * key)

    assert [of(key) for key in (1, 2, 3, 1, 4, 1, 3)] == [1, 4, 9, 1, 16, 1, 9]
    assert found == [1, 2, 3, 4] and len(kept) == 3
    assert of(2) == 4 and found == [1, 2, 3, 4, 2]


def test_a_failure_is_not_kept() -> None:
    kept = Kept[int, int](3)
    with pytest.raises(ZeroDivisionError):
        kept.of(0, lambda: 1 // 0)
    assert len(kept) == 0 and kept.of(0, lambda: 5) == 5


def test_many_threads_may_ask() -> None:
    kept, wrong = Kept[int, int](5), list[int]()

    def ask(start: int) -> None:
        wrong.extend(key for n in range(2000) if kept.of(key := (start + n) % 11, lambda key=key: -key) != -key)

    threads = [threading.Thread(target=ask, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(kept) == 5


def test_a_service_meets_ever_new_sizes_and_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convscope.net.behaviour_of", lambda *_: Behaviour())
    net = Net(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), size=40)
    for side in range(10, 10 + 300):
        net.behaviour(torch.zeros(2, 1, 5, side))
    assert len(net._behaviours) == 256
    layer = net.layers["0"]
    for side in range(5, 5 + 40):
        assert layers.layer_at(net, layer, torch.zeros(1, 1, 6, side)).shape == (2, 4, side - 2)
    assert len(layers._at_sizes[net]) == 32
    for function in (fonts.legible, fonts.runs, fonts.plain):
        assert function.cache_info().maxsize == 4096
