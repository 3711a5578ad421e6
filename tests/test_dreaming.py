"""DeepDream against its notebook's loop, and the film that is made of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from convscope import Net, load, outputs, read_recipe, tap
from convscope.context import listen
from convscope.drawing.drawings import Picture
from convscope.drawing.films import Film
from convscope.errors import ConvscopeError, LayerError, ObjectiveError, OptionError, OutputError, SynthesisError
from convscope.layers import trunk_layer
from convscope.synthesis.dream import dream
from convscope.synthesis.dream_objective import Guided
from convscope.synthesis.octaves import octave_sizes
from convscope.synthesis.tiling import TiledGradient
from networks import pictures, tiny

QUICK: dict[str, Any] = {"octaves": 2, "steps": 2, "jitter": 3}


@pytest.fixture(scope="module")
def zfnet() -> Net:
    return load("zfnet64")


def photo(chelsea: Any, width: int, height: int) -> Image.Image:
    return Image.fromarray(chelsea).resize((width, height), Image.Resampling.BICUBIC)


def noise(width: int = 37, height: int = 29, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def values(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float64).transpose(2, 0, 1) / 255


def resized(planes: np.ndarray, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    """Scale every channel by Pillow, in floating point."""
    height, width = size
    return np.stack([np.asarray(Image.fromarray(p.astype(np.float32)).resize((width, height), method)) for p in planes])


def notebook(
    net: Net, image: Image.Image, layer: str, sizes: list[tuple[int, int]], steps: int, rate: float, guide: Any = None
) -> np.ndarray:
    """The loop of google/deepdream's dream.ipynb without jitter, with rate for 1.5 and pixels in [0, 1]."""
    octaves = [resized(values(image), size, Image.Resampling.BICUBIC).clip(0, 1) for size in sizes]
    detail = np.zeros_like(octaves[0])
    data = octaves[0]
    for number, base in enumerate(octaves):
        if number > 0:
            detail = resized(detail, base.shape[1:], Image.Resampling.BILINEAR)
        data = base + detail
        for _ in range(steps):
            x = torch.tensor(data[None], requires_grad=True)
            end = tap(net, x, [layer])[layer]
            diff = end.detach() if guide is None else guided_by(end.detach(), guide)
            (gradient,) = torch.autograd.grad(end, x, diff)
            g = gradient[0].numpy()
            data = (data + rate / np.abs(g).mean() * g).clip(0, 1)
        detail = data - base
    return data


def guided_by(activity: Tensor, guide: Tensor) -> Tensor:
    """Return, for each place, the guide's feature vector with the largest dot product, place by place."""
    chosen = torch.zeros_like(activity)
    for i in range(activity.shape[2]):
        for j in range(activity.shape[3]):
            here = activity[0, :, i, j]
            best = max(
                (guide[0, :, k, m] for k in range(guide.shape[2]) for m in range(guide.shape[3])),
                key=lambda there: float(here @ there),
            )
            chosen[0, :, i, j] = best
    return chosen


@pytest.mark.parametrize("kind", ["sequential", "in-place", "residual"])
def test_equals_the_notebooks_loop(kind: str) -> None:
    net, image = tiny(kind), noise()
    layer = trunk_layer(net).name
    made = dream(net, image, octaves=3, steps=4, rate=0.02, jitter=0)
    expected = notebook(net, image, layer, [(15, 19), (21, 26), (29, 37)], 4, 0.02)
    np.testing.assert_allclose(made.numbers()["picture"], expected, atol=1e-5)
    assert np.abs(expected - values(image)).mean() > 0.02


def test_guided_equals_the_notebooks_loop() -> None:
    net, image, guide = tiny("sequential"), noise(), pictures(1, seed=5)[0]
    layer = trunk_layer(net).name
    made = dream(net, image, guide=guide, octaves=2, steps=3, rate=0.02, jitter=0)
    target = tap(net, guide[None], [layer])[layer]
    expected = notebook(net, image, layer, [(21, 26), (29, 37)], 3, 0.02, target)
    np.testing.assert_allclose(made.numbers()["picture"], expected, atol=1e-5)
    plain = dream(net, image, octaves=2, steps=3, rate=0.02, jitter=0)
    assert np.abs(made.numbers()["picture"] - plain.numbers()["picture"]).max() > 0.05
    assert made.recipe.objective.startswith(f"guided({layer}") and len(made.recipe.options["guide"]["sha256"]) == 64


