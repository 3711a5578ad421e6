"""Caffe networks as a whole: real definitions, real weights, sharing, the deconvnet, the command line."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from convscope import Net, as_objective, explain, load
from convscope.attribution.deconvnet import deconvnet
from convscope.cli import run
from convscope.errors import NetworkError, WeightsError
from convscope.zoo.caffe.schema import BlobProto, NetParameter
from oracles.deconvnet import ExplicitDeconvnet

SQUEEZENET = ("caffe/squeezenet_v1.0_deploy.prototxt", "caffe/squeezenet_v1.0.caffemodel")
CAFFENET = "caffe/caffenet_deploy.prototxt"
GOOGLENET = "caffe/googlenet_deploy.prototxt"

Data = Callable[[str], Path]
Blobs = dict[str, list[np.ndarray]]


@pytest.fixture(scope="module")
def squeezed(data: Data) -> Net:
    """SqueezeNet as Caffe has it, with its real weights."""
    definition, weights = map(data, SQUEEZENET)
    return load(f"caffe:{definition}", weights=weights)


@pytest.fixture(scope="module")
def caffenet(data: Data) -> Net:
    return load(f"caffe:{data(CAFFENET)}", weights=None)


# Real networks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("every", "least", "most"), [pytest.param(1, 65.0, 66.0, marks=pytest.mark.nightly), (8, 65.0, 67.0)]
)
def test_squeezenet_classifies_as_it_does_in_caffe(
    squeezed: Net, data: Data, every: int, least: float, most: float
) -> None:
    """65.5 % of the sample pictures under Caffe's preprocessing: squashed to 256 x 256, the centre, blue first."""
    assert squeezed.fit.resize == (256, 256) and squeezed.size == (227, 227) and squeezed.order == "BGR"
    right = count = 0
    with tarfile.open(data("imagenet-samples.tar")) as tar, torch.no_grad():
        table = next(member for member in tar.getmembers() if member.name.endswith(".csv"))
        rows = list(csv.DictReader(io.TextIOWrapper(tar.extractfile(table))))[::every]  # type: ignore[arg-type]
        for i in range(0, len(rows), 16):
            some = rows[i : i + 16]
            pictures = [squeezed.read(tar.extractfile(row["path"]).read()) for row in some]  # type: ignore[union-attr]
            best = squeezed(torch.cat(pictures)).argmax(1)
            right += sum(int(row["index"]) == int(found) for row, found in zip(some, best, strict=True))
            count += len(some)
    assert count == 800 // every and least <= 100 * right / count <= most, f"{100 * right / count} %"


def test_squeezenet_is_its_torchvision_twin(squeezed: Net, squeezenet: Net, data: Data) -> None:
    """Each reads the same pixels in its own units and order; what Caffe's conv10 pads is all that differs."""
    pixels = torch.cat([squeezed.read(data(f"pictures/{name}")) for name in ("cat.jpg", "snake.png", "dd_tree.png")])
    wanted, padded = squeezenet(pixels), squeezed(pixels)
    squeezed.body.conv10.padding = (0, 0)
    try:
        found = squeezed(pixels)
    finally:
        squeezed.body.conv10.padding = (1, 1)
    assert float((found - wanted).detach().abs().max()) < 1e-3
    assert float((padded - wanted).detach().abs().max()) > 1


def test_the_classics_have_the_published_shapes_and_numbers(caffenet: Net, data: Data) -> None:
    googlenet = load(f"caffe:{data(GOOGLENET)}", weights=None)
    published = {
        "conv1": (96, 55, 55), "pool1": (96, 27, 27), "norm1": (96, 27, 27), "conv2": (256, 27, 27),
        "norm2": (256, 13, 13), "conv3": (384, 13, 13), "conv5": (256, 13, 13), "pool5": (256, 6, 6),
        "fc6": (4096,), "fc8": (1000,),
    }  # fmt: skip
    for name, shape in published.items():
        assert caffenet.layer(name).shape == shape, name
    for name, shape in {
        "conv1/7x7_s2": (64, 112, 112), "pool2/3x3_s2": (192, 28, 28), "inception_3a/output": (256, 28, 28),
        "inception_4e/output": (832, 14, 14), "inception_5b/output": (1024, 7, 7), "pool5/7x7_s1": (1024, 1, 1),
        "loss3/classifier": (1000,),
    }.items():  # fmt: skip
        assert googlenet.layer(name).shape == shape, name
    for net, count in ((caffenet, 60_965_224), (googlenet, 6_998_552)):
        assert sum(parameter.numel() for parameter in net.parameters()) == count
        assert net(torch.rand(2, 3, *net.size)).shape == (2, 1000) and "random weights, seed 0" in net.note
    assert "prob" not in dict(googlenet.body.named_children()), "objectives are about scores"
    assert caffenet.order == "BGR" and caffenet.mean == pytest.approx([123 / 255, 117 / 255, 104 / 255])
    assert caffenet.std == pytest.approx([1 / 255] * 3) and caffenet.name == "CaffeNet"


