"""explain_many: equal to one by one, whatever the data are, and nothing is lost to a bad picture."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import convscope as cs
from convscope.context import Cancelled, running
from convscope.errors import OptionError, RuleError
from networks import SIZE, pictures, tiny


@pytest.fixture
def net() -> cs.Net:
    return tiny("sequential", dtype=torch.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven pictures of different sizes, in two folders."""
    for number in range(7):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(0, 256, (SIZE + number, SIZE + 2 * number, 3), np.uint8)
        Image.fromarray(values).save(path)
    return tmp_path / "pictures"


def where(drawings: Any) -> list[str]:
    return [Path(drawing.recipe.pictures[0].where).name for drawing in drawings]


@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_equal_to_one_by_one(net: cs.Net, folder: Path, method: str, batch: int) -> None:
    drawings = list(cs.explain_many(net, folder, method, batch_size=batch))
    assert where(drawings) == ["0.png", "2.png", "4.png", "6.png", "1.png", "3.png", "5.png"]
    for drawing in drawings:
        alone = cs.explain(net, drawing.recipe.pictures[0].where, method)
        torch.testing.assert_close(drawing.values, alone.values, rtol=1e-4, atol=1e-6)
        assert (drawing.title, drawing.subtitle, drawing.recipe) == (alone.title, alone.subtitle, alone.recipe)


@pytest.mark.parametrize("method", cs.list_methods())
def test_captions_are_those_of_one_by_one(net: cs.Net, method: str) -> None:
    """What is said of one picture of a batch is not said of the others: two are flat, and one is of another range."""
    pixels = pictures(4, dtype=torch.float32)
    pixels[1], pixels[2] = 0.5, pixels[2] * 0.3
    options: dict[str, Any] = {"rise": {"masks": 30}, "extremal": {"steps": 5}}.get(method, {})
    together = list(cs.explain_many(net, pixels, method, batch_size=4, **options))
    for row, drawing in enumerate(together):
        assert drawing.note == cs.explain(net, pixels[row], method, **options).note, row


def test_tensors_of_several_sizes_keep_their_order(net: cs.Net) -> None:
    pixels = [pictures(1, dtype=torch.float32)[0], torch.rand(3, SIZE + 4, SIZE), pictures(2, dtype=torch.float32)[1]]
    drawings = list(cs.explain_many(net, pixels, "gradient", 1))
    for drawing, expected in zip(drawings, pixels, strict=True):
        torch.testing.assert_close(drawing.values, cs.explain(net, expected, "gradient", 1).values)


def test_broken_pictures_are_left_out_and_named(net: cs.Net, folder: Path) -> None:
    (folder / "a" / "1-broken.png").write_bytes(b"no picture")
    (folder / "b" / "0-cut.png").write_bytes((folder / "a" / "0.png").read_bytes()[:200])
    drawings = cs.explain_many(net, folder, "gradient", batch_size=3)
    assert len(list(drawings)) == 7
    assert [Path(skipped.where).name for skipped in drawings.skipped] == ["1-broken.png", "0-cut.png"]
    assert "not a picture" in drawings.skipped[0].reason and "cut short" in drawings.skipped[1].reason


class Overflowing(nn.Module):
    """Overflows for bright pictures only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        bright = (x.mean((1, 2, 3), keepdim=True) > 0.9).float()
        return (self.conv(x) / (1 - bright)).relu().mean((2, 3))


def test_a_picture_without_a_finite_map_spoils_no_other() -> None:
    net = cs.Net(Overflowing(), size=SIZE)
    values = [np.full((SIZE, SIZE, 3), level, np.uint8) for level in (20, 255, 90)]
    drawings = cs.explain_many(net, values, "gradient", 1)
    assert len(list(drawings)) == 2 and len(drawings.skipped) == 1
    assert "NaN or infinity" in drawings.skipped[0].reason


def test_what_is_wrong_with_the_method_is_raised_at_once(net: cs.Net, folder: Path) -> None:
    with pytest.raises(OptionError, match="batch_size is a whole number, at least 1"):
        cs.explain_many(net, folder, "gradient", batch_size=0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    smooth = cs.Net(body, size=SIZE)
    with pytest.raises(RuleError, match="GELU"):
        list(cs.explain_many(smooth, folder, "guided_backprop"))


def test_an_iterable_that_fails_keeps_what_came_before(net: cs.Net) -> None:
    def data() -> Iterator[Tensor]:
        yield from pictures(3, dtype=torch.float32)
        raise ConnectionError("the disk went away")

    drawings = []
    with pytest.raises(ConnectionError, match="went away"):
        for drawing in cs.explain_many(net, data(), "gradient", batch_size=8):
            drawings.append(drawing)
    assert len(drawings) == 3


def test_what_exists_is_not_explained_again(net: cs.Net, folder: Path) -> None:
    keys = {drawing.recipe.key for drawing in list(cs.explain_many(net, folder, "gradient"))[:4]}
    again = cs.explain_many(net, folder, "gradient", exists=keys.__contains__)
    assert where(again) == ["1.png", "3.png", "5.png"]
    assert [Path(address).name for address in again.existing] == ["0.png", "2.png", "4.png", "6.png"]
    other = cs.explain_many(net, folder, "gradient", 1, exists=keys.__contains__)
    assert len(list(other)) == 7 and not other.existing


def test_it_ends_when_it_is_cancelled(net: cs.Net, folder: Path) -> None:
    cancel = threading.Event()
    drawings = []
    with running(cancel=cancel), pytest.raises(Cancelled):
        for drawing in cs.explain_many(net, folder, "gradient", batch_size=2):
            drawings.append(drawing)
            cancel.set()
    assert 1 <= len(drawings) <= 2


def test_maps_do_not_hold_their_batch(net: cs.Net, folder: Path) -> None:
    drawing = next(cs.explain_many(net, folder, "gradient", batch_size=7))
    assert drawing.values.untyped_storage().nbytes() == drawing.values.numel() * drawing.values.element_size()