def test_guided_by_parts_is_guided_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    activity, guide = torch.randn(2, 5, 6, 7), torch.randn(11, 5)
    expected = torch.einsum("nchw,pc->nphw", activity, guide).amax(1).flatten(1).mean(1)
    torch.testing.assert_close(Guided("x", guide).read(activity), expected)
    monkeypatch.setattr("convscope.synthesis.dream_objective._AT_ONCE", 4)
    torch.testing.assert_close(Guided("x", guide).read(activity), expected)


def test_octaves_are_rounded_one_after_the_other() -> None:
    assert octave_sizes(480, 721, 4, 1.4) == [(175, 263), (245, 368), (343, 515), (480, 721)]
    assert octave_sizes(7, 5, 1, 1.4) == [(7, 5)]


@pytest.mark.parametrize(("side", "count"), [(30, 1), (64, 3), (128, 5), (200, 6)])
def test_octaves_begin_at_half_of_what_the_network_is_for(zfnet: Net, side: int, count: int) -> None:
    made = dream(zfnet, noise(side, side + 5), steps=1)
    assert made.recipe.settled["octaves"] == count


@pytest.mark.parametrize("objective", [{}, {"layer": "conv3"}, {"of": "conv4"}, {"of": "relu5:17"}, {"of": "goldfish"}])
def test_what_is_asked_rises(zfnet: Net, chelsea: Any, objective: dict[str, str]) -> None:
    image = photo(chelsea, 150, 101)
    made = dream(zfnet, image, octaves=3, **objective)
    term = read_recipe_question(zfnet, made)
    before, after = (float(term(torch.from_numpy(p).float()[None])) for p in (values(image), made.numbers()["picture"]))
    assert after > before + 0.5 * abs(before)
    assert made.image().size == (150, 101) and made.values.min() >= 0 and made.values.max() <= 1


def read_recipe_question(net: Net, made: Any) -> Callable[[Tensor], Tensor]:
    """What a recipe says was raised can be asked again."""
    from convscope import as_objective

    objective = as_objective(net, made.recipe.objective)
    return lambda pixels: objective(net, pixels)


def test_default_layers_are_blocks_three_quarters_down() -> None:
    expected = {
        "squeezenet1_0": "features.10",
        "resnet18": "layer3",
        "googlenet": "inception4e",
        "vgg16": "features.22",
    }
    for name, layer in expected.items():
        assert trunk_layer(load(f"torchvision:{name}", weights=None)).name == layer
    assert trunk_layer(load("zfnet64")).name == "relu5"
    flat = Net(nn.Sequential(nn.Flatten(), nn.Linear(300, 4)), size=10, channels=3)
    with pytest.raises(LayerError, match="no layer with spatial positions"):
        dream(flat, noise(10, 10))


def test_the_same_seed_gives_the_same_bytes(zfnet: Net, tmp_path: Path) -> None:
    one, two, other = (dream(zfnet, noise(80, 66), **QUICK, seed=seed) for seed in (4, 4, 5))
    files = [made.save(tmp_path / f"{i}.png").read_bytes() for i, made in enumerate((one, two, other))]
    assert files[0] == files[1] != files[2]
    assert not torch.equal(one.values, other.values)


def test_the_recipe_holds_every_option(zfnet: Net, tmp_path: Path) -> None:
    found = read_recipe(dream(zfnet, noise(80, 66), steps=2, seed=3).save(tmp_path / "dream.png"))
    assert found.objective == "energy(relu5)" and found.method == "dream"
    assert found.options == {
        "layer": None, "guide": None, "size": None, "octaves": None, "octave_scale": 1.4, "steps": 2, "rate": 0.01,
        "jitter": 32, "tile": 384, "zoom": None, "zoom_by": 0.05, "frames": None, "fps": 12.0, "seed": 3,
    }  # fmt: skip
    assert found.settled == {"size": 80, "octaves": 3}


@pytest.mark.parametrize(("size", "said"), [(None, False), (50, True), (120, False)])
def test_the_picture_keeps_its_aspect_and_a_reduction_is_said(zfnet: Net, size: int | None, said: bool) -> None:
    made = dream(zfnet, noise(81, 67), size=size, **QUICK)
    expected = {None: (81, 67), 50: (50, 41), 120: (120, 99)}[size]
    assert made.image().size == expected
    assert any("the picture has 81 × 67" in remark for remark in made.recipe.remarks) == said


