"""Incremental inference: exact on any network it follows, in full on any other, and never wrong."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from architectures import architectures
from convscope import Net, as_objective, load
from convscope.attribution.occlusion import occlusion
from convscope.context import listen
from convscope.incremental import regions
from convscope.incremental.occlusions import Occluder, Occlusions, occluded_scores
from convscope.incremental.sweep import Sweep
from convscope.incremental.tape import CannotFollow, record

LAYERS = ("",)


def in_full(net: Net, pixels: Tensor, occluder: Occluder, baseline: Tensor) -> Tensor:
    """The oracle: every position is a picture of its own."""
    outputs = []
    for number in range(occluder.grid[0] * occluder.grid[1]):
        picture = pixels.clone()
        rows, columns = occluder.box(number)
        picture[:, :, rows, columns] = baseline[:, :, rows, columns]
        with torch.no_grad():
            outputs.append(net(picture))
    return torch.cat(outputs)


def in_parts(net: Net, pixels: Tensor, occluder: Occluder, baseline: Tensor, memory: int = 2**28) -> Tensor:
    sweep = Sweep(record(net, pixels, LAYERS), (occluder.rows, occluder.columns), memory)
    result = torch.full((occluder.grid[0] * occluder.grid[1], net.output.shape[0]), torch.nan, dtype=pixels.dtype)
    with torch.no_grad():
        for numbers, readings in sweep.run(baseline, ""):
            result[torch.from_numpy(numbers)] = readings[""]
    return result


def check_on_any_architecture(
    drawn: tuple[nn.Module, tuple[int, int]], patch: int, stride: int, memory: int, followed: Counter[str]
) -> None:
    """Occluders over every border, odd sizes, little memory: the same to 1e-9, or the network cannot be followed."""
    body, size = drawn
    net = Net(body, mean=0.4, std=0.3, size=size, channels=3)
    pixels, baseline = torch.rand(1, 3, *size, dtype=torch.float64), torch.rand(1, 3, *size, dtype=torch.float64)
    occluder = Occluder(*size, patch, max(stride, min(size) // 5))
    try:
        result = in_parts(net, pixels, occluder, baseline, memory)
    except CannotFollow as error:
        followed[str(error)] += 1
        return
    followed["in parts"] += 1
    expected = in_full(net, pixels, occluder, baseline)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9 * max(1.0, float(expected.abs().max())))


def on_architectures(examples: int) -> Counter[str]:
    """Draw networks, check each, and count how many could be followed and why others could not."""
    followed: Counter[str] = Counter()

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(architectures(), st.integers(1, 9), st.integers(1, 7), st.sampled_from([2**28, 2**17]))
    def check(drawn: tuple[nn.Module, tuple[int, int]], patch: int, stride: int, memory: int) -> None:
        check_on_any_architecture(drawn, patch, stride, memory, followed)

    check()
    return followed


def test_equals_full_passes_on_any_architecture() -> None:
    followed = on_architectures(20)
    assert followed["in parts"] >= 0.9 * followed.total(), followed


@pytest.mark.nightly
def test_equals_full_passes_on_a_thousand_architectures(capsys: pytest.CaptureFixture[str]) -> None:
    followed = on_architectures(1000)
    with capsys.disabled():
        print(f"\nof {followed.total()} networks: {dict(followed.most_common())}")
    assert followed["in parts"] >= 0.9 * followed.total(), followed


class Accumulated(nn.Module):
    """A sum in place into the branch that an occluder changes least: what it was before must be remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 7, padding=3)
        self.last = nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.narrow(x)
        y += self.wide(x)
        return self.last(F.relu(y, inplace=True)).amax((2, 3))


def test_what_was_there_before_a_sum_in_place_is_remembered() -> None:
    torch.manual_seed(0)
    net = Net(Accumulated().double(), size=24, channels=3)
    pixels, baseline = torch.rand(2, 1, 3, 24, 24, dtype=torch.float64)
    occluder = Occluder(24, 24, 4, 3)
    result, expected = (way(net, pixels, occluder, baseline) for way in (in_parts, in_full))
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-9)


