"""Checkpoints as training frameworks write them: the network's weights are found, and nothing else of the file runs."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convscope import Net, load
from convscope.errors import WeightsError

State = dict[str, Tensor]

MODEL = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, 3))
"""


def weights(seed: int = 0) -> State:
    torch.manual_seed(seed)
    body = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    return {
        key: torch.rand_like(value) if value.is_floating_point() else value for key, value in body.state_dict().items()
    }


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "made.py"
    path.write_text(MODEL)
    return f"file:{path}:build"


def saved(content: Any, folder: Path, **options: Any) -> Path:
    path = folder / "w.ckpt"
    torch.save(content, path, **options)
    return path


def holds(net: Net, state: State) -> bool:
    own = net.body.state_dict()
    return set(own) == set(state) and all(torch.equal(own[key], value) for key, value in state.items())


class Colour(enum.Enum):
    RED = 1


class Config(dict[str, Any]):
    """What a framework calls its configuration: a dict with attributes."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Slotted:
    __slots__ = ("rate",)

    def __init__(self) -> None:
        self.rate = 0.1


BESIDE: dict[str, Any] = {
    "namespace": argparse.Namespace(lr=0.1, out=PurePosixPath("/runs"), hooks=[len]),
    "config": Config(lr=Config(start=0.1)),
    "numpy": {"best": np.float64(0.9), "step": np.int64(3), "curve": np.arange(5), "names": np.array(["a", "b"])},
    "date": datetime.datetime(2024, 2, 3, 4, 5, tzinfo=datetime.UTC),
    "enum": Colour.RED,
    "path": Path("runs"),
    "sets": [{1, 2}, frozenset((3,)), b"bytes", bytearray(b"b"), 2 + 3j, slice(1, 2), range(4)],
    "collections": [collections.defaultdict(list, a=[1]), collections.Counter("aab"), collections.deque([1])],
    "keys": {Colour.RED: 1, np.int64(3): 2},
    "functions": [partial(print, 1), len, datetime.date.today],
    "torch": [torch.float16, torch.device("cpu"), torch.Size((1, 2)), torch.Generator().get_state(), nn.ReLU()],
    "slots": Slotted(),
}


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}], ids=str)
def test_what_stands_beside_the_weights_is_not_needed(
    beside: str, options: dict[str, Any], model: str, tmp_path: Path
) -> None:
    state = weights()
    path = saved({"state_dict": state, "hyper_parameters": BESIDE[beside], "epoch": 3}, tmp_path, **options)
    net = load(model, weights=path, size=8)
    assert holds(net, state) and net.note == "reads pixels in [0, 1] as they are, since no mean and std were given"


def lightning(state: State) -> dict[str, Any]:
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {**under("model.", state), "criterion.pos_weight": torch.ones(3), "train_acc.tp": torch.ones(3)},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}],
        "hyper_parameters": argparse.Namespace(lr=0.1),
    }


def torchvision_reference(state: State) -> dict[str, Any]:
    return {
        "model": state,
        "model_ema": {**under("module.", weights(1)), "n_averaged": torch.tensor(5)},
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []},
        "lr_scheduler": {"last_epoch": 3},
        "args": argparse.Namespace(lr=0.1),
    }


MAKERS: dict[str, Callable[[State], Any]] = {
    "lightning": lightning,
    "torchvision": torchvision_reference,
    "timm": lambda s: {"arch": "x", "state_dict": s, "state_dict_ema": weights(1), "args": argparse.Namespace(lr=1)},
    "ddp": lambda s: {"model": under("module.", s)},
    "compiled ddp": lambda s: {"model": under("module._orig_mod.", s)},
    "compiled part": lambda s: {"model": {key.replace("0.", "0._orig_mod."): value for key, value in s.items()}},
    "fsdp": lambda s: under("_fsdp_wrapped_module.", s),
    "backbone": lambda s: {"state_dict": {**under("backbone.", s), "head.weight": torch.zeros(2)}},
    "deepspeed": lambda s: {"module": s, "ds_config": {"lr": 0.1}},
    "ema of lightning": lambda s: {"state_dict": {**under("model.", s), **under("ema_model.module.", weights(1))}},
    "plain with a loss": lambda s: {**s, "criterion.weight": torch.ones(3), "val_metric.total": torch.ones(1)},
    "ordered": OrderedDict,
    "a config that holds it": lambda s: Config(model=s),
    "optimizer of the same names": lambda s: {"state_dict": s, "optimizer": {"exp_avg": weights(1)}},
}  # fmt: skip


@pytest.mark.parametrize("maker", MAKERS)
def test_the_network_s_weights_are_found(maker: str, model: str, tmp_path: Path) -> None:
    state = weights()
    assert holds(load(model, weights=saved(MAKERS[maker](state), tmp_path), size=8), state)


def test_averaged_weights_are_taken_when_asked_for(model: str, tmp_path: Path) -> None:
    """The plain ones are the default, and a caption says that there are others."""
    path = saved(MAKERS["timm"](weights()), tmp_path)
    assert "weights under 'state_dict' of w.ckpt, which also has 'state_dict_ema'" in load(model, weights=path).note
    assert holds(load(model, weights=f"{path}#state_dict_ema"), weights(1))
    path = saved(torchvision_reference(weights()), tmp_path)
    assert holds(load(model, weights=f"{path}#model_ema"), weights(1))
    with pytest.raises(WeightsError, match="has nothing under 'ema' that fits; it holds 'model', 'model_ema'"):
        load(model, weights=f"{path}#ema")
    alone = saved({"model_ema": under("module.", weights(1))}, tmp_path)
    assert holds(load(model, weights=alone), weights(1))


def test_two_networks_of_one_shape_must_be_told_apart(model: str, tmp_path: Path) -> None:
    one, other = weights(1), weights(2)
    for content in (
        {"student": under("module.", one), "teacher": under("module.", other)},
        {"state_dict": {**under("student.", one), **under("teacher.", other)}},
    ):
        path = saved(content, tmp_path)
        with pytest.raises(
            WeightsError, match=r"holds several state dicts, .*student.*teacher.*: name one, as in"
        ) as error:
            load(model, weights=path)
        name = str(error.value).rpartition("#")[2].rstrip("'").replace("student", "teacher")
        assert holds(load(model, weights=f"{path}#{name}"), other)


def test_layers_that_the_network_lacks_are_never_dropped(model: str, tmp_path: Path) -> None:
    """A deeper network's file has all keys of a shallower one."""
    path = saved({**weights(), "6.weight": torch.zeros(3, 3)}, tmp_path)
    with pytest.raises(WeightsError, match=r"1 unknown to the network \(6.weight\)"):
        load(model, weights=path)
    noted = saved({"state_dict": {**under("net.", weights()), "decoder.weight": torch.zeros(3)}}, tmp_path)
    assert "left out of w.ckpt: 'decoder'" in load(model, weights=noted).note


