"""ONNX files: read back as the network that was written, whoever wrote them, or refused in one sentence."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from convscope import Net, explain, load
from convscope.errors import ConvscopeError, NetworkError, OptionError, PictureError
from convscope.zoo import onnx_files
from convscope.zoo.graph_batches import Each
from convscope.zoo.graph_names import layer_names
from convscope.zoo.graphs import Reshape
from convscope.zoo.onnx_graphs import graph_of
from networks import SIZE, TINY, cifar_resnet, pictures, tiny_body

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")
helper, numpy_helper = onnx.helper, onnx.numpy_helper


def export(body: nn.Module, path: Path, *, side: int = SIZE, dynamo: bool = False, **options: Any) -> str:
    """Write a network as torch writes it, for one picture at a time unless options say otherwise."""
    example = torch.zeros(options.pop("batch", 1), 3, side, side)
    if dynamo:
        options = {"external_data": False, "verbose": False} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(body.float().eval(), (example,), path, dynamo=dynamo, **options)
    return f"onnx:{path}"


# Batch norm stays by itself: folded into convolutions, rounding differs, and with it which rectifiers are open.
UNFOLDED = {"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE}


def model(nodes: list[Any], constants: dict[str, Any], **told: Any) -> Any:
    """Write a model by hand: from "x" to "y"."""
    shape, opset = told.get("shape", (1, 3, 8, 8)), told.get("opset", 17)
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("x", told.get("kind", onnx.TensorProto.FLOAT), shape)],
            [
                helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", "m"])
                for name in told.get("outputs", ["y"])
            ],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
    )
    proto.ir_version = 8
    return proto


def saved(proto: Any, path: Path) -> str:
    path.write_bytes(proto.SerializeToString())
    return f"onnx:{path}"


WEIGHT = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
CONV = helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1])
HEAD = [
    helper.make_node("GlobalAveragePool", ["h"], ["p"], name="pool"),
    helper.make_node("Flatten", ["p"], ["y"], name="flat"),
]


def small(*middle: Any, **told: Any) -> Any:
    return model([CONV, *middle, *HEAD], {"w": WEIGHT, **told.pop("constants", {})}, **told)


RELU = helper.make_node("Relu", ["c"], ["h"], name="relu")


def close(a: Tensor, b: Tensor) -> float:
    """How far apart two maps are, in shares of their range."""
    return float((a - b).abs().max() / ((b.max() - b.min()) or 1.0))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "squeezenet1_0": models.squeezenet1_0,
    "resnet18": models.resnet18,
    "googlenet": lambda: models.googlenet(aux_logits=False, init_weights=False),
    "mobilenet_v2": models.mobilenet_v2,
    "alexnet": models.alexnet,
}
METHODS: dict[str, dict[str, Any]] = {
    "gradient": {},
    "grad_cam": {},
    "guided_backprop": {},
    "deconvnet": {},
    "occlusion": {"patch": 64, "stride": 80},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_torchvision_come_back(name: str, tmp_path: Path, chelsea: Any, request: Any) -> None:
    body = NETWORKS[name]()
    if name == "squeezenet1_0":
        body = request.getfixturevalue("squeezenet").body
    reading: Any = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    net = Net(body.eval(), **reading)
    back = load(export(body, tmp_path / "net.onnx", side=224, **UNFOLDED), **reading)
    ours, theirs = ([layer for layer in n.layers.values() if layer.number] for n in (back, net))
    assert [(o.name, o.shape, o.field, o.lies) for o in ours] == [(o.name, o.shape, o.field, o.lies) for o in theirs]
    assert back.output.field == net.output.field
    for method, options in METHODS.items():
        chosen = options | ({"layer": theirs[-1].name} if method == "grad_cam" else {})
        maps = [explain(n, chelsea, method, **chosen) for n in (net, back)]
        assert close(maps[1].values, maps[0].values) <= 1e-4, method
        said = [re.findall(r"\d+ of \d+ rectifiers|recomputed only", drawing.note) for drawing in maps]
        assert said[0] == said[1], method


# The older exporter writes no pooling to sizes that do not divide.
TRACED = ("sequential", "in-place", "residual")


@pytest.mark.parametrize(("kind", "dynamo"), [*((kind, True) for kind in TINY), *((kind, False) for kind in TRACED)])
def test_tiny_networks_come_back(kind: str, dynamo: bool, tmp_path: Path) -> None:
    body = tiny_body(kind).float()
    back = load(export(body, tmp_path / "net.onnx", dynamo=dynamo))
    net, pixels = Net(body, size=SIZE), pictures(3, dtype=torch.float32)
    torch.testing.assert_close(back(pixels), net(pixels), rtol=1e-4, atol=1e-5)
    numbered = [[(o.shape, o.field) for o in n.layers.values() if o.number] for n in (back, net)]
    assert kind == "relu6" or numbered[0] == numbered[1]  # local response normalisation is written as many steps
    maps = [explain(n, pixels[0], "guided_backprop").values for n in (back, net)]
    assert close(*maps) < 1e-4


@pytest.mark.parametrize("dynamo", [False, True], ids=["traced", "dynamo"])
def test_real_network_with_batch_norm_folded(dynamo: bool, data: Any, tmp_path: Path, chelsea: Any) -> None:
    net = cifar_resnet(data("weights/cifar_resnet20.safetensors"))
    back = load(export(net.body, tmp_path / "net.onnx", side=32, dynamo=dynamo), mean="imagenet")
    for method in ("gradient", "guided_backprop", "deconvnet", "grad_cam"):
        maps = [explain(n, chelsea, method).values for n in (back, net)]
        assert close(*maps) < 1e-4, method


def test_layers_are_called_as_in_the_model(squeezenet: Net, tmp_path: Path) -> None:
    names = [o.name for o in squeezenet.layers.values() if o.leaf and o.kind in ("Conv2d", "ReLU", "MaxPool2d")]
    for dynamo in (False, True):
        back = load(export(squeezenet.body, tmp_path / "net.onnx", side=224, dynamo=dynamo))
        assert [name for name in back.layers if name in names] == names
        report = explain(back, pictures(1, side=224, dtype=torch.float32)[0], "guided_backprop").note
        assert "26 of 26 rectifiers" in report


def test_what_a_file_does_not_say_is_said(tmp_path: Path) -> None:
    net = load(saved(small(RELU, shape=("n", 3, "h", "w")), tmp_path / "open.onnx"))
    assert net.size == (224, 224) and net.name == "open"
    assert "read at 224x224 pixels, since the file leaves the size open" in net.note
    assert "reads pixels in [0, 1] as they are, since no mean and std were given" in net.note
    given = load(f"onnx:{tmp_path / 'open.onnx'}", size=12, mean=0.5)
    assert given.size == (12, 12) and given.note == ""
    fixed = load(saved(small(RELU), tmp_path / "fixed.onnx"), mean=0.5)
    assert fixed.size == (8, 8) and fixed.note == ""


class Stubborn(nn.Module):
    """Shapes written out for one picture, tokens before places, and a token that all pictures share."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.token = nn.Conv2d(3, 8, 4, stride=4), nn.Parameter(torch.randn(1, 1, 8))
        self.mixing, self.head = nn.MultiheadAttention(8, 2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x)).view(1, 8, 25).permute(0, 2, 1)
        x = torch.cat([self.token, x], 1).transpose(0, 1)
        x = x + self.mixing(x, x, x, need_weights=False)[0]
        return self.head(x[0]).view(1, 5)


