"""Style networks: the paper's, tiles against the whole, training that goes on, files that are none."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import convscope
from adversary.watching import HANG, ended_when_it_hangs
from convscope import Net, load, read_recipe, stylize, train_style
from convscope.batching import out_of_memory
from convscope.cli import run
from convscope.context import listen
from convscope.errors import (
    DataError,
    LayerError,
    OptionError,
    OutOfMemory,
    OutputError,
    PictureError,
    TrainingError,
    WeightsError,
)
from convscope.stylizing import tiles, training
from convscope.stylizing.loss import PerceptualLoss, loss_layers
from convscope.stylizing.network import KIND, StyleNet, read_style, whole
from convscope.stylizing.settings import Settings
from convscope.stylizing.training import open_style
from convscope.zoo.runs import facts, metadata

QUICK: dict[str, Any] = {"size": 32, "width": 2, "blocks": 1, "batch": 2, "workers": 0}
"""A training of milliseconds per step."""


def random_net(width: int = 4, blocks: int = 2) -> StyleNet:
    """A style network whose normalisations do something, too."""
    net = StyleNet(width, blocks).eval().requires_grad_(False)
    for layer in net.modules():
        if isinstance(layer, nn.InstanceNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.3)
    return net


def style_file(path: Path, width: int = 4) -> Path:
    net = random_net(width)
    told = {"network": KIND, "width": width, "blocks": 2, "picture": "waves.png", "through": "zfnet64"}
    save_file(net.state_dict(), path, metadata=metadata(told))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures to learn from, some of them deeper than others."""
    generator = np.random.default_rng(0)
    for number in range(6):
        position = tmp_path / "data" / ("deep/er" if number % 2 else ".")
        position.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 255, (5, 6, 3), dtype=np.uint8))
        coarse.resize((60, 50), Image.Resampling.BICUBIC).save(position / f"{number}.png")
    waves = np.sin(np.arange(64) / 2)[None, :, None] * np.array([0.5, 0.2, -0.4]) + 0.5
    Image.fromarray((np.broadcast_to(waves, (48, 64, 3)) * 255).astype(np.uint8)).save(tmp_path / "waves.png")
    return tmp_path


@pytest.fixture(scope="module")
def zfnet() -> Net:
    return load("zfnet64")


# 1. The network.


def paper(net: StyleNet, pixels: Tensor) -> Tensor:
    """Johnson et al.'s network line by line, from its weights alone."""
    w = net.state_dict()

    def normed(x: Tensor, name: str) -> Tensor:
        mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt() * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = w[f"{name}.weight"]
        half = weight.shape[-1] // 2
        return F.conv2d(F.pad(x, (half, half, half, half), mode="reflect"), weight, w[f"{name}.bias"], stride)

    x = pixels - 0.5
    for number, stride in enumerate((1, 2, 2)):
        x = normed(conv(x, f"down.{number}.conv", stride), f"down.{number}.norm").relu()
    for number in range(len(net.blocks)):
        name = f"blocks.{number}.layers"
        y = normed(conv(x, f"{name}.0.conv"), f"{name}.0.norm").relu()
        x = x + normed(conv(y, f"{name}.1.conv"), f"{name}.1.norm")
    for number in range(2):
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = normed(conv(x, f"up.{number}.conv"), f"up.{number}.norm").relu()
    return 0.5 + conv(x, "up.2.conv").tanh() * 150 / 255


def test_the_network_is_the_papers() -> None:
    net, pixels = random_net().double(), torch.rand(2, 3, 40, 52, dtype=torch.float64)
    torch.testing.assert_close(net(pixels), paper(net, pixels))
    assert torch.equal(whole(net, pixels), net(pixels).clamp(0, 1))


def test_parameters_are_those_of_the_paper() -> None:
    """c9s1-32, d64, d128, R128 x 5, u64, u32, c9s1-3: counted by hand."""

    def conv(inside: int, outside: int, side: int) -> int:
        return inside * outside * side**2 + outside

    sizes = [conv(3, 32, 9), conv(32, 64, 3), conv(64, 128, 3), *[conv(128, 128, 3)] * 10]
    sizes += [conv(128, 64, 3), conv(64, 32, 3), conv(32, 3, 9)]
    normalised = 2 * (32 + 64 + 128 + 10 * 128 + 64 + 32)
    assert sum(value.numel() for value in StyleNet().parameters()) == sum(sizes) + normalised


