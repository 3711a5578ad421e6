"""The CAM family: the papers' formulas in loops, closed forms, captum, several layers, tokens, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import LayerGradCam
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

import convscope
from convscope import Net, as_objective
from convscope.attribution.ablation_cam import ablation_cam
from convscope.attribution.cam import cam, eigen_cam, grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, xgrad_cam
from convscope.attribution.cam_layers import activities_and_gradients, cam_inputs, upsample
from convscope.attribution.places import places_by_field
from convscope.attribution.score_cam import score_cam
from convscope.baselines import baseline_pixels
from convscope.context import listen
from convscope.errors import LayerError, OptionError
from convscope.layers import last_spatial_layers
from convscope.objectives import ObjectiveBatch
from convscope.registry import find
from convscope.tapping import tap
from networks import SIZE, pictures, tiny

INDEX = 3
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
FAMILY = [grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, xgrad_cam, eigen_cam, score_cam, ablation_cam]
each_of_the_family = pytest.mark.parametrize("method", FAMILY, ids=lambda method: method.__name__)

PIXELS = pictures(2)


def grid_of(net: Net, layer: str, pixels: Tensor = PIXELS, of: Any = INDEX) -> tuple[Tensor, Tensor]:
    (one,) = activities_and_gradients(net, pixels, as_objective(net, of), [net.layer(layer)])
    return one.activity, one.gradient


def over(net: Net, layer: str, maps: list[Tensor], pixels: Tensor = PIXELS) -> Tensor:
    return upsample(torch.stack(maps)[:, None], places_by_field(net.layer(layer)), pixels)


def plus_plus(a: Tensor, g: Tensor) -> Tensor:
    """With exp(S) written out: second and third derivatives are its powers of g (arXiv:1710.11063, eq. for a)."""
    total = torch.zeros_like(a[0])
    e = math.exp(1.7)
    for channel, grad in zip(a, g, strict=True):
        weight = 0.0
        for value in grad.flatten().tolist():
            second, third = e * value**2, e * value**3
            denominator = 2 * second + max(float(channel.sum()), 0.0) * third
            weight += second / denominator * max(value, 0.0) if denominator else 0.0
        total = total + weight * channel
    return total.clamp(min=0)


def by_position(a: Tensor, g: Tensor) -> Tensor:
    return sum((x * y for x, y in zip(a, g, strict=True)), torch.zeros_like(a[0]))


def rising(a: Tensor, g: Tensor) -> Tensor:
    return sum((x * y.clamp(min=0) for x, y in zip(a, g, strict=True)), torch.zeros_like(a[0])).clamp(min=0)


def axioms(a: Tensor, g: Tensor) -> Tensor:
    total = torch.zeros_like(a[0])
    for channel, grad in zip(a, g, strict=True):
        if channel.any():
            total = total + (channel / channel.sum() * grad).sum() * channel
    return total.clamp(min=0)


def principal(a: Tensor, g: Tensor) -> Tensor:
    rows = a.flatten(1).T
    component = rows @ torch.linalg.svd(rows)[2][0]
    component = component if component.sum() > 0 else -component
    return component.clamp(min=0).unflatten(0, a.shape[1:])


def mean(a: Tensor, g: Tensor) -> Tensor:
    return sum((y.sum() / y.numel() * x for x, y in zip(a, g, strict=True)), torch.zeros_like(a[0])).clamp(min=0)


FORMULAS: dict[Callable[..., Tensor], Callable[[Tensor, Tensor], Tensor]] = {
    grad_cam: mean,
    grad_cam_plus_plus: plus_plus,
    hires_cam: by_position,
    layer_cam: rising,
    xgrad_cam: axioms,
    eigen_cam: principal,
}
RECTIFIED = [("sequential", "1"), ("sequential", "4"), ("in-place", "2"), ("residual", "relu#2"), ("relu6", "4")]


@pytest.mark.parametrize("method", FORMULAS, ids=lambda method: method.__name__)
@pytest.mark.parametrize(("kind", "layer"), RECTIFIED)
def test_as_the_papers_write_it(method: Callable[..., Tensor], kind: str, layer: str) -> None:
    net = tiny(kind)
    grids = [FORMULAS[method](a, g) for a, g in zip(*grid_of(net, layer), strict=True)]
    found = method(net, PIXELS, as_objective(net, INDEX), layer=layer)
    torch.testing.assert_close(found, over(net, layer, grids), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["functional", "concat"])
def test_layers_with_negative_values_give_finite_maps_and_say_so(kind: str) -> None:
    net = tiny(kind)
    for method in (grad_cam_plus_plus, xgrad_cam):
        with listen() as remarks:
            map_ = method(net, PIXELS, as_objective(net, INDEX), layer="b")
        assert torch.isfinite(map_).all() and any("not rectified" in remark for remark in remarks)


def pooled(seed: int = 0, bias: bool = True, channels: int = 8) -> Net:
    """Convolutions, global average pooling and a linear layer."""
    torch.manual_seed(seed)
    body = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, channels, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(channels, 5, bias=bias),
    )  # fmt: skip
    return Net(body.double().eval(), size=SIZE, name="pooled")


@given(st.integers(0, 40), st.integers(0, 4))
def test_closed_forms_behind_global_average_pooling(seed: int, index: int) -> None:
    """I21 and I22, and what they say of the others."""
    net, pixels = pooled(seed), pictures(2, seed=seed)
    of = as_objective(net, index)
    a, _ = grid_of(net, "3", pixels, index)
    w, z = net.body[7].weight[index].detach().view(-1, 1, 1), a[0, 0].numel()
    expected = {
        cam: (w * a).sum(1),
        hires_cam: (w * a).sum(1) / z,
        grad_cam: (w * a).sum(1).clamp(min=0) / z,
        xgrad_cam: (w * a).sum(1).clamp(min=0) / z,
        layer_cam: (w.clamp(min=0) * a).sum(1) / z,
        grad_cam_plus_plus: (w.clamp(min=0) / (2 + w.clamp(min=0) * a.mean((2, 3), keepdim=True)) * a).sum(1),
        ablation_cam: (w * a.mean((2, 3), keepdim=True) * a).sum(1).clamp(min=0),
    }
    for method, grids in expected.items():
        found = method(net, pixels, of, layer="3")
        torch.testing.assert_close(found, over(net, "3", list(grids), pixels), rtol=1e-9, atol=1e-12)
    score, bias = net(pixels)[:, index].detach(), net.body[7].bias[index]
    torch.testing.assert_close(expected[cam].mean((1, 2)) + bias, score, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(expected[hires_cam].sum((1, 2)) + bias, score, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("kind", "layer"), [("sequential", "4"), ("in-place", "4"), ("functional", "c")])
def test_cam_is_complete_for_every_linear_head(kind: str, layer: str) -> None:
    net = tiny(kind)
    a, g = grid_of(net, layer)
    with listen() as remarks:
        found = cam(net, PIXELS[:1], as_objective(net, INDEX), layer=layer)
    grids = list((a * g).sum(1) * a[0, 0].numel())
    torch.testing.assert_close(found, over(net, layer, grids)[:1], rtol=1e-9, atol=1e-12)
    said = float(net(PIXELS[:1])[0, INDEX]) - float(grids[0].mean())
    rest = net(PIXELS)[:, INDEX].detach() - torch.stack(grids).mean((1, 2))
    torch.testing.assert_close(rest, rest[:1].expand(2))
    assert any(f"plus {said:.3g}, the rest of the score" in remark for remark in remarks)
    assert any("its own weights" in remark for remark in remarks)


def test_a_pooled_head_weighs_all_positions_alike() -> None:
    net = pooled()
    for layer in ("2", "3"):
        with listen() as remarks:
            cam(net, PIXELS, as_objective(net, INDEX), layer=layer)
        assert not any("its own weights" in remark for remark in remarks)


def test_cam_of_class_maps_that_are_pooled_is_the_map_of_the_class(squeezenet: Net, chelsea: Any) -> None:
    pixels = squeezenet.read(chelsea)
    maps = tap(squeezenet, pixels, ["classifier.2"])["classifier.2"]
    found = cam(squeezenet, pixels, as_objective(squeezenet, 281))
    torch.testing.assert_close(
        found, upsample(maps[:, 281:282], places_by_field(squeezenet.layer("classifier.2")), pixels)
    )
    assert found.max() > 0


@pytest.mark.parametrize(
    ("name", "layer", "words"),
    [("vgg11", None, "is Relu"), ("squeezenet1_0", "features.12", "is Relu"), ("convnext_tiny", None, "LayerNorm")],
)
def test_cam_refuses_heads_that_are_not_linear(name: str, layer: str | None, words: str) -> None:
    net = Net(models.get_model(name, weights=None).eval(), size=64, name=name)
    with pytest.raises(LayerError, match=f"needs a linear head.*above .* of {name} .*{words}.*layer_cam"):
        cam(net, torch.rand(1, 3, 64, 64), as_objective(net, INDEX), layer=layer)
    with pytest.raises(LayerError, match="Softmax"):
        cam(pooled(), PIXELS, as_objective(pooled(), "p(3)"))


CAPTUM = [("alexnet", "features.11"), ("resnet18", "layer4"), ("googlenet", "inception5b"),
          ("mobilenet_v2", "features"), ("squeezenet1_1", "classifier.2")]  # fmt: skip


@pytest.mark.parametrize(("name", "layer"), CAPTUM)
def test_equals_captum_on_networks_of_torchvision(name: str, layer: str) -> None:
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    body = models.get_model(name, weights=None, **options).eval()
    net = Net(body, size=96, **IMAGENET)
    pixels = torch.rand(2, 3, 96, 96)
    module = body.get_submodule(layer)
    theirs = LayerGradCam(body, module).attribute(net.normalise(pixels), target=INDEX, relu_attributions=True)
    ours = grad_cam(net, pixels, as_objective(net, INDEX), align="stretch")
    expected = F.interpolate(theirs, size=(96, 96), mode="bilinear", align_corners=False).detach()
    assert expected.any() or name == "squeezenet1_1"
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5 * float(expected.max()))


def test_eigen_cam_asks_nothing_and_has_no_arbitrary_sign() -> None:
    net = tiny("sequential")
    maps = [eigen_cam(net, PIXELS, as_objective(net, of), layer="1") for of in (0, 1)]
    torch.testing.assert_close(maps[0], maps[1], rtol=0, atol=0)
    assert maps[0].any(dim=-1).any(dim=-1).all() and "objective" in find("eigen_cam").caveat
    flipped = Net(nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.AdaptiveAvgPool2d(2), nn.Flatten()).double())
    nn.init.dirac_(flipped.body[0].weight)
    one = eigen_cam(flipped, PIXELS, as_objective(flipped, 0), layer="0")
    with torch.no_grad():
        flipped.body[0].weight.neg_()
    assert one.any()
    torch.testing.assert_close(eigen_cam(flipped, PIXELS, as_objective(flipped, 0), layer="0"), one)


# Score-CAM and Ablation-CAM


def masked(net: Net, picture: Tensor, layer: str, of: Any, baseline: str) -> dict[int, float]:
    """One masked picture at a time: the increase of the score for every channel with contrast."""
    activity = tap(net, picture, [layer])[layer].detach()
    behind = baseline_pixels(net, picture, baseline)
    base = float(as_objective(net, of)(net, behind))
    increases = {}
    for k, channel in enumerate(activity[0]):
        if channel.max() > channel.min():
            mask = upsample(channel[None, None], places_by_field(net.layer(layer)), picture)
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            increases[k] = float(as_objective(net, of)(net, picture * mask + behind * (1 - mask))) - base
    return increases


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("baseline", ["mean", "0.5"])
@pytest.mark.parametrize(("kind", "layer"), RECTIFIED[1:])
def test_score_cam_as_the_paper_writes_it(kind: str, layer: str, baseline: str, softmax: bool) -> None:
    net, grids = tiny(kind), []
    for picture in PIXELS:
        increases = masked(net, picture[None], layer, INDEX, baseline)
        total = sum(math.exp(value) for value in increases.values())
        weight = {k: math.exp(v) / total if softmax else v for k, v in increases.items()}
        activity = tap(net, picture[None], [layer])[layer][0]
        grids.append(sum(w * activity[k] for k, w in weight.items()).clamp(min=0))  # type: ignore[union-attr]
    found = score_cam(net, PIXELS, as_objective(net, INDEX), layer=layer, softmax=softmax, baseline=baseline, batch=3)
    torch.testing.assert_close(found, over(net, layer, grids), rtol=1e-9, atol=1e-12)


def test_score_cam_of_a_few_channels() -> None:
    net = tiny("sequential")
    whole = score_cam(net, PIXELS, as_objective(net, INDEX))
    torch.testing.assert_close(score_cam(net, PIXELS, as_objective(net, INDEX), channels=8), whole, rtol=0, atol=0)
    one = score_cam(net, PIXELS, as_objective(net, INDEX), channels=1)
    activity, _ = grid_of(net, "4")
    most = [int(a.flatten(1).var(1).argmax()) for a in activity]
    grids = [a[k] for a, k in zip(activity, most, strict=True)]
    torch.testing.assert_close(one, over(net, "4", grids), rtol=1e-9, atol=1e-12)


def whole_pass(net: Net, picture: Tensor, layer: str, altered: Tensor) -> float:
    """The score when the layer gives something else, with nothing but a hook."""
    module, _, call = layer.partition("#")
    count = iter(range(1, 99))
    handle = net.body.get_submodule(module).register_forward_hook(
        lambda _, __, out: altered.clone() if next(count) == int(call or 1) else None
    )
    with torch.no_grad():
        score = float(net(picture)[0, INDEX])
    handle.remove()
    return score


ABLATED = [*RECTIFIED, ("concat", "a"), ("concat", "b"), ("shared", "conv#1"), ("residual", "bn"), ("functional", "a")]


@pytest.mark.parametrize(("kind", "layer"), ABLATED)
def test_ablation_cam_channel_by_channel(kind: str, layer: str) -> None:
    net, grids = tiny(kind), []
    for picture in PIXELS:
        activity = tap(net, picture[None], [layer])[layer].detach()
        total, clean = torch.zeros_like(activity[0, 0]), float(net(picture[None])[0, INDEX])
        for k in range(activity.shape[1]):
            altered = activity.clone()
            altered[0, k] = 0
            total += (clean - whole_pass(net, picture[None], layer, altered)) * activity[0, k]
        grids.append(total.clamp(min=0))
    with listen() as remarks:
        found = ablation_cam(net, PIXELS, as_objective(net, INDEX), layer=layer, batch=3)
    torch.testing.assert_close(found, over(net, layer, grids), rtol=1e-9, atol=1e-12)
    assert any("the batch cannot grow" in remark for remark in remarks) == (kind == "concat")


class Mixing(nn.Module):
    """Reads its batch's size before the layer, so that a batch that grows is folded into the positions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        count = len(x)
        x = self.conv(x).relu()
        return self.head(x.transpose(0, 1).reshape(4, count, -1).mean(2).T)