def test_grey_networks_and_tensors() -> None:
    lenet = load("lenet5")
    made = dream(lenet, noise(61, 40), octaves=2, steps=2)
    assert made.values.shape == (1, 40, 61) and made.image().mode == "L"
    tensor = torch.rand(3, 33, 41)
    assert dream(tiny("concat", dtype=torch.float32), tensor, **QUICK).values.shape == (3, 33, 41)


@pytest.mark.parametrize("tile", [96, 128, 192])
@pytest.mark.parametrize("jitter", [0, 32])
def test_tiles_leave_no_seams(zfnet: Net, chelsea: Any, tile: int, jitter: int) -> None:
    """What is added does not jump at borders more than elsewhere, also where they never move (no jitter)."""
    image = photo(chelsea, 331, 223)
    made = dream(zfnet, image, tile=tile, jitter=jitter, octaves=1, steps=8)
    added = made.numbers()["picture"] - values(image)
    across, inside = seams(added, tile)
    assert across < (1.15 if jitter else 1) * inside


def seams(added: np.ndarray, tile: int) -> tuple[float, float]:
    """The mean absolute difference of neighbours across tiles' borders, and everywhere else."""
    border, other = [], []
    cuts = list(TiledGradient(tile).cuts(*added.shape[1:]))
    assert len(cuts) >= 4
    for axis in (1, 2):
        jumps = np.abs(np.diff(added, axis=axis)).mean(0)
        jumps = jumps if axis == 1 else jumps.T
        edges = sorted({cut[axis - 1].start for cut in cuts} - {0})
        border.append(jumps[[edge - 1 for edge in edges]])
        other.append(np.delete(jumps, [edge - 1 for edge in edges], 0))
    return tuple(float(np.concatenate([part.ravel() for part in parts]).mean()) for parts in (border, other))


class Small(nn.Module):
    """Runs out of memory on anything larger than a side."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.conv, self.relu, self.side = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), side

    def forward(self, x: Tensor) -> Tensor:
        if max(x.shape[2:]) > self.side:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.relu(self.conv(x))


def test_where_memory_ends_tiles_are_halved_and_it_is_said() -> None:
    made = dream(Net(Small(150), size=64), noise(350, 300), tile=256, octaves=1, steps=2)
    assert made.values.shape == (3, 300, 350)
    assert any("out of memory with tiles of 256 pixels" in remark for remark in made.recipe.remarks)


class Interrupts(nn.Module):
    """Presses ctrl-C in its nth forward pass."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.conv, self.relu, self.left = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), at

    def forward(self, x: Tensor) -> Tensor:
        self.left -= x.device.type != "meta"
        if self.left == 0:
            raise KeyboardInterrupt
        return self.relu(self.conv(x))


@pytest.mark.parametrize(("at", "octave"), [(3, 1), (15, 2), (16, 2), (30, 3)])
def test_an_interruption_keeps_what_was_dreamt(at: int, octave: int) -> None:
    torch.manual_seed(0)
    body, image = Interrupts(1000), noise()
    net = Net(body, size=20)
    trunk_layer(net)
    net.behaviour(torch.zeros(1, 3, 20, 20))  # a few passes of its own, once
    body.left = at
    made = dream(net, image, octaves=3, steps=12, jitter=0)
    assert f"interrupted in octave {octave} of 3; kept what was there" in made.recipe.remarks
    assert made.image().size == image.size
    assert np.abs(made.numbers()["picture"] - values(image)).mean() > 0.005


def test_an_interruption_before_anything_was_made_goes_through() -> None:
    net = Net(Interrupts(1), size=20)
    with pytest.raises(KeyboardInterrupt):
        dream(net, noise(), octaves=3)