def test_a_constant_picture_is_painted_without_nan() -> None:
    assert whole(random_net(), torch.full((1, 3, 16, 16), 0.3)).isfinite().all()


# 2. Tiles.


@pytest.mark.parametrize("size", [(212, 148), (64, 160), (68, 132)], ids=str)
@pytest.mark.parametrize("tile", [64, 97])
def test_tiles_give_what_the_whole_gives(size: tuple[int, int], tile: int) -> None:
    net = random_net()
    pixels = torch.rand(1, 3, *size) * torch.linspace(0.1, 1, size[1])
    torch.testing.assert_close(tiles.paint(net, pixels, tile=tile), whole(net, pixels), atol=1e-5, rtol=0)


def test_statistics_of_parts_are_those_of_the_whole() -> None:
    """Far from zero, where a mean of squares less a squared mean would have no digit left."""
    values = torch.randn(1, 3, 40, 50) * 0.01 + 100
    layer = StyleNet(3, 1).down[0]
    statistics = tiles._Statistics()
    for part in (values[..., :7, :], values[..., 7:, :20], values[..., 7:, 20:]):
        statistics.add(part)
    exact = values.double()
    factor, _ = statistics.scale(layer)  # type: ignore[misc,arg-type]
    expected = 1 / (exact.var((2, 3), correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(factor.flatten().double(), expected.flatten(), rtol=1e-3, atol=0)
    torch.testing.assert_close(statistics.mean.flatten(), exact.mean((2, 3)).flatten(), rtol=1e-7, atol=0)  # type: ignore[union-attr]


def test_no_seam_is_visible(chelsea: Any, tmp_path: Path) -> None:
    """Across borders of tiles neighbours differ no more than elsewhere, and as much as when painted at once."""
    style = style_file(tmp_path / "waves.safetensors")
    tiled, at_once = (stylize(chelsea, style, tile=tile).values for tile in (64, 512))
    borders = sorted({columns[1] for _, columns in tiles._tiles((300, 452), 64)})[:-1]
    steps = tiled.diff(dim=2).abs().mean((0, 1))
    at_borders = steps[[border - 1 for border in borders]].mean()
    assert at_borders <= 1.1 * steps.mean()
    assert (tiled - at_once).abs().max() < 1e-4


def test_smaller_tiles_where_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    net, pixels = random_net(2, 1), torch.rand(1, 3, 256, 256)
    expected = whole(net, pixels)
    convolve: Any = nn.Conv2d.forward

    def scarce(layer: nn.Conv2d, below: Tensor) -> Tensor:
        if below[0, 0].numel() > 110**2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")
        return convolve(layer, below)

    monkeypatch.setattr(nn.Conv2d, "forward", scarce)
    with listen() as remarks:
        painted = tiles.paint(net, pixels, tile=512)
    torch.testing.assert_close(painted, expected, atol=1e-5, rtol=0)
    assert remarks == ["out of memory with tiles of 512 pixels; continued with smaller ones"]
    monkeypatch.setattr(nn.Conv2d, "forward", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(OutOfMemory, match="256 x 256") as caught:
        tiles.paint(net, pixels, tile=512)
    assert caught.value.__cause__ is not None and out_of_memory(caught.value.__cause__)


# 3. stylize.


@pytest.mark.parametrize("size", [(1, 1), (3, 70), (17, 19), (64, 64), (101, 35)], ids=str)
def test_a_painting_has_its_pictures_size(size: tuple[int, int], tmp_path: Path) -> None:
    style = style_file(tmp_path / "waves.safetensors")
    Image.effect_noise(size, 80).save(tmp_path / "grey.png")
    drawing = stylize(tmp_path / "grey.png", style)
    written = Image.open(drawing.save(tmp_path / "out.png"))
    assert written.size == size and written.mode == "RGB"
    told = read_recipe(tmp_path / "out.png")
    assert told.method == "stylize" and told.options["tile"] == 1024 and told.options["training"]["width"] == 4
    assert told.network == {"name": "waves.safetensors", "picture": "waves.png", "through": "zfnet64"}
    assert drawing.values.min() >= 0 and drawing.values.max() <= 1


def test_strength_blends_with_the_original(chelsea: Any, tmp_path: Path) -> None:
    style = style_file(tmp_path / "waves.safetensors")
    cat = chelsea[:60, :80]
    original = torch.from_numpy(cat.copy()).permute(2, 0, 1) / 255
    full = stylize(cat, style).values
    torch.testing.assert_close(stylize(cat, style, strength=0).values, original)
    torch.testing.assert_close(stylize(cat, style, strength=0.25).values, 0.75 * original + 0.25 * full)


def test_keep_colour_takes_brightness_alone_from_the_painting(chelsea: Any, tmp_path: Path) -> None:
    style = style_file(tmp_path / "waves.safetensors")
    cat = np.clip(chelsea[:60, :80], 90, 160)
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    original = torch.from_numpy(cat.copy()).permute(2, 0, 1) / 255
    full, kept = stylize(cat, style).values, stylize(cat, style, keep_colour=True).values
    inside = ((kept > 0) & (kept < 1)).all(0)
    assert inside.float().mean() > 0.3
    bright = (kept * luma).sum(0)
    torch.testing.assert_close(bright[inside], (full * luma).sum(0)[inside])
    torch.testing.assert_close((kept - bright)[:, inside], (original - (original * luma).sum(0))[:, inside])


def test_bad_options_of_stylize(tmp_path: Path) -> None:
    style, cat = style_file(tmp_path / "waves.safetensors"), np.zeros((80, 80, 3), np.uint8)
    for options in ({"strength": 1.5}, {"strength": float("nan")}, {"tile": 8}):
        with pytest.raises(OptionError, match=next(iter(options))):
            stylize(cat, style, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["missing", "other weights", "shipped", "picture", "torn", "widthless", "other width"])
def test_files_that_hold_no_style_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    good = style_file(tmp_path / "good.safetensors")
    told = facts(good)
    if kind == "other weights":
        save_file({"a": torch.ones(2)}, path)
    elif kind == "shipped":
        path = next(Path(convscope.__file__).parent.glob("zoo/trained/zfnet64/*.safetensors"))
    elif kind == "picture":
        path = tmp_path / "s.png"
        Image.new("RGB", (9, 9)).save(path)
    elif kind == "torn":
        path.write_bytes(good.read_bytes()[:-100])
    elif kind in ("widthless", "other width"):
        width = "wide" if kind == "widthless" else 8
        save_file(load_file(good), path, metadata=metadata({**told, "width": width}))
    with pytest.raises(WeightsError, match=path.name.replace(".", r"\.")):
        read_style(path)
    with pytest.raises(WeightsError, match="style network"):
        load("zfnet64", weights=good)


# 4. What is learnt.


def test_costs_are_the_papers(folder: Path, zfnet: Net) -> None:
    settings = Settings(size=64, content_weight=2, style_weight=3, tv_weight=5, colour_weight=7)
    style = open_style(folder / "waves.png")
    loss = PerceptualLoss.of(zfnet, style, settings)
    assert loss.content == "relu2" and [one.layer for one in loss.styles] == ["relu1", "relu2", "relu4"]
    x, y = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)

    def moments(pixels: Tensor) -> Tensor:
        return torch.einsum("iyx,jyx->ij", pixels, pixels) / pixels.numel()

    target = torch.from_numpy(np.array(style.resize((85, 64), Image.Resampling.LANCZOS))).permute(2, 0, 1)[None] / 255
    content = style_cost = variation = colours = 0.0
    for a, b in zip(x, y, strict=True):
        before, after = (convscope.tap(zfnet, p[None], ["relu2"])["relu2"] for p in (a, b))
        content += float(((after - before) ** 2).sum() / (before**2).sum()) / 2
        for name in ("relu1", "relu2", "relu4"):
            grams = []
            for p in (b[None], target):
                f = convscope.tap(zfnet, p, [name])[name][0].flatten(1)
                grams.append(torch.einsum("ik,jk->ij", f, f) / f.numel())
            style_cost += float(((grams[0] - grams[1]) ** 2).sum() / (grams[1] ** 2).sum()) / 3 / 2
        colours += float(((moments(b) - moments(target[0])) ** 2).sum() / (moments(target[0]) ** 2).sum()) / 2
        down, right = b[:, 1:] - b[:, :-1], b[:, :, 1:] - b[:, :, :-1]
        variation += float((down**2).sum() + (right**2).sum()) / b.numel() / 2
    expected = torch.tensor([2 * content, 3 * style_cost, 5 * variation, 7 * colours])
    torch.testing.assert_close(loss(y, x), expected, rtol=1e-4, atol=1e-6)


def test_layers_on_vgg_are_johnsons_by_resolution() -> None:
    vgg = load("torchvision:vgg11", weights="none")
    content, styles = loss_layers(vgg, Settings())
    steps = [vgg.layer(name).field.step[0] for name in styles]
    assert steps == [1, 2, 4, 8] and vgg.layer(content).field.step == (4, 4)


def test_the_style_cost_falls(folder: Path, zfnet: Net, tmp_path: Path) -> None:
    options = {**QUICK, "size": 64, "width": 4, "rate": 5e-3}
    early, late = (
        train_style(zfnet, folder / "waves.png", folder / "data", tmp_path / f"{n}.safetensors", steps=n, **options)
        for n in (1, 40)
    )
    loss = PerceptualLoss.of(zfnet, open_style(folder / "waves.png"), Settings(size=64))
    pixels = (
        torch.from_numpy(np.array(Image.open(folder / "data" / "0.png").resize((64, 64)))).permute(2, 0, 1)[None] / 255
    )
    costs = [loss(read_style(path)[0](pixels), pixels) for path in (early, late)]
    assert costs[1].sum() < 0.7 * costs[0].sum() and costs[1][1] < 0.7 * costs[0][1]


def test_the_networks_own_weights_stay_as_they_are(folder: Path, tmp_path: Path) -> None:
    net = load("zfnet64")
    before, state = net.digest, torch.get_rng_state()
    train_style(net, folder / "waves.png", folder / "data", tmp_path / "s.safetensors", steps=2, **QUICK)
    assert net.digest == before and all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), state)


