"""Channels changed one at a time: the same as full passes, and as a network built without the channel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor, nn

from architectures import architectures
from convscope import Net
from convscope.incremental.changes import Changes, by_channel
from convscope.incremental.downstream import Pairs
from convscope.tracing import OUTPUT, Layer
from networks import DEPENDENT, MOVED, RANDOM, TINY, pictures, tiny


def all_pairs(activity: Tensor) -> Pairs:
    count, channels = activity.shape[:2]
    return Pairs(torch.arange(count).repeat(channels), torch.arange(channels).repeat_interleave(count))


def changed_layers(net: Net) -> list[Layer]:
    return [one for one in net.layers.values() if one.leaf and one.name and (one.channelled or one.positions)]


def check_all_channels(net: Net, pixels: Tensor) -> str:
    """Change every channel of every layer, in parts and in full."""
    layers = changed_layers(net)
    changes, full = (Changes(net, pixels, layers, [OUTPUT], 2**20) for _ in range(2))
    full.tape, full.downstream = None, {}
    batch, whole = changes.of(pixels), full.of(pixels)
    for layer in layers:
        activity = by_channel(layer, batch.activity(layer.name))
        pairs = all_pairs(activity)
        values = activity[pairs.rows, pairs.channels].unsqueeze(1).flip(0) - 0.1
        result, expected = (one.change(layer.name, pairs, values)[OUTPUT] for one in (batch, whole))
        torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9 * max(1.0, float(expected.abs().max())))
    return changes.how


@pytest.mark.parametrize("kind", TINY | MOVED | DEPENDENT)
def test_a_changed_channel_is_the_same_as_in_a_full_pass(kind: str) -> None:
    assert check_all_channels(tiny(kind), pictures(2)) == "computed from the layer on"


def test_a_channel_alone_in_depthwise_convolutions_and_joined_maps() -> None:
    class Mobile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 1)
            self.wide, self.norm = nn.Conv2d(6, 12, 3, groups=6, stride=2), nn.BatchNorm2d(12)
            self.again, self.last = nn.Conv2d(12, 12, 3, groups=12), nn.Linear(12 * 9, 3)
            for value in (self.norm.weight, self.norm.bias, self.norm.running_mean, self.norm.running_var):
                nn.init.uniform_(value, 0.3, 1.3)  # type: ignore[arg-type]

        def forward(self, x: Tensor) -> Tensor:
            y = torch.cat([self.a(x).relu(), self.b(x)], 1)
            return self.last(self.again(self.norm(self.wide(y)).clamp(0, 6)).flatten(1))

    net = Net(Mobile().double().eval(), size=12, channels=3)
    assert check_all_channels(net, pictures(2, side=12)) == "computed from the layer on"
    changes = Changes(net, pictures(1, side=12), [net.layer("b")], [OUTPUT], 2**20)
    alone = [step.name for step, _, rule in changes.downstream["b"].steps if rule is not None]
    assert alone == ["cat", "conv2d", "batch_norm", "clamp", "conv2d", "flatten", "linear"], "up to the last layer"


def test_a_network_that_draws_numbers_is_computed_in_full() -> None:
    net = tiny(next(iter(RANDOM))).seeded(3)
    assert "draws the network's random numbers" in check_all_channels(net, pictures(2))


def on_architectures(examples: int) -> Counter[str]:
    """Draw networks, check each, and count how they were computed."""
    ways: Counter[str] = Counter()

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(architectures())
    def check(drawn: tuple[nn.Module, tuple[int, int]]) -> None:
        net = Net(drawn[0], mean=0.4, std=0.3, size=drawn[1], channels=3)
        ways[check_all_channels(net, torch.rand(2, 3, *drawn[1], dtype=torch.float64))] += 1

    check()
    return ways


def test_a_changed_channel_on_any_architecture() -> None:
    assert on_architectures(3)["computed from the layer on"] > 0


@pytest.mark.nightly
def test_a_changed_channel_on_two_hundred_architectures(capsys: pytest.CaptureFixture[str]) -> None:
    ways = on_architectures(200)
    with capsys.disabled():
        print(f"\n{dict(ways.most_common())}")
    assert sum(count for way, count in ways.items() if way.startswith("computed from")) >= 0.9 * ways.total(), ways


# A network built without the channel ------------------------------------------------------------------------------


def fewer(conv: nn.Conv2d, *, out: int | None = None, into: int | None = None) -> nn.Conv2d:
    """Build a convolution without one of its outputs or inputs; groups become blocks of one matrix."""
    weight, bias = conv.weight.detach(), conv.bias
    if conv.groups > 1:
        blocks = [torch.block_diag(*weight[..., y, x].chunk(conv.groups)) for y in range(3) for x in range(3)]
        weight = torch.stack(blocks, 2).unflatten(2, (3, 3))
    assert bias is not None
    bias = bias.detach()
    if out is not None:
        weight, bias = (torch.cat([t[:out], t[out + 1 :]]) for t in (weight, bias))
    if into is not None:
        weight = torch.cat([weight[:, :into], weight[:, into + 1 :]], 1)
    new = nn.Conv2d(weight.shape[1], weight.shape[0], conv.kernel_size, conv.stride, conv.padding).double()  # type: ignore[arg-type]
    new.weight, new.bias = nn.Parameter(weight), nn.Parameter(bias)
    return new


def plain(body: nn.Module, channel: int) -> None:
    body[0], body[3] = fewer(body[0], out=channel), fewer(body[3], into=channel)  # type: ignore[index,operator]


def residual(body: nn.Module, channel: int) -> None:
    body.a, body.b = fewer(body.a, out=channel), fewer(body.b, into=channel)  # type: ignore[arg-type]


def concat(body: nn.Module, channel: int) -> None:
    body.a, linear = fewer(body.a, out=channel), body.head[2]  # type: ignore[arg-type,index]
    columns = [column for column in range(32) if column // 4 != channel]
    linear.weight = nn.Parameter(linear.weight.detach()[:, columns])  # type: ignore[union-attr]


def groups(body: nn.Module, channel: int) -> None:
    body[3], body[5] = fewer(body[3], out=channel), fewer(body[5], into=channel)  # type: ignore[index,operator]


@pytest.mark.parametrize(
    ("kind", "layer", "rebuild"),
    [("sequential", "1", plain), ("residual", "relu#2", residual), ("concat", "a", concat), ("relu6", "4", groups)],
)
def test_a_channel_set_to_zero_is_a_network_built_without_it(
    kind: str, layer: str, rebuild: Callable[[nn.Module, int], None]
) -> None:
    net, pixels = tiny(kind), pictures(3)
    changes = Changes(net, pixels, [net.layer(layer)], [OUTPUT], 2**20)
    batch = changes.of(pixels)
    pairs = all_pairs(batch.activity(layer))
    values = torch.zeros_like(batch.activity(layer)[pairs.rows, pairs.channels].unsqueeze(1))
    result = batch.change(layer, pairs, values)[OUTPUT]
    assert changes.how == "computed from the layer on"
    for channel in pairs.channels.unique().tolist():
        body = deepcopy(net.body)
        rebuild(body, channel)
        with torch.no_grad():
            expected = body.eval()(net.normalise(pixels))
        torch.testing.assert_close(result[pairs.channels == channel], expected, rtol=1e-6, atol=1e-6)
        assert (
            not torch.allclose(expected, net(pixels), rtol=1e-6, atol=1e-6)
            or not batch.activity(layer)[:, channel].any()
        )