NETWORKS = ("alexnet", "vgg16", "resnet18", "googlenet", "squeezenet1_0", "densenet121", "mobilenet_v2")


def lively(name: str, side: int) -> Net:
    """A torchvision network whose random weights let the signal through, with random statistics."""
    net = load(f"torchvision:{name}", weights=None).sized(side)
    torch.manual_seed(1)
    for module in net.body.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.running_var):
                nn.init.uniform_(value, 0.7, 1.3)
            for value in (module.bias, module.running_mean):
                nn.init.uniform_(value, -0.3, 0.3)
    return net


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_full_passes_on_torchvision(name: str) -> None:
    """float32: to 1e-4 of the range of the score, for occluders in the middle and over every border."""
    net = lively(name, 224)
    pixels = torch.rand(1, 3, 224, 224)
    baseline = torch.full_like(pixels, 0.5)
    occluder = Occluder(224, 224, 50, 58)
    result = in_parts(net, pixels, occluder, baseline)
    expected = in_full(net, pixels, occluder, baseline)
    extent = (expected.amax(0) - expected.amin(0)).median()
    assert extent > 1e-3 * expected.abs().max(), "a network that gives the same scores at every position tests nothing"
    assert float((result - expected).abs().max()) <= 1e-4 * float(extent)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet", "resnet18", "googlenet", "squeezenet1_0", "mobilenet_v2"])
def test_occlusion_equals_captum_on_torchvision(name: str) -> None:
    """To 1e-5 of the map, in float64, where neither rounding nor the order of sums matters."""
    net = lively(name, 96).double()
    pixels = torch.rand(1, 3, 96, 96, dtype=torch.float64)
    target = int(net(pixels).argmax())
    with listen() as remarks:
        result = occlusion(net, pixels, as_objective(net, target), patch=24, stride=12, baseline="0.3")
    assert "recomputed only" in remarks[1]
    peer = Occlusion(net).attribute(
        pixels, sliding_window_shapes=(3, 24, 24), strides=(3, 12, 12), baselines=0.3, target=target
    )
    torch.testing.assert_close(result.float().expand_as(peer), peer, rtol=0, atol=1e-5 * float(peer.abs().max()))
    assert peer.abs().max() > 1e-3


@pytest.mark.parametrize("layer", ["features.3", "features.7.expand3x3", "features.12", "classifier.1", ""])
def test_any_layer_can_be_read(squeezenet: Net, layer: str) -> None:
    net, pixels = squeezenet.sized(95), torch.rand(1, 3, 95, 95)
    occluder, baseline = Occluder(95, 95, 20, 31), torch.zeros(1, 3, 95, 95)
    occlusions = Occlusions(net, pixels, [layer, "features.0"], occluder, baseline, 2**26)
    assert occlusions.how.startswith("recomputed only")
    for numbers, readings in occlusions.read(""):
        for number, value in zip(numbers, readings[layer], strict=True):
            rows, columns = occluder.box(int(number))
            picture = pixels.clone()
            picture[:, :, rows, columns] = 0
            expected = occlusions._full(np.array([number]))[layer][0]
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        assert readings["features.0"].shape[1:] == net.layers["features.0"].shape


def score_net(body: nn.Module, side: int = 48) -> tuple[Net, Occlusions, Occluder, Tensor]:
    torch.manual_seed(0)
    net = Net(body.double(), size=side, channels=3)
    pixels = torch.rand(1, 3, side, side, dtype=torch.float64)
    occluder = Occluder(side, side, 6, 4)
    # So little memory that full passes are of one picture: some of these networks mix those of a batch.
    return net, Occlusions(net, pixels, [""], occluder, torch.zeros_like(pixels), 2**10), occluder, pixels


def trunk() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
    )  # fmt: skip


