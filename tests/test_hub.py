"""Networks of timm from a hub: a real server, real files, and what a user does wrong."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from convscope import load
from convscope.errors import ConvscopeError, NetworkError, WeightsError
from convscope.zoo import downloads
from hub_server import Hub, serving

timm = pytest.importorskip("timm")

PETS = ["n02123045", "n02124075", "own"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Hub]:
    """A hub without repositories, and caches that are empty."""
    import huggingface_hub

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "library"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub


def network(**options: Any) -> Any:
    torch.manual_seed(3)
    return timm.create_model("test_resnet", **options).eval()


def upload(folder: Path, body: Any, **told: Any) -> None:
    """Write a repository as timm itself does, without its model card."""
    timm.models.save_for_hf(body, str(folder), model_config=told, safe_serialization=True)


@pytest.fixture
def pets(hub: Hub) -> Any:
    """A network for three classes, in the hub."""
    body = network(num_classes=3)
    body.pretrained_cfg |= {"crop_pct": 0.8, "crop_mode": "squash", "mean": (0.1, 0.2, 0.3)}
    told = {"label_names": PETS, "label_descriptions": {"n02123045": "tabby", "n02124075": "Egyptian cat"}}
    upload(hub.repository("me/pets"), body, **told)
    return body


def test_a_network_of_the_hub_is_what_its_repository_says(hub: Hub, pets: Any) -> None:
    net = load("hf:me/pets")
    assert (net.name, net.note) == ("me/pets", "")
    assert net.classes == ("tabby", "Egyptian cat", "own")
    assert (net.fit.size, net.fit.resize, net.fit.interpolation) == ((160, 160), (200, 200), "bilinear")
    pixels = torch.rand(2, 3, 160, 160)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5)))
    with torch.no_grad():
        torch.testing.assert_close(net(pixels), pets((pixels - mean) / std))


def test_files_are_downloaded_once_and_read_offline_afterwards(
    hub: Hub, pets: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = load("hf:me/pets")
    assert hub.asked == ["config.json", "model.safetensors"]
    assert "downloading hf-me--pets-model.safetensors" in capsys.readouterr().err
    assert sorted(path.name for path in downloads.cache().iterdir()) == [
        "hf-me--pets-config.json",
        "hf-me--pets-model.safetensors",
    ]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert load("hf:me/pets").digest == first.digest
    assert len(hub.asked) == 2


def test_random_weights_need_the_description_alone(hub: Hub, pets: Any) -> None:
    net = load("hf:me/pets", weights=None)
    assert hub.asked == ["config.json"]
    assert net.note == "random weights, seed 0" and net.output.shape == (3,)


def test_a_revision_and_weights_of_ones_own(hub: Hub, pets: Any, tmp_path: Path) -> None:
    upload(hub.repository("me/pets", "v2"), network(num_classes=4))
    assert load("hf:me/pets@v2").output.shape == (4,)
    assert (downloads.cache() / "hf-me--pets@v2-model.safetensors").is_file()
    own = tmp_path / "own.safetensors"
    save_file(network(num_classes=7).state_dict(), own)
    assert load("hf:me/pets", weights=own).output.shape == (7,)
    assert load("hf:me/pets", weights=own).classes == ()


def test_arguments_of_the_network_are_taken_from_its_description(hub: Hub) -> None:
    body = network(in_chans=1, num_classes=2)
    body.pretrained_cfg |= {"input_size": (1, 64, 64), "mean": (0.5,), "std": (0.2,)}
    folder = hub.repository("me/grey")
    upload(folder, body)
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | {"model_args": {"in_chans": 1}}))
    net = load("hf:me/grey")
    assert (net.channels, net.size, net.mean) == (1, (64, 64), (0.5,))
    assert net(torch.rand(1, 1, 64, 64)).shape == (1, 2)


def test_pytorch_files_are_read_where_there_are_no_others(hub: Hub, pets: Any) -> None:
    folder = hub.repository("me/pets")
    torch.save(pets.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    found = load("hf:me/pets")
    assert hub.asked == ["config.json", "model.safetensors", "pytorch_model.bin"]
    torch.testing.assert_close(found.body.conv1[0].weight.data, pets.conv1[0].weight.data)
    assert load("hf:me/pets").digest == found.digest and len(hub.asked) == 3


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("evil"),)


def test_weights_with_code_are_refused(hub: Hub, pets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = hub.repository("me/pets")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(WeightsError, match=r"is refused: it holds more than tensors|is not a weights file"):
        load("hf:me/pets")
    torch.save({"state_dict": Evil()}, folder / "pytorch_model.bin")
    (downloads.cache() / "hf-me--pets-pytorch_model.bin").unlink()
    with pytest.raises(WeightsError, match=r"is refused: it holds more than tensors, .* and loading it would run code"):
        load("hf:me/pets")
    assert not Path("evil").exists()


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_connection_that_breaks_off_leaves_nothing_half(hub: Hub, pets: Any, file: str) -> None:
    hub.breaks = file
    with pytest.raises(WeightsError, match=r"broke off after [\d,]+ of [\d,]+ bytes\)\. Put hf-me--pets-"):
        load("hf:me/pets")
    assert [path.name for path in downloads.cache().iterdir()] == ["hf-me--pets-config.json"] * (file != "config.json")
    hub.breaks = "(none)"
    load("hf:me/pets")


def test_what_has_another_digest_is_not_kept(hub: Hub, pets: Any) -> None:
    url = f"{hub.address}/me/pets/resolve/main/config.json"
    digest = hashlib.sha256((hub.repository("me/pets") / "config.json").read_bytes()).hexdigest()
    with pytest.raises(WeightsError, match=rf"cannot get it \(what came has the SHA-256 {digest[:8]}, not 01234567\)"):
        downloads.fetch(url, "x.json", what="it", digest="01234567")
    assert list(downloads.cache().iterdir()) == []
    assert downloads.fetch(url, "x.json", what="it", digest=digest[:8]).is_file()


def test_a_repository_that_does_not_exist_or_needs_a_login(hub: Hub, pets: Any) -> None:
    with pytest.raises(WeightsError) as caught:
        load("hf:me/dogs")
    assert str(caught.value) == (
        f"cannot get the description of hf:me/dogs: there is no config.json in {hub.address}/me/dogs (revision main), "
        "or there is no such repository"
    )
    hub.private = "me/pets"
    with pytest.raises(WeightsError) as caught:
        load("hf:me/pets")
    assert f"{hub.address}/me/pets does not exist, or is shown only after a login (401)" in str(caught.value)
    assert f"put it as hf-me--pets-config.json into {downloads.cache()}" in str(caught.value)


def test_without_a_network_it_says_where_to_put_which_file(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError) as caught:
        load("hf:me/pets")
    message = str(caught.value)
    assert "config.json of http://127.0.0.1:9/me/pets (no connection: Connection refused)" in message
    assert message.endswith(f"Put hf-me--pets-config.json into {downloads.cache()}")
    with pytest.raises(WeightsError) as caught:
        load("timm:test_resnet")
    message = str(caught.value)
    assert f"Put timm-test_resnet.r160_in1k.safetensors into {downloads.cache()}, or give weights=PATH" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("told", "error", "words"),
    [
        ('{"model_type": "resnet", "architectures": ["ResNetForImageClassification"]}', NetworkError,
         "hf:me/other is not a network of timm (ResNetForImageClassification): others are loaded by their own library"),
        ('{"model_type": "bert"}', NetworkError, "is not a network of timm (bert)"),
        ("{}", NetworkError, "is not a network of timm (of an unknown kind)"),
        ("[1]", NetworkError, "it is a list of 1; a table is needed"),
        ("{", NetworkError, "is damaged"),
        pytest.param("[" * 100_000, NetworkError, "is damaged", id="nested"),
        ('{"architecture": "test_resnets"}', NetworkError, "version of timm does not have; nearest: 'test_resnet'"),
        ('{"architecture": ["test_resnet"]}', NetworkError, "architecture is a list"),
        ('{"architecture": "hf-hub:you/there"}', NetworkError, "which this version of timm does not have"),
        ('{"architecture": "test_resnet", "model_args": {"checkpoint_path": "/x"}}', NetworkError,
         "hf:me/other is refused: its config.json sets checkpoint_path, which a network may not"),
        ('{"architecture": "test_resnet", "model_args": 3}', NetworkError, "model_args is 3; a table"),
        ('{"architecture": "test_resnet", "model_args": {"img_size": "large"}}', NetworkError, "input_size"),
        ('{"architecture": "test_resnet", "model_args": {"wings": 2}}', NetworkError, "timm cannot build hf:me/other"),
        ('{"architecture": "test_resnet", "pretrained_cfg": {"mean": "grey"}}', ConvscopeError, "mean"),
        ('{"architecture": "test_resnet", "pretrained_cfg": {"mean": [0.5, 0.5]}}', ConvscopeError, "mean"),
        ('{"architecture": "test_resnet", "pretrained_cfg": {"crop_pct": 0}}', ConvscopeError, "crop_pct"),
        ('{"architecture": "test_resnet", "pretrained_cfg": {"input_size": [3]}}', ConvscopeError, "input_size"),
        ('{"architecture": "test_resnet", "pretrained_cfg": {"input_size": [3, 1e400, 2]}}', NetworkError, "input_"),
        ('{"architecture": "test_resnet", "num_classes": -3}', ConvscopeError, "num_classes"),
        ('{"architecture": "test_resnet", "num_classes": 1e15}', ConvscopeError, "num_classes"),
    ],
)  # fmt: skip
def test_descriptions_that_are_of_no_use(hub: Hub, told: str, error: Any, words: str) -> None:
    (hub.repository("me/other") / "config.json").write_text(told)
    with pytest.raises(error, match=re.escape(words)) as caught:
        load("hf:me/other", weights=None)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["pets", "me/pets/more", "../x", "me/../pets", "/etc/passwd", "me/pets@"])
def test_names_that_are_none(hub: Hub, name: str) -> None:
    with pytest.raises(ConvscopeError, match="names no repository of the hub: write hf:ORG/NAME"):
        load(f"hf:{name}")
    assert hub.asked == []


def test_weights_of_timm_itself_come_from_the_hub(hub: Hub) -> None:
    body = network()
    upload(hub.repository("timm/test_resnet.r160_in1k"), body)
    net = load("timm:test_resnet")
    assert hub.asked == ["model.safetensors"]
    assert (net.name, net.note) == ("test_resnet.r160_in1k", "")
    assert (downloads.cache() / "timm-test_resnet.r160_in1k.safetensors").is_file()
    torch.testing.assert_close(net.body.fc.weight.data, body.fc.weight.data)
    assert load("timm:test_resnet.r160_in1k").digest == net.digest and len(hub.asked) == 1


def test_what_the_library_of_the_hub_has_is_not_downloaded_again(hub: Hub, tmp_path: Path) -> None:
    from convscope.zoo.timm_models import cached

    assert cached("test_resnet") is cached("test_resnet.r160_in1k") is None
    repository = tmp_path / "library" / "models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    upload(snapshot, network())
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    net = load("timm:test_resnet")
    torch.testing.assert_close(net.body.fc.weight.data, network().fc.weight.data)
    assert hub.asked == [] and not downloads.cache().exists()
    assert cached("test_resnet.r160_in1k") == cached("test_resnet") == snapshot / "model.safetensors"