@pytest.mark.parametrize("dynamo", [False, True], ids=["traced", "dynamo"])
def test_files_made_for_one_picture_take_batches(dynamo: bool, tmp_path: Path) -> None:
    body = Stubborn().eval()
    back = load(export(body, tmp_path / "net.onnx", dynamo=dynamo))
    pixels = pictures(3, dtype=torch.float32)
    alone = torch.cat([body(picture[None]) for picture in pixels])
    torch.testing.assert_close(back(pixels), alone, rtol=1e-4, atol=1e-5)
    kinds = {type(module) for module in back.body.modules()}
    assert {Each, Reshape} <= kinds
    assert all("inner" not in name for name in back.layers)
    seen: list[tuple[int, ...]] = []
    handle = back.body.get_submodule("conv").register_forward_hook(lambda m, i, o: seen.append(tuple(o.shape)))
    back(pixels)
    handle.remove()
    assert seen == [(3, 8, 5, 5)]


def test_places_of_another_size_are_not_taken_for_pictures(tmp_path: Path) -> None:
    sizes = {"s": np.array([1, 4]), "w": WEIGHT}
    flat = helper.make_node("Reshape", ["p", "s"], ["y"], name="flat")
    pool = helper.make_node("AveragePool", ["h"], ["p"], name="pool", kernel_shape=[8, 8], strides=[8, 8])
    net = load(saved(model([CONV, RELU, pool, flat], sizes), tmp_path / "net.onnx"))
    assert net(pictures(3, side=8, dtype=torch.float32)).shape == (3, 4)
    for other in (net, net.sized(16)):
        with pytest.raises(PictureError, match=r"of 16x16 pixels does not fit a file for 8x8: layer .flat"):
            other(pictures(1, side=16, dtype=torch.float32))


