"""Weights: from every kind of file, never running code, and one clear sentence for whatever does not fit."""

from __future__ import annotations

import gzip
import os
import pickle
import random
import re
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision import models

from adversary.edits import edits, mutated
from convscope import Net, load
from convscope.data.samples import digits
from convscope.errors import NetworkError, WeightsError
from convscope.zoo.lenet import lenet5
from convscope.zoo.torchvision_models import names

fuzz = settings(max_examples=200, deadline=10_000, derandomize=True, suppress_health_check=list(HealthCheck))
State = dict[str, Tensor]


def random_state(body: nn.Module, *, seed: int = 3) -> State:
    """Weights that are certainly not those that the network began with."""
    generator = torch.Generator().manual_seed(seed)
    return OrderedDict(
        (key, torch.rand(value.shape, generator=generator) * 0.1 + 0.01 if value.is_floating_point() else value)
        for key, value in body.state_dict().items()
    )


@pytest.fixture(scope="session")
def resnet_state() -> State:
    return random_state(models.resnet18())


def holds(net: Net, state: State) -> bool:
    own = net.body.state_dict()
    return set(own) == set(state) and all(torch.equal(own[key], value) for key, value in state.items())


def refused(path: Path, name: str = "lenet5") -> str:
    with pytest.raises(WeightsError) as caught:
        load(name, weights=path)
    message = str(caught.value)
    assert str(path) in message and len(message.splitlines()) == 1
    return message


# Kinds of files


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin"])
def test_every_kind_of_file(suffix: str, resnet_state: State, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(resnet_state, path)
    for given_path in (path, str(path)):
        net = load("torchvision:resnet18", weights=given_path)
        assert holds(net, resnet_state) and net.note == ""


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 7, "args": {"lr": 0.1}},
        lambda state: {"model": state, "optimizer": {"state": {0: torch.zeros(3)}, "param_groups": []}},
        lambda state: {"state_dict": {"model": state}},
        lambda state: OrderedDict((f"module.{key}", value) for key, value in state.items()),
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {f"model.{key}": value for key, value in state.items()},
        lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
        lambda state: {"net": state, "epoch": 7, "optimizer": {"state": {0: torch.zeros(3)}}},
        lambda state: {"model_state_dict": state, "best": torch.ones(()), "averaged": {"conv1.weight": torch.zeros(1)}},
        lambda state: {**state, "epoch": 7, "name": "mine"},
        lambda state: {
            key: value.half().double() if value.is_floating_point() else value for key, value in state.items()
        },
        lambda state: {key: nn.Parameter(value) for key, value in state.items() if value.is_floating_point()},
    ],
    ids="state_dict model both module. inside model. _orig_mod. net model_state_dict more double parameters".split(),
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_nested_prefixed_and_mixed_files(wrap: Callable[[State], Any], legacy: bool, tmp_path: Path) -> None:
    state = OrderedDict((key, value.half().float()) for key, value in random_state(lenet5()).items())
    torch.save(wrap(state), tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    assert holds(load("lenet5", weights=tmp_path / "w.pt"), state)


def test_a_network_that_calls_its_own_part_model_keeps_the_name(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\nclass build(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.model = nn.Conv2d(3, 2, 3)\n"
    )
    state = {"model.weight": torch.rand(2, 3, 3, 3), "model.bias": torch.rand(2)}
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "w.pth")
    assert holds(load(f"file:{tmp_path}/mine.py", weights=tmp_path / "w.pth"), state)


def test_checkpoints_without_a_state_dict_of_ones_own(tmp_path: Path) -> None:
    torch.save({"G": {"a": torch.zeros(1)}, "D": {"a": torch.zeros(1)}}, tmp_path / "w.pth")
    assert "several state dicts, 'G', 'D': name one, as in weights='w.pth#G'" in refused(tmp_path / "w.pth")
    itself: dict[str, Any] = {}
    itself["model"] = itself
    torch.save(itself, tmp_path / "w.pth")
    assert "holds dict without tensors" in refused(tmp_path / "w.pth")


@pytest.mark.parametrize("model", ["resnet18", "googlenet", "squeezenet1_0", "densenet121"])
def test_a_network_tuned_to_other_classes(model: str, tmp_path: Path) -> None:
    options = {"init_weights": False} if model == "googlenet" else {}
    state = random_state(models.get_model(model, weights=None, num_classes=7, **options))
    save_file({f"module.{key}": value for key, value in state.items()}, tmp_path / "w.safetensors")
    net = load(f"torchvision:{model}", weights=tmp_path / "w.safetensors")
    assert holds(net, state) and net.output.shape == (7,) and net.classes == ()
    names = tuple("abcdefg")
    assert load(f"torchvision:{model}", weights=tmp_path / "w.safetensors", classes=names).classes == names


def test_a_head_of_one_number_per_class_is_not_made_larger_than_its_file(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.zeros(3_000_000, 1)}, tmp_path / "w.safetensors")
    assert "fc.weight is (3000000, 1) in the file, (1000, 512)" in refused(
        tmp_path / "w.safetensors", "torchvision:resnet18"
    )


