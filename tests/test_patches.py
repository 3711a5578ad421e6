"""The figure of what excites units: the right pixels in the right tiles, beside their projections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from convscope import Atlas, Gallery, Net, attribute, load, read_recipe, remake, scan, tap
from convscope.atlas.patches import patches, units_named
from convscope.cli import run
from convscope.errors import OptionError, RecipeError
from convscope.recipes import PictureRecord
from networks import pictures, tiny


class Example(NamedTuple):
    picture: int
    value: float
    y: int
    x: int


class Found:
    """What a scan of a few pictures would find: every map of every picture, sorted."""

    record = PictureRecord("found", "0" * 64)

    def __init__(self, net: Net, images: Tensor, layer: str) -> None:
        self.net, self.images, self.reads = net, images, 0
        self.columns = net.layers[layer].grid[1]
        with torch.no_grad():
            self.values, self.places = tap(net, images, [layer])[layer].flatten(2).max(2)

    def top(self, layer: str, unit: int, k: int | None = None, *, band: str = "strongest") -> Sequence[Any]:
        order = self.values[:, unit].argsort(descending=band == "strongest").tolist()[:k]
        places = [divmod(int(self.places[at, unit]), self.columns) for at in order]
        return [Example(at, float(self.values[at, unit]), *place) for at, place in zip(order, places, strict=True)]

    def detectors(self, layer: str, k: int) -> Sequence[tuple[int, str, float]]:
        return [(3, "goldfish", 0.93), (1, "dog", 0.875)][:k]

    def read(self, picture: int) -> Tensor:
        self.reads += 1
        return self.images[picture : picture + 1]


@pytest.fixture
def found() -> Found:
    return Found(tiny("sequential").sized(40), pictures(5, side=40), "3")


def test_every_patch_is_what_its_unit_sees_and_stands_beside_its_projection(found: Found) -> None:
    """Fields of 17 pixels, five times as large, without blur; pale grey beyond the picture."""
    drawing = patches(found, "3", "0,5", k=4)
    layer = found.net.layers["3"]
    size = round(layer.field.size[0])
    factor = round(80 / size)
    side = size * factor
    for tile, unit in zip(drawing.content.tiles, (0, 5), strict=True):
        examples = found.top("3", unit, 4)
        assert tile.caption == f"unit {unit} · {examples[0].value:.3g} to {examples[3].value:.3g}".replace("-", "−")
        image = np.asarray(tile.image)
        assert image.shape[0] == 2 * side + 2
        limit = None
        for rank, one in enumerate(examples):
            top, left = (at * (side + 2) for at in divmod(rank, 2))
            shown = image[top : top + side, left : left + side][factor // 2 :: factor, factor // 2 :: factor]
            beside = image[top : top + side, left + 2 * side + 2 + 6 :][:, :side]
            beside = beside[factor // 2 :: factor, factor // 2 :: factor].astype(float)
            full = attribute(found.net, found.images[one.picture][None], "deconvnet", of=f"3:{unit}@{one.y},{one.x}")
            y0, x0, y1, x1 = layer.field.box((one.y, one.x), (40, 40))
            dy, dx = (y0 - round(layer.field.y.start + one.y * layer.field.y.step),
                      x0 - round(layer.field.x.start + one.x * layer.field.x.step))  # fmt: skip
            inside = np.zeros(shown.shape[:2], bool)
            inside[dy : dy + y1 - y0, dx : dx + x1 - x0] = True
            expected = np.rint(found.images[one.picture, :, y0:y1, x0:x1].numpy() * 255)
            np.testing.assert_allclose(shown[inside].reshape(y1 - y0, x1 - x0, 3).transpose(2, 0, 1), expected, atol=1)
            assert (shown[~inside] == 225).all()
            assert (beside[~inside] == 225).all()
            # Grey is zero, and all projections of a unit are on one contrast.
            values = full[0, :, y0:y1, x0:x1].numpy()
            painted = beside[inside].reshape(y1 - y0, x1 - x0, 3).transpose(2, 0, 1) / 255 - 0.5
            clear = (np.abs(painted) < 0.45) & (np.abs(painted) > 0.05)
            if clear.any():
                ratio = np.median(values[clear] / painted[clear])
                limit = limit or ratio
                assert ratio == pytest.approx(limit, rel=0.05)
            assert np.abs(painted[values == 0]).max(initial=0) < 0.01


def test_pictures_are_read_once_and_the_drawing_knows_how_it_was_made(found: Found, tmp_path: Path) -> None:
    drawing = patches(found, "3", [2, 1, 2], method="guided", band="weakest", k=3)
    assert found.reads <= len(found.images)
    assert drawing.numbers()["units"].tolist() == [2, 1]
    assert drawing.numbers()["pictures"].shape == (2, 3)
    options = {"layer": "3", "units": [2, 1], "band": "weakest", "k": 3, "method": "guided"}
    assert drawing.recipe.options == {"atlas": found.record, **options}
    assert "weakest pictures" in drawing.content.subtitle
    drawing.save(tmp_path / "units.png")
    drawing.save_values(tmp_path / "units.npz")
    again = Gallery.load(tmp_path / "units.png")
    assert again.recipe.key == drawing.recipe.key
    with Image.open(tmp_path / "units.png") as image:
        assert image.width < 1000


def test_units_that_tell_a_class(found: Found) -> None:
    captions = [tile.caption for tile in patches(found, "3", "top:AUC:2").content.tiles]
    assert [caption.rpartition(" · ")[0] for caption in captions] == [
        "unit 3 · goldfish, AUC 0.930",
        "unit 1 · dog, AUC 0.875",
    ]


def test_what_the_scan_did_not_keep(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "5 pictures of each unit were kept, not 9" in patches(found, "3", "1").recipe.remarks

    def none(*_: Any, **__: Any) -> list[Example]:
        return []

    monkeypatch.setattr(found, "top", none)
    with pytest.raises(OptionError, match="no 'effect' pictures of layer '3' were kept"):
        patches(found, "3", "1", band="effect")


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An atlas of ten digits, two layers of lenet5."""
    folder = tmp_path_factory.mktemp("atlas")
    for index in range(10):
        drawn = load("lenet5").image(torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(index)))
        drawn.save(folder / f"{index}.png")
    scan(load("lenet5"), folder, folder / "found", layers=["1", "2"], k=4)
    return folder / "found"


