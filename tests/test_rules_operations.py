"""Backward rules beside operations of every kind: equal to a network whose rectifiers are written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import Function
from torch.nn import functional as F

from convscope import Net
from convscope.attribution.deconvnet import deconvnet, guided_backprop
from convscope.errors import RuleError
from convscope.objectives import Objective, Unit
from convscope.tracing import OUTPUT

METHODS: dict[str, Callable[..., Tensor]] = {"deconvnet": deconvnet, "guided": guided_backprop}
OBJECTIVE = Objective(((1.0, Unit(OUTPUT, 1)),))
SIDE = 12

Rectify = Callable[[Tensor], Tensor]
Operation = Callable[[Tensor, Rectify], Tensor]


class ByHand(Function):
    """A rectifier whose backward pass is a rule: the oracle."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.rule = rule
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        passed = grads[0] * (grads[0] > 0)
        return (passed * (x > 0) if ctx.rule == "guided" else passed), None


class Between(nn.Module):
    """Two convolutions, each with a rectifier after it, and an operation of our choice between them."""

    def __init__(self, operation: Operation, rectify: Rectify, out_of_place: Rectify) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.LazyConv2d(4, 3)
        self.head = nn.LazyLinear(3)
        self.operation, self.rectify, self.out_of_place = operation, rectify, out_of_place

    def forward(self, x: Tensor) -> Tensor:
        x = self.operation(self.out_of_place(self.first(x)), self.rectify)
        return self.head(self.out_of_place(self.last(x)).flatten(1))