# Architectures whose own loading code does more than copy: old names, versions, buffers that may be missing.
@pytest.mark.parametrize(
    "model",
    ["squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small", "mnasnet0_5", "regnet_x_400mf", "efficientnet_b0"],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_architectures_from_files(model: str, suffix: str, tmp_path: Path) -> None:
    body, path = models.get_model(model, weights=None), tmp_path / f"w{suffix}"
    state = random_state(body)
    without = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    (save_file if suffix == ".safetensors" else torch.save)(without, path)
    assert holds(load(f"torchvision:{model}", weights=path), state)


def test_densenet_from_a_file_with_the_names_that_torchvision_publishes(tmp_path: Path) -> None:
    """The published files say norm.1 where the network says norm1; torchvision renames as it downloads."""
    state = random_state(models.densenet121())
    published = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in published
    torch.save(published, tmp_path / "densenet121-a639ec97.pth")
    assert holds(load("torchvision:densenet121", weights=tmp_path / "densenet121-a639ec97.pth"), state)


@pytest.mark.parametrize("model", ["googlenet", "inception_v3"])
@pytest.mark.parametrize("auxiliary", [True, False])
def test_networks_with_and_without_auxiliary_heads(model: str, auxiliary: bool, tmp_path: Path) -> None:
    builder: Any = getattr(models, model)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        peer = builder(weights=None, aux_logits=auxiliary, init_weights=False, transform_input=True).eval()
    assert any(key.lower().startswith("aux") for key in peer.state_dict()) == auxiliary
    torch.save(peer.state_dict(), tmp_path / "w.pth")
    net = load(f"torchvision:{model}", weights=tmp_path / "w.pth")
    pixels = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(net(pixels), peer(net.normalise(pixels)))


def test_real_weights_give_real_answers(squeezenet: Net, chelsea: np.ndarray) -> None:
    assert squeezenet.class_name(int(squeezenet(squeezenet.read(chelsea)).argmax())) == "Egyptian cat"


# What does not fit


def test_keys_and_shapes_that_do_not_fit_are_named(resnet_state: State, tmp_path: Path) -> None:
    state = dict(resnet_state)
    del state["layer1.0.conv1.weight"], state["bn1.running_mean"]
    state["head.weight"] = torch.zeros(3)
    state["fc.weight"] = torch.zeros(10, 500)
    state["fc.bias"] = torch.zeros(10)
    save_file(state, tmp_path / "w.safetensors")
    message = refused(tmp_path / "w.safetensors", "torchvision:resnet18")
    assert "does not fit torchvision:resnet18" in message
    assert "2 missing from the file (bn1.running_mean, layer1.0.conv1.weight)" in message
    assert "1 unknown to the network (head.weight)" in message
    assert "2 of another shape (fc.weight is (10, 500) in the file, (1000, 512) in the network, fc.bias is" in message
    assert message.endswith("If its layers were changed, build it by a function of your own: file:my_model.py:build")


def test_another_networks_weights(resnet_state: State, tmp_path: Path) -> None:
    save_file(resnet_state, tmp_path / "w.safetensors")
    message = refused(tmp_path / "w.safetensors", "lenet5")
    assert "9 missing from the file (conv1.bias, conv2.weight, conv2.bias, ...)" in message
    assert "1 of another shape (conv1.weight is (64, 3, 7, 7) in the file, (6, 1, 5, 5) in the network)" in message


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite(value: float, tmp_path: Path) -> None:
    state = random_state(lenet5())
    state["conv2.weight"][3, 1, 2, 2] = value
    save_file(state, tmp_path / "w.safetensors")
    assert "NaN or infinite weights in conv2.weight" in refused(tmp_path / "w.safetensors")


@pytest.mark.parametrize("content", [{}, [], "weights", {"a": 1}, torch.zeros(3), {"state_dict": {}}, None], ids=repr)
def test_files_without_a_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    assert "not a state dict" in refused(tmp_path / "w.pt")


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.pt") == f"there is no weights file {tmp_path / 'none.pt'}"
    assert refused(tmp_path) == f"{tmp_path} is not a training run: it has no history.json"


# Files that carry code


class Payload:
    """Unpickling this runs a command."""

    def __init__(self, marker: Path) -> None:
        self.command = f"touch '{marker}'"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def _as_zip(payload: Payload, path: Path) -> None:
    torch.save({**random_state(lenet5()), "extra": payload}, path)


def _as_legacy(payload: Payload, path: Path) -> None:
    torch.save({**random_state(lenet5()), "extra": payload}, path, _use_new_zipfile_serialization=False)


def _as_pickle(payload: Payload, path: Path) -> None:
    path.write_bytes(pickle.dumps(payload))


@pytest.mark.parametrize("write", [_as_zip, _as_legacy, _as_pickle])
def test_files_that_carry_code_are_refused_and_run_nothing(
    write: Callable[[Payload, Path], None], tmp_path: Path
) -> None:
    marker, path = tmp_path / "executed", tmp_path / "w.pt"
    write(Payload(marker), path)
    message = refused(path)
    assert "is refused" in message and "would run code" in message and "torch.save(model.state_dict(), path)" in message
    assert not marker.exists()
    torch.load(path, weights_only=False) if write is not _as_pickle else pickle.loads(path.read_bytes())
    assert marker.exists(), "the payload is real"


def test_whole_modules_are_refused_with_the_lines_that_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(lenet5(), tmp_path / "w.pt")
    message = refused(tmp_path / "w.pt")
    assert "more than tensors, a whole module (torch.nn.modules.container.Sequential)" in message
    lines = (
        "import torch; model = torch.load('w.pt', weights_only=False); torch.save(model.state_dict(), 'weights.pth')"
    )
    assert message.endswith(lines)
    monkeypatch.chdir(tmp_path)
    exec(lines)
    assert holds(load("lenet5", weights=tmp_path / "weights.pth"), torch.load(tmp_path / "weights.pth"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_scripted_modules_are_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(lenet5(), torch.zeros(1, 1, 28, 28)), tmp_path / "w.pt")
    refused(tmp_path / "w.pt")


# Damaged files


def _damageable() -> dict[str, bytes]:
    folder, state = Path(os.environ.get("TMPDIR", "/tmp")) / f"convscope-{os.getpid()}", random_state(lenet5())
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "w.safetensors")
    torch.save(state, folder / "w.pt")
    torch.save({"state_dict": state}, folder / "w.pth", _use_new_zipfile_serialization=False)
    contents = {path.suffix: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    return contents


CONTENTS = _damageable()
PLACES = st.integers(0, 1500) | st.integers(0, 300_000) | st.integers(-4000, -1)


def check_loads_or_weights_error(path: Path) -> None:
    try:
        net = load("lenet5", weights=path)
    except WeightsError as error:
        assert str(path) in str(error) and len(str(error).splitlines()) == 1
    else:
        assert all(torch.isfinite(value).all() for value in net.body.state_dict().values())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", CONTENTS)
def test_damaged_files_load_or_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"

    @given(edits(PLACES))
    @fuzz
    def check(changes: list[tuple[int, str, bytes]]) -> None:
        path.write_bytes(mutated(CONTENTS[suffix], changes))
        check_loads_or_weights_error(path)

    check()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", CONTENTS)
def test_damage_to_the_structure_loads_or_is_refused(suffix: str, tmp_path: Path) -> None:
    """Damage a file of three small tensors, where nearly every byte is structure and not a number."""
    path, state, dice = tmp_path / f"w{suffix}", {"a": torch.rand(2), "b": torch.rand(2, 1)}, random.Random(0)
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=suffix == ".pt")
    whole = path.read_bytes()
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(dice.choice([1, 1, 3])):
            at = dice.randrange(min(len(content), 400))
            content[at : at + dice.choice([0, 1, 1, 1, 4])] = bytes([dice.randrange(256)]) * dice.choice([0, 1, 1, 1])
        path.write_bytes(content)
        check_loads_or_weights_error(path)


def test_a_list_of_tensors_without_end_is_not_walked(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + b"(" * 10**7)
    assert refused(path).endswith("is damaged: its list of tensors has more than 8 MiB")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", CONTENTS)
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_files_that_are_cut_short(suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(CONTENTS[suffix][: int(share * len(CONTENTS[suffix]))])
    assert "damaged" in refused(path) or "refused" in refused(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", CONTENTS)
def test_random_and_foreign_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    noise = np.random.default_rng(0).bytes(5000)
    for content in (noise, b"hello world, this is no file of weights\n" * 9, digits()[0].read_bytes(), bytes(4096)):
        path.write_bytes(content)
        refused(path)


def test_a_file_with_anothers_suffix(tmp_path: Path) -> None:
    for suffix, content in ((".pt", CONTENTS[".safetensors"]), (".safetensors", CONTENTS[".pt"])):
        (tmp_path / f"w{suffix}").write_bytes(content)
        refused(tmp_path / f"w{suffix}")


# Random weights


@pytest.mark.parametrize("weights", [None, "none", "None"])
def test_random_weights_are_the_same_every_time_and_said(weights: str | None) -> None:
    torch.manual_seed(11)
    one = load("torchvision:squeezenet1_1", weights=weights)
    torch.manual_seed(12)
    other = load("torchvision:squeezenet1_1", weights=weights)
    assert one.note == other.note == "random weights, seed 0"
    assert holds(one, other.body.state_dict()) and one.digest == other.digest
    assert load("lenet5", weights=weights).digest != load("lenet5").digest


@pytest.mark.parametrize("name", ["lenet5", "torchvision:googlenet", "torchvision:shufflenet_v2_x0_5"])
def test_loading_leaves_random_number_generators_alone(name: str) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    load(name, weights=None)
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    assert torch.equal(before[0], after[0]) and np.array_equal(before[1], after[1]) and before[2] == after[2]


# Names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lenet", ["'lenet5'"]),
        ("LeNet-5", ["'lenet5'"]),
        ("alexnet", ["did you mean 'torchvision:alexnet'?"]),
        ("torchvision:alexnot", ["'torchvision:alexnet'"]),
        ("torchvision:resnet19", ["'torchvision:resnet18'"]),
        ("timm:resnet19", ["'timm:resnet18'"]),
        ("torchvison:vgg16", ["'torchvision:vgg16'"]),
        ("torchvision:lraspp_mobilenet_v3_large", ["get_model('lraspp_mobilenet_v3_large')"]),
        ("torchvision:", ["torchvision"]),
        ("torchvision", ["'torchvision:"]),
        ("lenet5:big", ["'lenet5'"]),
        ("zfnet:wde", ["'zfnet:wide'"]),
        ("", ["'lenet5'"]),
    ],
)
def test_unknown_networks_get_the_nearest_names(name: str, words: list[str]) -> None:
    with pytest.raises(NetworkError) as caught:
        load(name, weights=None)
    message = str(caught.value)
    assert all(word in message for word in words) and len(message.splitlines()) == 1
    quoted = re.findall(r"'torchvision:([^']+)'", message)
    assert set(quoted) <= {*names(), name.partition(":")[2]}, "every name that is offered exists"


def test_names_are_those_of_torchvision() -> None:
    assert list(names()) == sorted(models.list_models(module=models))


# Downloads


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no way out: the proxy is a port at which nobody listens."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_a_download_that_fails_says_what_to_do(cache: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load("torchvision:alexnet")
    message = str(caught.value)
    assert message.startswith("cannot get the weights of torchvision:alexnet (") and len(message.splitlines()) == 1
    assert f"Put alexnet-owt-7be5be79.pth (233 MB) into {cache}" in message
    assert "weights=PATH" in message and "weights=None" in message
    assert list(cache.iterdir()) == []


FILE = "squeezenet1_0-b66bff10.pth"


def test_a_file_in_the_cache_is_used(cache: Path, data: Callable[[str], Path], chelsea: np.ndarray) -> None:
    state = load_file(data("weights/squeezenet1_0.safetensors"))
    torch.save(state, cache / FILE)
    net = load("torchvision:squeezenet1_0")
    assert holds(net, state) and net.note == ""
    assert net.class_name(int(net(net.read(chelsea)).argmax())) == "Egyptian cat"


def _cut(path: Path) -> None:
    torch.save(random_state(models.squeezenet1_0()), path)
    path.write_bytes(path.read_bytes()[:-5000])


def _other(path: Path) -> None:
    state = random_state(models.squeezenet1_0())
    del state["features.0.weight"]
    torch.save(state, path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "write",
    [_cut, _other, lambda path: path.touch(), lambda path: path.write_text("<html>404</html>" * 99)],
    ids=["cut", "other", "empty", "page"],
)
def test_a_damaged_file_in_the_cache_is_one_clear_sentence(cache: Path, write: Callable[[Path], Any]) -> None:
    write(cache / FILE)
    with pytest.raises(WeightsError) as caught:
        load("torchvision:squeezenet1_0")
    assert FILE in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_file_in_the_cache_that_carries_code_runs_nothing(cache: Path, tmp_path: Path) -> None:
    torch.save({**random_state(models.squeezenet1_0()), "extra": Payload(tmp_path / "executed")}, cache / FILE)
    with pytest.raises(WeightsError):
        load("torchvision:squeezenet1_0")
    assert not (tmp_path / "executed").exists()


# The network that ships with the package


def test_lenet5_names_the_sample_digits() -> None:
    net = load("lenet5")
    assert [int(net(net.read(path)).argmax()) for path in digits()] == list(range(10))
    assert net.note == "" and net.classes == tuple("0123456789")
    assert sum(parameter.numel() for parameter in net.body.parameters()) == 61_706


def test_lenet5_names_digits_that_it_has_not_seen(data: Callable[[str], Path]) -> None:
    images, labels = (
        np.frombuffer(gzip.decompress(data(f"mnist/t10k-{name}-ubyte.gz").read_bytes()), np.uint8)
        for name in ("images-idx3", "labels-idx1")
    )
    held_out = torch.randperm(10_000, generator=torch.Generator().manual_seed(0))[-2000:]
    pixels = torch.from_numpy(images[16:].reshape(-1, 1, 28, 28).copy())[held_out] / 255
    with torch.no_grad():
        right = load("lenet5")(pixels).argmax(1) == torch.from_numpy(labels[8:].copy())[held_out]
    assert right.float().mean() >= 0.985