def test_a_layer_that_nothing_moves_is_an_error() -> None:
    net = tiny("sequential", dtype=torch.float32)
    with torch.no_grad():
        net.body[0].bias.fill_(-100)
    with pytest.raises(SynthesisError, match="no gradient of energy of 1 reaches this picture"):
        dream(net, noise(), layer="1", **QUICK)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"octaves": 0}, OptionError, "1 to 13 for 90 × 70"),
        ({"octaves": 14}, OptionError, "1 to 13 for 90 × 70"),
        ({"octave_scale": 1.0}, OptionError, "above 1, not 1"),
        ({"size": 0}, OptionError, "at least 1, not 0"),
        ({"tile": 10}, OptionError, "at least 64, not 10"),
        ({"jitter": -1}, OptionError, "jitter is a whole number, at least 0"),
        ({"steps": 0}, OptionError, "at least 1"),
        ({"rate": 0.0}, OptionError, "above 0"),
        ({"of": "relu4", "layer": "relu4"}, OptionError, "give of, or layer and guide"),
        ({"of": "relu4", "guide": noise()}, OptionError, "give of, or layer and guide"),
        ({"of": "relu4:3@2,2"}, ObjectiveError, "use relu4:3"),
        ({"of": "relu4:3@centre"}, ObjectiveError, "use relu4:3"),
        ({"of": "tv()"}, OptionError, "says nothing about the network"),
        ({"layer": "relu9"}, LayerError, "relu"),
        ({"layer": "fc", "guide": noise()}, LayerError, "without spatial positions, which a guide needs"),
        ({"zoom": 3}, OptionError, "frames='dream-frames'"),
        ({"frames": Path("frames")}, OptionError, "zoom=100"),
    ],
)
def test_bad_options_are_refused(zfnet: Net, options: dict[str, Any], error: type[ConvscopeError], said: str) -> None:
    with pytest.raises(error, match=said):
        dream(zfnet, noise(90, 70), **options)


@pytest.mark.parametrize("options", [{"zoom": 0}, {"zoom_by": 1.0}, {"zoom_by": -0.1}, {"fps": 0.0}])
def test_bad_films_are_refused(zfnet: Net, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="zoom must be at least 1 frame"):
        dream(zfnet, noise(90, 70), **{"zoom": 2, "frames": tmp_path / "frames", **options})
    assert not (tmp_path / "frames").exists()


def film(net: Net, folder: Path, count: int = 4, **options: Any) -> Film:
    made = dream(net, noise(61, 47), zoom=count, frames=folder, **{**QUICK, **options})
    assert isinstance(made, Film)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_frame_is_the_dream_of_the_enlarged_middle_of_the_one_before(zfnet: Net, tmp_path: Path) -> None:
    made = film(zfnet, tmp_path, 3, seed=7, zoom_by=0.1)
    first = dream(zfnet, noise(61, 47), **QUICK, seed=7)
    assert isinstance(first, Picture)
    frames = [Image.open(path) for path in made.frames]
    assert np.array_equal(np.asarray(frames[0]), np.asarray(first.image()))
    for number in (1, 2):
        before = frames[number - 1]
        middle = before.resize(before.size, Image.Resampling.BICUBIC, box=(3.05, 2.35, 57.95, 44.65))
        expected = dream(zfnet, middle, **QUICK, seed=7 + 2 * number)
        assert np.array_equal(np.asarray(frames[number]), np.asarray(expected.image()))
    assert made.numbers()["frames"].shape == (3, 3, 47, 61)
    recipe = read_recipe(made.frames[2])
    assert recipe.settled["frame"] == 3 and recipe.options["zoom_by"] == 0.1