def test_a_batch_of_any_size_needs_no_repair(tmp_path: Path) -> None:
    path = export(tiny_body("sequential"), tmp_path / "net.onnx", dynamic_axes={"x": {0: "n"}}, input_names=["x"])
    back = load(path)
    assert not any(isinstance(module, Each) for module in back.body.modules())
    assert back(pictures(4, dtype=torch.float32)).shape == (4, 5)


def reference(proto: Any, pixels: Tensor) -> Tensor:
    """What onnx's own slow interpreter makes of one picture."""
    from onnx.reference import ReferenceEvaluator

    return torch.from_numpy(ReferenceEvaluator(proto).run(None, {"x": pixels.numpy()})[0])


def node(operation: str, *given: str, **attributes: Any) -> Any:
    return helper.make_node(operation, ["c", *given], ["h"], name=operation.lower(), **attributes)


ZERO, ONE = np.float32(0), np.float32(1)
GRID = np.random.default_rng(2).uniform(-1.2, 1.2, (1, 5, 6, 2)).astype(np.float32)
MIDDLES: dict[str, tuple[Any, dict[str, Any], int]] = {
    "reduce-mean-18": (node("ReduceMean", "a", keepdims=1), {"a": np.array([2, 3])}, 18),
    "reduce-mean-channels": (node("ReduceMean", "a", keepdims=1), {"a": np.array([1])}, 18),
    "reduce-max-20": (node("ReduceMax", "a", keepdims=1), {"a": np.array([-1])}, 20),
    "max-0": (node("Max", "z"), {"z": ZERO}, 17),
    "min-1": (node("Min", "z"), {"z": ONE}, 17),
    "max-of-two": (node("Max", "z"), {"z": np.linspace(-1, 1, 8, dtype=np.float32)}, 17),
    "clip-0-6": (node("Clip", "z", "o"), {"z": ZERO, "o": np.float32(6)}, 17),
    "clip-above": (node("Clip", "", "o"), {"o": ONE}, 17),
    "gelu": (node("Gelu", approximate="tanh"), {}, 20),
    "hard-sigmoid": (node("HardSigmoid", alpha=0.3, beta=0.4), {}, 17),
    "slice": (node("Slice", "s", "e", "a"), {"s": [1, -6], "e": [7, 99], "a": [2, 3]}, 17),
    "slice-back": (node("Slice", "s", "e", "a", "t"), {"s": [6], "e": [0], "a": [3], "t": [-2]}, 17),
    "gather": (node("Gather", "i", axis=1), {"i": np.array([2, 0])}, 17),
    "average-pool-22": (node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), {}, 22),
    "max-pool-7": (node("MaxPool", kernel_shape=[2, 2], strides=[2, 2]), {}, 7),
    "identity-25": (node("Identity"), {}, 23),
    "layer-norm": (node("LayerNormalization", "k", axis=-1), {"k": np.linspace(0, 1, 8, dtype=np.float32)}, 17),
    "reduce-sum-13": (node("ReduceSum", "a", keepdims=1), {"a": np.array([2, 3])}, 13),
    "cumulative-sum": (node("CumSum", "a"), {"a": np.array(3)}, 17),
    "mish": (node("Mish"), {}, 18),
    "same-upper": (node("Conv", "k", auto_pad="SAME_UPPER", strides=[3, 2]), {"k": WEIGHT.reshape(3, 4, 3, 3)}, 17),
    "same-lower": (node("MaxPool", auto_pad="SAME_LOWER", kernel_shape=[4, 2]), {}, 17),
    "resize-twice": (node("Resize", "", "s"), {"s": np.float32([1, 1, 2, 3])}, 17),
    "resize-floor": (
        node("Resize", "", "", "o", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        {"o": np.array([1, 4, 5, 11])},
        17,
    ),
    "resize-corners": (
        node("Resize", "", "", "o", coordinate_transformation_mode="align_corners", mode="linear"),
        {"o": np.array([1, 4, 5, 11])},
        17,
    ),
    "resize-one-column": (
        node("Resize", "", "", "o", coordinate_transformation_mode="pytorch_half_pixel", mode="linear"),
        {"o": np.array([1, 4, 3, 1])},
        17,
    ),
    "resize-one-row": (
        node("Resize", "", "s", coordinate_transformation_mode="pytorch_half_pixel", mode="linear"),
        {"s": np.float32([1, 1, 0.125, 0.6])},
        17,
    ),
    "grid-16": (node("GridSample", "g", mode="nearest", padding_mode="reflection"), {"g": GRID}, 16),
    "grid-20": (node("GridSample", "g", mode="linear", align_corners=1), {"g": GRID}, 20),
    "average-outside-counts": (
        node("AveragePool", kernel_shape=[3, 2], pads=[0, 1, 2, 0], count_include_pad=1, strides=[2, 1]),
        {},
        19,
    ),
    "average-outside-does-not": (node("AveragePool", kernel_shape=[3, 3], pads=[1, 0, 0, 2], strides=[2, 1]), {}, 19),
    "average-same-upper": (
        node("AveragePool", kernel_shape=[3, 2], auto_pad="SAME_UPPER", strides=[2, 3], count_include_pad=1),
        {},
        19,
    ),
    "matrix": (node("MatMul", "k"), {"k": np.random.default_rng(1).normal(size=(8, 6)).astype(np.float32)}, 17),
}


