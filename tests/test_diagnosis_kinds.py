"""Kinds of findings that weights and classes show: each is found where it is planted, and no near miss is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from convscope import Net
from convscope.diagnosis.kinds.calibration import by_chance, error
from test_diagnosis import CLASSES, body, coloured, found, noise, wrapped


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured(tmp_path_factory.mktemp("colours"))


# Outliers, duplicates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("times", "units"), [(30, (4,)), (10, (4,)), (3, ())])
def test_one_filter_that_dominates(times: float, units: tuple[int, ...]) -> None:
    module = body()
    with torch.no_grad():
        module[0].weight[4] *= times  # type: ignore[index]
    said = found(wrapped(module), noise(2), "outlier")
    assert [each.units for each in said.findings] == ([units] if units else [])
    if units:
        assert said.findings[0].value == pytest.approx(times, rel=0.3)
        assert "Fig" not in said.findings[0].sentence
        assert len(said.findings[0].evidence().rows[0]) > 6  # type: ignore[misc]
    else:
        assert "2.6 times as strong" in said.healthy[0].sentence


def test_a_filter_that_its_normalisation_makes_up_for_is_no_outlier() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module = nn.Sequential(*module, nn.Linear(8, 3)).eval()
    with torch.no_grad():
        module[0].weight[4] *= 30  # type: ignore[index]
        module[1].running_var[4] *= 900  # type: ignore[index]
    assert not found(wrapped(module), noise(2), "outlier").findings
    module[1].running_var[4] /= 900  # type: ignore[index]
    assert found(wrapped(module), noise(2), "outlier").findings


def twins(cosine: float, scale: float = 1.0) -> nn.Sequential:
    """The small network with unit 9 of its second convolution as near to unit 2 as a cosine says."""
    module = body()
    with torch.no_grad():
        weight = module[3].weight  # type: ignore[index]
        other = weight[9] - weight[2] * (weight[9] * weight[2]).sum() / weight[2].square().sum()
        other *= weight[2].norm() / other.norm()
        weight[9] = scale * (cosine * weight[2] + (1 - cosine**2) ** 0.5 * other)
        module[3].bias[9] = scale * module[3].bias[2]  # type: ignore[index]
    return module


@pytest.mark.parametrize(("cosine", "scale", "units"), [(1, 1, (2, 9)), (1, 3, (2, 9)), (0.9, 1, ()), (-1, 1, ())])
def test_duplicates_and_twins(cosine: float, scale: float, units: tuple[int, ...]) -> None:
    said = found(wrapped(twins(cosine, scale)), noise(20), "duplicate")
    assert [each.units for each in said.findings] == ([units] if units else [])
    if units:
        assert "2 and 9" in said.findings[0].sentence
        assert said.findings[0].evidence().labels[1:] == ("unit 2", "unit 9")  # type: ignore[misc]
    if cosine == 0.9:
        assert "a cosine of 0.900" in said.healthy[0].sentence


def test_the_same_kernel_on_other_channels_is_no_duplicate() -> None:
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU())
    module = nn.Sequential(*module, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    with torch.no_grad():
        module[2].weight[4] = module[2].weight[1]  # type: ignore[index]
    assert not found(wrapped(module), noise(20), "duplicate").findings


# Aliasing, checkerboards ---------------------------------------------------------------------------------------------


def striped(side: int, period: int) -> Tensor:
    return torch.cos(2 * torch.pi * torch.arange(side) / period).expand(side, side)


def first_layer(filters: Tensor, step: int) -> Net:
    conv = nn.Conv2d(3, len(filters), filters.shape[-1], step, padding=filters.shape[-1] // 2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(filters[:, None].expand(-1, 3, -1, -1))
    tail = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(len(filters), 3))
    return wrapped(nn.Sequential(conv, *tail), size=64)


def grey_noise(count: int) -> list[np.ndarray]:
    chance = np.random.default_rng(1)
    return [chance.random((64, 64, 1), np.float32).repeat(3, 2) for _ in range(count)]


@pytest.mark.parametrize(("period", "step", "folds"), [(4, 4, True), (16, 4, False), (4, 1, False), (8, 2, False)])
def test_what_a_large_step_cannot_hold_is_aliasing(period: int, step: int, folds: bool) -> None:
    net = first_layer(torch.stack([striped(11, period), striped(11, period).T]), step)
    said = found(net, grey_noise(4), "aliasing")
    assert [each.kind for each in said.findings] == ["aliasing"] * folds
    if folds:
        assert said.findings[0].value == pytest.approx(1, abs=0.1)
        assert said.findings[0].interval is not None
        assert said.findings[0].interval[0] <= said.findings[0].value <= said.findings[0].interval[1]


@pytest.mark.parametrize(("side", "step", "looked"), [(3, 4, True), (4, 4, False)])
def test_patches_are_cut_out_and_pixels_left_out_are_aliasing(side: int, step: int, looked: bool) -> None:
    torch.manual_seed(0)
    said = found(first_layer(torch.randn(6, side, side), step), grey_noise(3), "aliasing")
    assert [each.kind for each in said.findings] == ["aliasing"] * looked
    assert ["it cuts patches out" in each.reason for each in said.unseen] == [True] * (not looked)


@pytest.mark.parametrize(
    ("periods", "missing"), [((64, 2.5), True), ((64, 5, 2.5), False), ((64, 2.5) * 4 + (5,), False)]
)
def test_filters_without_middle_frequencies(periods: tuple[float, ...], missing: bool) -> None:
    each = [torch.cos(2 * torch.pi * torch.arange(11) / period + 1).expand(11, 11) for period in (periods * 9)[:24]]
    said = found(first_layer(torch.stack(each), 1), grey_noise(2), "aliasing")
    assert [each.measure for each in said.findings] == [
        "share of the filters that see middle frequencies most"
    ] * missing


def decoder(window: int, *, shuffled: bool = False) -> Net:
    torch.manual_seed(3)
    up: nn.Module = nn.ConvTranspose2d(8, 8, window, 2, padding=(window - 1) // 2, bias=False)
    if shuffled:
        up = nn.Sequential(nn.Conv2d(8, 32, 1, bias=False), nn.PixelShuffle(2))
    with torch.no_grad():
        if shuffled:
            up[0].weight.view(8, 4, 8, 1, 1)[:, 0] *= 4  # type: ignore[index]
        else:
            ramp = torch.tensor([1.0, 3, 3, 1])
            up.weight.copy_(torch.rand(8, 8, 1, 1) * (torch.outer(ramp, ramp) if window == 4 else torch.ones(3, 3)))  # type: ignore[union-attr]
    return wrapped(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), up), classes=None, size=16)


@pytest.mark.parametrize(("window", "shuffled", "uneven"), [(3, False, True), (4, False, False), (4, True, True)])
def test_checkerboards(window: int, shuffled: bool, uneven: bool) -> None:
    smooth = [np.asarray(Image.fromarray(np.uint8(each * 255)).resize((3, 3)).resize((16, 16))) for each in noise(8)]
    said = found(decoder(window, shuffled=shuffled), smooth, "checkerboard")
    assert [each.kind for each in said.findings] == ["checkerboard"] * uneven, said
    if window == 3:
        assert "3x3 is no multiple of the step" in said.findings[0].sentence
    said = found(wrapped(body()), noise(2), "checkerboard")
    assert "no layer of the network enlarges" in said.healthy[0].sentence


# Calibration, units of one class -------------------------------------------------------------------------------------


def test_the_calibration_error_by_a_loop_and_by_chance() -> None:
    chance = np.random.default_rng(0)
    confidence = chance.random(1000) * 0.7 + 0.3
    right = chance.random(1000) < confidence
    by_loop = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        by_loop += abs(right[inside].sum() - confidence[inside].sum()) / 1000 if inside.any() else 0
    assert error(confidence, right) == pytest.approx(by_loop)
    assert error(confidence, right) < by_chance(confidence, 0) < 0.06
    assert error(confidence, np.zeros(1000)) > by_chance(confidence, 0)


def seeing_colours(scores: float) -> Net:
    """A network of colours: the mean of each band, less that of the others, times a number."""
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3, bias=False))
    with torch.no_grad():
        module[2].weight.copy_(scores * torch.eye(3).flip(0))  # type: ignore[union-attr]
    return wrapped(module)


@pytest.fixture(scope="module")
def doubtful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty pictures of each class, of which a fifth lies in the folder of another."""
    at, chance = tmp_path_factory.mktemp("doubtful"), np.random.default_rng(0)
    for name in CLASSES:
        (at / name).mkdir()
    for index in range(150):
        truth, shown = index % 3, index % 3 if index % 5 else (index + 1) % 3
        pixels = np.full((16, 16, 3), 100, np.uint8) + chance.integers(0, 20, 3, np.uint8)
        pixels[..., 2 - shown] += 60
        Image.fromarray(pixels).save(at / CLASSES[truth] / f"{index}.png")
    return at