def test_the_command_draws_from_an_atlas(
    atlas: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The network is the atlas's own; a wrong word is refused before it is opened."""
    monkeypatch.chdir(atlas.parent)
    layers = list(Atlas(atlas).layers)
    assert run(["patches", "found", "--layer", layers[1], "--units", "0,5", "-k", "4", "-o", "units.png"]) == 0
    assert capsys.readouterr().out == "units.png\n"
    assert read_recipe("units.png").options["units"] == [0, 5]
    assert run(["patches", "found", "--layer", "1", "--units", "0", "--width", "84mm", "-o", "units.pdf"]) == 0
    (atlas.parent / "away").mkdir()
    for picture in atlas.parent.glob("?.png"):
        picture.rename(atlas.parent / "away" / picture.name)
    assert run(["patches", "found", "--layer", "1", "--units", "0", "--root", "data=away", "-o", "moved.png"]) == 0
    for arguments, why in (
        (["found"], "2 layers were scanned"),
        (["found", "--layer", "1", "--band", "stong"], "--band is strongest"),
        (["found", "--layer", "1", "--root", "away"], "--root is NAME=FOLDER"),
        (["found", "--layer", "1", "-o", "units.txt"], "endings are"),
        (["found", "--layer", "1"], "--root data=FOLDER"),
        (["nothing", "--layer", "1"], "holds no atlas"),
        (["found", "--layer", "1", "--units", "top:AUC"], "the atlas has no AUC"),
    ):
        assert run(["patches", *arguments]) == 2
        assert why in capsys.readouterr().err
    with pytest.raises(RecipeError, match="drawn again by its command") as refused:
        remake("units.png")
    recipe = read_recipe("units.png")
    assert run([*str(refused.value).partition(": convscope ")[2].split(), "--root", "data=away"]) == 0
    assert read_recipe("found-conv2.png").key == recipe.key


def test_what_units_are_drawn(found: Found) -> None:
    layer = found.net.layers["3"]
    assert units_named(layer, None) == list(range(8))
    assert units_named(layer, "random:3") == units_named(layer, "random:3") != units_named(layer, "random:2")
    assert units_named(layer, "7, 0") == [7, 0]
    for wrong, why in (
        ("0,8", "no unit 8"),
        ("best", "units are numbers"),
        ([], "none named"),
        ("random:0", "units are"),
    ):
        with pytest.raises(OptionError, match=why):
            units_named(layer, wrong)
