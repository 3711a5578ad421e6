"""Doubles are for the CPU: other devices, such as Apple's, have none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from convscope import Net, as_objective
from convscope.checks.similarity import strength
from convscope.ranks import rank_correlation
from convscope.registry import METHODS, Entry, load_all
from networks import SIZE, pictures, tiny_body
from test_threads import QUICK

load_all()

ELSEWHERE = torch.device("mps")


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)


def is_elsewhere(tensor: Tensor) -> bool:
    return getattr(tensor, "is_elsewhere", False)


class Elsewhere(TorchFunctionMode):
    """Acts as if some tensors were on a device without doubles: what is computed from them is there too, until `cpu`.

    Only Python's calls are seen, not what torch does inside them.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        inputs = [t for t in tensors_in([*args, *kwargs.values()]) if is_elsewhere(t)]
        if func == Tensor.device.__get__ and inputs and func(args[0]).type == "cpu":
            return ELSEWHERE
        if name == "numpy" and inputs:
            raise TypeError("can't convert mps tensor to numpy: use cpu() first")
        there = bool(inputs) or ELSEWHERE in (*args, *kwargs.values())
        args = [torch.device("cpu") if a == ELSEWHERE else a for a in args] if ELSEWHERE in args else args
        kwargs = {k: torch.device("cpu") if v == ELSEWHERE else v for k, v in kwargs.items()}
        output = func(*args, **kwargs)
        if name == "cpu" or (name == "to" and "cpu" in args):
            return torch.ops.aten.alias(output) if inputs else output
        if there:
            self.mark(output, args)
        return output

    def mark(self, output: Any, args: Any) -> None:
        for tensor in tensors_in(output):
            if tensor.dtype == torch.float64:
                raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support it")
            tensor.is_elsewhere = True  # type: ignore[attr-defined]


def elsewhere(body: nn.Module) -> Net:
    for tensor in (*body.parameters(), *body.buffers()):
        tensor.is_elsewhere = True  # type: ignore[attr-defined]
    return Net(body, size=SIZE, mean=0.4, std=0.3)


def moved(pixels: Tensor) -> Tensor:
    pixels = pixels.clone()
    pixels.is_elsewhere = True  # type: ignore[attr-defined]
    return pixels


@pytest.mark.parametrize("entry", METHODS.values(), ids=METHODS)
def test_methods_compute_no_doubles_beside_the_cpu(entry: Entry) -> None:
    net = elsewhere(tiny_body("residual", dtype=torch.float32))
    expected = entry.function(net, pictures(2, dtype=torch.float32), as_objective(net, 2), **QUICK.get(entry.name, {}))
    with Elsewhere():
        pixels = moved(pictures(2, dtype=torch.float32))
        map_ = entry.function(net, pixels, as_objective(net, 2), **QUICK.get(entry.name, {}))
    assert map_.dtype == torch.float32
    torch.testing.assert_close(map_, expected)


def test_the_device_of_this_test_has_no_doubles_and_is_not_numpys() -> None:
    with Elsewhere():
        pixels = moved(pictures(1, dtype=torch.float32))
        assert pixels.device == ELSEWHERE and (pixels * 2).device == ELSEWHERE
        assert torch.zeros(2, device=pixels.device).device == ELSEWHERE
        assert pixels.cpu().double().dtype == torch.float64
        for double in (pixels.double, lambda: (pixels + 1).to(torch.float64), pixels.numpy):
            with pytest.raises(TypeError):
                double()


def test_checks_compare_maps_on_the_cpu() -> None:
    one, other = pictures(2, dtype=torch.float32)
    with Elsewhere():
        assert -1 <= rank_correlation(moved(one), moved(other)) <= 1
        assert strength(moved(one)).dtype == torch.float64


def test_changes_of_a_picture_are_added_up_on_the_cpu() -> None:
    from convscope.synthesis.accentuate import _unit, _values

    net = elsewhere(tiny_body("residual", dtype=torch.float32))
    before, after = pictures(2, dtype=torch.float32)[:, None]
    with Elsewhere():
        before, after = moved(before), moved(after)
        assert _unit(net, as_objective(net, 2), before, 1.0) > 0
        _values(net, as_objective(net, 2), before, after, moved(torch.ones(1, 1, SIZE, SIZE)))
