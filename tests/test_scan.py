"""The scan of a data set: against an oracle that stores every map and sorts, and whatever computes it."""

from __future__ import annotations

import gc
import shutil
import sys
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from torch import Tensor, nn

import convscope
from convscope.atlas import tables, units
from convscope.atlas.atlas import Atlas
from convscope.atlas.effects import Effects
from convscope.atlas.manifest import read_manifest
from convscope.atlas.merging import Merging
from convscope.atlas.scanning import scan
from convscope.atlas.selection import Selection
from convscope.atlas.shards import FOLDER
from convscope.atlas.statistics import BINS, SIDE, Histograms, edges
from convscope.atlas.units import choose_layers
from convscope.cli import run
from convscope.context import listen
from convscope.data import read_pictures
from convscope.errors import AtlasError, DataError, LayerError, NetworkError, OutputError, PictureError
from convscope.layers import find_layer
from convscope.tapping import tap

K = 4


class Small(nn.Module):
    """Convolutions of few and of odd numbers of channels, a rectified layer, and a linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.wide = nn.Conv2d(5, 64, 3)
        self.fc = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.wide(self.relu(self.conv(x))).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> convscope.Net:
    torch.manual_seed(0)
    return convscope.Net(Small(), size=20, classes=["a", "b", "c"])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """37 pictures in class folders, some there several times, so that there are ties."""
    folder = tmp_path_factory.mktemp("pictures")
    numbers = np.random.default_rng(0)
    for index in range(37):
        made = folder / "abc"[index % 3] / f"{index:02d}.png"
        made.parent.mkdir(exist_ok=True)
        if index % 5 == 4:
            shutil.copy(sorted(folder.rglob("*.png"))[0], made)
        else:
            blurred = numbers.integers(0, 256, (6, 5, 3), dtype=np.uint8)
            Image.fromarray(blurred).resize((24, 30), Image.Resampling.BICUBIC).save(made)
    return folder


LAYERS = ("conv", "relu", "wide", "fc")


def stored_maps(net: convscope.Net, folder: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Every map of every picture, (n, units, positions), in batches of the scan's own size."""
    pictures = read_pictures(folder)
    pixels = torch.cat([net.read(picture.read()) for picture in pictures])
    found: dict[str, list[Tensor]] = {name: [] for name in LAYERS}
    for batch in pixels.split(8):
        kept = tap(net, batch.contiguous(memory_format=torch.channels_last), LAYERS)
        for name in LAYERS:
            found[name].append(kept[name].flatten(2) if kept[name].ndim == 4 else kept[name][..., None])
    names = [picture.name for picture in pictures]
    return {name: torch.cat(maps).numpy() for name, maps in found.items()}, names


def test_the_strongest_are_those_of_an_oracle_that_stores_every_map(net, pictures, tmp_path):
    atlas = Atlas(scan(net, pictures, tmp_path / "atlas", layers=LAYERS, k=K, shard=10), net=net)
    maps, names = stored_maps(net, pictures)
    for name in LAYERS:
        maxima, columns = maps[name].max(2), atlas.layers[name].columns
        for unit in range(maxima.shape[1]):
            order = np.lexsort((np.arange(len(maxima)), -maxima[:, unit]))[:K]
            found = atlas.top(name, unit, repeated=True)
            assert [names.index(example.path) for example in found] == order.tolist()
            for example, picture in zip(found, order, strict=True):
                assert example.value == pytest.approx(maxima[picture, unit], rel=1e-5, abs=1e-6)
                if columns:
                    place = example.y * columns + example.x
                    assert maps[name][picture, unit, place] == pytest.approx(maxima[picture, unit], rel=1e-5)


def test_the_weakest_are_those_of_the_oracle_where_there_are_no_ties(net, pictures, tmp_path):
    atlas = Atlas(scan(net, pictures, tmp_path / "atlas", layers=["conv", "wide"], k=K), net=net)
    maps, _ = stored_maps(net, pictures)
    for name in ("conv", "wide"):
        minima = maps[name].min(2)
        for unit in range(minima.shape[1]):
            found = [example.value for example in atlas.top(name, unit, band="weakest", repeated=True)]
            assert found == pytest.approx(np.sort(minima[:, unit])[:K].tolist(), rel=1e-5, abs=1e-6)