def test_a_network_that_is_too_sure(doubtful: Path) -> None:
    [one] = found(seeing_colours(9), doubtful, "calibration").findings
    assert "too sure" in one.sentence
    assert "right in 80% of 150 pictures" in one.sentence
    assert one.value == pytest.approx(0.2, abs=0.02)
    assert "would lower the mean log loss from 1.6" in one.helps
    assert "Temperature scaling: on these pictures, scores divided by " in one.helps
    assert one.interval is not None
    assert one.interval[0] < 0.2 < one.interval[1]
    said = found(seeing_colours(2.3), doubtful, "calibration")
    assert not said.findings
    assert "by chance" in said.healthy[0].sentence


def test_calibration_needs_labels_and_pictures(folder: Path) -> None:
    assert "needs labels" in found(seeing_colours(2), noise(5), "calibration").unseen[0].reason
    few = [str(path) for path in sorted(folder.glob("*/1.png"))]
    assert "3 pictures with labels are too few" in found(seeing_colours(2), few, "calibration").unseen[0].reason


def test_units_that_one_class_uses(folder: Path) -> None:
    module = body()
    with torch.no_grad():
        module[0].weight[3] = 0  # type: ignore[index]
        module[0].weight[3, 0, 1, 1], module[0].weight[3, 1:, 1, 1] = 1, -1  # type: ignore[index]
        module[0].bias[3] = -2.0  # type: ignore[index]
        module[0].weight[4], module[0].bias[4] = module[0].weight[3], 2.5  # type: ignore[index]
    one = next(each for each in found(wrapped(module), folder, "class-only").findings if each.layer == "0")
    assert one.severity == 1
    assert 3 in one.units
    assert 4 not in one.units
    assert "red: " in one.sentence
    unlabelled = found(wrapped(module), noise(9), "class-only")
    assert "which class each picture is of" in unlabelled.unseen[0].reason
    one_class = found(wrapped(module), folder / "red", "class-only")
    assert "of 1 of the network's 3 classes" in one_class.unseen[0].reason
    assert one.n <= 120, "pictures, not pictures and units"


def test_answers_before_a_sigmoid_are_of_no_class() -> None:
    # They are of either sign, and shares of their sums are no shares.
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    with torch.no_grad():
        module[0].bias.fill_(-1.0)  # type: ignore[union-attr]
    labelled = [(picture, at % 3) for at, picture in enumerate(noise(18))]
    said = found(wrapped(module.eval()), labelled, "class-only")
    assert not said.findings
    assert "a share is of" not in str(said.unseen)