def test_a_network_that_folds_a_growing_batch_is_run_as_a_whole() -> None:
    net = Net(Mixing().double(), size=SIZE)
    with listen() as remarks:
        found = ablation_cam(net, PIXELS, as_objective(net, INDEX))
    a, g = grid_of(net, "conv")
    grids = (((a * g).sum((2, 3), keepdim=True)) * a).sum(1).clamp(min=0)
    torch.testing.assert_close(found, over(net, "conv", list(grids)), rtol=1e-9, atol=1e-12)
    assert any("the batch cannot grow" in remark for remark in remarks)


def test_ablation_runs_what_lies_below_on_one_picture() -> None:
    net, batches = tiny("sequential"), {"0": set[int](), "5": set[int]()}
    net.behaviour(PIXELS)  # which takes passes of its own, once
    handles = [net.body.get_submodule(name).register_forward_hook(lambda _, i, __, s=seen: s.add(len(i[0])))
               for name, seen in batches.items()]  # fmt: skip
    ablation_cam(net, PIXELS[:1], as_objective(net, INDEX), layer="4", batch=8)
    for handle in handles:
        handle.remove()
    assert batches["0"] == {1} and max(batches["5"]) > 4


# Several layers


def test_several_layers_are_fused_by_the_largest_of_equal_peaks() -> None:
    net = tiny("sequential")
    of = as_objective(net, INDEX)
    for method in (grad_cam, layer_cam, hires_cam, score_cam):
        one, two = (method(net, PIXELS, of, layer=layer) for layer in ("1", "4"))
        peaks = [m.abs().amax((1, 2, 3), keepdim=True) for m in (one, two)]
        peak = torch.maximum(*peaks)
        scaled = [m * peak / p.clamp(min=1e-30) for m, p in zip((one, two), peaks, strict=True)]
        expected = torch.where(scaled[0].abs() >= scaled[1].abs(), scaled[0], scaled[1])
        for names in (["1", "4"], "1,4", ["4", "1"], "1, 4"):
            with listen() as remarks:
                found = method(net, PIXELS, of, layer=names)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        assert remarks[:2] == ["layer 1, 9 x 9 positions", "layer 4, 4 x 4 positions"] and "fused" in remarks[2]