def test_ties_of_a_rectified_layer_are_not_all_of_the_first_class(net, pictures, tmp_path):
    atlas = Atlas(scan(net, pictures, tmp_path / "atlas", layers=["relu"], k=9), net=net)
    found = [example for unit in range(5) for example in atlas.top("relu", unit, band="weakest")]
    tied = [example for example in found if example.value == 0]
    assert len({example.path[0] for example in tied}) > 1  # there are 13 of the first


def test_sums_are_those_of_the_lattice(net, pictures, tmp_path):
    folder = scan(net, pictures, tmp_path / "atlas", layers=LAYERS, k=K)
    maps, _ = stored_maps(net, pictures)
    table = pq.read_table(folder / "statistics.parquet").to_pylist()
    for row in table:
        values = maps[row["layer"]][:, row["unit"]]
        step = max(1, min(16, values.shape[1] // 32))
        sample = values[:, step // 2 :: step].astype(np.float64)
        assert row["mean"] == pytest.approx(sample.mean(), rel=1e-5, abs=1e-6)
        assert row["variance"] == pytest.approx(sample.var(), rel=1e-3, abs=1e-6)
        assert row["active"] == pytest.approx((sample > 2.0**-24).mean())
        assert row["maximum"] == pytest.approx(values.max(), rel=1e-5)
        assert sum(row["counts"]) == sample.size
        assert row["maximum_q50"] == pytest.approx(np.quantile(values.max(1), 0.5, method="inverted_cdf"), rel=1e-5)


def test_means_and_auc_of_classes(net, pictures, tmp_path):
    folder = scan(net, pictures, tmp_path / "atlas", layers=["wide"], k=K)
    maps, names = stored_maps(net, pictures)
    maxima = maps["wide"].max(2)
    labels = np.array([name[0] for name in names])
    for row in pq.read_table(folder / "classes.parquet").to_pylist():
        inside, outside = (maxima[chosen, row["unit"]] for chosen in (labels == row["class"], labels != row["class"]))
        pairs = (inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)
        assert row["mean"] == pytest.approx(inside.mean(), rel=1e-5)
        assert row["auc"] == pytest.approx(pairs.mean(), abs=0.01)


@pytest.mark.parametrize("batch", [2, 3, 8, 16, 33])
def test_the_batch_and_the_shards_decide_nothing(net, pictures, tmp_path, batch):
    tables = [
        pq.read_table(
            scan(net, pictures, tmp_path / f"{size}-{shard}", k=K, batch_size=size, shard=shard) / "units.parquet"
        )
        for size, shard in ((8, 37), (batch, 7))
    ]
    same, other = (table.to_pydict() for table in tables)
    for column in ("layer", "unit", "band", "rank", "picture", "y", "x", "top", "left", "bottom", "right"):
        assert same[column] == other[column]
    assert same["value"] == pytest.approx(other["value"], rel=1e-5, abs=1e-6)


def test_bands_go_down_from_the_strongest_and_random_ones_differ_between_units(net, pictures, tmp_path):
    atlas = Atlas(scan(net, pictures, tmp_path / "atlas", layers=["wide"], k=3), net=net)
    for unit in range(4):
        values = [[one.value for one in atlas.top("wide", unit, band=band)] for band in ("strong", "middle", "weak")]
        assert all(ranked == sorted(ranked, reverse=True) for ranked in values)
        assert values[0][-1] >= values[1][0] >= values[1][-1] >= values[2][0]
    drawn = {tuple(one.picture for one in atlas.top("wide", unit, band="random")) for unit in range(8)}
    assert len(drawn) > 4


def test_the_box_holds_what_the_unit_sees(net, pictures, tmp_path):
    atlas = Atlas(scan(net, pictures, tmp_path / "atlas", layers=["wide"], k=2), net=net)
    example = atlas.top("wide", 7)[0]
    picture = net.prepare(atlas.content(example.picture))
    field = find_layer(net, "wide").field
    top, left, bottom, right = field.box((example.y, example.x), net.size)
    x0, y0, x1, _ = picture.box
    scale = (x1 - x0) / net.size[1]
    expected = (y0 + top * scale, x0 + left * scale, y0 + bottom * scale, x0 + right * scale)
    assert example.box == tuple(int(np.floor(v)) for v in expected[:2]) + tuple(int(np.ceil(v)) for v in expected[2:])


class Broken(Small):
    """NaN at one place of one unit, in pictures that are dark in a corner."""

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        maps[:, 2, 1, 1] = torch.where(x[:, 0, 0, 0] < 0.4, torch.nan, maps[:, 2, 1, 1])
        return self.fc(self.wide(self.relu(maps)).relu().mean((2, 3)))


def test_activity_that_is_no_number_wins_nowhere_and_is_counted(pictures, tmp_path):
    torch.manual_seed(0)
    net = convscope.Net(Broken(), size=20)
    atlas = Atlas(scan(net, pictures, tmp_path / "atlas", layers=["relu"], k=K), net=net)
    maps, _ = stored_maps(net, pictures)
    broken = np.isnan(maps["relu"]).any(2).sum(0)
    rows = pq.read_table(atlas.path / "statistics.parquet").to_pylist()
    assert [row["broken"] for row in rows] == broken.tolist()
    assert 0 < broken[2] < 37
    assert all(np.isfinite(one.value) for unit in range(5) for one in atlas.top("relu", unit))
    assert rows[2]["pictures"] + rows[2]["broken"] == 37
    assert sum(rows[2]["counts"]) == rows[2]["pictures"] * 33  # of a lattice of 10 × 10
    sample = maps["relu"][:, 2][np.isfinite(maps["relu"][:, 2]).all(1), 1::3]
    assert rows[2]["active"] == pytest.approx((sample > 2.0**-24).mean())


def test_large_maps_are_read_picture_by_picture_to_the_same_end(net, pictures, tmp_path, monkeypatch):
    whole = scan(net, pictures, tmp_path / "whole", k=K)
    monkeypatch.setattr(units, "_HOT", 1)
    again = scan(net, pictures, tmp_path / "again", k=K)
    for file in ("units.parquet", "statistics.parquet"):
        assert (whole / file).read_bytes() == (again / file).read_bytes()


def test_a_scan_that_was_ended_goes_on_and_gives_the_same_bytes(net, pictures, tmp_path):
    whole = scan(net, pictures, tmp_path / "whole", k=K, shard=8)
    again = scan(net, pictures, tmp_path / "again", k=K, shard=8)
    shards = sorted((again / FOLDER).iterdir())
    shards[1].unlink()
    shards[3].write_bytes(shards[3].read_bytes()[:-100])  # a machine that crashed while it was written
    (again / "units.parquet").unlink()
    scan(net, pictures, again, k=K, shard=8)
    for file in (
        *(f"{FOLDER}/{shard.name}" for shard in shards),
        "units.parquet",
        "statistics.parquet",
        "classes.parquet",
    ):
        assert (whole / file).read_bytes() == (again / file).read_bytes()


def test_shards_merged_for_few_units_at_a_time_give_the_same_bytes(net, pictures, tmp_path, monkeypatch):
    whole = scan(net, pictures, tmp_path / "whole", k=K, shard=8, effect=True)
    monkeypatch.setattr(tables, "_MERGED", 1)
    again = scan(net, pictures, tmp_path / "again", k=K, shard=8, effect=True)
    for file in whole.glob("*.parquet"):
        assert file.read_bytes() == (again / file.name).read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="maps are looked up as Linux lists them")
def test_what_is_merged_keeps_no_shard_in_memory(net, pictures, tmp_path):
    """A view of what was read from a file keeps all of it: 15 MB for each of a thousand shards."""
    atlas = scan(net, pictures, tmp_path / "atlas", k=K, shard=8)
    merged = Merging(atlas, read_manifest(atlas)).merged(slice(0, 72), ["0", "1", "2"])
    assert merged.class_counts.sum() == 37
    assert str(atlas) not in Path("/proc/self/maps").read_text()


def test_sums_of_classes_are_kept_exactly(net, pictures, tmp_path):
    """Of a single picture, as here of each class in a shard of two, in half as many bytes."""
    means = [
        pq.read_table(scan(net, pictures, tmp_path / str(shard), layers=["wide"], k=1, shard=shard) / "classes.parquet")
        for shard in (2, 37)
    ]
    np.testing.assert_allclose(*(table["mean"].to_numpy() for table in means), rtol=1e-15)


def test_classes_by_wordnet_id_are_named(net, pictures, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(pictures / "a", data / "n01443537")
    shutil.copytree(pictures / "b", data / "dog")
    rows = pq.read_table(scan(net, data, tmp_path / "atlas", layers=["fc"], k=1) / "classes.parquet").to_pylist()
    assert {(row["class"], row["label"]) for row in rows} == {("goldfish", "n01443537"), ("dog", "dog")}
    assert Atlas(tmp_path / "atlas", net=net).detectors("fc", 1)[0][1] in {"goldfish", "dog"}


def test_another_scan_into_the_same_atlas_is_refused_with_the_difference(net, pictures, tmp_path):
    atlas = scan(net, pictures, tmp_path / "atlas", k=K)
    before = {path.name: path.read_bytes() for path in atlas.glob("*.parquet")}
    with pytest.raises(AtlasError, match=r"settings\.k was 4 and is 5"):
        scan(net, pictures, atlas, k=5)
    torch.manual_seed(1)
    with pytest.raises(AtlasError, match="weights was"):
        scan(convscope.Net(Small(), size=20, classes=["a", "b", "c"]), pictures, atlas, k=K)
    assert {path.name: path.read_bytes() for path in atlas.glob("*.parquet")} == before


def test_a_picture_that_changed_is_refused_and_a_folder_that_moved_is_found(net, pictures, tmp_path):
    data = shutil.copytree(pictures, tmp_path / "data")
    path = scan(net, data, tmp_path / "atlas", layers=["wide"], k=2)
    moved = data.rename(tmp_path / "elsewhere")
    example = Atlas(path, net=net).top("wide", 0)[0]
    with pytest.raises(AtlasError, match="--root data=FOLDER"):
        Atlas(path, net=net).read(example.picture)
    atlas = Atlas(path, net=net, roots={"data": moved})
    assert atlas.read(example.picture).shape == (1, 3, 20, 20)
    Image.new("RGB", (24, 30)).save(moved / example.path)
    with pytest.raises(AtlasError, match="not the one that was scanned"):
        atlas.read(example.picture)
    with pytest.raises(AtlasError, match="no root 'pets'"):
        Atlas(path, net=net, roots={"pets": moved})


@pytest.mark.parametrize("outside", ["../secret.png", "/etc/passwd", "a/../../secret.png"])
def test_a_strangers_atlas_opens_nothing_outside_its_roots(net, pictures, tmp_path, outside):
    path = scan(net, pictures, tmp_path / "atlas", layers=["fc"], k=2)
    table = pq.read_table(path / "pictures.parquet")
    names = [outside, *table["path"].to_pylist()[1:]]
    pq.write_table(table.set_column(table.column_names.index("path"), "path", [names]), path / "pictures.parquet")
    with pytest.raises(AtlasError, match="outside its root"):
        Atlas(path, net=net, roots={"data": pictures}).read(0)


def test_broken_pictures_are_left_out_and_listed(net, pictures, tmp_path):
    data = shutil.copytree(pictures, tmp_path / "data")
    (data / "a" / "00.png").write_bytes(b"no picture")
    with listen() as remarks:
        atlas = Atlas(scan(net, data, tmp_path / "atlas", layers=["wide"], k=2), net=net)
    rows = pq.read_table(atlas.path / "pictures.parquet").to_pylist()
    assert [row["path"] for row in rows if row["error"]] == ["a/00.png"]
    assert any("1 picture could not be read" in remark for remark in remarks)
    assert pq.read_table(atlas.path / "statistics.parquet")["pictures"][0].as_py() == 36


@pytest.mark.parametrize("broken", [3, 1])
def test_the_command_ends_in_3_for_broken_pictures_and_in_2_where_the_only_one_is(broken, tmp_path, capsys):
    for number in range(broken):
        (tmp_path / f"{number}.png").write_bytes(b"no picture")
    if broken > 1:
        Image.new("RGB", (64, 64)).save(tmp_path / "0.png")
    asked = ["scan", str(tmp_path), "--net", "lenet5", "--layers", "conv1", "-o", str(tmp_path / "atlas")]
    for _ in range(2):  # what is there already is told all the same
        assert run(asked) == (3 if broken > 1 else 2)
        told = capsys.readouterr().err
        assert "0.png is not a picture" in told if broken == 1 else "2 of 3 pictures failed" in told
    rows = pq.read_table(tmp_path / "atlas" / "statistics.parquet").to_pylist()
    assert rows[0]["pictures"] == (1 if broken > 1 else 0)


def test_bad_input_is_refused_before_any_work(net, pictures, tmp_path):
    with pytest.raises(LayerError, match="no layer"):
        scan(net, pictures, tmp_path / "atlas", layers=["nothing"])
    with pytest.raises(DataError, match="stream"):
        scan(net, iter([torch.rand(3, 20, 20)]), tmp_path / "atlas")
    assert not (tmp_path / "atlas").exists()


def test_an_atlas_is_written_neither_among_its_pictures_nor_of_none(net, pictures, tmp_path):
    data = shutil.copytree(pictures, tmp_path / "data")
    before = sorted(data.rglob("*"))
    (tmp_path / "link").symlink_to(data)
    for folder in (data, tmp_path / "link", data / "a" / ".."):
        with pytest.raises(OutputError, match="folder of its own"):
            scan(net, data, folder)
    assert sorted(data.rglob("*")) == before
    for missing in (["nothing.png"], ["nothing.png", "neither.png"]):
        with pytest.raises(PictureError, match="no picture nothing"):
            scan(net, missing, tmp_path / "atlas")
    assert not (tmp_path / "atlas").exists()
    scan(net, [str(before[-1]), "nothing.png"], tmp_path / "atlas", layers=["fc"], k=1)  # listed, as a broken one is


def test_what_a_picture_excites_and_which_units_are_alike(net, pictures, tmp_path):
    atlas = Atlas(scan(net, pictures, tmp_path / "atlas", layers=["wide"], k=2), net=net)
    maps, _ = stored_maps(net, pictures)
    maxima = maps["wide"].max(2)
    shares = (maxima < maxima[11]).mean(0)
    found = atlas.units_of(11, 5)
    assert [one.share for one in found] == pytest.approx(np.sort(shares)[::-1][:5].tolist(), abs=0.03)
    correlations = np.corrcoef(maxima.T)[7]
    best = np.argsort(-np.delete(correlations, 7))[0]
    kin = atlas.similar("wide", 7, 1)[0]
    assert kin.unit == best + (best >= 7)
    assert kin.correlation == pytest.approx(correlations[kin.unit], abs=1e-3)


def test_layers_by_default_are_those_before_rectifiers(net):
    assert [layer.name for layer in choose_layers(net)] == ["conv", "wide", "fc"]
    normed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    normed(torch.rand(2, 3, 8, 8))
    assert [layer.name for layer in choose_layers(convscope.Net(normed, size=8))] == ["1", "4"]
    with pytest.raises(LayerError, match="no layer"):
        choose_layers(net, ["features.*"])


def test_bins_are_exact():
    values = torch.randn(5000, 3) * torch.tensor([1e-7, 1.0, 1e5])
    values[:6, 0] = torch.tensor([0.0, -0.0, 2.0**-24, -(2.0**-24), torch.inf, -torch.inf])
    histograms = Histograms(3)
    for part in values.split(700):
        histograms.add(part[None].contiguous())
        histograms.count()
    counts, ends = histograms.whole(), edges()
    assert counts.shape == (3, BINS)
    for unit, column in enumerate(values.double().numpy().T):
        beyond = np.searchsorted(ends, np.abs(column), side="right") - 1
        where = np.where(np.abs(column) < 2.0**-24, SIDE, np.where(column > 0, beyond, 2 * SIDE - beyond)).clip(
            0, BINS - 1
        )
        assert (np.bincount(where, minlength=BINS) == counts[unit].numpy()).all()


class Gated(nn.Module):
    """Layers that the body writes over in place: rectified, and by another activation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.relu = nn.ReLU(inplace=True)
        self.gated = nn.Conv2d(6, 4, 3)
        self.silu = nn.SiLU(inplace=True)
        self.beside = nn.Conv2d(3, 4, 7)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.silu(self.gated(self.relu(self.conv(x))))
        return self.fc(torch.cat([maps.mean((2, 3)), self.beside(x).relu().amax((2, 3))], 1))


def test_effects_are_activity_times_gradient_of_the_largest_score(pictures, tmp_path):
    torch.manual_seed(0)
    net = convscope.Net(Gated(), size=20)
    layers = ["conv", "gated", "beside", "fc"]
    scanned = [*layers, "output"]
    atlas = Atlas(
        scan(net, pictures, tmp_path / "atlas", layers=scanned, k=K, effect=True, statistics="basic"), net=net
    )
    read = read_pictures(pictures)
    expected: dict[str, list[Tensor]] = {name: [] for name in layers}
    for picture in read:
        kept = tap(net, net.read(picture.read()), [*layers, ""], leaf=layers)
        grads = torch.autograd.grad(kept[""].amax(), [kept[name] for name in layers], allow_unused=True)
        for name, grad in zip(layers, grads, strict=True):
            expected[name].append((kept[name] * grad).flatten(2).sum(2) if grad.ndim == 4 else kept[name] * grad)
    names = [picture.name for picture in read]
    for name in layers:
        effects = torch.cat(expected[name]).detach().numpy()
        for unit in range(effects.shape[1]):
            found = atlas.top(name, unit, band="effect", repeated=True)
            ranked = np.sort(effects[:, unit])[::-1][:K]
            assert [one.value for one in found] == pytest.approx(ranked.tolist(), rel=1e-4, abs=1e-6)
            assert names.index(found[0].path) in np.flatnonzero(np.isclose(effects[:, unit], ranked[0], rtol=1e-5))
    table = pq.read_table(atlas.path / "statistics.parquet").to_pylist()
    means = np.concatenate([torch.cat(expected[name]).detach().numpy().mean(0) for name in (*layers, "fc")])
    assert [row["effect"] for row in table] == pytest.approx(means.tolist(), rel=1e-4, abs=1e-6)


def test_of_a_batch_whose_effects_are_known_nothing_stays(net):
    """A hook that stayed on the graph kept every output of every batch."""
    layers = choose_layers(net)
    effects = Effects(net, {layer.name: layer for layer in layers})
    for _ in range(2):
        effects.run(torch.rand(2, 3, 20, 20), lambda _, output: output.detach()[:, :0], lambda *_: None)
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each).__name__ == "_Seen"]


def test_a_network_that_predicts_no_class_has_no_effects(pictures, tmp_path):
    with pytest.raises(NetworkError, match="scan without --effect"):
        scan(convscope.Net(nn.Conv2d(3, 2, 3), size=20), pictures, tmp_path / "atlas", effect=True)


@given(
    values=arrays(np.float32, (12, 3), elements=st.sampled_from([0.0, -0.0, 1.0, -2.0, 3.5, np.inf])),
    order=st.permutations(range(12)),
    cuts=st.lists(st.integers(0, 12), max_size=3),
    largest=st.booleans(),
)
def test_selections_merge_in_any_order_and_twice(values, order, cuts, largest):
    kind = "largest" if largest else "smallest"
    pictures = torch.arange(12)

    def of(rows: list[int]) -> Selection:
        selection = Selection.empty(kind, 3, 4)
        chosen = torch.tensor(sorted(rows), dtype=torch.int64)
        if rows:
            selection.offer(torch.from_numpy(values)[chosen], pictures[chosen], chosen[:, None].int().expand(-1, 3))
        return selection

    whole = of([*range(12)])
    ends = sorted({0, 12, *cuts})
    parts = [of(list(order[start:stop])) for start, stop in pairwise(ends)]
    merged = parts[-1]
    for part in [*parts, parts[0]]:
        merged = merged.merged(part)
    for name in ("keys", "pictures", "places"):
        assert torch.equal(getattr(merged, name), getattr(whole, name))
    for unit in range(3):
        column = values[:, unit] + 0.0
        ranked = np.lexsort((np.arange(12), -column)) if largest else None
        expected = column[ranked][:4] if largest else np.sort(column)[:4]
        assert whole.values[unit].tolist() == expected.tolist()
        if largest:
            assert whole.pictures[unit].tolist() == ranked[:4].tolist()


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["zfnet64", "lenet5", "squeezenet"])
def test_real_networks_on_500_pictures_against_the_oracle(name, data, request, tmp_path):
    net = request.getfixturevalue("squeezenet").sized(96) if name == "squeezenet" else convscope.load(name)
    with tarfile.open(data("tiny100-val.tar.xz")) as file:
        members = [member for member in file if member.name.endswith(".JPEG")][:490]
        file.extractall(tmp_path / "data", members, filter="data")
    pictures = sorted((tmp_path / "data").rglob("*.JPEG"))
    for number, picture in enumerate(pictures[:10]):  # the same again
        shutil.copy(picture, picture.with_name(f"z{number}.JPEG"))
    pictures = [str(path) for path in sorted((tmp_path / "data").rglob("*.JPEG"))]
    names = [layer.name for layer in choose_layers(net)]
    atlas = Atlas(scan(net, pictures, tmp_path / "atlas", k=9, shard=100), net=net)
    maxima: dict[str, list[Tensor]] = {layer: [] for layer in names}
    for batch in (pictures[start : start + 8] for start in range(0, 500, 8)):
        pixels = torch.cat([net.read(path) for path in batch])
        pixels = torch.cat([pixels, pixels[-1:].repeat(8 - len(pixels), 1, 1, 1)])
        kept = tap(net, pixels.contiguous(memory_format=torch.channels_last), names)
        for layer in names:
            maxima[layer].append(kept[layer].flatten(2).amax(2) if kept[layer].ndim == 4 else kept[layer])
    rows = pq.read_table(atlas.path / "units.parquet", filters=[("band", "==", "strongest")]).to_pydict()
    found = {
        key: rows["picture"][at] for at, key in enumerate(zip(rows["layer"], rows["unit"], rows["rank"], strict=True))
    }
    for layer in names:
        every = torch.cat(maxima[layer])[:500].numpy()
        for unit in range(every.shape[1]):
            ranked = np.lexsort((np.arange(500), -every[:, unit]))[:9]
            assert [found[layer, unit, rank] for rank in range(9)] == ranked.tolist()


class Together(nn.Module):
    """Pictures of a batch influence each other: each is computed alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.norm = nn.BatchNorm2d(2, track_running_stats=False)
        self.fc = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))


def test_pictures_that_are_computed_alone_fill_up_no_batch(pictures, tmp_path):
    torch.manual_seed(0)
    net = convscope.Net(Together(), size=36)
    atlas = Atlas(scan(net, pictures, tmp_path / "atlas", layers=["norm"], k=1, effect=True), net=net)
    read = [net.read(picture.read()) for picture in read_pictures(pictures)]
    maxima = torch.cat([tap(net, pixels, ["norm"])["norm"].amax((2, 3)) for pixels in read])
    assert [atlas.top("norm", unit)[0].value for unit in (0, 1)] == pytest.approx(maxima.amax(0).tolist(), rel=1e-5)


def test_a_network_that_answers_at_random_is_refused(pictures, tmp_path):
    class Noisy(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.rand_like(x))

    with pytest.raises(NetworkError, match="seed"):
        scan(convscope.Net(Noisy(), size=20), pictures, tmp_path / "atlas")
    assert not (tmp_path / "atlas").exists()
