"""timm's networks: built, read and prepared as timm does, and asked by every method."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from conftest import ROOT
from convscope import Net, as_objective, load
from convscope.errors import NetworkError, WeightsError
from convscope.incremental.occlusions import Occluder, Occlusions
from convscope.zoo import timm_models
from convscope.zoo.timm_models import Plan, assemble

timm = pytest.importorskip("timm")

TABLE = runpy.run_path(str(ROOT / "docs" / "make_table.py"))


def saved(path: Path, state: dict[str, Tensor]) -> Path:
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def network(name: str, **options: Any) -> Any:
    torch.manual_seed(5)
    return timm.create_model(name, **options).eval()


def test_names_are_those_of_timm() -> None:
    assert list(timm_models.names()) == sorted(timm.list_models())


def test_random_weights_are_those_of_timm_under_the_seed() -> None:
    net = load("timm:test_resnet", weights=None)
    torch.manual_seed(0)
    body = timm.create_model("test_resnet").eval()
    pixels = torch.rand(2, 3, 160, 160)
    torch.testing.assert_close(net(pixels), body((pixels - 0.5) / 0.5), rtol=0, atol=0)
    assert (net.name, net.note, len(net.classes)) == ("test_resnet", "random weights, seed 0", 1000)
    assert net.classes[281] == "tabby, tabby cat"


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("test_resnet", {}),
        ("resnet18", {}),
        ("resnet18", {"crop_mode": "squash", "crop_pct": 0.9, "interpolation": "bilinear"}),
        ("test_vit", {"crop_pct": 1.0, "mean": (0.1, 0.2, 0.3), "std": (0.3, 0.2, 0.1)}),
        ("test_resnet", {"input_size": (3, 128, 96), "crop_mode": "squash", "crop_pct": 0.8}),
    ],
    ids=["bilinear", "bicubic", "squashed", "whole", "squashed, not square"],
)
def test_pictures_are_prepared_as_timm_does(name: str, config: dict[str, Any], chelsea: Any) -> None:
    net = assemble(Plan(name, name, name, config), None, seed=0, reading={})
    told = timm.data.resolve_data_config({}, pretrained_cfg=timm.models.get_pretrained_cfg(name).to_dict() | config)
    expected = timm.data.create_transform(**told)(Image.fromarray(chelsea))
    torch.testing.assert_close(net.normalise(net.read(chelsea))[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"crop_mode": "border"}, "timm lays the whole picture on a plain ground, here its centre is cut out"),
        ({"input_size": (3, 96, 128), "crop_pct": 0.5}, "here its shorter side to 256 pixels"),
    ],
)
def test_what_timm_prepares_otherwise_is_said(config: dict[str, Any], words: str) -> None:
    net = assemble(Plan("x", "timm:test_resnet", "test_resnet", config), None, seed=0, reading={})
    assert words in net.note


def test_a_file_and_the_user_come_before_the_arguments_of_the_network(tmp_path: Path) -> None:
    """Where they differ timm would leave the classifier random, and say nothing."""
    body = network("test_vit", num_classes=4)
    path = saved(tmp_path / "w.safetensors", body.state_dict())
    plan = Plan("x", "timm:test_vit", "test_vit", {}, {"num_classes": 7, "img_size": 160, "in_chans": 3})
    net = assemble(plan, path, seed=0, reading={"size": 96})
    assert net(torch.rand(1, 3, 96, 96)).shape == (1, 4)
    assert net.body.patch_embed.img_size == (96, 96)  # type: ignore[union-attr]
    torch.testing.assert_close(net.body.head.weight.data, body.head.weight.data)  # type: ignore[union-attr]


def test_a_file_says_how_many_classes_there_are(tmp_path: Path) -> None:
    body = network("test_resnet", num_classes=11821)
    net = load("timm:test_resnet", weights=saved(tmp_path / "w.safetensors", body.state_dict()))
    pixels = torch.rand(1, 3, 160, 160)
    torch.testing.assert_close(net(pixels), body((pixels - 0.5) / 0.5))
    assert net.note == "" and len(net.classes) == 11821 and net.classes[0] == "benthos"
    few = network("test_resnet", num_classes=4)
    net = load("timm:test_resnet", weights=saved(tmp_path / "few.safetensors", few.state_dict()))
    assert (net.output.shape, net.classes) == ((4,), ())


def test_an_output_for_background_is_left_out(tmp_path: Path) -> None:
    body = network("test_resnet", num_classes=1001)
    path = saved(tmp_path / "w.safetensors", body.state_dict())
    net = assemble(Plan("x", "timm:test_resnet", "test_resnet", {"label_offset": 1}), path, seed=0, reading={})
    torch.testing.assert_close(net.body.fc.weight.data, body.fc.weight.data[1:])  # type: ignore[union-attr]
    assert net.note == "fc.weight, fc.bias adapted by timm from another shape"


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.model."])
def test_the_prefix_of_a_training_checkpoint_is_taken_off(prefix: str, tmp_path: Path) -> None:
    body = network("test_resnet", num_classes=7)
    state = {prefix + key: value for key, value in body.state_dict().items()}
    net = load("timm:test_resnet", weights=saved(tmp_path / "wrapped.safetensors", state))
    pixels = torch.rand(1, 3, 160, 160)
    torch.testing.assert_close(net(pixels), body(net.normalise(pixels)))


def test_older_files_are_read_as_timm_reads_them(tmp_path: Path) -> None:
    """Published files of Swin hold tables that are computed today, and have some weights under other names."""
    body = network("swin_tiny_patch4_window7_224", num_classes=3)
    state = {key.replace("head.fc.", "head."): value for key, value in body.state_dict().items()}
    state = {re.sub(r"layers\.(\d)\.down", lambda m: f"layers.{int(m[1]) - 1}.down", k): v for k, v in state.items()}
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.long)
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    net = load("timm:swin_tiny_patch4_window7_224", weights=saved(tmp_path / "old.safetensors", state))
    pixels = torch.rand(1, 3, 224, 224)
    torch.testing.assert_close(net(pixels), body(net.normalise(pixels)))
    assert net.note == ""


def test_a_transformer_for_another_size_is_said_to_be_resampled(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", network("test_vit").state_dict())
    assert load("timm:test_vit", weights=path).note == ""
    net = load("timm:test_vit", weights=path, size=96)
    assert net.size == (96, 96) and net(torch.rand(1, 3, 96, 96)).shape == (1, 1000)
    assert net.note == "pos_embed adapted by timm from another shape"


def test_weights_of_another_network_say_what_does_not_fit(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", network("test_vit").state_dict())
    with pytest.raises(WeightsError, match=r"w.safetensors does not fit timm:test_resnet: \d+ missing from the file"):
        load("timm:test_resnet", weights=path)
    state = network("test_resnet").state_dict()
    del state["stem.0.weight" if "stem.0.weight" in state else next(iter(state))]
    with pytest.raises(WeightsError, match="does not fit timm:test_resnet: 1 missing from the file"):
        load("timm:test_resnet", weights=saved(path, state))


def test_other_channels_need_their_mean_and_weights_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(NetworkError) as caught:
        load("timm:test_resnet", weights=None, channels=1)
    assert str(caught.value) == (
        "timm:test_resnet reads 3 channels and knows no mean and std of 1: give them too, as in "
        "load('timm:test_resnet', channels=1, mean=0.5, std=0.25)"
    )
    grey = {"channels": 1, "mean": 0.5, "std": 0.25}
    body = network("test_resnet", in_chans=1)
    net = load("timm:test_resnet", weights=saved(tmp_path / "w.safetensors", body.state_dict()), **grey)  # type: ignore[arg-type]
    pixels = torch.rand(1, 1, 160, 160)
    torch.testing.assert_close(net(pixels), body((pixels - 0.5) / 0.25))
    colour = saved(tmp_path / "c.safetensors", network("test_resnet").state_dict())
    with pytest.raises(WeightsError, match=r"is \(\d+, 3, 3, 3\) in the file, \(\d+, 1, 3, 3\) in the network"):
        load("timm:test_resnet", weights=colour, **grey)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet5", "timm has no network 'resnet5'; nearest: 'timm:resnet50'"),
        ("resnet50.a1_in2k", "timm has no weights 'resnet50.a1_in2k'; nearest: 'timm:resnet50.a1_in1k'"),
        ("hf-hub:timm/test_vit", "timm has no network 'hf-hub:timm/test_vit'; nearest: "),
        ("/tmp", "timm has no network '/tmp'; nearest: "),
    ],
)
def test_unknown_names_get_the_nearest(name: str, words: str) -> None:
    with pytest.raises(NetworkError, match=re.escape(words)) as caught:
        load(f"timm:{name}", weights=None)
    assert len(str(caught.value).splitlines()) == 1


def test_networks_without_published_weights_say_so() -> None:
    name = next(name for name in timm.list_models() if not timm.models.get_pretrained_cfg(name).has_weights)
    with pytest.raises(WeightsError) as caught:
        load(f"timm:{name}")
    message = f"there are no published weights of timm:{name}: give weights=FILE, or weights=None for random ones"
    assert str(caught.value).startswith(message)
    with pytest.raises(WeightsError, match=r"those that there are: 'timm:resnet50\."):
        timm_models._downloaded("resnet50.none", {}, timm.models.get_arch_pretrained_cfgs("resnet50.a1_in1k"))


def test_without_timm_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    for name in ("timm:resnet50", "hf:timm/resnet50.a1_in1k"):
        with pytest.raises(NetworkError) as caught:
            load(name, weights=None)
        assert str(caught.value) == f"{name} needs timm: pip install 'convscope[timm]'"


def test_occlusion_in_parts_holds_with_a_class_token() -> None:
    """The token is of one picture where the tape was recorded, and of many where it is played."""
    net = load("timm:test_vit", weights=None)
    pixels, covering = torch.rand(1, 3, 160, 160), torch.full((1, 3, 160, 160), 0.5)
    squares = Occluder(160, 160, 32, 32)
    covered = Occlusions(net, pixels, [""], squares, covering, 2**26)
    assert covered.how.startswith("recomputed only what the occluder can reach")
    objective, found = as_objective(net, 281), torch.empty(25)
    for numbers, readings in covered.read(""):
        found[torch.from_numpy(numbers)] = objective.score(readings)
    expected = torch.cat([objective.score(covered._full(torch.tensor([n]).numpy())) for n in range(25)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_transformers_are_occluded_in_full_because_that_is_quicker() -> None:
    net = load("timm:vit_tiny_patch16_224", weights=None)
    pixels = torch.rand(1, 3, 224, 224)
    covered = Occlusions(net, pixels, [""], Occluder(224, 224, 60, 60), torch.zeros_like(pixels), 2**26)
    assert covered.how == "computed in full: recomputing parts would save nothing"


class Beside(nn.Module):
    """Lays constants beside what it has computed, while that still has rows and columns."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(nn.Conv2d(3 if i == 0 else 8, 8, 5, padding=2) for i in range(4)))
        self.last, self.token = nn.Conv2d(8, 4, 64), nn.Parameter(torch.rand(1, 2, 1, 1))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.convs(x))
        return self.head(torch.cat([x, self.token.expand(len(x), -1, -1, -1)], 1).flatten(1))


def test_occlusion_in_parts_holds_with_constants_beside_places() -> None:
    net = Net(Beside(), size=64)
    pixels, covering = torch.rand(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    covered = Occlusions(net, pixels, [""], Occluder(64, 64, 8, 8), covering, 2**26)
    assert covered.how.startswith("recomputed only"), covered.how
    for numbers, readings in covered.read(""):
        torch.testing.assert_close(readings[""], covered._full(numbers)[""], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("network", TABLE["NETWORKS"])
def test_every_method_runs_or_refuses_as_the_documents_say(network: str) -> None:
    found = TABLE["column"](network)
    assert found == TABLE["written"]()[network]
    assert sum(cell == TABLE["RUNS"] for cell in found.values()) >= 18
    assert all(len(cell) < 250 and "\n" not in cell for cell in found.values())


def test_the_table_is_read_as_it_is_written() -> None:
    written = TABLE["written"]()
    assert list(written) == list(TABLE["NETWORKS"])
    assert TABLE["table"](written) in (ROOT / "docs" / "networks.md").read_text()