def test_one_pass_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no layer lies above the other: both branches of a concatenation."""
    net, passes = tiny("concat"), []
    true = Net.passes
    monkeypatch.setattr(Net, "passes", lambda self, x: passes.append(1) or true(self, x))
    found = cam_inputs(net, PIXELS, as_objective(net, INDEX), ["a", "b", "stem"])
    assert len(passes) == 1
    for one in found:
        alone = cam_inputs(net, PIXELS, as_objective(net, INDEX), one.layer.name)[0]
        torch.testing.assert_close(one.gradient, alone.gradient, rtol=1e-12, atol=1e-15)


def test_explain_takes_one_layer_or_several() -> None:
    net = pooled()
    for layer in ("3", ["1", "3"], "1,3"):
        drawn = convscope.explain(net, PIXELS[0].float(), "layer_cam", of=INDEX, layer=layer)
        assert drawn.recipe.options["layer"] == layer and "layer 3" in drawn.note


# Tokens


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, 2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Patches(nn.Module):
    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Transformer(nn.Module):
    """A vision transformer in timm's layout, its answer at the class token or the mean of the patches."""

    def __init__(self, grid: tuple[int, int], width: int = 12, extra: int = 1, pool: bool = False) -> None:
        super().__init__()
        self.patch_embed, self.extra, self.pool = Patches(width, 4), extra, pool
        self.cls_token = nn.Parameter(torch.randn(1, extra, width))
        self.pos_embed = nn.Parameter(0.3 * torch.randn(1, grid[0] * grid[1] + extra, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        x = self.norm(self.blocks(x))
        return self.head(x[:, self.extra :].mean(1) if self.pool else x[:, 0])


def transformer(grid: tuple[int, int] = (6, 8), **options: Any) -> Net:
    torch.manual_seed(1)
    size = (4 * grid[0], 4 * grid[1])
    return Net(Transformer(grid, **options).double(), size=size, name="transformer")


def wide(net: Net, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, 3, *net.size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [({}, "blocks.2.norm1"), ({"extra": 5}, "blocks.2.norm1"), ({"pool": True}, "norm"),
     ({"pool": True, "extra": 0}, "norm")],
)  # fmt: skip
def test_tokens_are_read_as_a_grid_where_patches_still_matter(options: Any, chosen: str) -> None:
    net = transformer(**options)
    pixels = wide(net)
    assert net.layer(chosen).tokens == (6, 8)
    for method in FAMILY:
        with listen() as remarks:
            map_ = method(net, pixels, as_objective(net, INDEX))
        assert map_.shape == (2, 1, 24, 32) and torch.isfinite(map_).all()
        assert f"layer {chosen}, 6 x 8 positions" in remarks
    (one,) = cam_inputs(net, pixels, as_objective(net, INDEX), None)
    raw = tap(net, pixels, [chosen])[chosen]
    for position in ((0, 0), (2, 5), (5, 7)):
        token = options.get("extra", 1) + 8 * position[0] + position[1]
        assert torch.equal(one.activity[:, :, *position], raw[:, token])


@pytest.mark.parametrize("position", [(0, 0), (2, 6), (5, 3)])
def test_a_token_lies_over_its_patch(position: tuple[int, int]) -> None:
    """Measured: the pixels that move a token before attention mixes them are those the map lays it over."""
    net = transformer()
    pixels = wide(net, 1).requires_grad_()
    layer = net.layer("blocks.0.norm1")
    token = layer.by_position(tap(net, pixels, [layer.name])[layer.name])[0, :, *position]
    (grad,) = torch.autograd.grad(token.abs().sum(), pixels)
    energy = grad.abs().sum((0, 1))
    assert (energy.nonzero() // 4 == torch.tensor(position)).all()
    grid = torch.zeros(1, 1, 6, 8, dtype=torch.float64)
    grid[0, 0, *position] = 1
    fuse = upsample(grid, places_by_field(layer), pixels)[0, 0]
    y, x = divmod(int(fuse.argmax()), 32)
    assert (y // 4, x // 4) == position


def test_the_only_patch_that_matters_is_found() -> None:
    """A class token that attends by content to one bright patch: the map's peak lies there."""
    net = transformer(pool=True, extra=0)
    pixels = torch.zeros(1, 3, 24, 32, dtype=torch.float64)
    pixels[:, :, 8:12, 20:24] = wide(net, 1)[:, :, 8:12, 20:24]
    of = as_objective(net, INDEX)
    empty = hires_cam(net, torch.zeros_like(pixels), of, layer="blocks.0.norm1")
    change = (hires_cam(net, pixels, of, layer="blocks.0.norm1") - empty).abs()[0, 0]
    y, x = divmod(int(change.argmax()), 32)
    assert 8 <= y < 12 and 20 <= x < 24


def test_rows_and_columns_with_channels_last_are_read_as_positions() -> None:
    torch.manual_seed(0)
    net = Net(models.swin_t(weights=None).eval(), size=64, name="swin_t")
    pixels = torch.rand(1, 3, 64, 64)
    last, first = net.layer("norm"), net.layer("permute")
    assert last.channels_last and first.spatial and last.grid == first.grid == (2, 2)
    maps = [layer_cam(net, pixels, -as_objective(net, INDEX), layer=layer) for layer in ("norm", "permute")]
    torch.testing.assert_close(*maps)
    assert (first.lies or first.field).y.centre == 15.5 == (last.lies or last.field).x.centre


def test_swin_of_timm_reshapes_and_is_still_read_as_it_lies() -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj, self.norm, self.mlp = nn.Conv2d(3, 10, 4, 4), nn.LayerNorm(10), nn.Linear(10, 10)
            self.last, self.head = nn.LayerNorm(10), nn.Sequential(nn.Linear(10, 8), nn.Linear(8, 5))
            self.square = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.proj(x).permute(0, 2, 3, 1))
            n, h, w, c = x.shape
            windows = x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
            x = (
                self.square(self.mlp(windows).view(-1, 2, 2, c))
                .view(n, h // 2, w // 2, 2, 2, c)
                .permute(0, 1, 3, 2, 4, 5)
                .reshape(n, h, w, c)
            )
            return self.head(self.last(x).mean((1, 2)))

    net = Net(Windows().double(), size=(24, 32))
    assert net.layer("last").channels_last and net.layer("mlp").parts == 12 and not net.layer("mlp").positions
    assert [layer.name for layer in last_spatial_layers(net)] == ["last"]
    pixels = wide(net)
    found = hires_cam(net, pixels, as_objective(net, INDEX))
    a, g = grid_of(net, "last", pixels)
    assert a.shape == (2, 10, 6, 8)
    torch.testing.assert_close(found, over(net, "last", list((a * g).sum(1)), pixels))
    for windows in ("mlp", "square"):
        with pytest.raises(LayerError, match="without spatial positions"):
            hires_cam(net, pixels, as_objective(net, INDEX), layer=windows)


def test_cam_says_that_a_class_token_alone_is_read() -> None:
    net = transformer()
    with pytest.raises(LayerError, match=r"does not depend on the patch tokens of layer 'norm'.*grad_cam"):
        cam(net, wide(net), as_objective(net, INDEX))
    assert cam(transformer(pool=True), wide(net), as_objective(net, INDEX)).any()


# Bad input


@each_of_the_family
def test_layers_and_options_that_make_no_map(method: Callable[..., Tensor]) -> None:
    net, shared = pooled(), tiny("shared")
    of = as_objective(net, INDEX)
    with pytest.raises(LayerError, match=r"does not depend on layer '3'.*runs before"):
        method(net, PIXELS, as_objective(net, "0:2@3,4"), layer="3")
    with pytest.raises(LayerError, match=r"does not depend on layer '3'"):
        method(net, PIXELS, as_objective(net, "0:2@3,4"), layer=["0", "3"])
    with pytest.raises(LayerError, match=r"shape .*without spatial positions.*such as '3'"):
        method(net, PIXELS, of, layer="7")
    with pytest.raises(LayerError, match="runs 2 times: ask for 'conv#1' or 'conv#2'"):
        method(shared, PIXELS, as_objective(shared, INDEX), layer="conv")
    with pytest.raises(LayerError, match="no layer 'layer4'"):
        method(net, PIXELS, of, layer="3,layer4")
    with pytest.raises(OptionError, match="not an empty list"):
        method(net, PIXELS, of, layer=[])
    with pytest.raises(OptionError, match="'field' or 'stretch'"):
        method(net, PIXELS, of, align="corner")


@pytest.mark.parametrize("method", [*FAMILY, cam], ids=lambda method: method.__name__)
def test_an_objective_that_does_not_depend_on_the_layer_is_refused_in_a_batch_too(
    method: Callable[..., Tensor],
) -> None:
    net = pooled()
    batch = ObjectiveBatch((as_objective(net, INDEX), as_objective(net, "0:2@3,4")))
    with pytest.raises(LayerError, match=r"^0:2@3,4 does not depend on layer '3'"):
        method(net, PIXELS, batch, layer="3")


def test_bad_options_of_score_and_ablation_cam() -> None:
    net = pooled()
    bad = [({"channels": 0}, "at least 1"), ({"batch": 0}, "at least 1"), ({"baseline": "green"}, "baseline is")]
    for options, words in bad:
        with pytest.raises(OptionError, match=words):
            convscope.explain(net, PIXELS[0], "score_cam", INDEX, **options)
    with pytest.raises(OptionError, match="at least 1"):
        ablation_cam(net, PIXELS, as_objective(net, INDEX), batch=0)


@each_of_the_family
def test_a_dead_layer_gives_an_empty_map_and_says_so(method: Callable[..., Tensor]) -> None:
    net = pooled()
    nn.init.constant_(net.body[2].bias, -100)
    with listen() as remarks:
        map_ = method(net, PIXELS, as_objective(net, INDEX), layer="3")
    assert not map_.any() and any("no positive evidence in this layer" in remark for remark in remarks)