def test_conv1_of_caffenet_reads_blue_first_from_0_to_255(caffenet: Net) -> None:
    pixels = torch.rand(1, 3, 227, 227)
    seen: list[Tensor] = []
    handle = caffenet.body.conv1.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    caffenet(pixels)
    handle.remove()
    for position, (channel, mean) in enumerate(((2, 104), (1, 117), (0, 123))):
        torch.testing.assert_close(seen[0][0, position], pixels[0, channel] * 255 - mean, atol=1e-3, rtol=0)


# The deconvnet


@pytest.mark.slow
def test_the_deconvnet_of_caffenet_is_the_explicit_one(data: Data) -> None:
    """Groups, overlapping pooling, normalisation skipped, blue first: units of every convolution and a class."""
    net = load(f"caffe:{data(CAFFENET)}", weights=None).double()
    pixels = net.read(data("pictures/cat.jpg")).double()
    units = [("conv1", 5, 20, 30), ("conv2", 200, 13, 4), ("norm2", 17, 6, 6), ("conv3", 11, 0, 12)]
    units += [("conv4", 300, 6, 7), ("conv5", 250, 12, 3), ("pool5", 31, 2, 3)]
    for layer, channel, y, x in units:
        stack = ExplicitDeconvnet(net, pixels, upto=layer)
        seed = torch.zeros_like(stack.activity)
        seed[0, channel, y, x] = 1
        same(deconvnet(net, pixels, as_objective(net, f"{layer}:{channel}@{y},{x}")), stack.down(seed))
    stack = ExplicitDeconvnet(net, pixels)
    torch.testing.assert_close(stack.activity, net(pixels), rtol=1e-9, atol=1e-12)
    seed = torch.zeros_like(stack.activity)
    seed[0, 281] = 1
    same(deconvnet(net, pixels, as_objective(net, 281)), stack.down(seed))


def same(found: Tensor, wanted: Tensor) -> None:
    scale = float(wanted.abs().max())
    assert scale > 0 and float((found - wanted).abs().max()) <= 1e-10 * scale


# Small networks, written here

HEAD = 'name: "small"\ninput: "data"\ninput_shape { dim: 1 dim: 3 dim: 12 dim: 10 }\n'


def layer(name: str, kind: str, bottom: str, top: str = "", options: str = "") -> str:
    bottoms = " ".join(f'bottom: "{one}"' for one in bottom.split())
    return f'layer {{ name: "{name}" type: "{kind}" {bottoms} top: "{top or name}" {options} }}\n'


def conv(name: str, bottom: str, outputs: int = 4, options: str = "kernel_size: 3", param: str = "") -> str:
    options = f"{param} convolution_param {{ num_output: {outputs} {options} }}"
    return layer(name, "Convolution", bottom, options=options)


def write_weights(path: Path, blobs: Blobs, *, legacy: bool = False) -> Path:
    """Write a caffemodel, `legacy` with blobs of four numbers as the oldest files have them."""
    message = NetParameter()
    for name, arrays in blobs.items():
        one = message.layer.add(name=name)
        for array in arrays:
            blob = BlobProto(data=np.ascontiguousarray(array, "<f4").tobytes())
            if legacy:
                sides = [1] * (4 - array.ndim) + list(array.shape)
                blob.num, blob.channels, blob.height, blob.width = sides
            elif array.ndim:  # of a blob without axes Caffe writes no shape
                blob.shape.dim.extend(array.shape)
            one.blobs.append(blob)
    path.write_bytes(message.SerializeToString())
    return path


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Net]:
    """Write a definition and load it."""

    def make(text: str, weights: Any = None, **options: Any) -> Net:
        path = tmp_path / "small.prototxt"
        path.write_text(text if text.startswith(("input", "name")) else HEAD + text)
        return load(f"caffe:{path}", weights=weights, **options)

    return make


