"""timm's families: the smallest network of eleven in the suite, of all at night. Nothing is wrong, nothing crashes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("timm")

from convscope import load
from timm_families import families, faults, tried

PAGE = Path(__file__).parent.parent / "docs" / "timm.md"
sys.path.insert(0, str(PAGE.parent))
from make_timm import METHODS, short  # noqa: E402

ELEVEN = (
    "test_byobnet",
    "test_convnext",
    "test_efficientnet",
    "tf_efficientnet_lite0",
    "hgnetv2_b0",
    "ghostnet_050",
    "starnet_s050",
    "test_mambaout",
    "test_coatnet",
    "test_nfnet",
    "test_vit_relpos",
)
RECTIFIED = ("test_byobnet", "tf_efficientnet_lite0", "hgnetv2_b0", "ghostnet_050", "starnet_s050")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ELEVEN)
def test_a_family_is_right_or_refused(name: str) -> None:
    row = tried(name)
    assert not faults(row)
    right = {method for method, what in row.items() if what == "right"}
    assert {"layers", "gradient", "occlusion", "maximize"} <= right, row
    assert "grad_cam" in right or "name an earlier layer" in row["grad_cam"] or "lie" in row["grad_cam"], row
    assert ("guided_backprop" in right) == (name in RECTIFIED), row["guided_backprop"]
    line = next((line for line in PAGE.read_text().splitlines() if f"| {name} |" in line), None)
    assert line is None or line.endswith(f"| {' | '.join(map(short, map(row.get, METHODS)))} |")


def test_pixels_moved_into_channels_are_no_channels_of_the_picture() -> None:
    """TResNet's first convolution reads 48 channels of a picture that has three."""
    net = load("timm:tresnet_m", weights=None)
    assert net.channels == 3 and net.layers["body.conv1"].shape[0] == 64


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
def test_every_family_is_right_or_refused() -> None:
    wrong = {name: found for _, name in families() if (found := faults(tried(name)))}
    assert not wrong
