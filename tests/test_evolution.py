"""The evolution of units: the strongest picture of every snapshot, and a recorder that no training notices."""

from __future__ import annotations

import random
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from convscope import EvolutionRecorder, Gallery, Net, evolution, load, remake, tap
from convscope.atlas.computing import Scan
from convscope.atlas.moments import spread
from convscope.atlas.snapshots import files_of, snapshots_of
from convscope.cli import run
from convscope.errors import (
    AtlasError,
    DataError,
    LayerError,
    NetworkError,
    OptionError,
    PictureError,
    RecipeError,
    WeightsError,
)
from networks import Sequential

COUNT = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven pictures."""
    made = tmp_path_factory.mktemp("pictures")
    numbers = np.random.default_rng(0)
    for index in range(COUNT):
        pixels = numbers.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).resize((40, 40)).save(made / f"{index}.png")
    return made


def snapshot(seed: int, body: type[nn.Module] = Sequential) -> Net:
    torch.manual_seed(seed)
    return Net(body().eval(), mean=0.5, std=0.25, size=40, name="tiny")


@pytest.fixture
def three() -> list[tuple[str, Net]]:
    return [(f"epoch {seed}", snapshot(seed)) for seed in (1, 2, 3)]


def brute(net: Net, folder: Path, layer: str) -> tuple[Tensor, Tensor]:
    """Return the strongest value of every unit, and in which picture it is."""
    maps = [tap(net, net.read(path), [layer])[layer][0] for path in sorted(folder.glob("*.png"))]
    return torch.stack([each.flatten(1).amax(1) for each in maps]).max(0)


def test_the_strongest_picture_of_every_snapshot_is_that_of_all_maps(three: Any, folder: Path) -> None:
    drawing = evolution(three, folder, layers=["0", "3"], units="0,4,5")
    numbers = drawing.numbers()
    assert drawing.content.columns == ("epoch 1", "epoch 2", "epoch 3")
    assert drawing.content.labels == ("0:0", "0:4", "0:5", "3:0", "3:4", "3:5")
    for column, (_, net) in enumerate(three):
        for at, layer in enumerate(("0", "3")):
            values, pictures = brute(net, folder, layer)
            rows = slice(3 * at, 3 * at + 3)
            assert numbers["pictures"][rows, column].tolist() == pictures[[0, 4, 5]].tolist()
            np.testing.assert_allclose(numbers["values"][rows, column], values[[0, 4, 5]], rtol=1e-5)
    for row, tiles in enumerate(drawing.content.rows):
        for column, tile in enumerate(tiles):
            changed = column > 0 and numbers["pictures"][row, column] != numbers["pictures"][row, column - 1]
            assert tile is not None and tile.caption.endswith(" · new") == changed


def test_other_units_need_no_other_scan_and_a_figure_is_read_back(
    three: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evolution(three, folder, tmp_path / "kept", layers=["3"], units=[1])
    monkeypatch.setattr(Scan, "compute", None)
    again = evolution(dict(three), folder, tmp_path / "kept", layers=["3"], units=[1, 2])
    assert again.numbers()["pictures"][0].tolist() == first.numbers()["pictures"][0].tolist()
    path = first.save(tmp_path / "figure.png")
    first.save_values(tmp_path / "figure.npz")
    assert Gallery.load(path).recipe.options["snapshots"] == {name: net.digest for name, net in three}


def test_a_unit_that_nothing_excites_is_not_active(three: Any, folder: Path) -> None:
    with torch.no_grad():
        three[1][1].body[3].bias[2] = -100.0
    drawing = evolution(three, folder, layers=["4"], units=[2])
    assert drawing.numbers()["pictures"][0, 1] == -1
    assert [tile.caption == "" for tile in drawing.content.tiles] == [False, True, False]


def test_snapshots_that_cannot_be_read_are_left_out_and_said(three: Any, folder: Path) -> None:
    def damaged() -> Net:
        raise WeightsError("the file is cut short")

    drawing = evolution([three[0], ("epoch 1b", damaged), *three[1:]], folder, layers=["3"], units=[0])
    assert drawing.content.columns == ("epoch 1", "epoch 2", "epoch 3")
    assert "epoch 1b left out: the file is cut short" in drawing.recipe.remarks
    with pytest.raises(WeightsError, match=r"of 2 snapshots 1 can be read.*cut short"):
        evolution([three[0], ("b", damaged)], folder)


class Wider(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 6, 5, stride=2, padding=1), nn.ReLU(), nn.ReLU(), nn.Conv2d(6, 9, 3))


def test_what_is_no_evolution_is_refused_before_any_work(three: Any, folder: Path, tmp_path: Path) -> None:
    for wrong, why in (
        ([], "here are none"),
        (three[:1], "here is one"),
        ([three[0], three[0]], "two snapshots are called 'epoch 1'"),
        (["a.pt", "b.pt"], "a snapshot is a name and a Net"),
        (three[0][1], "no snapshots of its training"),
    ):
        with pytest.raises((OptionError, WeightsError), match=why):
            evolution(wrong, folder)  # type: ignore[arg-type]
    other = ("wide", snapshot(0, Wider))
    with pytest.raises(LayerError, match="3 has 8 units in 'epoch 1', and 3 has 9 units in 'wide'"):
        evolution([three[0], other], folder, layers=["3"])
    with pytest.raises(LayerError, match=r"snapshot 'wide': .* there is no 5"):
        evolution([three[0], other], folder, layers=["5"])
    with pytest.raises(OptionError, match="no unit 8"):
        evolution(three, folder, layers=["3"], units="0,8")
    with pytest.raises(PictureError, match="no picture in"):
        evolution(three, tmp_path, layers=["3"])
    with pytest.raises(WeightsError, match="no snapshots of its training"):
        snapshots_of(load("lenet5", weights=None))
    with pytest.raises(OptionError, match="no snapshot of epoch 3; there are 1, 2, 5, 10, 20, 30"):
        snapshots_of(load("lenet5"), epochs=[1, 3])


def test_checkpoints_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = ["epoch-10.pt", "epoch-9.pt", "epoch-100.pt"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").touch()
    ordered = [tmp_path / name for name in ("epoch-9.pt", "epoch-10.pt", "epoch-100.pt")]
    assert files_of([tmp_path]) == files_of([f"{tmp_path}/*.pt"]) == ordered
    assert files_of([tmp_path / name for name in names]) == [tmp_path / name for name in names]
    with pytest.raises(WeightsError, match="there is no weights file"):
        files_of([tmp_path / "epoch-1.pt"])
    assert spread(6) == list(range(6))
    assert spread(50) == [0, 1, 2, 4, 8, 15, 28, 49]


def test_the_command_draws_epochs_and_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["evolution", str(folder), "--net", "lenet5", "--layer", "conv2", "--units", "3"]
    assert run([*common, "--epochs", "1,30", "-o", "a.png", "--save-values", "a.npz"]) == 0
    assert Gallery.load("a.png").content.columns[0].startswith("epoch 1: ")
    for epoch in (1, 30):
        torch.save(load("lenet5", epoch=epoch).body.state_dict(), f"at-{epoch}.pt")
    Path("at-40.pt").write_bytes(b"PK damaged")
    assert run([*common, "--weights", "at-*.pt", "-o", "b.png", "--save-values", "b.npz"]) == 3
    told = capsys.readouterr().err
    assert "at-40 left out" in told and "1 of 3 snapshots could not be read" in told
    assert Gallery.load("b.png").content.columns == ("at-1", "at-30")
    with np.load("a.npz") as first, np.load("b.npz") as second:
        assert first["pictures"].tolist() == second["pictures"].tolist()
    with pytest.raises(
        RecipeError, match="convscope evolution PICTURES --net lenet5 --layers conv2 --method deconvnet"
    ):
        remake("a.png")
    assert run([*common, "--epochs", "1,x"]) == run([*common, "-o", "a.txt"]) == 2


class Trained(nn.Module):
    """Everything that a pass could change: statistics, dropout, a buffer of its own that is written in eval mode."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.fc(self.drop(self.norm(self.conv(x)).relu()).mean((2, 3)))


