"""Programs of `torch.export`: read as data, and the same network as before; TorchScript and pickles refused."""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import SwinTransformer

from convscope import Net, explain, load
from convscope.errors import NetworkError, OptionError, WeightsError
from networks import SIZE, TINY, pictures, tiny_body
from test_onnx import METHODS, NETWORKS, Stubborn, close


def export(body: nn.Module, path: Path, *, side: int = SIZE, several: bool = False) -> str:
    """Write a program for one picture, or for a batch of any size."""
    example = torch.zeros(2 if several else 1, 3, side, side)
    shapes = ({0: torch.export.Dim("n")},) if several else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(body.eval(), (example,), dynamic_shapes=shapes, strict=False), path)
    return f"pt2:{path}"


def changed(path: Path, change: Callable[[Any], Any]) -> str:
    """Write a program again with its graph changed."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    name = next(name for name in members if re.search(r"(models/.*|serialized_exported_program)\.json$", name))
    told = json.loads(members[name])
    change(told)
    members[name] = json.dumps(told).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for key, value in members.items():
            new.writestr(key, value)
    return f"pt2:{path}"


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_torchvision_come_back(name: str, tmp_path: Path, chelsea: Any, request: Any) -> None:
    body = NETWORKS[name]()
    if name == "squeezenet1_0":
        body = request.getfixturevalue("squeezenet").body
    reading: Any = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    net = Net(body.eval(), **reading)
    back = load(export(body, tmp_path / "net.pt2", side=224), **reading)
    ours, theirs = ([layer for layer in n.layers.values() if layer.number] for n in (back, net))
    assert [(o.name, o.shape, o.field, o.lies) for o in ours] == [(o.name, o.shape, o.field, o.lies) for o in theirs]
    for method, options in METHODS.items():
        chosen = options | ({"layer": theirs[-1].name} if method == "grad_cam" else {})
        maps = [explain(n, chelsea, method, **chosen) for n in (net, back)]
        assert close(maps[1].values, maps[0].values) <= 1e-4, method


@pytest.mark.parametrize("several", [False, True], ids=["one", "any"])
@pytest.mark.parametrize("kind", TINY)
def test_tiny_networks_come_back(kind: str, several: bool, tmp_path: Path) -> None:
    body = tiny_body(kind).float()
    back = load(export(body, tmp_path / "net.pt2", several=several))
    net, pixels = Net(body, size=SIZE), pictures(3, dtype=torch.float32)
    torch.testing.assert_close(back(pixels), net(pixels), rtol=1e-5, atol=1e-6)
    assert back.name == "net" and "since no mean and std were given" in back.note
    numbered = [[(o.name, o.shape) for o in n.layers.values() if o.number] for n in (back, net)]
    assert [shape for _, shape in numbered[0]] == [shape for _, shape in numbered[1]]
    for method in ("guided_backprop", "occlusion"):
        maps = [explain(n, pixels[0], method).values for n in (back, net)]
        assert close(*maps) < 1e-4


class Everything(nn.Module):
    """Steps that are functions: normalisations, slices, in-place work on views, several pieces, resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.up = nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.ConvTranspose2d(6, 4, 4, 2, 1)
        self.table, self.head = nn.Parameter(torch.randn(7, 4)), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.conv(x)))
        x = self.up(F.interpolate(x[:, :, 1:-1, ::2], scale_factor=2.0, mode="bilinear")).clamp(min=0)
        mask = x.new_zeros(x.shape[2:])
        mask[1:4, 2:5] = 3.0
        first, second = (x * mask + x).mean((2, 3)).chunk(2, 1)
        x = torch.cat([second, first.exp().relu_()], 1) + self.table[torch.tensor([3])]
        return self.head(F.layer_norm(x, (4,))).softmax(-1)


