"""Style transfer: its costs by the paper's equations, its options, and what they do on real networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs
from convscope import Net, tap
from convscope.cli import run
from convscope.errors import LayerError, OptionError, OutOfMemory, PictureError
from convscope.layers import first_of_stages, spatial_layer, stage_layers
from convscope.synthesis import style_problem
from convscope.synthesis.ascent import AscentResult
from convscope.synthesis.colour import recoloured
from convscope.synthesis.likeness import Content, Style, gram, scale_to
from convscope.synthesis.pooling import pooled_by
from convscope.synthesis.style import style
from convscope.synthesis.style_problem import StyleLayers, StyleProblem
from networks import pictures

QUICK: dict[str, Any] = {"steps": 12, "size": 40}


@pytest.fixture(scope="module")
def zfnet64() -> Net:
    return cs.load("zfnet64")


@pytest.fixture(scope="module")
def cat(chelsea: Any) -> Image.Image:
    return Image.fromarray(chelsea)


@pytest.fixture(scope="module")
def coffee() -> Image.Image:
    from skimage.data import coffee

    return Image.fromarray(coffee())


def activity(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Gram matrices ----------------------------------------------------------------------------------------------------


def test_a_gram_matrix_is_symmetric_without_negative_eigenvalue_and_its_trace_is_the_norm() -> None:
    seen = activity(2, 5, 4, 7) - 0.3
    found = gram(seen)
    torch.testing.assert_close(found, found.transpose(1, 2), rtol=0, atol=1e-15)
    assert torch.linalg.eigvalsh(found).min() > -1e-15
    torch.testing.assert_close(found.diagonal(dim1=1, dim2=2).sum(1), seen.square().sum((1, 2, 3)) / (5 * 4 * 7))
    by_hand = sum(torch.outer(seen[1, :, y, x], seen[1, :, y, x]) for y in range(4) for x in range(7)) / (5 * 4 * 7)
    torch.testing.assert_close(found[1], by_hand)


def test_a_gram_matrix_forgets_where_but_not_what_goes_together() -> None:
    seen = activity(1, 5, 4, 7)
    order = torch.randperm(28, generator=torch.Generator().manual_seed(1))
    together = seen.flatten(2)[:, :, order].view_as(seen)
    torch.testing.assert_close(gram(together), gram(seen))
    apart = torch.stack([seen[0, k].flatten().roll(3 * k).view(4, 7) for k in range(5)])[None]
    assert (gram(apart) - gram(seen)).abs().max() > 0.004
    torch.testing.assert_close(gram(apart).diagonal(dim1=1, dim2=2), gram(seen).diagonal(dim1=1, dim2=2))


def test_a_shift_around_the_border_costs_no_style() -> None:
    body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"), nn.ReLU()).double()
    net, pixels = Net(body, size=12), pictures(1, side=12)
    target = gram(tap(net, pixels, ["1"])["1"])
    shifted = tap(net, pixels.roll((5, 2), (2, 3)), ["1"])["1"]
    assert float(Style("1", target).read(shifted)) < 1e-28
    assert float(Style("1", target).read(tap(net, pixels.flip(1), ["1"])["1"])) > 1e-4


def test_the_gradient_of_style_is_the_paper_s_equation_6() -> None:
    """dE/dF = F^T (G - A) / (N^2 M^2) for E = ||G - A||^2 / (4 N^2 M^2), G = F F^T, where F is active."""
    seen, other = activity(1, 5, 4, 7).requires_grad_(), activity(1, 5, 3, 6, seed=1)
    channels, positions = 5, 28
    target = gram(other)
    (found,) = torch.autograd.grad(Style("x", target).read(seen).sum(), seen)
    flat, wanted = seen.detach()[0].flatten(1), target[0] * channels * positions
    by_hand = (flat.T @ (flat @ flat.T - wanted)).T / (channels * positions) ** 2
    # Relative to the target, and in the paper's units 4 times as large.
    scale = 4 / float(target.square().sum())
    torch.testing.assert_close(found[0].flatten(1), by_hand * scale)


def test_the_gradient_of_content_is_the_paper_s_equation_2() -> None:
    """dL/dF = F - P for L = 1/2 ||F - P||^2."""
    seen, target = activity(2, 5, 4, 7).requires_grad_(), activity(1, 5, 4, 7, seed=1)
    (found,) = torch.autograd.grad(Content("x", target).read(seen).sum(), seen)
    torch.testing.assert_close(found, (seen.detach() - target) * 2 / target.square().sum())
    assert float(Content("x", target).read(torch.zeros_like(target))) == pytest.approx(1, abs=1e-12)
    assert float(Style("x", gram(target)).read(torch.zeros_like(target))) == pytest.approx(1, abs=1e-9)


# Layers -----------------------------------------------------------------------------------------------------------


def test_vgg_s_layers_are_the_paper_s() -> None:
    net = cs.load("torchvision:vgg16", weights="none")
    # relu1_1 to relu5_1, and relu4_2, by torchvision's numbers.
    assert [layer.name for layer in first_of_stages(net)] == [f"features.{k}" for k in (1, 6, 11, 18, 25)]
    assert all(layer.kind == "ReLU" for layer in first_of_stages(net))
    assert StyleLayers.of(net, None, None).content == ["features.20"]


def test_blocks_stand_for_the_layers_inside_them(squeezenet: Net) -> None:
    assert [layer.name for layer in first_of_stages(squeezenet)] == [
        "features.1",
        "features.3",
        "features.7",
        "features.12",
    ]
    assert StyleLayers.of(squeezenet, None, None).content == ["features.8"]
    resnet = cs.load("torchvision:resnet18", weights="none")
    assert [layer.name for layer in first_of_stages(resnet)] == ["relu", "layer1.0", "layer2.0", "layer3.0", "layer4.0"]
    googlenet = cs.load("torchvision:googlenet", weights="none")
    names = [layer.name for layer in first_of_stages(googlenet)]
    assert names == ["conv1", "conv2", "inception3a", "inception4a", "inception5a"]


def test_every_stage_has_one_size(zfnet64: Net, squeezenet: Net) -> None:
    for net in (zfnet64, squeezenet, cs.load("lenet5"), cs.load("lenet5-1998")):
        sizes = stage_layers(net)
        assert all(len({layer.grid for layer in same}) == 1 for same in sizes)
        grids = [same[0].grid for same in sizes]
        assert grids == sorted(set(grids), reverse=True)


def test_scaling_keeps_the_mean_and_adds_no_pattern() -> None:
    fine = torch.zeros(1, 1, 40, 60)
    fine[..., ::2] = 1
    assert (scale_to(fine, (10, 15)) - 0.5).abs().max() < 0.05
    assert scale_to(fine, (40, 60)) is fine


# Pictures that are made -------------------------------------------------------------------------------------------


def costs(net: Net, drawing: cs.Picture, picture: Any, styled: Any) -> tuple[float, float]:
    """The content's and the style's cost of what was made, computed from the pictures alone."""
    layers = StyleLayers.of(net, None, None)
    made = drawing.values[None]
    size = (made.shape[2], made.shape[3])

    def read(image: Any, size: tuple[int, int]) -> Tensor:
        values = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[None] / 255
        return scale_to(torch.from_numpy(values), size)

    ratio = max(size) / max(styled.size)
    style_size = (round(styled.height * ratio), round(styled.width * ratio))
    with torch.no_grad():
        content = tap(net, read(picture, size), layers.content)
        style = tap(net, read(styled, style_size), layers.style)
        found = tap(net, made, [*layers.content, *layers.style])
    return (
        float(sum(F.mse_loss(found[n], content[n]) / content[n].square().mean() for n in layers.content)),
        float(np.mean([float(Style(n, gram(style[n])).read(found[n])) for n in layers.style])),
    )


@pytest.mark.slow
def test_a_real_picture_takes_on_the_style_and_keeps_the_content(
    squeezenet: Net, cat: Image.Image, coffee: Image.Image
) -> None:
    drawing = style(squeezenet, cat, style=[coffee], size=96, steps=40)
    assert isinstance(drawing, cs.Picture) and drawing.render().size == (96, 64)
    content, styled = costs(squeezenet, drawing, cat, coffee)
    one = style(squeezenet, cat, style=[coffee], size=96, steps=1)
    assert isinstance(one, cs.Picture)
    _, before = costs(squeezenet, one, cat, coffee)
    assert styled < before / 10
    assert drawing.recipe.settled["cost"] == pytest.approx(content + 100 * styled, rel=1e-3)
    # What content counts is what keeps it.
    others = [
        style(squeezenet, cat, style=[coffee], size=96, steps=40, content_weight=weight) for weight in (0.0, 30.0)
    ]
    less, more = (costs(squeezenet, other, cat, coffee)[0] for other in others if isinstance(other, cs.Picture))
    assert more < 0.5 * content and content < 0.95 * less


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("parametrization", ["fourier", "pixels"])
def test_the_cost_falls_whatever_the_optimizer(
    zfnet64: Net, cat: Image.Image, coffee: Image.Image, parametrization: Any, optimizer: Any
) -> None:
    found = [
        style(
            zfnet64, cat, style=[coffee], size=48, steps=steps, parametrization=parametrization, optimizer=optimizer
        ).recipe
        for steps in (1, 40)
    ]
    assert found[1].settled["cost"] < found[0].settled["cost"] / 2
    assert found[1].options["optimizer"] == optimizer and found[1].options["steps"] == 40
    assert found[1].options["parametrization"] == parametrization


def test_the_same_seed_gives_the_same_bytes(
    zfnet64: Net, cat: Image.Image, coffee: Image.Image, tmp_path: Path
) -> None:
    def made(seed: int, init: Any) -> bytes:
        drawing = style(zfnet64, cat, style=[coffee], init=init, seed=seed, **QUICK)
        return drawing.save(tmp_path / "a.png").read_bytes()

    assert made(3, "noise") == made(3, "noise") != made(4, "noise")
    assert made(0, "content") != made(0, "zero")


def test_of_two_styles_the_one_that_counts_alone_is_the_first(
    zfnet64: Net, cat: Image.Image, coffee: Image.Image
) -> None:
    def made(styles: list[Any], mix: Any) -> Tensor:
        drawing = style(zfnet64, cat, style=styles, style_mix=mix, **QUICK)
        assert isinstance(drawing, cs.Picture)
        return drawing.values

    other = coffee.rotate(90, expand=True).convert("L")
    assert torch.equal(made([coffee, other], [1, 0]), made([coffee], None))
    assert torch.equal(made([coffee, other], [2, 2]), made([coffee, other], None))
    assert not torch.equal(made([coffee, other], [2, 2]), made([coffee, other], [3, 1]))


def test_mixed_gram_matrices_are_the_weighted_losses(zfnet64: Net) -> None:
    """w |G - A|^2 + v |G - B|^2 has the gradient of |G - (w A + v B)|^2 where w + v = 1."""
    a, b = gram(activity(1, 5, 4, 7, seed=1)), gram(activity(1, 5, 4, 7, seed=2))
    seen = activity(1, 5, 4, 7).requires_grad_()
    apart = 0.3 * (gram(seen) - a).square().sum() + 0.7 * (gram(seen) - b).square().sum()
    mixed = 0.3 * a + 0.7 * b
    together = Style("x", mixed).read(seen).sum() * mixed.square().sum()
    torch.testing.assert_close(*(torch.autograd.grad(cost, seen)[0] for cost in (apart, together)))


def test_scales_double_and_each_begins_with_the_one_before(
    zfnet64: Net, cat: Image.Image, coffee: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    firsts: list[Tensor] = []
    ends: list[Tensor] = []
    whole = StyleProblem.minimize

    def watched(self: Any, terms: Any, first: Tensor, label: str) -> AscentResult:
        made = whole(self, terms, first, label)
        firsts.append(first)
        ends.append(made.pixels)
        return made

    monkeypatch.setattr(StyleProblem, "minimize", watched)
    drawing = style(zfnet64, cat, style=[coffee], size=80, steps=3, scales=3)
    assert [tuple(first.shape[2:]) for first in firsts] == [(13, 20), (27, 40), (53, 80)]
    for end, first in zip(ends, firsts[1:], strict=False):
        torch.testing.assert_close(scale_to(end, (first.shape[2], first.shape[3])), first)
    assert drawing.numbers()["picture"].shape == (3, 53, 80)


def test_colours_are_kept_to_a_shade(zfnet64: Net, cat: Image.Image, coffee: Image.Image) -> None:
    drawing = style(zfnet64, cat, style=[coffee], keep_colour=True, **QUICK)
    made = np.asarray(drawing.render(), dtype=np.float64)
    picture = torch.from_numpy(np.asarray(cat, dtype=np.float32).transpose(2, 0, 1)[None] / 255)
    own = scale_to(picture, (27, 40))[0].permute(1, 2, 0).numpy() * 255
    for one, other in ((0, 1), (1, 2)):
        # Two roundings of half a shade.
        assert np.abs((made[..., one] - made[..., other]) - (own[..., one] - own[..., other])).max() <= 1 + 1e-3
    assert np.abs(made - own).mean() > 2


def test_only_the_luminance_is_laid_under_colours() -> None:
    made, colours = pictures(2, seed=1), pictures(2, seed=2)
    found = recoloured(made, colours)
    assert found.min() >= 0 and found.max() <= 1
    change = found - colours
    torch.testing.assert_close(change, change[:, :1].expand_as(change))
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    inside = (found.amin(1) > 1e-9) & (found.amax(1) < 1 - 1e-9)
    grey = [torch.einsum("nchw,c->nhw", x, luma)[inside] for x in (found, made)]
    torch.testing.assert_close(*grey)
    assert inside.any() and not inside.all()


def test_without_content_a_texture_is_made(zfnet64: Net, cat: Image.Image, coffee: Image.Image) -> None:
    drawing = style(zfnet64, cat, style=[coffee], content_weight=0, init="noise", size=48, steps=40)
    assert drawing.recipe.options["content_weight"] == 0 and drawing.recipe.settled["cost"] < 5
    with pytest.raises(OptionError, match="both 0"):
        style(zfnet64, cat, style=[coffee], content_weight=0, style_weight=0)


def test_roughness_can_be_made_to_cost(zfnet64: Net, cat: Image.Image, coffee: Image.Image) -> None:
    rough = [
        style(zfnet64, cat, style=[coffee], tv_weight=weight, **QUICK).numbers()["picture"] for weight in (0.0, 1e4)
    ]
    assert np.square(np.diff(rough[1])).mean() < np.square(np.diff(rough[0])).mean() / 2


@pytest.mark.parametrize(
    ("window", "options"), [(3, {"stride": 2}), (2, {}), (3, {"stride": 2, "padding": 1, "ceil_mode": True})]
)
def test_maxima_become_means_without_touching_the_network(window: int, options: dict[str, Any]) -> None:
    pixels = pictures(1, side=11)
    expected = F.avg_pool2d(pixels, window, **options, count_include_pad=False)
    module = nn.MaxPool2d(window, **options)
    before = module(pixels)
    with pooled_by("average"):
        for found in (
            module(pixels),
            F.max_pool2d(pixels, window, **options),
            torch.max_pool2d(pixels, window, **options),
        ):
            torch.testing.assert_close(found, expected)
    torch.testing.assert_close(module(pixels), before)
    with pooled_by("max"):
        torch.testing.assert_close(module(pixels), before)


def test_means_give_another_picture(zfnet64: Net, cat: Image.Image, coffee: Image.Image) -> None:
    two = [style(zfnet64, cat, style=[coffee], pooling=pooling, **QUICK) for pooling in ("max", "average")]  # type: ignore[arg-type]
    assert not np.array_equal(*(one.numbers()["picture"] for one in two))
    assert two[1].recipe.options["pooling"] == "average"


# Maps -------------------------------------------------------------------------------------------------------------


def test_a_map_has_a_column_for_every_layer(zfnet64: Net, cat: Image.Image, coffee: Image.Image) -> None:
    drawing = style(zfnet64, cat, style=[coffee], map=True, size=48, steps=20)
    assert isinstance(drawing, cs.Gallery)
    sheet, names = drawing.sheet(), [layer.name for layer in first_of_stages(zfnet64)]
    assert [head.split(" · ")[0] for head in sheet.columns] == ["picture", *names]
    assert sheet.labels == ("content", "style") and [len(row) for row in sheet.rows] == [4, 4]
    values = drawing.numbers()
    assert values["content"].shape == values["style"].shape == (3, 3, 32, 48)
    own = zfnet64.pixels(zfnet64.prepare_whole(cat))
    own = scale_to(own, (32, 48))[0].numpy()
    away = [float(np.abs(one - own).mean()) for one in values["content"]]
    assert away[0] < 0.05 and away[0] < away[-1]


def test_a_map_takes_no_option_of_the_transfer(zfnet64: Net, cat: Image.Image, coffee: Image.Image) -> None:
    for name, value in {"content_layers": ["relu1"], "init": "zero", "scales": 2, "keep_colour": True}.items():
        with pytest.raises(OptionError, match=f"leave out {name}"):
            style(zfnet64, cat, style=[coffee], map=True, **{name: value})  # type: ignore[arg-type]


# Interruptions and bad input --------------------------------------------------------------------------------------


def test_an_interruption_hands_out_what_there_is(
    zfnet64: Net, cat: Image.Image, coffee: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    whole = Style.read

    def read(self: Style, seen: Tensor) -> Tensor:
        calls.append(seen.shape)
        if len(calls) > limit:
            raise KeyboardInterrupt
        return whole(self, seen)

    monkeypatch.setattr(Style, "read", read)
    for limit, remark in ((50, "interrupted after"), (37, "scale before was enlarged")):
        calls.clear()
        with monkeypatch.context() as patched:
            # The last look at what was made is not what is interrupted.
            patched.setattr("convscope.synthesis.scoring.BatchScore.final", lambda *_: torch.zeros(1))
            drawing = style(zfnet64, cat, style=[coffee], size=64, steps=12, scales=2)
        assert any(remark in one for one in drawing.recipe.remarks), (limit, drawing.recipe.remarks)
        assert drawing.numbers()["picture"].shape == (3, 43, 64)
    calls.clear()
    limit = 14
    with monkeypatch.context() as patched:
        patched.setattr("convscope.synthesis.scoring.BatchScore.final", lambda *_: torch.zeros(1))
        drawing = style(zfnet64, cat, style=[coffee], map=True, size=48, steps=12)
    assert [len([tile for tile in row if tile]) for row in drawing.sheet().rows] == [3, 3]
    assert drawing.render().width > 300


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"style": []}, OptionError, "no style picture"),
        ({"style": [""]}, PictureError, "name a picture"),
        ({"style_mix": [1.0, 2.0]}, OptionError, "a weight for each of the 1 style pictures"),
        ({"style_mix": [-1.0]}, OptionError, "at least 0"),
        ({"style_mix": ["much"]}, OptionError, "a list, each a number"),
        ({"style_weight": -1.0}, OptionError, "at least 0"),
        ({"style_scale": 0.0}, OptionError, "above 0"),
        ({"style_layers": ["relu9"]}, LayerError, "nearest: 'relu"),
        ({"content_layers": ["fc"]}, LayerError, "without spatial positions, which content needs"),
        ({"optimizer": "sgd"}, OptionError, "'lbfgs', 'adam'"),
        ({"parametrization": "maco"}, OptionError, "'fourier', 'pixels'"),
        ({"init": "cat"}, OptionError, "'content', 'noise', 'zero'"),
        ({"pooling": "min"}, OptionError, "'max', 'average'"),
        ({"steps": 0}, OptionError, "at least 1"),
        ({"size": 0}, OptionError, "at least 1"),
        ({"scales": 0}, OptionError, "at least 1"),
        ({"style": ["nowhere.png"]}, PictureError, "no picture nowhere.png"),
    ],
    ids=str,
)
def test_bad_input_is_named(
    zfnet64: Net, cat: Image.Image, coffee: Image.Image, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        style(zfnet64, cat, **{"style": [coffee], "steps": 1, "size": 40, **options})


def test_a_layer_without_places_has_no_style(squeezenet: Net) -> None:
    with pytest.raises(LayerError, match="without spatial positions, which style needs"):
        spatial_layer(squeezenet, "", purpose="style")


def test_styles_may_be_small_or_long_but_not_narrow(squeezenet: Net, cat: Image.Image, coffee: Image.Image) -> None:
    small = style(squeezenet, cat, style=[coffee.resize((10, 8))], size=64, steps=1)
    assert "the style picture is enlarged 6.4 times: its texture is blurred" in small.recipe.remarks
    long = style(squeezenet, cat, style=[coffee.crop((0, 0, 600, 200))], size=128, steps=1)
    assert not long.recipe.remarks
    with pytest.raises(PictureError, match=r"too narrow at 120 × 4 px.*larger style_scale"):
        style(squeezenet, cat, style=[coffee.crop((0, 0, 600, 20))], size=120, steps=1)
    with pytest.raises(PictureError, match=r"36 × 24 px: features.12 has fewer than 4 positions"):
        style(squeezenet, cat, style=[coffee], size=36, steps=1)
    with pytest.raises(PictureError, match=r"6x9 pixels does not fit: squeezenet1_0 needs at least 21x21"):
        style(squeezenet, cat, style=[coffee], size=9, steps=1)


def test_the_size_is_said_where_it_is_not_the_picture_s(zfnet64: Net, cat: Image.Image, coffee: Image.Image) -> None:
    large = cat.resize((1200, 800))
    drawing = style(zfnet64, large, style=[coffee], steps=1)
    assert drawing.numbers()["picture"].shape == (3, 341, 512)
    assert "reduced to 512 px from 1200: use size for more" in drawing.recipe.remarks
    own = style(zfnet64, cat.resize((60, 40)), style=[coffee], steps=1)
    assert own.numbers()["picture"].shape == (3, 40, 60) and not own.recipe.remarks


def test_a_network_of_grey_pictures_has_no_colour_to_keep(cat: Image.Image, coffee: Image.Image) -> None:
    lenet = cs.load("lenet5")
    drawing = style(lenet, cat, style=[coffee], **QUICK)
    assert drawing.numbers()["picture"].shape == (1, 27, 40) and drawing.render().mode == "RGB"
    with pytest.raises(OptionError, match="no colour to keep"):
        style(lenet, cat, style=[coffee], keep_colour=True)


def test_memory_that_ran_out_is_said_with_advice(
    zfnet64: Net, cat: Image.Image, coffee: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    monkeypatch.setattr(style_problem, "ascend", fail)
    with pytest.raises(OutOfMemory, match=r"40 × 27 px.*smaller size"):
        style(zfnet64, cat, style=[coffee], **QUICK)


def test_the_command_writes_the_bare_picture_with_its_recipe(
    cat: Image.Image, coffee: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cat.save("cat.png")
    coffee.save("a.png")
    coffee.convert("L").save("b.png")
    words = ["style", "cat.png", "--net", "zfnet64", "--style", "a.png, b.png", "--style-mix", "3,1", "--size", "48"]
    assert run([*words, "--steps", "12", "--preview", "p.png", "--preview-every", "5", "-o", "o.png"]) == 0
    assert Image.open("o.png").size == (48, 32) == Image.open("p.png").size
    found = cs.read_recipe("o.png")
    assert found.method == "style" and len(found.pictures) == 1
    assert [picture["where"] for picture in found.options["style"]] == ["a.png", "b.png"]
    assert found.options["style_mix"] == [3, 1] and found.settled["style_mix"] == [0.75, 0.25]
    assert found.settled["style_layers"] == ["relu1", "relu2", "relu4"] and found.settled["content_layers"] == ["relu3"]
    assert run([*words, "--map", "--steps", "2", "-o", "m.png"]) == 0
    assert Image.open("m.png").width > 4 * 48