def test_a_module_in_a_checkpoint_is_refused_with_the_lines_that_help(model: str, tmp_path: Path) -> None:
    path = saved({"model": nn.Sequential(nn.Conv2d(3, 4, 3)), "epoch": 3}, tmp_path)
    with pytest.raises(WeightsError, match=r"a whole module .*weights_only=False\)\['model'\]; torch.save\(model"):
        load(model, weights=path)


def test_a_distributed_checkpoint_is_told_how_to_become_one_file(model: str, tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(b"")
    with pytest.raises(WeightsError, match="dcp_to_torch_save"):
        load(model, weights=tmp_path)


# Attacks


def touched(folder: Path) -> Path:
    return folder / "executed"


class Calls:
    """Unpickling this calls a function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args


def attacks(marker: Path) -> dict[str, Any]:
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": Calls(os.system, f"touch '{marker}'"),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "open": Calls(open, str(marker), "w"),
        "path": Calls(Path.touch, marker),
        "numpy": Calls(np.save, str(marker) + ".npy", 1),
        "torch": Calls(torch.save, {}, str(marker)),
        "partial": Calls(partial(os.system, f"touch '{marker}'")),
        "getattr": Calls(getattr, argparse.ArgumentParser, "parse_args"),
        "memory map": Calls(np.memmap, str(marker), "uint8", "w+", 0, 4),
    }


@pytest.mark.parametrize("attack", attacks(Path("x")))
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}], ids=str)
def test_no_function_that_a_file_names_is_called(
    attack: str, options: dict[str, Any], model: str, tmp_path: Path
) -> None:
    """Refused, or read as if it were not there: in both cases nothing has run."""
    state = weights()
    path = saved({"state_dict": state, "extra": attacks(touched(tmp_path))[attack]}, tmp_path, **options)
    before = set(tmp_path.iterdir())
    try:
        assert holds(load(model, weights=path), state)
    except WeightsError as error:
        assert "is refused: it calls" in str(error)
    assert set(tmp_path.iterdir()) == before


def written(pickled: bytes, folder: Path) -> Path:
    """Put a pickle of one's own into an archive as torch writes it."""
    with zipfile.ZipFile(folder / "w.ckpt", "w", zipfile.ZIP_STORED) as file:
        for name, content in (("data.pkl", pickled), ("version", b"3\n"), ("byteorder", b"little")):
            file.writestr(f"w/{name}", content)
    return folder / "w.ckpt"


def test_a_file_changes_nothing_that_others_use(model: str, tmp_path: Path) -> None:
    """BUILD sets attributes of whatever stands on the stack: of what is imported here, there is nothing."""
    for module, name in (("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2"), ("torch", "Tensor")):
        slots = b"(NU\x01a}X\x07\x00\x00\x00changedK\x01s\x86b"
        path = written(b"\x80\x02c" + f"{module}\n{name}\n".encode() + slots.replace(b"U\x01a", b"") + b".", tmp_path)
        with pytest.raises(WeightsError):
            load(model, weights=path)
        target = {"collections": OrderedDict, "torch._utils": torch._utils._rebuild_tensor_v2, "torch": Tensor}[module]
        assert not hasattr(target, "changed")


def test_the_source_of_a_module_is_not_looked_up(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the old format name a module with its source; torch would write a patch where that has changed."""
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "w.ckpt", _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match="a whole module"):
        load(model, weights=tmp_path / "w.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["w.ckpt"]


def test_pickles_agree_with_torch_on_tensors_of_every_kind(tmp_path: Path) -> None:
    from convscope.zoo.weights import read_weights

    base = torch.rand(4, 6)
    tensors = {
        "view": base[1:, ::2], "base": base, "half": base.half(), "bf16": base.bfloat16(), "bool": base > 0.5,
        "long": torch.arange(3), "empty": torch.empty(0, 2), "scalar": torch.tensor(2.0),
        "parameter": nn.Parameter(base.clone()), "uint16": torch.arange(3).to(torch.uint16), "t": base.T,
        "sparse": base.to_sparse(),
    }  # fmt: skip
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        if options:
            del tensors["uint16"]  # which torch itself cannot read back from there
        path = saved(tensors, tmp_path, **options)
        found, true = read_weights(path).tensors, torch.load(path)
        assert {key for key in true if key != "sparse"} <= set(found)
        for key in set(found) - {"sparse"}:
            assert found[key].dtype == true[key].dtype and found[key].stride() == true[key].stride()
            assert torch.equal(found[key], true[key])


def test_pickles_read_beside_files_are_harmless_too() -> None:
    from convscope.zoo import pickles

    stand_in = pickles.load(io.BytesIO(pickle.dumps(datetime.date(2024, 1, 2))))
    assert isinstance(stand_in, pickles.StandIn) and stand_in.origin == "datetime.date"
    with pytest.raises(pickle.UnpicklingError, match=r"it calls builtins\.eval"):
        pickles.load(io.BytesIO(pickle.dumps(Calls(eval, "1"))))