class Head(nn.Module):
    """A trunk, and after it something that is hard to follow."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.trunk, self.kind, self.fc = trunk(), kind, nn.Linear(32, 3)
        self.constant = torch.tensor(0.5, dtype=torch.float64)
        self.scripted = torch.jit.script(nn.Sequential(nn.Sigmoid())) if kind == "scripted" else None

    def forward(self, x: Tensor) -> Tensor:  # noqa: PLR0912  one branch per trap
        x = self.trunk(x)
        if self.kind == "branch" and x.mean() > 0.01:
            x = -x
        if self.kind == "number":
            x = x / x.abs().max().item()
        if self.kind == "numpy":
            x = x * float(np.abs(x.detach().numpy()).max())
        if self.kind == "scripted":
            x = self.scripted(x)  # type: ignore[misc]
        if self.kind == "assigned":
            x[:, :4] = 0
        if self.kind == "view":
            x[:, :4].mul_(2)
        if self.kind == "written":
            buffer = torch.zeros_like(x)
            buffer[:, 1:] = x[:, :-1]
            x = buffer
        if self.kind == "into a constant":
            x = torch.ones_like(x.detach() * 0).mul_(1) + torch.zeros(x.shape, dtype=x.dtype).add_(x)
        if self.kind == "out":
            x = torch.mul(x, 2, out=torch.empty(x.shape, dtype=x.dtype))
        if self.kind == "gate, then in place":
            gate = torch.sigmoid(x.mean((2, 3), keepdim=True))
            x = F.relu_(x) * gate
        if self.kind == "gate, then in place on a view":
            gate = torch.sigmoid(x.mean((2, 3), keepdim=True))
            x = F.relu_(x[...]) * gate
        if self.kind == "attribute":
            x = x * self.constant
        if self.kind == "flat in place":
            flat = x.view(len(x), -1)
            flat.relu_()
            x = x * 2
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize(
    "kind",
    ["branch", "number", "numpy", "scripted", "assigned", "view", "written", "flat in place", "into a constant", "out"],
)
def test_what_cannot_be_followed_is_computed_in_full(kind: str) -> None:
    net, occlusions, occluder, pixels = score_net(Head(kind))
    assert occlusions.how.startswith("computed in full: the network cannot be followed"), occlusions.how
    result = occluded_scores(occlusions, as_objective(net, 1).score, "")
    torch.testing.assert_close(
        result, in_full(net, pixels, occluder, torch.zeros_like(pixels))[:, 1], rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("kind", ["", "attribute", "gate, then in place", "gate, then in place on a view"])
def test_what_can_be_followed_is_followed(kind: str) -> None:
    net, occlusions, occluder, pixels = score_net(Head(kind))
    assert occlusions.how.startswith("recomputed only"), occlusions.how
    result = occluded_scores(occlusions, as_objective(net, 1).score, "")
    torch.testing.assert_close(
        result, in_full(net, pixels, occluder, torch.zeros_like(pixels))[:, 1], rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("name", ["vit_b_32", "swin_t"])
def test_transformers_are_computed_in_full_and_it_is_said_why(name: str) -> None:
    net = load(f"torchvision:{name}", weights=None)
    pixels = torch.rand(1, 3, 224, 224)
    occlusions = Occlusions(net, pixels, [""], Occluder(224, 224, 60, 60), torch.zeros_like(pixels), 2**26)
    assert occlusions.how.startswith("computed in full: the network cannot be followed, it makes a call that is not")


@pytest.mark.parametrize("name", ["shufflenet_v2_x1_0", "efficientnet_b0", "resnext50_32x4d"])
def test_shuffles_gates_and_groups_are_followed(name: str) -> None:
    net = lively(name, 96)
    pixels = torch.rand(1, 3, 96, 96)
    baseline = torch.full_like(pixels, 0.5)
    occluder = Occluder(96, 96, 24, 24)
    result, expected = (way(net, pixels, occluder, baseline) for way in (in_parts, in_full))
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_network_whose_every_layer_is_global_gains_nothing() -> None:
    torch.manual_seed(0)
    net = Net(nn.Sequential(nn.Flatten(), nn.Linear(3 * 400, 5)).double(), size=20, channels=3)
    pixels = torch.rand(1, 3, 20, 20, dtype=torch.float64)
    occlusions = Occlusions(net, pixels, [""], Occluder(20, 20, 4, 2), torch.zeros_like(pixels), 2**26)
    assert occlusions.how == "computed in full: recomputing parts would save nothing"


def test_what_is_computed_wrongly_is_found_and_computed_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last guard: four positions are computed both ways before any result is given out."""
    right = regions._WINDOWS["max_pool2d"]

    def wrong(step: Any, x: Tensor, out: Tensor) -> Any:
        return replace(right(step, x, out), apply=lambda parts: 2 * F.max_pool2d(parts[0], 2))

    monkeypatch.setitem(regions._WINDOWS, "max_pool2d", wrong)
    net, occlusions, occluder, pixels = score_net(Head(""))
    assert occlusions.how.endswith("parts give other results than full passes")
    result = occluded_scores(occlusions, as_objective(net, 1).score, "")
    torch.testing.assert_close(
        result, in_full(net, pixels, occluder, torch.zeros_like(pixels))[:, 1], rtol=0, atol=1e-9
    )