@pytest.mark.parametrize("kind", MIDDLES)
def test_operations_mean_what_onnx_says(kind: str, tmp_path: Path) -> None:
    middle, constants, opset = MIDDLES[kind]
    proto = small(middle, constants={k: np.asarray(v) for k, v in constants.items()}, opset=opset)
    pixels = pictures(2, side=8, dtype=torch.float32)
    got = load(saved(proto, tmp_path / "net.onnx"))(pixels)
    expected = torch.cat([reference(proto, picture[None]) for picture in pixels])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


# Which of two equal numbers comes first is not said.
DIFFERENT = re.compile(r"test_top_k_same_values")


def test_one_column_that_is_left_is_the_first(tmp_path: Path) -> None:
    """1 to 16 as 4 x 4, resized to 3 x 1: by the specification's formula."""
    resize = helper.make_node(
        "Resize", ["x", "", "", "o"], ["y"], coordinate_transformation_mode="pytorch_half_pixel", mode="linear"
    )
    proto = model([resize], {"o": np.array([1, 1, 3, 1])}, shape=(1, 1, 4, 4))
    net = load(saved(proto, tmp_path / "net.onnx"), mean=0, std=1)
    got = net(torch.arange(1.0, 17).view(1, 1, 4, 4)).flatten()
    torch.testing.assert_close(got, torch.tensor([5 / 3, 7, 37 / 3]))