class Standardised(nn.Module):
    """Weights that are computed, and tensors made out of nothing: positions, a canvas, patches side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gain = nn.Conv2d(3, 6, 3, padding=1), nn.Parameter(torch.rand(6))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight.reshape(1, 6, -1)
        weight = F.batch_norm(weight, None, None, weight=self.gain, training=True, momentum=0.0)
        x = F.instance_norm(F.conv2d(x, weight.reshape(6, 3, 3, 3), self.conv.bias, padding=1), weight=self.gain)
        x = torch.add(x, torch.arange(20.0) / 20 + torch.ones(1, 1, 20, 1), alpha=0.5)
        canvas = torch.zeros_like(x)
        canvas[..., 2:] = F.gelu(x[..., 2:], approximate="tanh")
        return F.normalize(F.unfold(canvas, 4, stride=4).mean(2), dim=1)


def swin() -> nn.Module:
    return SwinTransformer([2, 2], 8, [2, 2], [2, 4], [2, 2], num_classes=5)


@pytest.mark.parametrize(
    ("make", "several"),
    [
        *((make, several) for make in (Everything, Standardised, swin) for several in (False, True)),
        (Stubborn, False),
    ],
)
def test_functions_and_batches(make: Callable[[], nn.Module], several: bool, tmp_path: Path) -> None:
    body = make().eval()
    back, pixels = load(export(body, tmp_path / "net.pt2", several=several)), pictures(3, dtype=torch.float32)
    alone = torch.cat([body(picture[None]) for picture in pixels])
    torch.testing.assert_close(back(pixels), alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(back(pixels), alone, rtol=1e-4, atol=1e-5)  # nothing was changed by the first time


def test_arguments_by_name_of_old_files(tmp_path: Path) -> None:
    """Before torch 2.7, files do not say which arguments an operation takes by name only."""
    body = Standardised().eval()
    export(body, tmp_path / "net.pt2")

    def forget(told: Any) -> None:
        for node in told["graph_module"]["graph"]["nodes"]:
            for given in node["inputs"]:
                given.pop("kind", None)

    pixels = pictures(1, dtype=torch.float32)
    torch.testing.assert_close(load(changed(tmp_path / "net.pt2", forget))(pixels), body(pixels))


@pytest.fixture
def program(tmp_path: Path) -> Path:
    export(tiny_body("sequential").float(), tmp_path / "net.pt2")
    return tmp_path / "net.pt2"


def relu(told: Any) -> Any:
    return next(node for node in told["graph_module"]["graph"]["nodes"] if "relu" in node["target"])


@pytest.mark.parametrize(
    "target",
    ["torch.os.system", "torch.ops.aten.from_file.default", "builtins.eval", "torch.hub.load", "torch.ops.aten._pin.x"],
)
def test_only_known_operations_are_called(target: str, program: Path) -> None:
    name = changed(program, lambda told: relu(told).update(target=target))
    with pytest.raises(NetworkError, match="uses 1 operation not known here"):
        load(name)


def test_code_in_a_program_is_not_run(program: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    code = f"__import__('os').system('touch {canary}')"

    def poison(told: Any) -> None:
        told["guards_code"] = [code]
        told["range_constraints"] = {code: {"min_val": 0, "max_val": None}}
        relu(told)["metadata"]["nn_module_stack"] = f"L,{code},X"

    load(changed(program, poison))(pictures(2, dtype=torch.float32))
    changed(program, lambda told: relu(told)["inputs"][0].update(arg={"as_sym_int": {"as_expr": {"expr_str": code}}}))
    with pytest.raises(NetworkError):
        load(f"pt2:{program}")
    assert not canary.exists()


def first_weight(path: Path, **about: Any) -> None:
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    name = next(name for name in members if name.endswith("weights_config.json"))
    told = json.loads(members[name])
    next(iter(told["config"].values())).update(about)
    members[name] = json.dumps(told).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for key, value in members.items():
            new.writestr(key, value)


def test_weights_that_would_run_code_or_fill_the_memory_are_refused(program: Path) -> None:
    first_weight(program, use_pickle=True)
    with pytest.raises(NetworkError, match="is no plain tensor, and reading it would run code"):
        load(f"pt2:{program}")
    meta = {"sizes": [{"as_int": 10**9}], "strides": [{"as_int": 0}], "storage_offset": {"as_int": 0}, "dtype": 7}
    first_weight(program, use_pickle=False, tensor_meta=meta)
    with pytest.raises(NetworkError, match="needs more numbers than the file holds"):
        load(f"pt2:{program}")


class Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean((2, 3)) + y, x


class Flat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path, picture = tmp_path / "net.pt2", torch.zeros(1, 3, 8, 8)
    for body, given, words in (
        (Two(), (picture, torch.zeros(3)), "has 2 inputs ('x', 'y'), and one picture is given: wrap the Python model"),
        (Flat(), (picture[0],), "reads 3 dimensions of torch.float32, not (n, c, height, width) of floats"),
        (Flat(), (picture.expand(4, 3, 8, 8),), "takes 4 pictures at a time: export it for one"),
    ):
        torch.export.save(torch.export.export(body, given), path)
        with pytest.raises(NetworkError, match=re.escape(words)):
            load(f"pt2:{path}")
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    torch.export.save(torch.export.export(body, (picture,)), path)
    with pytest.raises(NetworkError, match=re.escape("in training mode (") + ".*call model.eval"):
        load(f"pt2:{path}")


def test_outputs_by_number(tmp_path: Path) -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.mean((2, 3)), x.amax((2, 3))

    torch.export.save(torch.export.export(Pair(), (torch.zeros(1, 3, 8, 8),)), tmp_path / "net.pt2")
    name, pixels = f"pt2:{tmp_path / 'net.pt2'}", pictures(2, side=8, dtype=torch.float32)
    assert "its output 'mean' of 2" in load(name).note
    torch.testing.assert_close(load(name, output=1)(pixels), pixels.amax((2, 3)))
    with pytest.raises(OptionError, match="has no output 2; it has 2: 'mean', 'amax', or by number as in output=0"):
        load(name, output=2)


def test_torchscript_and_pickles_are_refused_with_a_way_out(tmp_path: Path) -> None:
    body, path = tiny_body("sequential").float(), tmp_path / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(body).save(path)
    with pytest.raises(NetworkError, match="is TorchScript, compiled code that takes no hooks") as error:
        load(f"pt2:{path}")
    assert "torch.save(torch.jit.load('net.pt').state_dict(), 'weights.pth')" in str(error.value)
    for what in (body.state_dict(), body):
        torch.save(what, path)
        with pytest.raises(NetworkError, match=r"is a pickle .weights, or a whole model., not a program"):
            load(f"pt2:{path}")


def test_scripted_weights_and_bare_files_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(tiny_body("sequential")).save(path)
    with pytest.raises(WeightsError, match=r"is TorchScript, which is not read as weights: keep its numbers alone by"):
        load("lenet5", weights=path)
    with pytest.raises(NetworkError, match=r"[Ww]eights go with the network they belong to"):
        load(str(path))


def test_other_mistakes(program: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="has its weights inside"):
        load(f"pt2:{program}", weights=None)
    with pytest.raises(NetworkError, match="there is no exported program"):
        load("pt2:nowhere.pt2")
    with pytest.raises(NetworkError, match="it is a folder"):
        load(f"pt2:{tmp_path}")
    program.write_bytes(b"PK")
    with pytest.raises(NetworkError, match=r"is not a program of torch.export.save, or is damaged"):
        load(f"pt2:{program}")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/models/model.json", "0" * 10**7)
    program.write_bytes(buffer.getvalue())
    with pytest.raises(NetworkError, match="it is compressed"):
        load(f"pt2:{program}")