CRAMPED = """
import resource, torch
torch.set_num_threads(1)
from convscope import as_objective, load
from convscope.attribution.occlusion import occlusion
from convscope.context import listen
net = load("torchvision:squeezenet1_0", weights=None)
pixels = torch.rand(1, 3, 224, 224)
expected = occlusion(net, pixels, as_objective(net, 3), patch=64, stride=8)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 350 * 2**20, resource.RLIM_INFINITY))
with listen() as remarks:
    result = occlusion(net, pixels, as_objective(net, 3), patch=64, stride=8, memory="8 GiB")
assert torch.allclose(result, expected, atol=1e-4 * float(expected.abs().max()) + 1e-7)
print(remarks)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory so")
def test_memory_that_runs_out_is_halved_and_said() -> None:
    """A process that may take little more than it has, asked for batches that take much more."""
    done = subprocess.run([sys.executable, "-c", CRAMPED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "out of memory at batch" in done.stdout


class Later(nn.Module):
    """A trunk, and after it layers that mix all positions in ways of their own."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.trunk, self.kind = trunk(), kind
        self.norm, self.group = nn.LayerNorm(32), nn.GroupNorm(4, 32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.gru, self.fc = nn.Linear(24, 24), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x)
        if self.kind == "tokens":
            tokens = self.norm(x.flatten(2).transpose(1, 2))
            x = self.attention(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).reshape(x.shape)
        if self.kind == "rolled":
            x = torch.roll(x, 3, 2) + x
        if self.kind == "along rows":
            x = self.gru(x)
        if self.kind == "softmax":
            x = x * x.flatten(2).softmax(-1).view_as(x)
        if self.kind == "groups":
            x = F.relu(self.group(x))
        if self.kind == "einsum":
            x = torch.einsum("nchw,ncxw->nchx", x, x)
        if self.kind == "shuffle":
            n, c, h, w = x.size()
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        if self.kind == "first":
            return self.fc(torch.stack([one.amax((1, 2)) for one in x]))
        if self.kind == "transposed":
            x = F.conv_transpose2d(x, torch.ones(32, 32, 2, 2, dtype=x.dtype), stride=2)
        if self.kind == "upsampled":
            x = F.interpolate(x, scale_factor=1.5, mode="bilinear") + 1
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize(
    "kind",
    ["tokens", "rolled", "along rows", "softmax", "groups", "einsum", "shuffle", "first", "transposed", "upsampled"],
)
def test_layers_that_mix_all_places(kind: str) -> None:
    """Whether they are followed or not, the numbers are those of full passes."""
    net, occlusions, occluder, pixels = score_net(Later(kind))
    result = occluded_scores(occlusions, as_objective(net, 1).score, "")
    torch.testing.assert_close(
        result, in_full(net, pixels, occluder, torch.zeros_like(pixels))[:, 1], rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("pads", [(0, 1, 0, 1), (0, 3, 0, 2), (1, 2, 1, 2), (0, 0, 0, 4)])
def test_padding_at_the_far_edges_is_exact(pads: tuple[int, int, int, int]) -> None:
    """TensorFlow's "same": more below and to the right than above and to the left."""
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(3, 4, (2, 1)), nn.ZeroPad2d(pads), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, 3),
    ).double()  # fmt: skip
    net = Net(body, size=(15, 13))
    pixels, baseline = torch.rand(2, 1, 3, 15, 13, dtype=torch.float64).unbind()
    occluder = Occluder(15, 13, 2, 1)
    result = in_parts(net, pixels, occluder, baseline)
    torch.testing.assert_close(result, in_full(net, pixels, occluder, baseline), rtol=1e-9, atol=1e-12)