@pytest.mark.slow
def test_every_operation_means_what_onnx_says_or_is_refused(tmp_path: Path) -> None:
    """The cases of onnx's own suite that read one tensor; what else they read are weights here."""
    from onnx.backend.test.case.node import collect_testcases

    compared = 0
    for case in collect_testcases(None):  # pyright: ignore[reportArgumentType]
        compared += _means_what_it_says(case, tmp_path)
    assert compared > 300


def _means_what_it_says(case: Any, folder: Path) -> bool:
    """Whether a case can be read; where it can, its results are those that it tells."""
    proto, (given, results) = case.model, case.data_sets[0]
    floats = [isinstance(value, np.ndarray) and value.dtype == np.float32 for value in (*given[:1], *results)]
    if len(proto.graph.node) != 1 or len(floats) < 2 or not all(floats) or DIFFERENT.match(case.name):
        return False
    picture, *weights = proto.graph.input
    try:
        fixed = [numpy_helper.from_array(np.asarray(v), w.name) for v, w in zip(given[1:], weights, strict=True)]
    except (NotImplementedError, TypeError, ValueError):  # types of numbers that files do not have
        return False
    del proto.graph.input[1:]
    proto.graph.initializer.extend(fixed)
    try:
        onnx_files._simplify(proto)
        names = [output.name for output in proto.graph.output]
        proto = onnx.shape_inference.infer_shapes(proto)
        got = graph_of(proto, picture.name, names, folder).eval()(torch.from_numpy(given[0].copy()))
    except Exception:  # refused, or raised: in either case not taken for something else
        return False
    for name, expected in zip(names, results, strict=True):
        found = got[name] if isinstance(got, dict) else got
        told = {"rtol": 1e-3, "atol": 1e-5, "equal_nan": True, "msg": lambda m: f"{case.name}: {m}"}
        torch.testing.assert_close(found, torch.from_numpy(expected.copy()), **told)
    return True


@pytest.mark.parametrize(
    "resizing",
    [
        {"nearest_mode": "ceil", "coordinate_transformation_mode": "asymmetric"},
        {"coordinate_transformation_mode": "align_corners"},
        {"mode": "linear", "coordinate_transformation_mode": "asymmetric"},
        {"mode": "cubic", "cubic_coeff_a": -0.5},
        {"mode": "cubic", "exclude_outside": 1},
    ],
    ids=lambda told: "-".join(str(value) for value in told.values()),
)
def test_resizing_that_torch_does_not_have_is_refused(resizing: dict[str, Any], tmp_path: Path) -> None:
    proto = small(node("Resize", "", "s", **resizing), constants={"s": np.float32([1, 1, 2, 2])})
    with pytest.raises(NetworkError, match=r"node 'resize' .Resize. of .* cannot be read: .* is not known here"):
        load(saved(proto, tmp_path / "net.onnx"))