def fails(make: Callable[[], Any], kind: type[Exception] = NetworkError) -> str:
    with pytest.raises(kind) as caught:
        make()
    said = str(caught.value)
    assert "\n" not in said
    return said


@dataclass
class Written:
    """A network twice: as text with blobs, and as what torch's functions make of the same numbers."""

    shape: tuple[int, ...]
    text: str = ""
    top: str = "data"
    blobs: Blobs = field(default_factory=dict)
    steps: list[Callable[[dict[str, Tensor]], None]] = field(default_factory=list)
    seed: int = 0

    def noise(self, *shape: int) -> np.ndarray:
        self.seed += 1
        scale = 1 / max(1, np.prod(shape[1:])) ** 0.5
        return (np.random.default_rng(self.seed).normal(size=shape) * scale).astype(np.float32)

    def add(
        self,
        kind: str,
        options: str,
        function: Callable[..., Tensor],
        *blobs: np.ndarray,
        also: str = "",
        within: bool = False,
    ) -> None:
        """Add a layer; `also` is a second bottom, and `within` writes over the first."""
        name, bottom = f"layer{len(self.steps)}/{kind.lower()}", self.top
        top = bottom if within else name
        self.text += layer(name, kind, f"{bottom} {also}", top, options)
        if blobs:
            self.blobs[name] = list(blobs)
        given = [torch.from_numpy(blob) for blob in blobs]

        def step(values: dict[str, Tensor]) -> None:
            values[top] = function(values[bottom], *([values[also]] if also else []), *given)

        self.steps.append(step)
        self.top = top
        self.shape = tuple(self.torch(torch.zeros(1, 3, 12, 10)).shape[1:])

    def torch(self, x: Tensor) -> Tensor:
        values = {"data": x}
        for step in self.steps:
            step(values)
        return values[self.top]


@st.composite
def networks(draw: st.DrawFn) -> Written:
    net = Written((3, 12, 10), seed=draw(st.integers(0, 99)) * 100)
    for kind in draw(st.lists(st.sampled_from(sorted(GROW)), min_size=1, max_size=7)):
        GROW[kind](draw, net)
    if draw(st.booleans()):
        outputs, inputs = draw(st.integers(1, 5)), int(np.prod(net.shape))
        net.add(
            "InnerProduct", f"inner_product_param {{ num_output: {outputs} }}",
            lambda x, w, b: F.linear(x.flatten(1), w, b), net.noise(outputs, inputs), net.noise(outputs),
        )  # fmt: skip
    return net