class Mapped(nn.Module):
    """A function of one's own between two convolutions."""

    def __init__(self, between: Callable[[Tensor], Tensor], channels: int = 4) -> None:
        super().__init__()
        self.first, self.between, self.last = nn.Conv2d(3, 4, 3, padding=1), between, nn.Conv2d(channels, 3, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(torch.relu(self.first(x)))).amax((2, 3))


CROPS: dict[str, Callable[[Tensor], Tensor]] = {
    "a column less": lambda x: x[..., :-1],
    "a row less": lambda x: x[:, :, :-1],
    "two sides": lambda x: x[:, :, 1:-2, 2:-3],
    "every other": lambda x: x[:, :, :-1:2, 1:-2:2],
    "shifted": lambda x: F.pad(x, (1, 0, 1, 0))[..., :-1, :-1],
    "negative padding": lambda x: F.pad(x, (0, -1, 1, -3)),
    "by arithmetic": lambda x: x[:, :, : int(x.shape[2] * 0.7)],
    "in place": lambda x: F.relu(x[..., :-1, :-1] - 0.1, inplace=True),
    "a sum of two": lambda x: x[..., 1:, 1:] + x[..., :-1, :-1],
    "beside a pooling": lambda x: x[..., :-1, :-1].max(F.max_pool2d(x, 2, 1)),
}


@pytest.mark.parametrize("size", [(15, 13), (16, 16)])
@pytest.mark.parametrize("name", CROPS)
def test_cropping_at_the_far_edges_is_exact(name: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = Net(Mapped(CROPS[name]).double(), size=size, channels=3)
    pixels, baseline = torch.rand(2, 1, 3, *size, dtype=torch.float64).unbind()
    occluder = Occluder(*size, 3, 2)
    result = in_parts(net, pixels, occluder, baseline)
    torch.testing.assert_close(result, in_full(net, pixels, occluder, baseline), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("error", [TypeError, KeyError, AssertionError, NotImplementedError, MemoryError])
@pytest.mark.parametrize("calls", [0, 12])
def test_whatever_parts_raise_full_passes_go_on(
    error: type[Exception], calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the check, or when some positions have been computed already; the caption says so."""
    play, count = Sweep._play, 0

    def failing(self: Sweep, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count > calls:
            raise error("no such thing")
        return play(self, *args)

    monkeypatch.setattr(Sweep, "_play", failing)
    net, occlusions, occluder, pixels = score_net(Head(""), 32)
    with listen() as remarks:
        result = occluded_scores(occlusions, as_objective(net, 1).score, "")
    said = " ".join([occlusions.how, *remarks])
    assert "computed in full" in said, said
    assert (error.__name__ if error is not MemoryError else "out of memory") in said, said
    torch.testing.assert_close(
        result, in_full(net, pixels, occluder, torch.zeros_like(pixels))[:, 1], rtol=0, atol=1e-9
    )