def test_rounding_that_grows_is_not_taken_for_mixing(tmp_path: Path) -> None:
    """A network that doubles a difference in each of 40 layers, exported for one picture."""
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh())
    for _ in range(40):
        conv = nn.Conv2d(8, 8, 3, padding=1)
        nn.init.normal_(conv.weight, std=0.4)
        body.extend((conv, nn.Tanh()))
    body.extend((nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    back, pixels = load(export(body, tmp_path / "net.onnx")), pictures(1, dtype=torch.float32)
    assert back(pixels.expand(3, -1, -1, -1)).shape == (3, 8)
    with torch.no_grad():
        doubled = [network.double()(pixels.double()) for network in (body, back.body)]
    torch.testing.assert_close(*doubled, rtol=1e-6, atol=1e-6)


def test_batch_norm_of_old_files(tmp_path: Path) -> None:
    pixels, results = pictures(2, side=8, dtype=torch.float32), list[Tensor]()
    for opset in (7, 15):
        proto = small(node("BatchNormalization", *"kkkk"), constants={"k": np.full(4, 0.5, np.float32)}, opset=opset)
        results.append(load(saved(proto, tmp_path / "net.onnx"))(pixels))
    torch.testing.assert_close(*results)


def test_a_maximum_with_zero_is_a_rectifier(tmp_path: Path) -> None:
    middle, constants, _ = MIDDLES["max-0"]
    net = load(saved(small(middle, constants=constants), tmp_path / "net.onnx"))
    assert "1 of 1 rectifiers" in explain(net, pictures(1, side=8, dtype=torch.float32)[0], "guided_backprop").note


def test_outputs_by_number_and_name(tmp_path: Path) -> None:
    exp = helper.make_node("Exp", ["y"], ["z"], name="exp")
    two = model([CONV, RELU, *HEAD, exp], {"w": WEIGHT}, outputs=["y", "z"])
    name, pixels = saved(two, tmp_path / "two.onnx"), pictures(2, side=8, dtype=torch.float32)
    first = load(name)
    assert "its output 'y' of 2" in first.note
    for asked in (1, "z", -1):
        torch.testing.assert_close(load(name, output=asked)(pixels), first(pixels).exp())
    both = load(name, output=lambda found: found["y"] + found["z"])
    torch.testing.assert_close(both(pixels), first(pixels) + first(pixels).exp())
    with pytest.raises(OptionError, match="has no output 'logits'; it has 2: 'y', 'z'"):
        load(name, output="logits")


def test_external_weights_lie_beside_the_file_or_nowhere(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "net.onnx"
    onnx.save(small(RELU), path, save_as_external_data=True, location="net.data", size_threshold=0)
    assert load(f"onnx:{path}")(pictures(1, side=8, dtype=torch.float32)).shape == (1, 4)
    (tmp_path / "in" / "net.data").rename(tmp_path / "net.data")
    with pytest.raises(NetworkError, match=re.escape("keeps its weights in 'net.data', which is not beside it")):
        load(f"onnx:{path}")
    (tmp_path / "in" / "net.data").symlink_to(tmp_path / "net.data")
    with pytest.raises(NetworkError, match="outside its folder"):
        load(f"onnx:{path}")
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = "../net.data"
    with pytest.raises(NetworkError, match=re.escape("outside its folder, '../net.data'")):
        load(saved(proto, path))


def test_names_of_nodes_are_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    evil = f"a'), getattr(__import__('os'), 'system')('touch {canary}'), getattr(self, 'b"
    for text in (evil, evil.replace("'", '"')):
        proto = small(RELU)
        for each in proto.graph.node:
            each.name = text
        for i, name in enumerate(("pkg.torch.onnx.name_scopes",)):
            entry = proto.graph.node[i].metadata_props.add()
            entry.key, entry.value = name, f"__import__('os').system('touch {canary}')"
        net = load(saved(proto, tmp_path / "evil.onnx"))
        assert net(pictures(1, side=8, dtype=torch.float32)).shape == (1, 4)
    assert not canary.exists()


def unnamed() -> Any:
    proto = small(RELU)
    for each in proto.graph.node:
        each.name = "same"
    return proto


def test_nodes_with_one_name_are_told_apart(tmp_path: Path) -> None:
    proto = unnamed()
    pixels = pictures(1, side=8, dtype=torch.float32)
    torch.testing.assert_close(load(saved(proto, tmp_path / "same.onnx"))(pixels), reference(proto, pixels))


def test_names_of_layers_never_begin_each_other() -> None:
    positions = [(["a"], "Conv"), (["a", "b"], "Relu"), (["a"], "Add"), ([], "a"), (["forward"], "x"), (["to"], "x")]
    positions.append(([""], ""))
    names = layer_names(positions)
    assert names == ["a.Conv", "a.b", "a.Add", "a_1", "forward_", "to_", "_"]


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        (lambda: model([RELU, CONV, *HEAD], {"w": WEIGHT}), "is damaged: Nodes in a graph must be"),
        (lambda: small(RELU, opset=6), "is of opset 6; 7 is the oldest"),
        (lambda: small(RELU, shape=(4, 3, 8, 8)), "takes 4 pictures at a time"),
        (lambda: small(RELU, shape=(1, 8, 8, 3)), "has 8 channels before 3, so probably channels last"),
        (lambda: small(RELU, shape=(1, 3, 8)), "has 3 dimensions, not .n, channels, height, width."),
        (lambda: small(RELU, kind=onnx.TensorProto.UINT8), "does not read floating point numbers"),
        (lambda: small(RELU, outputs=["w"]), r"is damaged: .*|does not depend on the picture"),
        (lambda: small(RELU, constants={"w": WEIGHT[:, :2]}), "does not run: layer 'conv' fails|is damaged"),
        (lambda: small(RELU, constants={"w": WEIGHT * np.nan}), "NaN or infinite weights"),
        (lambda: small(RELU, shape=(1, 3, 60000, 60000)), "reads 60000x60000 pixels, which is too many"),
        (lambda: small(node("Gather", "i", axis=1), constants={"i": np.array(99)}), "does not run|is damaged"),
        (lambda: small(node("BatchNormalization", *"kkkk", training_mode=1), constants={"k": WEIGHT[:, 0, 0, 0]}),
         "training_mode=1 is not known here"),
    ],
    ids="unsorted opset batch last rank kind constant shapes nan huge gather training".split(),
)  # fmt: skip
def test_what_cannot_be_read_is_refused(proto: Callable[[], Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConvscopeError, match=words):
        load(saved(proto(), tmp_path / "net.onnx"))


def test_unknown_operations_are_named_at_once(tmp_path: Path) -> None:
    first = helper.make_node("Shrink", ["c"], ["s"], name="one")
    second = helper.make_node("Det", ["s"], ["h"], name="two")
    third = helper.make_node("Mine", ["y"], ["z"], name="three", domain="com.me")
    proto = model([CONV, first, second, *HEAD, third], {"w": WEIGHT}, outputs=["z"])
    proto.opset_import.append(helper.make_opsetid("com.me", 1))
    words = "uses 3 operations of opset 17 not known here (Det, Shrink, com.me.Mine): load the Python model"
    with pytest.raises(NetworkError, match=re.escape(words)):
        load(saved(proto, tmp_path / "net.onnx"))


def test_several_inputs_are_refused(tmp_path: Path) -> None:
    proto = small(helper.make_node("Add", ["c", "more"], ["h"], name="add"))
    proto.graph.input.append(helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, (1,)))
    with pytest.raises(NetworkError, match=r"has 2 inputs .'x', 'more'., and one picture is given"):
        load(saved(proto, tmp_path / "net.onnx"))


def test_a_size_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    huge = helper.make_node("ConstantOfShape", ["n"], ["big"], name="big")
    add = helper.make_node("Add", ["c", "big"], ["h"], name="add")
    proto = small(huge, add, constants={"n": np.array([1, 4, 10**6, 10**6])})
    with pytest.raises(NetworkError, match=r"would fill the memory|is damaged"):
        load(saved(proto, tmp_path / "net.onnx"))
    wide = helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[10**6] * 4)
    with pytest.raises(NetworkError, match=r"would have .* numbers for one picture"):
        load(saved(model([wide, RELU, *HEAD], {"w": WEIGHT}), tmp_path / "net.onnx"))


def test_other_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    name = saved(small(RELU), path)
    for weights in (None, "none", tmp_path / "w.pth"):
        with pytest.raises(OptionError, match="has its weights inside: leave out weights"):
            load(name, weights=weights)
    with pytest.raises(NetworkError, match=r"there is no ONNX file nowhere.onnx"):
        load("onnx:nowhere.onnx")
    with pytest.raises(NetworkError, match="it is a folder"):
        load(f"onnx:{tmp_path}")
    state = io.BytesIO()
    torch.save(tiny_body("sequential").state_dict(), state)
    path.write_bytes(state.getvalue())
    with pytest.raises(NetworkError, match="is not an ONNX file or is damaged"):
        load(name)