def train(recorder_of: Any = None, *, autocast: bool = False) -> tuple[Trained, list[Any]]:
    """Train for three epochs, and return what everything was at the end: weights, moments, random numbers."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    model = Trained().train()
    model.norm.eval()  # as whoever freezes statistics does it
    recorder = recorder_of(model) if recorder_of else None
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for epoch in (1, 2, 3):
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = nn.functional.cross_entropy(model(torch.rand(4, 3, 20, 20)), torch.tensor([0, 1, 2, 0]))
                if recorder:  # in the middle: with a graph that waits for its gradients
                    recorder.step(epoch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    numbers = [torch.get_rng_state(), torch.rand(1), random.random(), np.random.rand()]
    grads = [parameter.grad for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    return model, [*model.state_dict().values(), *grads, *numbers, *modes, optimizer.state_dict()["state"]]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_training_is_the_same_to_the_last_bit_with_a_recorder(folder: Path, tmp_path: Path, autocast: bool) -> None:
    def record(model: nn.Module) -> EvolutionRecorder:
        return EvolutionRecorder(model, folder, folder=tmp_path, layers=["conv"], units=[0, 1], size=20)

    _, plain = train(autocast=autocast)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, recorded = train(record, autocast=autocast)
    assert same(plain, recorded)
    assert (tmp_path / "evolution.png").exists()


def test_a_recorder_finds_the_strongest_and_goes_on_in_its_folder(folder: Path, tmp_path: Path) -> None:
    nets = [snapshot(seed) for seed in (1, 2, 3)]
    model = snapshot(1).body
    settings: dict[str, Any] = {"folder": tmp_path, "layers": ["3"], "units": [0, 1, 2], "every": [1, 3]}

    def recorder() -> EvolutionRecorder:
        return EvolutionRecorder(Net(model, mean=0.5, std=0.25, size=40), folder, **settings)

    written: list[Any] = []
    writer = types.SimpleNamespace(add_image=lambda *given, **more: written.append((given, more)))
    own = recorder()
    own.writer = writer
    with pytest.raises(AtlasError, match="nothing is recorded yet"):
        own.drawing()
    for epoch in (1, 2):
        model.load_state_dict(nets[epoch - 1].body.state_dict())
        assert (own.step() is None) == (epoch == 2)
    assert own.seconds > 0
    (((tag, strip, at), more),) = written
    assert (tag, at, more) == ("evolution/3", 1, {"dataformats": "HWC"})
    assert strip.dtype == np.uint8 and strip.shape[2] == 3
    again = recorder()  # after the end of the process
    model.load_state_dict(nets[2].body.state_dict())
    again.step(3)
    drawing = again.drawing()
    assert drawing.content.columns == ("epoch 1", "epoch 3")
    for column, net in enumerate((nets[0], nets[2])):
        values, pictures = brute(net, folder, "3")
        assert drawing.numbers()["pictures"][:, column].tolist() == pictures[:3].tolist()
        np.testing.assert_allclose(drawing.numbers()["values"][:, column], values[:3], rtol=1e-5)
    expected = evolution([("epoch 1", nets[0]), ("epoch 3", nets[2])], folder, layers=["3"], units=[0, 1, 2])
    for tile, other in zip(drawing.content.tiles, expected.content.tiles, strict=True):
        assert np.array_equal(np.asarray(tile.image), np.asarray(other.image)) and tile.caption == other.caption
    again.step(1)
    assert again.drawing().content.columns == ("epoch 1",), "a training from the beginning has not been further yet"
    settings["units"] = [0]
    with pytest.raises(AtlasError, match="the evolution of other units"):
        recorder()
    settings["units"] = [0, 1, 2]
    (tmp_path / "epoch-00001.safetensors").write_bytes(b"cut")
    with pytest.raises(AtlasError, match="delete it to go on"):
        recorder()


def test_the_last_epoch_is_recorded_and_a_failure_is_a_warning(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = snapshot(1)
    with EvolutionRecorder(net, folder, folder=tmp_path / "a", layers=["3"], units=[0], every=10) as recorder:
        assert [recorder.step(epoch) for epoch in (1, 2)] == [None, None]
    assert recorder.drawing().content.columns == ("epoch 2",)
    with torch.no_grad():
        net.body[3].weight.fill_(torch.nan)
    recorder.step(10)
    assert recorder.drawing().numbers()["pictures"].tolist()[0][1] == -1, "no number is the strongest"
    monkeypatch.setattr("convscope.atlas.recorder.save_moment", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.warns(UserWarning, match="epoch 20 is not recorded: .*disk full"):
        assert recorder.step(20) is None


def test_what_cannot_be_recorded_is_refused_at_once(folder: Path, tmp_path: Path) -> None:
    def recorder(net: nn.Module, **options: Any) -> EvolutionRecorder:
        return EvolutionRecorder(net, options.pop("pictures", folder), folder=tmp_path, **options)

    net = snapshot(1)
    for options, error, why in (
        ({"layers": ["no"]}, LayerError, "no layer 'no'"),
        ({"layers": ["3"], "units": [8]}, OptionError, "no unit 8"),
        ({"every": 0}, OptionError, "at least 1"),
        ({"method": "grad"}, OptionError, "method is deconvnet, guided, gradient"),
        ({"size": 20}, OptionError, "options of a Net"),
        ({"pictures": []}, DataError, "no pictures"),
    ):
        with pytest.raises(error, match=why):
            recorder(net, **options)

    class Random(Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.rand_like(x))

    with pytest.raises(NetworkError, match="random"):
        recorder(Random(), size=40)


def test_lightning_calls_the_recorder_after_each_epoch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = EvolutionRecorder(snapshot(1), folder, folder=tmp_path, layers=["3"], units=[0])
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(OptionError, match="pip install lightning"):
        recorder.callback()
    package: Any = types.ModuleType("pytorch_lightning")
    package.Callback = type("Callback", (), {})
    monkeypatch.setitem(sys.modules, "pytorch_lightning", package)
    callback = recorder.callback()
    assert isinstance(callback, package.Callback)
    written: list[int] = []
    experiment = types.SimpleNamespace(add_image=lambda tag, strip, step, **_: written.append(step))
    loggers = [types.SimpleNamespace(), types.SimpleNamespace(experiment=experiment)]
    for epoch, zero in ((0, True), (1, False), (1, True)):
        trainer = types.SimpleNamespace(is_global_zero=zero, current_epoch=epoch, loggers=loggers)
        callback.on_train_epoch_end(trainer, None)
    assert recorder.drawing().content.columns == ("epoch 1", "epoch 2")
    assert written == [1, 2]