def _conv(draw: st.DrawFn, net: Written) -> None:
    kernel, stride, pad = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(0, 2))
    pad = max(pad, kernel // 2)
    group = draw(st.sampled_from([g for g in (1, 2, 3) if net.shape[0] % g == 0]))
    outputs = group * draw(st.integers(1, 3))
    window = f"kernel_size: {kernel} stride: {stride} pad: {pad}"
    net.add(
        "Convolution", f"convolution_param {{ num_output: {outputs} group: {group} {window} }}",
        lambda x, w, b: F.conv2d(x, w, b, stride, pad, groups=group),
        net.noise(outputs, net.shape[0] // group, kernel, kernel), net.noise(outputs),
    )  # fmt: skip


def _pool(draw: st.DrawFn, net: Written) -> None:
    if min(net.shape[1:]) < 3:
        return
    average = draw(st.booleans())
    pool = F.avg_pool2d if average else F.max_pool2d
    net.add(
        "Pooling", f"pooling_param {{ pool: {'AVE' if average else 'MAX'} kernel_size: 3 stride: 2 }}",
        lambda x: pool(x, 3, 2, ceil_mode=True),
    )  # fmt: skip


def _norm(draw: st.DrawFn, net: Written) -> None:
    net.add(
        "LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 k: 2 }",
        lambda x: F.local_response_norm(x, 3, 0.5, 0.75, 2.0),
    )  # fmt: skip


def _relu(draw: st.DrawFn, net: Written) -> None:
    net.add("ReLU", "", F.relu, within=draw(st.booleans()) and net.top != "data")


def _batch_norm(draw: st.DrawFn, net: Written) -> None:
    channels, factor = net.shape[0], draw(st.sampled_from([1.0, 999.98, 0.0]))
    share = 1 / factor if factor else 0.0
    net.add(
        "BatchNorm", "batch_norm_param { eps: 0.125 }",
        lambda x, mean, var, _: F.batch_norm(x, mean * share, var * share, eps=0.125),
        net.noise(channels), net.noise(channels) ** 2, np.array([factor], np.float32),
    )  # fmt: skip
    net.add(
        "Scale", "scale_param { bias_term: true }",
        lambda x, w, b: x * w[:, None, None] + b[:, None, None], net.noise(channels), net.noise(channels), within=True,
    )  # fmt: skip


def _sum(draw: st.DrawFn, net: Written) -> None:
    before, channels = net.top, net.shape[0]
    net.add(
        "Convolution", f"convolution_param {{ num_output: {channels} kernel_size: 1 bias_term: false }}",
        F.conv2d, net.noise(channels, channels, 1, 1),
    )  # fmt: skip
    net.add("Eltwise", "eltwise_param { coeff: 1 coeff: -0.5 }", lambda x, y: x - y / 2, also=before)


def _concat(draw: st.DrawFn, net: Written) -> None:
    before = net.top
    net.add("TanH", "", torch.tanh)
    net.add("Concat", "", lambda x, y: torch.cat([x, y], 1), also=before)


GROW: dict[str, Callable[[st.DrawFn, Written], None]] = {
    "conv": _conv,
    "pool": _pool,
    "norm": _norm,
    "relu": _relu,
    "batch norm": _batch_norm,
    "sum": _sum,
    "concat": _concat,
}


@given(written=networks(), legacy=st.booleans())
@settings(max_examples=60)
def test_networks_written_and_read_back_give_the_same(
    written: Written, legacy: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("caffe")
    definition = folder / "net.prototxt"
    definition.write_text(HEAD + written.text)
    weights: Any = write_weights(folder / "net.caffemodel", written.blobs, legacy=legacy) if written.blobs else None
    net = load(f"caffe:{definition}", weights=weights)
    x = torch.randn(2, 3, 12, 10)
    wanted = written.torch(x)
    with torch.no_grad():
        found = net.body(x)
    torch.testing.assert_close(found.reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-5)
    assert net.output.shape == found.shape[1:]


def test_a_blob_written_over_is_read_as_it_was_before_and_after(small: Callable[..., Net]) -> None:
    text = conv("a", "data") + layer("before", "TanH", "a") + layer("rise", "ReLU", "a", "a")
    text += layer("sum", "Eltwise", "before a")
    net = small(text)
    x = torch.randn(1, 3, 12, 10)
    raw = net.body.a(x)
    torch.testing.assert_close(net.body(x), raw.tanh() + raw.relu())
    assert (raw < 0).any() and set(net.layers) == {"a", "before", "rise", "sum", ""}


def test_parameters_of_one_name_are_one_parameter(small: Callable[..., Net], tmp_path: Path) -> None:
    tied = 'param { name: "w" } param { name: "b" }'
    text = conv("a", "data", 3, "kernel_size: 3 pad: 1", tied) + conv("b", "a", 3, "kernel_size: 3 pad: 1", tied)
    net = small(text)
    assert net.body.a.weight is net.body.b.weight and sum(p.numel() for p in net.parameters()) == 84
    blobs = [np.full((3, 3, 3, 3), 0.5), np.ones(3)]
    net = small(text, write_weights(tmp_path / "one.caffemodel", {"a": blobs}))
    assert net.body.b.weight.eq(0.5).all() and net.body.a.bias.eq(1).all()
    both = write_weights(tmp_path / "both.caffemodel", {"a": blobs, "b": blobs})
    assert small(text, both).body.b.weight.eq(0.5).all()
    said = fails(lambda: small(conv("a", "data", 4, param=tied) + conv("b", "a", 5, param=tied)))
    assert "layer 'b' (Convolution, line 5) shares 'w', which is 5x4x3x3 here and 4x3x3x3 in layer 'a'" in said


def test_statistics_are_shared_by_nobody(small: Callable[..., Net]) -> None:
    tied = 'param { name: "m" } param { name: "v" } param { name: "f" }'
    net = small(layer("one", "BatchNorm", "data", options=tied) + layer("two", "BatchNorm", "data", options=tied))
    assert set(net.layers) == {"two", ""}, "with a single branch there is nothing to share"
    said = fails(
        lambda: small(layer("one", "BatchNorm", "data", options=tied) + layer("two", "BatchNorm", "one", options=tied))
    )
    assert "layer 'two' (BatchNorm, line 5) shares 'm' with layer 'one' (BatchNorm, line 4): statistics are" in said


def test_blobs_without_axes_are_read_as_caffe_writes_them(small: Callable[..., Net], tmp_path: Path) -> None:
    text = layer("gradient", "PReLU", "data", options="prelu_param { channel_shared: true }")
    text += layer("all", "Scale", "gradient", options="scale_param { num_axes: 0 bias_term: true }")
    blobs = {"gradient": [np.float32(0.25)], "all": [np.float32(3), np.float32(0.5)]}
    body = small(text, write_weights(tmp_path / "w.caffemodel", blobs)).body
    x = torch.randn(1, 3, 12, 10)
    torch.testing.assert_close(body(x), torch.where(x > 0, x, x / 4) * 3 + 0.5)


def test_an_autoencoder_shares_its_weights_transposed(small: Callable[..., Net]) -> None:
    options = 'param { name: "w" } inner_product_param { num_output: %s }'
    text = layer("code", "InnerProduct", "data", options=options % "7")
    text += layer("out", "InnerProduct", "code", options=options % "360 transpose: true")
    body = small(text).body
    x = torch.randn(2, 3, 12, 10)
    code = x.flatten(1) @ body.code.weight.T + body.code.bias
    torch.testing.assert_close(body(x), code @ body.code.weight + body.out.bias)


def test_what_does_not_reach_the_output_is_left_out_and_outputs_can_be_chosen(small: Callable[..., Net]) -> None:
    text = conv("a", "data") + conv("side", "a", 2)
    text += layer("score", "Pooling", "a", options="pooling_param { global_pooling: true }")
    net = small(text)
    assert set(net.layers) == {"a", "score", ""} and net.output.shape == (4,)
    mean = "took the mean 104, 117, 123, since none was given"
    assert net.note == f"random weights, seed 0; score is the last of its outputs side, score; {mean}"
    side = small(text, output="side")
    assert set(side.layers) == {"a", "side", ""} and side.output.shape == (2, 8, 6) and "outputs" not in side.note
    assert small(text, output="a").output.shape == (4, 10, 8)
    assert "there is no blob 'sid' to take as the output; nearest: 'side'" in fails(lambda: small(text, output="sid"))
    assert "is the input itself" in fails(lambda: small(text, output="data"))


def test_a_last_softmax_is_left_out_unless_it_is_asked_for(small: Callable[..., Net]) -> None:
    text = layer("fc", "InnerProduct", "data", options="inner_product_param { num_output: 3 }")
    text += layer("prob", "Softmax", "fc")
    net, chances = small(text), small(text, output="prob")
    x = torch.rand(1, 3, 12, 10)
    torch.testing.assert_close(net(x).softmax(1), chances(x))
    assert set(net.layers) == {"fc", ""}


TRAINING = """name: "train"
layer { name: "mnist" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.5 mean_value: 10 mean_value: 20 mean_value: 30 crop_size: 8 } }
layer { name: "mnist" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.5 mean_value: 10 mean_value: 20 mean_value: 30 crop_size: 8 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def test_a_definition_for_training_runs_without_loss_and_reads_as_its_data_says(small: Callable[..., Net]) -> None:
    net = small(TRAINING)
    assert net.size == (8, 8) and net.fit.resize == (8, 8) and set(net.layers) == {"ip", ""}
    assert net.mean == pytest.approx([30 / 255, 20 / 255, 10 / 255]) and net.std == pytest.approx([2 / 255] * 3)
    assert "accuracy (Accuracy), loss (SoftmaxWithLoss)" in net.note


def test_pictures_are_prepared_as_their_data_layer_says(small: Callable[..., Net]) -> None:
    """A list of pictures is squashed, then cut; without a transform nothing is subtracted, unless a program did it."""
    listed = 'name: "n" layer { name: "d" type: "ImageData" top: "data" %s }' + conv("a", "data")
    sides = "image_data_param { new_height: 20 new_width: 30 }"
    fit = small(listed % f"{sides} transform_param {{ crop_size: 16 }}").fit
    assert fit.size == (16, 16) and fit.resize == (20, 30)
    whole = small(listed % sides)
    assert whole.size == whole.fit.resize == (20, 30) and whole.mean == (0, 0, 0)
    assert small(listed % sides, size=40).fit.resize == (40, 40)
    numbers = "memory_data_param { batch_size: 1 channels: 3 height: 9 width: 9 }"
    net = small(listed.replace("ImageData", "MemoryData") % numbers)
    assert net.mean == pytest.approx([123 / 255, 117 / 255, 104 / 255])


def test_means_come_from_files_numbers_or_beside_the_definition(small: Callable[..., Net], tmp_path: Path) -> None:
    image = np.arange(3, dtype=np.float32)[:, None, None] * np.ones((3, 4, 4), np.float32) + 50
    np.save(tmp_path / "mean.npy", image)
    blob = BlobProto(data=image.tobytes(), num=1, channels=3, height=4, width=4)
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    wanted = pytest.approx([52 / 255, 51 / 255, 50 / 255])
    text = conv("a", "data")
    assert small(text, mean=tmp_path / "mean.npy").mean == wanted
    assert small(text, mean=str(tmp_path / "mean.binaryproto")).mean == wanted
    assert small(text, mean=[50, 51, 52]).mean == wanted and small(text, mean=51).mean == pytest.approx([0.2] * 3)
    assert small(text, mean=[50, 51, 52], order="RGB").mean == pytest.approx([50 / 255, 51 / 255, 52 / 255])
    assert small(text, std=2).std == pytest.approx([2 / 255] * 3)
    beside = TRAINING.replace("mean_value: 10 mean_value: 20 mean_value: 30", 'mean_file: "far/away/mean.binaryproto"')
    assert small(beside).mean == wanted and "mean" not in small(beside).note
    (tmp_path / "mean.binaryproto").unlink()
    gone = small(beside)
    assert gone.mean == pytest.approx([123 / 255, 117 / 255, 104 / 255])
    assert "far/away/mean.binaryproto is not beside the definition: took the mean 104, 117, 123" in gone.note


def test_a_grey_network_reads_grey_pictures(small: Callable[..., Net]) -> None:
    text = 'input: "data" input_dim: 1 input_dim: 1 input_dim: 8 input_dim: 8 ' + conv("a", "data")
    net = small(text)
    assert net.channels == 1 and net.order == "RGB" and net.mean == (0.0,) and net.output.shape == (4, 6, 6)
    assert "reads 1 channels, not 3" in fails(lambda: small(text, channels=3))


def test_another_size_is_checked_through_all_layers(small: Callable[..., Net]) -> None:
    text = conv("a", "data") + conv("b", "a", options="kernel_size: 5")
    assert small(text, size=20).output.shape == (4, 14, 14)
    assert "layer 'b' (Convolution, line 5) makes an empty blob 'b' (4x0x0)" in fails(lambda: small(text, size=6))
    for size in (0, -3, (20,), (3, 20, 20), (20, 0)):
        assert "size is a side or (height, width) in pixels, at least 1" in fails(partial(small, text, size=size))


def test_names_that_torch_cannot_have_are_changed_and_clashes_refused(small: Callable[..., Net]) -> None:
    net = small(conv("conv1.a", "data") + conv("train", "conv1.a") + conv("1", "train") + conv("_steps", "1"))
    assert list(dict(net.body.named_children())) == ["conv1_a", "train_", "1", "_steps_"]
    assert net.layer("train_").kind == "Conv2d" and net(torch.rand(1, 3, 12, 10)).shape == (1, 4, 4, 2)
    said = fails(lambda: small(conv("a.b", "data") + conv("a_b", "a.b")))
    assert "layer 'a_b' (Convolution, line 5) would have the same name in torch as layer 'a.b'" in said


# Weights that do not fit


def test_all_that_does_not_fit_is_said_at_once(small: Callable[..., Net], tmp_path: Path) -> None:
    text = conv("a", "data") + conv("b", "a", 5) + conv("c", "b") + conv("d", "c", options="kernel_size: 1")
    blobs = {"a": [np.ones((4, 3, 5, 5)), np.ones(5)], "b": [np.ones((5, 4, 3, 3))], "dd": [np.ones(1)]}
    path = write_weights(tmp_path / "other.caffemodel", blobs)
    said = fails(lambda: small(text, path), WeightsError)
    assert f"{path} does not fit {tmp_path / 'small.prototxt'}: missing from the file: c, d (it also has 'dd')" in said
    assert "a weight is 4x3x5x5 in the file, 4x3x3x3 in the definition" in said
    assert "a bias is 5 in the file, 4 in the definition" in said
    assert "b has 1 blobs in the file, 2 in the definition" in said
    blobs = {name: [np.ones((4, 3, 3, 3)), np.full(4, np.nan)] for name in "a"}
    path = write_weights(tmp_path / "nan.caffemodel", blobs)
    assert "a.bias" in fails(lambda: small(conv("a", "data"), path), WeightsError)


def test_a_state_dict_is_taken_as_weights(small: Callable[..., Net], tmp_path: Path) -> None:
    net = small(conv("a/1", "data"))
    save_file({name: value + 1 for name, value in net.body.state_dict().items()}, tmp_path / "a.safetensors")
    again = small(conv("a/1", "data"), tmp_path / "a.safetensors")
    torch.testing.assert_close(getattr(again.body, "a/1").weight, getattr(net.body, "a/1").weight + 1)
    said = fails(lambda: small(conv("a/1", "data", 5), tmp_path / "a.safetensors"), WeightsError)
    assert "a/1.weight is (4, 3, 3, 3) in the file, (5, 3, 3, 3) in the network" in said


def test_definitions_without_weights_and_weights_without_definitions(small: Callable[..., Net], data: Data) -> None:
    said = fails(lambda: small(conv("a", "data"), "default"), WeightsError)
    assert "give weights=FILE.caffemodel, or weights=None for random ones (--weights none)" in said
    said = fails(lambda: load("caffe:net.caffemodel"))
    assert "net.caffemodel holds weights" in said and "load('caffe:deploy.prototxt', weights='net.caffemodel')" in said
    said = fails(lambda: load(f"caffe:{data(SQUEEZENET[0])}", weights=data(SQUEEZENET[0])), WeightsError)
    assert "prototxt" in said


def test_random_weights_are_the_same_every_time(small: Callable[..., Net]) -> None:
    first, second = (small(conv("a", "data")).body.a.weight for _ in range(2))
    assert torch.equal(first, second)


def test_absurdly_large_definitions_are_refused(small: Callable[..., Net], tmp_path: Path) -> None:
    wide = layer("fc", "InnerProduct", "data", options="inner_product_param { num_output: 1000000 }")
    said = fails(lambda: small(wide))
    assert "has 361,000,000 parameters, 361,000,000 of them in layer 'fc': more than 150,000,000 are not" in said
    weights = write_weights(tmp_path / "w.caffemodel", {"fc": [np.ones((2, 2)), np.ones(2)]})
    said = fails(lambda: small(wide, weights), WeightsError)
    assert "fc weight is 2x2 in the file, 1000000x360 in the definition" in said
    said = fails(lambda: small(layer("up", "Deconvolution", "data", options=UP)))
    assert "makes blob 'up' of 3x33003x27003: 2,673,540,027 numbers are more than 268,435,456" in said
    deep = "".join(conv(f"c{i}", f"c{i - 1}" if i else "data", 3, "kernel_size: 1") for i in range(3000))
    assert len(small(deep).layers) == 3001


UP = "convolution_param { num_output: 3 kernel_size: 3 stride: 3000 }"


# From the command line


@pytest.mark.slow
def test_caffenet_on_the_command_line(data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = ["--net", f"caffe:{data(CAFFENET)}", "--weights", "none"]
    cat = str(data("pictures/cat.jpg"))
    layers = ["--layers", "conv1,norm2,pool5,fc8"]
    for name, arguments in {
        "model": ["class-model", "--of", "281", "--steps", "4"],
        "saliency": ["saliency", cat, "--of", "281"],
        "hidden": ["hidden_gradients", cat, "--of", "281", *layers],
        "deconvnet": ["deconvnet", cat, "--of", "conv5:3"],
    }.items():
        out = tmp_path / f"{name}.png"
        assert run([arguments[0], *arguments[1:], *net, "-o", str(out)]) == 0, capsys.readouterr().err
        assert out.stat().st_size > 10_000
    assert run(["saliency", cat, "--net", f"caffe:{data(CAFFENET)}", "-o", str(tmp_path / "no.png")]) != 0
    assert "--weights none" in capsys.readouterr().err


def test_explanations_run_on_the_real_squeezenet(squeezed: Net, data: Data) -> None:
    cat = data("pictures/cat.jpg")
    for method, options in (("grad_cam", {}), ("deconvnet", {"of": "fire5/expand3x3:2"})):
        drawing = explain(squeezed, cat, method, **options)
        values = drawing.numbers()["map"]
        assert np.isfinite(values).all() and np.abs(values).max() > 0