def test_a_film_that_was_interrupted_goes_on_with_the_same_bytes(
    zfnet: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = film(zfnet, tmp_path / "whole")
    press_at(monkeypatch, 10)  # four looks a frame: in the third
    part = film(zfnet, tmp_path / "part")
    assert [path.name for path in part.frames] == ["frame-0001.png", "frame-0002.png"]
    assert any("interrupted at frame 3 of 4: run the same command again" in remark for remark in part.recipe.remarks)
    assert sorted(contents(tmp_path / "part")) == ["frame-0001.png", "frame-0002.png"]
    monkeypatch.undo()
    again = film(zfnet, tmp_path / "part")
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")
    assert again.recipe.options == whole.recipe.options | {"frames": str(tmp_path / "part")}
    assert len(film(zfnet, tmp_path / "part", 5).frames) == 5


def press_at(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Press ctrl-C in the nth look at a picture."""
    from convscope.synthesis.transforms import Transform

    real, looks = Transform.__call__, iter(range(1, 10_000))

    def pressed(self: Any, *arguments: Any) -> Tensor:
        if next(looks) == at:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(Transform, "__call__", pressed)


def test_a_film_without_one_frame_is_an_interruption(
    zfnet: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    press_at(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        film(zfnet, tmp_path / "frames")
    assert not (tmp_path / "frames").exists()


def test_a_full_disk_loses_no_frame(zfnet: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        written = real(self, content)
        if len(contents(tmp_path / "part")) == 3:
            raise OSError(28, "No space left on device")
        return written

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"frame-0003\.png: No space left on device"):
        film(zfnet, tmp_path / "part")
    monkeypatch.undo()
    assert sorted(contents(tmp_path / "part")) == ["frame-0001.png", "frame-0002.png"]
    film(zfnet, tmp_path / "part")
    film(zfnet, tmp_path / "whole")
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")


def test_frames_of_another_film_are_refused_with_the_difference(zfnet: Net, tmp_path: Path) -> None:
    film(zfnet, tmp_path, 1)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=r"frame-0001\.png belongs to another film: rate was 0\.01 and is 0\.02"):
        film(zfnet, tmp_path, 2, rate=0.02)
    with pytest.raises(OutputError, match="pictures was"):
        dream(zfnet, noise(61, 47, seed=1), zoom=2, frames=str(tmp_path), **QUICK)
    with pytest.raises(OutputError, match=r"objective was 'energy\(relu5\)' and is 'energy\(relu3\)'"):
        film(zfnet, tmp_path, 2, layer="relu3")
    assert contents(tmp_path) == before


def test_films_move(zfnet: Net, chelsea: Any, tmp_path: Path) -> None:
    made = dream(zfnet, photo(chelsea, 61, 47), zoom=3, frames=tmp_path / "frames", fps=5, **QUICK)
    assert isinstance(made, Film)
    for name in ("film.gif", "film.webp"):
        with Image.open(made.save(tmp_path / name)) as image:
            assert image.n_frames == 3 and image.size == (61, 47)  # type: ignore[attr-defined]
            for number, path in enumerate(made.frames):
                image.seek(number)
                away = np.asarray(image.convert("RGB"), int) - np.asarray(Image.open(path), int)
                assert np.abs(away).mean() < 20 and image.info["duration"] == 200
    assert read_recipe(made.save(tmp_path / "sheet.png")).options["zoom"] == 3
    assert [tile.caption for tile in made.sheet().tiles] == ["frame 1", "frame 2", "frame 3"]


def test_an_mp4_film(zfnet: Net, tmp_path: Path) -> None:
    if not os.environ.get("CONVSCOPE_REQUIRE_ALL"):
        pytest.importorskip("imageio_ffmpeg")
    import imageio_ffmpeg

    made = film(zfnet, tmp_path / "frames", 3, fps=5)
    reader = imageio_ffmpeg.read_frames(str(made.save(tmp_path / "film.mp4")))
    meta, shown = next(reader), list(reader)
    assert meta["size"] == (60, 46) and meta["fps"] == 5 and len(shown) == 3
    for frame, path in zip(shown, made.frames, strict=True):
        expected = np.asarray(Image.open(path).convert("L").resize((15, 12)), int)
        found = Image.frombytes("RGB", (60, 46), frame).convert("L").resize((15, 12))
        assert np.abs(np.asarray(found, int) - expected).mean() < 6


def test_without_ffmpeg_it_is_said_what_to_do(zfnet: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = film(zfnet, tmp_path / "frames", 1)
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(OutputError, match=r"pip install 'convscope\[video\]'"):
        made.save(tmp_path / "film.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames"]


def test_a_long_film_shows_some_of_its_frames(tmp_path: Path) -> None:
    paths = [outputs.write(tmp_path / f"{i}.png", lambda to: noise(20, 10).save(to)) for i in range(40)]
    recipe = dream(tiny("sequential"), noise(), octaves=1, steps=1).recipe
    captions = [tile.caption for tile in Film(paths, recipe).sheet().tiles]
    assert len(captions) == 12 and captions[0] == "frame 1" and captions[-1] == "frame 40"


def test_remarks_reach_no_other_drawing(zfnet: Net) -> None:
    with listen() as remarks:
        dream(zfnet, noise(81, 67), size=40, octaves=1, steps=1)
    assert remarks == []