# 5. Going on.


class _Killed(BaseException):
    pass


def stopped_at(step: int, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    """Stop a training before the step after `step`."""
    learn = training._Run._learn

    def once(self: Any, batch: Any) -> None:
        if self.step == step:
            monkeypatch.setattr(training._Run, "_learn", learn)
            raise error
        learn(self, batch)

    monkeypatch.setattr(training._Run, "_learn", once)


@pytest.mark.parametrize("how", ["interrupted", "killed", "asked for more"])
def test_a_training_that_goes_on_ends_with_the_same_bytes(
    how: str, folder: Path, zfnet: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(name: str, steps: int = 7) -> bytes:
        path = tmp_path / f"{name}.safetensors"
        return train_style(zfnet, folder / "waves.png", folder / "data", path, steps=steps, **QUICK).read_bytes()

    expected = train("at-once")
    if how == "asked for more":
        train("s", 4)
    else:
        monkeypatch.setattr(training, "_MINUTES", 0.0 if how == "killed" else 9.0)
        stopped_at(4, monkeypatch, KeyboardInterrupt if how == "interrupted" else _Killed)
        with pytest.raises((KeyboardInterrupt, _Killed)):
            train("s")
        if how == "interrupted":
            assert facts(tmp_path / "s.safetensors")["steps"] == 4
    assert train("s") == expected
    assert train("s") == expected, "a finished training is finished"


def test_a_run_killed_before_its_file_is_written_never_leaves_a_stale_one(
    folder: Path, zfnet: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(name: str, steps: int = 7) -> Path:
        return train_style(zfnet, folder / "waves.png", folder / "data", tmp_path / name, steps=steps, **QUICK)

    expected, out = train("at-once.safetensors").read_bytes(), train("s.safetensors", 4)
    stale = out.read_bytes()

    def killed(*_: Any) -> None:
        raise _Killed

    with monkeypatch.context() as patched, pytest.raises(_Killed):
        patched.setattr(training._Run, "export", killed)
        train("s.safetensors")
    assert out.read_bytes() == stale, "the checkpoint is of step 7, the file of step 4"
    assert train("s.safetensors").read_bytes() == expected
    written = out.stat().st_mtime_ns
    train("s.safetensors")
    assert out.stat().st_mtime_ns == written, "what is finished is not written again"
    out.write_bytes(expected[:-100])
    assert train("s.safetensors").read_bytes() == expected, "half a file is not taken for a whole one"
    with pytest.raises(OptionError, match="has taken 7 steps, more than 3"):
        train("s.safetensors", 3)
    assert sorted(path.name for path in tmp_path.glob("s.*")) == ["s.checkpoint", "s.safetensors"]


def test_other_settings_are_refused_with_the_difference(folder: Path, zfnet: Net, tmp_path: Path) -> None:
    out = tmp_path / "s.safetensors"
    train_style(zfnet, folder / "waves.png", folder / "data", out, steps=2, **QUICK)
    before = out.read_bytes()
    with pytest.raises(OptionError, match=r"style_weight was 5.0, now 7"):
        train_style(zfnet, folder / "waves.png", folder / "data", out, steps=2, style_weight=7, **QUICK)
    Image.new("RGB", (40, 40)).save(folder / "waves.png")
    with pytest.raises(OptionError, match="picture_digest"):
        train_style(zfnet, folder / "waves.png", folder / "data", out, steps=2, **QUICK)
    out.with_suffix(".checkpoint").write_bytes(b"torn")
    with pytest.raises(WeightsError, match="damaged"):
        train_style(zfnet, folder / "waves.png", folder / "data", out, steps=2, **QUICK)
    out.with_suffix(".checkpoint").unlink()
    with pytest.raises(OptionError, match="exists"):
        train_style(zfnet, folder / "waves.png", folder / "data", out, steps=2, **QUICK)
    assert out.read_bytes() == before


def test_a_loss_that_is_no_number_keeps_what_was_good(
    folder: Path, zfnet: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = PerceptualLoss.__call__

    def spoilt(self: PerceptualLoss, painted: Tensor, pixels: Tensor) -> Tensor:
        spoilt.calls += 1  # type: ignore[attr-defined]
        return call(self, painted, pixels) * (torch.nan if spoilt.calls > 14 else 1)  # type: ignore[attr-defined]

    spoilt.calls = 0  # type: ignore[attr-defined]
    ten = train_style(zfnet, folder / "waves.png", folder / "data", tmp_path / "ten.safetensors", steps=10, **QUICK)
    monkeypatch.setattr(PerceptualLoss, "__call__", spoilt)
    out = tmp_path / "s.safetensors"
    with pytest.raises(TrainingError, match=r"after 20 steps.*weights of step 10.*rate below 0\.001"):
        train_style(zfnet, folder / "waves.png", folder / "data", out, steps=40, **QUICK)
    good, expected = load_file(out), load_file(ten)
    assert all(torch.equal(good[key], expected[key]) for key in expected) and facts(out)["steps"] == 10


def test_pictures_that_cannot_be_read_are_skipped_and_named(folder: Path, zfnet: Net, tmp_path: Path) -> None:
    for number in range(40):
        Image.new("RGB", (40, 40), (number, 90, 20)).save(folder / "data" / f"more-{number}.png")
    (folder / "data" / "broken.png").write_bytes(b"no picture")
    with listen() as remarks:
        path = train_style(zfnet, folder / "waves.png", folder / "data", tmp_path / "s.safetensors", steps=24, **QUICK)
    assert remarks == ["skipped 1 unreadable pictures: broken.png"] and facts(path)["pictures"] == 47
    for number in range(5):
        (folder / "data" / f"broken-{number}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="more than 5%"):
        train_style(zfnet, folder / "waves.png", folder / "data", tmp_path / "t.safetensors", steps=60, **QUICK)


def test_the_file_says_how_it_was_made(folder: Path, zfnet: Net, tmp_path: Path) -> None:
    path = train_style(zfnet, folder / "waves.png", folder / "data", tmp_path / "s.safetensors", steps=1, **QUICK)
    told = facts(path)
    assert {
        "steps": 1,
        "seed": 0,
        "size": 32,
        "style_size": 32,
        "through": "zfnet64",
        "picture": "waves.png",
    }.items() <= (told.items())
    assert told["weights"] == zfnet.digest and len(told["picture_digest"]) == 16 and told["style_layers"]
    assert {*Settings.__dataclass_fields__} <= {*told}


def test_sixteen_bits_learn_too(folder: Path, zfnet: Net, tmp_path: Path) -> None:
    path = train_style(
        zfnet, folder / "waves.png", folder / "data", tmp_path / "s.safetensors", steps=2, amp=True, **QUICK
    )
    assert all(value.dtype == torch.float32 for value in load_file(path).values())


def test_a_preview_shows_the_picture_beside_its_painting(folder: Path, zfnet: Net, tmp_path: Path) -> None:
    options = {"preview": tmp_path / "p.png", "preview_every": 2, "preview_of": folder / "waves.png"}
    train_style(zfnet, folder / "waves.png", folder / "data", tmp_path / "s.safetensors", steps=2, **options, **QUICK)
    with Image.open(tmp_path / "p.png") as shown:
        assert shown.height >= 48
        assert shown.width >= 2 * 64


# 6. Bad input.


def test_bad_input_is_refused_before_anything_is_computed(
    folder: Path, zfnet: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training._Run, "_learn", lambda *_: pytest.fail("a step was taken"))
    waves, data, out = folder / "waves.png", folder / "data", tmp_path / "s.safetensors"
    Image.new("RGB", (10, 200)).save(folder / "thin.png")
    (folder / "empty").mkdir()
    (folder / "file").write_text("mine")
    cases: list[tuple[type[Exception], str, tuple[Any, ...], dict[str, Any]]] = [
        (PictureError, "10 × 200", (folder / "thin.png", data, out), {}),
        (PictureError, "no picture", (folder / "none.png", data, out), {}),
        (DataError, "no folder", (waves, folder / "nowhere", out), {}),
        (DataError, "it is a file", (waves, waves, out), {}),
        (DataError, "no picture in", (waves, folder / "empty", out), {}),
        (OutputError, r"use s\.safetensors", (waves, data, tmp_path / "s.pth"), {}),
        (OutputError, "cannot write", (waves, data, folder / "file" / "s.safetensors"), {}),
        (OptionError, "nearest: 'style_weight'", (waves, data, out), {"style_wieght": 3}),
        (OptionError, "multiple of 4, not 33: use 36", (waves, data, out), {"size": 33}),
        (OptionError, "steps must be at least 1", (waves, data, out), {"steps": 0}),
        (OptionError, "rate", (waves, data, out), {"rate": 0.0}),
        (OptionError, "tv_weight", (waves, data, out), {"tv_weight": -1.0}),
        (OptionError, "workers", (waves, data, out), {"workers": -1}),
        (LayerError, "relu9", (waves, data, out), {"content_layer": "relu9"}),
        (LayerError, "fc8|spatial positions", (waves, data, out), {"style_layers": "relu1, fc8"}),
    ]
    for error, message, positions, options in cases:
        with pytest.raises(error, match=message):
            train_style(zfnet, *positions, **options)
    with pytest.raises(OptionError, match="grey"):
        train_style(load("lenet5"), waves, data, out)
    assert not out.exists()


def test_outputs_of_stylize(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    style = str(style_file(folder / "waves.safetensors"))
    one, two = str(folder / "data" / "0.png"), str(folder / "data" / "2.png")
    assert run(["stylize", one, "--style", style, "-o", str(folder / "made.png")]) == 0
    assert Image.open(folder / "made.png").size == (60, 50)
    assert run(["stylize", one, two, "--style", style, "-o", str(folder / "both.png")]) == 2
    assert "-o FOLDER" in capsys.readouterr().err and not (folder / "both.png").exists()
    assert run(["stylize", one, "--style", style, "-o", str(folder / "made.xyz")]) == 2
    assert "endings are" in capsys.readouterr().err
    assert run(["stylize", str(folder / "data"), "--style", style, "-o", str(folder / "many")]) == 0
    assert len(list((folder / "many").rglob("*.png"))) == 6
    (folder / "data" / "broken.png").write_bytes(b"no picture")
    assert run(["stylize", str(folder / "data"), one, "--style", style, "-o", str(folder / "again")]) == 3
    said = capsys.readouterr().err
    assert "1 of 8 pictures failed" in said and "broken.png" in said and "Traceback" not in said
    assert len(list((folder / "again").rglob("*.png"))) == 7 and (folder / "again" / "0-2.png").exists()


def shell(folder: Path, *more: str) -> list[str]:
    quick = "--size 32 --width 2 --blocks 1 --batch 2 --workers 0".split()
    positions = [str(folder / "waves.png"), "--data", str(folder / "data"), "-o", str(folder / "s.safetensors")]
    return [sys.executable, "-m", "convscope", "train-style", *positions, *quick, *more]


def test_ctrl_c_leaves_a_style_file(folder: Path) -> None:
    job = subprocess.Popen(
        shell(folder, "--steps", "100000", "--preview", str(folder / "p.png"), "--preview-every", "1"),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    with ended_when_it_hangs():
        while not (folder / "p.png").exists() and job.poll() is None:
            time.sleep(0.1)
    job.send_signal(signal.SIGINT)
    _, said = job.communicate(timeout=HANG)
    assert job.returncode == 130, said
    assert "interrupted after" in said and "run the same command again to resume" in said and "Traceback" not in said
    assert facts(folder / "s.safetensors")["steps"] >= 1 and (folder / "s.checkpoint").exists()


def test_a_full_disk_is_one_line_and_leaves_what_was_there(folder: Path, zfnet: Net) -> None:
    out = folder / "s.safetensors"
    train_style(zfnet, folder / "waves.png", folder / "data", out, steps=2, **QUICK)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    failed = subprocess.run(
        shell(folder, "--steps", "4"),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)),
    )
    assert failed.returncode == 2 and "cannot write" in failed.stderr and "Traceback" not in failed.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


# 7. A real network.


@pytest.mark.slow
def test_a_real_style_is_learnt(squeezenet: Net, data: Callable[[str], Path], chelsea: Any, tmp_path: Path) -> None:
    """After sixty steps, of thousands, a cat is nearer to the style, has its colours, and is still the cat's shape."""
    (tmp_path / "data").mkdir()
    for number in range(8):
        Image.fromarray(chelsea[20 * number : 20 * number + 128, 40 * number : 40 * number + 128]).save(
            tmp_path / "data" / f"{number}.png"
        )
    style = tmp_path / "tissue.png"
    from skimage.data import immunohistochemistry

    Image.fromarray(immunohistochemistry()).save(style)
    options = {"size": 96, "width": 8, "blocks": 3, "batch": 2, "workers": 0, "steps": 60, "rate": 5e-3}
    path = train_style(squeezenet, style, tmp_path / "data", tmp_path / "s.safetensors", **options)
    cat = stylize(chelsea, path)
    loss = PerceptualLoss.of(squeezenet, open_style(style), Settings(size=96))
    pixels = torch.from_numpy(chelsea.copy()).permute(2, 0, 1)[None] / 255
    painted, plain = loss(cat.values[None], pixels), loss(pixels, pixels)
    assert painted[1] < 0.9 * plain[1] and painted[3] < 0.2 * plain[3] and painted[0] < 0.95, (painted, plain)
    told = json.loads(cat.recipe.to_json())
    assert told["options"]["training"]["through"] == "squeezenet1_0"