class Recurrent(nn.Module):
    """Recurrent layers over the positions of a convolution's output, the second both ways."""

    def __init__(self, rectify: Rectify) -> None:
        super().__init__()
        self.conv, self.rectify = nn.Conv2d(3, 8, 4, 4), rectify
        self.lstm = nn.LSTM(8, 6, batch_first=True)
        self.gru = nn.GRU(6, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.rectify(self.conv(x)).flatten(2).mT
        return self.head(self.gru(self.lstm(steps)[0])[0][:, -1])


def unpooled(x: Tensor, _: Rectify) -> Tensor:
    pooled, where = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(pooled, where, 2)


def scattered(x: Tensor, _: Rectify) -> Tensor:
    index = torch.arange(x.shape[1]).flip(0).view(1, -1, 1, 1).expand_as(x)
    return torch.zeros_like(x).scatter(1, index, x) + torch.zeros_like(x).scatter_add(1, index * 0, x)


def filtered(x: Tensor, _: Rectify) -> Tensor:
    spectrum = torch.fft.rfft2(x)
    low = (torch.arange(spectrum.shape[-1]) < 3).to(x.dtype).expand(spectrum.shape[-2:])
    return torch.fft.irfft2(spectrum * low, s=x.shape[-2:])


def assigned(x: Tensor, rectify: Rectify) -> Tensor:
    y = x.clone()
    y[:, :4] = x[:, 4:]
    y[..., 0] = 0
    return rectify(y - 0.2)


def in_windows(x: Tensor, rectify: Rectify) -> Tensor:
    y = x - 0.2
    rectify(y[:, :3])
    rectify(y[:, 5:])
    return y


OPERATIONS: dict[str, Operation] = {
    "instance norm, in place": lambda x, rectify: rectify(F.instance_norm(x)),
    "flatten, in place": lambda x, rectify: rectify((x - 0.2).flatten(1)).view_as(x),
    "squeeze, in place": lambda x, rectify: rectify((x - 0.2)[None].squeeze(0)),
    "permute, in place": lambda x, rectify: rectify((x - 0.2).permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "reshape, in place": lambda x, rectify: rectify((x - 0.2).view(len(x), 2, 4, *x.shape[2:])).flatten(1, 2),
    "slices, in place": in_windows,
    "assignment": assigned,
    "in place arithmetic on a view": lambda x, _: x.clone().flatten(2).sub_(0.1).mul_(2).view_as(x),
    "unpooling": unpooled,
    "channel shuffle": lambda x, _: F.channel_shuffle(x, 4),
    "nearest-exact": lambda x, _: F.interpolate(x, scale_factor=1.5, mode="nearest-exact"),
    "antialias": lambda x, _: F.interpolate(x, size=(7, 7), mode="bilinear", antialias=True),
    "antialias, bicubic": lambda x, _: F.interpolate(x, size=(7, 7), mode="bicubic", antialias=True),
    "lerp": lambda x, _: torch.lerp(x, x.flip(1), 0.3) + torch.lerp(x, x.flip(1), x.mean((2, 3), keepdim=True)),
    "scatter": scattered,
    "filter of frequencies": filtered,
    "magnitude of frequencies": lambda x, _: torch.fft.rfft2(x - 0.1).abs(),
    "circular padding": lambda x, _: F.pad(x, (1, 2, 0, 1), mode="circular"),
    "generalised mean": lambda x, _: F.avg_pool2d(x.clamp(min=1e-6).pow(3), 2, 1).pow(1 / 3),
    "normalize": lambda x, _: F.normalize(x + 0.1, dim=1),
    "cosine similarity": lambda x, _: x * F.cosine_similarity(x + 0.1, x.flip(1) + 0.2, dim=1)[:, None],
    "quarter turn": lambda x, _: torch.rot90(x, 1, (2, 3)),
    "gated linear unit": lambda x, _: F.glu(x, 1),
    "largest": lambda x, _: x.topk(3, 1).values,
}  # fmt: skip


def drawn(body: nn.Module) -> nn.Module:
    """Give a network weights that let the signal through."""
    body = body.double().eval()
    with torch.no_grad():
        body(torch.rand(1, 3, SIDE, SIDE, dtype=torch.float64))
    torch.manual_seed(4)
    for parameter in body.parameters():
        nn.init.uniform_(parameter, -0.4, 0.5)
    return body


def assert_equal_by_hand(rule: str, body: nn.Module, by_hand: nn.Module, precision: float = 1e-9) -> None:
    dtype = next(body.parameters()).dtype
    pixels = torch.rand(2, 3, SIDE, SIDE, dtype=dtype)
    leaf = pixels.clone().requires_grad_()
    expected = torch.autograd.grad(by_hand(leaf)[:, 1].sum(), leaf)[0]
    assert expected.any()
    actual = METHODS[rule](Net(body, size=SIDE, mean=0, std=1), pixels, OBJECTIVE)
    torch.testing.assert_close(actual, expected, rtol=0, atol=precision * float(expected.abs().max()))


@pytest.mark.parametrize("rule", METHODS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_rule_beside_an_operation_equals_rectifiers_by_hand(name: str, rule: str) -> None:
    """What is rectified on a view, in place, is written back by hand."""
    operation = OPERATIONS[name]
    by_hand = Between(operation, lambda x: x.copy_(ByHand.apply(x.clone(), rule)), lambda x: ByHand.apply(x, rule))
    body = Between(operation, lambda x: F.relu(x, inplace=True), F.relu)
    assert_equal_by_hand(rule, drawn(body), drawn(by_hand))


@pytest.mark.parametrize("rule", METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_rule_below_recurrent_heads_equals_rectifiers_by_hand(dtype: torch.dtype, rule: str) -> None:
    """In single precision torch runs the LSTM as one operation."""
    body, by_hand = drawn(Recurrent(F.relu)).to(dtype), drawn(Recurrent(lambda x: ByHand.apply(x, rule))).to(dtype)
    assert_equal_by_hand(rule, body, by_hand, 1e-9 if dtype is torch.float64 else 1e-5)


MASKS: dict[str, Operation] = {
    "addcmul": lambda x, _: torch.addcmul(torch.zeros_like(x), x, (x.detach() > 0.1).to(x.dtype)),
    "lerp": lambda x, _: torch.lerp(torch.zeros_like(x), x, (x.detach() > 0.1).to(x.dtype)),
    "a view times a mask": lambda x, _: x.clone().flatten(2).mul_((x.detach() > 0.1).to(x.dtype).flatten(2)).view_as(x),
    "an assignment through a mask": lambda x, _: x.clone().index_put_(
        (x.detach() < 0.1,), torch.zeros((), dtype=x.dtype)
    ),
    "a floor that is not small": lambda x, _: x.clamp(min=0.1),
}


@pytest.mark.parametrize("rule", METHODS)
@pytest.mark.parametrize("name", MASKS)
def test_a_rectifier_written_out_by_hand_is_still_refused(name: str, rule: str) -> None:
    net = Net(drawn(Between(MASKS[name], F.relu, F.relu)), size=SIDE)
    with pytest.raises(RuleError, match="rule"):
        METHODS[rule](net, torch.rand(1, 3, SIDE, SIDE, dtype=torch.float64), OBJECTIVE)
