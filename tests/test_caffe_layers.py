"""Caffe's layers one by one: against loops over numbers, against formulas, or refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from convscope import Net
from convscope.dry_run import trace
from convscope.errors import NetworkError
from convscope.rules import deconvnet, normalised, plain, relu_rule
from convscope.zoo.caffe.definition import Spec
from convscope.zoo.caffe.inputs import MOST_NUMBERS
from convscope.zoo.caffe.layers import LAYERS, plan
from convscope.zoo.caffe.schema import LayerParameter
from oracles import caffe
from oracles.caffe import Array, FailsError, Pair


def layer(kind: str, options: str = "", *, bottoms: int = 1, tops: int = 1) -> Spec:
    """A layer of line 7 with options as a prototxt has them."""
    message = text_format.Parse(options, LayerParameter())
    names = [tuple(f"{word}{i}" for i in range(count)) for word, count in (("bottom", bottoms), ("top", tops))]
    return Spec("this", kind, names[0], names[1], message, 7)


def run(spec: Spec, *inputs: Array, **tensors: Array) -> list[Array]:
    """Run a layer on one picture in float64 and hold the shapes it promised against those it made."""
    planned = plan(spec, [x.shape for x in inputs])
    module = planned.make().double().eval()
    own = {name: value for name, value in module.state_dict().items() if name != "num_batches_tracked"}
    assert set(tensors) == set(own), "every learned tensor is given"
    assert own.keys() <= planned.blobs.keys()
    with torch.no_grad():
        for name, value in tensors.items():
            own[name].copy_(torch.from_numpy(np.asarray(value)).reshape(own[name].shape))
        made = module(*(torch.from_numpy(x)[None] for x in inputs))
    outputs = [y[0].numpy() for y in (made if isinstance(made, tuple) else (made,))]
    assert [y.shape for y in outputs] == planned.tops
    return outputs


def equal(mine: Callable[[], list[Array]], theirs: Callable[[], Array]) -> None:
    """Both give the same numbers, or both fail."""
    try:
        wanted = theirs()
    except FailsError:
        with pytest.raises(NetworkError, match=r"^layer 'this' \(\w+, line 7\) "):
            mine()
        return
    (found,) = mine()
    close(found, wanted)


def close(found: Array, wanted: Array) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def refused(spec: Spec, *shapes: tuple[int, ...]) -> str:
    with pytest.raises(NetworkError) as caught:
        plan(spec, list(shapes))
    return str(caught.value)


pairs = st.tuples


@st.composite
def written(draw: st.DrawFn, name: str, value: Pair, once: str) -> str:
    """One of the ways to write an option along y and x."""
    if value[0] == value[1] and draw(st.booleans()):
        return f"{once}: {value[0]} "
    if name in ("kernel", "pad", "stride") and draw(st.booleans()):
        return f"{name}_h: {value[0]} {name}_w: {value[1]} "
    return f"{once}: {value[0]} {once}: {value[1]} "


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[str, dict[str, Any], int, tuple[int, int, int]]:
    numbers = {
        "kernel": draw(pairs(st.integers(1, 4), st.integers(1, 4))),
        "stride": draw(pairs(st.integers(1, 3), st.integers(1, 3))),
        "pad": draw(pairs(st.integers(0, 3), st.integers(0, 3))),
        "dilation": draw(pairs(st.integers(1, 3), st.integers(1, 2))),
    }
    group = draw(st.integers(1, 3))
    outputs = group * draw(st.integers(1, 2))
    shape = (group * draw(st.integers(1, 2)), draw(st.integers(1, 8)), draw(st.integers(1, 8)))
    names = {"kernel": "kernel_size", "stride": "stride", "pad": "pad", "dilation": "dilation"}
    text = "".join(draw(written(name, value, names[name])) for name, value in numbers.items())
    text = f"convolution_param {{ num_output: {outputs} group: {group} {text} }}"
    return text, numbers | {"group": group}, outputs, shape


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
@given(case=convolutions(), seed=st.integers(0, 99))
@settings(max_examples=80)
def test_convolution_equals_loops(kind: str, case: Any, seed: int) -> None:
    text, numbers, outputs, shape = case
    kernel = numbers.pop("kernel")
    across = numbers["group"]
    sides = (outputs, shape[0] // across) if kind == "Convolution" else (shape[0], outputs // across)
    x, weight, bias = noise(*shape, seed=seed), noise(*sides, *kernel, seed=seed + 1), noise(outputs, seed=seed + 2)
    oracle = caffe.convolution if kind == "Convolution" else caffe.deconvolution
    equal(lambda: run(layer(kind, text), x, weight=weight, bias=bias), lambda: oracle(x, weight, bias, **numbers))


@st.composite
def poolings(draw: st.DrawFn) -> tuple[str, dict[str, Any], tuple[int, int, int]]:
    numbers: dict[str, Pair] = {
        "kernel": draw(pairs(st.integers(1, 5), st.integers(1, 5))),
        "stride": draw(pairs(st.integers(1, 4), st.integers(1, 4))),
        "pad": draw(pairs(st.integers(0, 4), st.integers(0, 4))),
    }
    average, floor = draw(st.booleans()), draw(st.booleans())
    text = ""
    for name, value in numbers.items():
        once = "kernel_size" if name == "kernel" else name
        alike = value[0] == value[1] and draw(st.booleans())
        text += f"{once}: {value[0]} " if alike else f"{name}_h: {value[0]} {name}_w: {value[1]} "
    text += f"pool: {'AVE' if average else 'MAX'} round_mode: {'FLOOR' if floor else 'CEIL'}"
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    return f"pooling_param {{ {text} }}", numbers | {"average": average, "floor": floor}, shape


@given(case=poolings(), seed=st.integers(0, 99))
@settings(max_examples=400)
def test_pooling_equals_loops(case: Any, seed: int) -> None:
    text, numbers, shape = case
    x = noise(*shape, seed=seed) - 3  # below zero, so that padding with zeros would win every maximum
    equal(lambda: run(layer("Pooling", text), x), lambda: caffe.pooling(x, **numbers))


def test_pooling_drops_the_window_that_padding_alone_would_fill() -> None:
    """The two halves of Caffe's rule: 7 places, windows of 2 at every 2nd, without and with padding."""
    x = noise(1, 7, 7)
    for pad, side in ((0, 4), (1, 4)):
        (y,) = run(layer("Pooling", f"pooling_param {{ kernel_size: 2 stride: 2 pad: {pad} }}"), x)
        assert y.shape == (1, side, side)
    (y,) = run(layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 pad: 1 }"), noise(1, 8, 8))
    assert y.shape == (1, 5, 5)
    (y,) = run(layer("Pooling", "pooling_param { kernel_size: 3 stride: 3 pad: 2 }"), noise(1, 4, 4))
    assert y.shape == (1, 2, 2), "ceil(5 / 3) + 1 = 3, and the third window would begin at 6 - 2 = 4"


@pytest.mark.parametrize("kind", ["MAX", "AVE"])
def test_global_pooling_is_over_all_places(kind: str) -> None:
    x = noise(3, 5, 4)
    (y,) = run(layer("Pooling", f"pooling_param {{ pool: {kind} global_pooling: true }}"), x)
    np.testing.assert_allclose(y[:, 0, 0], x.max((1, 2)) if kind == "MAX" else x.mean((1, 2)))


@given(
    size=st.integers(1, 7),
    alpha=st.sampled_from([0.5, 1.0, 3.0]),
    beta=st.sampled_from([0.5, 0.75, 2.0]),
    k=st.sampled_from([1.0, 2.5]),
    within=st.booleans(),
    shape=pairs(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5)),
)
@settings(max_examples=100)
def test_normalisation_equals_loops(
    size: int, alpha: float, beta: float, k: float, within: bool, shape: tuple[int, int, int]
) -> None:
    region = "norm_region: WITHIN_CHANNEL" if within else ""
    spec = layer("LRN", f"lrn_param {{ local_size: {size} alpha: {alpha} beta: {beta} k: {k} {region} }}")
    x, options = noise(*shape), {"size": size, "alpha": alpha, "beta": beta}
    oracle = (lambda: caffe.lrn_within(x, **options)) if within else (lambda: caffe.lrn_across(x, k=k, **options))
    equal(lambda: run(spec, x), oracle)


X = noise(4, 3, 5)
ELEMENTWISE: dict[str, tuple[str, str, Callable[[Array], Array]]] = {
    "relu": ("ReLU", "", lambda x: np.maximum(x, 0)),
    "relu with a gradient": ("ReLU", "relu_param { negative_slope: 0.25 }", lambda x: np.where(x > 0, x, x / 4)),
    "elu": ("ELU", "elu_param { alpha: 2 }", lambda x: np.where(x > 0, x, 2 * np.expm1(np.minimum(x, 0)))),
    "sigmoid": ("Sigmoid", "", lambda x: 1 / (1 + np.exp(-x))),
    "tanh": ("TanH", "", np.tanh),
    "absval": ("AbsVal", "", np.abs),
    "bnll": ("BNLL", "", lambda x: np.log1p(np.exp(x))),
    "exp": ("Exp", "", np.exp),
    "exp to a base": ("Exp", "exp_param { base: 2 scale: 3 shift: 0.5 }", lambda x: 2 ** (0.5 + 3 * x)),
    "log": ("Log", "log_param { shift: 9 }", lambda x: np.log(9 + x)),
    "log to a base": ("Log", "log_param { base: 2 scale: 0.5 shift: 4 }", lambda x: np.log2(4 + 0.5 * x)),
    "power": ("Power", "power_param { power: 2 scale: 0.5 shift: -1 }", lambda x: (0.5 * x - 1) ** 2),
    "power as it is": ("Power", "", lambda x: x),
    "dropout": ("Dropout", "dropout_param { dropout_ratio: 0.4 }", lambda x: x),
    "dropout unscaled": ("Dropout", "dropout_param { dropout_ratio: 0.25 scale_train: false }", lambda x: 0.75 * x),
    "softmax": ("Softmax", "", lambda x: np.exp(x) / np.exp(x).sum(0)),
    "softmax along rows": ("Softmax", "softmax_param { axis: -1 }", lambda x: np.exp(x) / np.exp(x).sum(2)[..., None]),
    "flatten": ("Flatten", "", lambda x: x.ravel()),
    "flatten two axes": ("Flatten", "flatten_param { axis: 2 end_axis: 3 }", lambda x: x.reshape(4, 15)),
    "reshape": ("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 5 } }", lambda x: x.reshape(12, 5)),
    "reshape in the middle": (
        "Reshape", "reshape_param { shape { dim: 2 dim: 2 } axis: 1 num_axes: 1 }", lambda x: x.reshape(2, 2, 3, 5),
    ),
    "reshape a batch of ten": ("Reshape", "reshape_param { shape { dim: 10 dim: 60 } }", lambda x: x.ravel()),
    "reshape at the end": ("Reshape", "reshape_param { shape { dim: 1 } axis: -1 }", lambda x: x[..., None]),
    "split": ("Split", "", lambda x: x),
}  # fmt: skip


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_layers_without_weights_equal_their_formulas(name: str) -> None:
    kind, options, formula = ELEMENTWISE[name]
    (y,) = run(layer(kind, options), X)
    np.testing.assert_allclose(y, formula(X), rtol=1e-7)


def test_inner_products_flatten_from_their_axis_and_may_lie_transposed() -> None:
    weight, bias = noise(6, 60), noise(6)
    (y,) = run(layer("InnerProduct", "inner_product_param { num_output: 6 }"), X, weight=weight, bias=bias)
    np.testing.assert_allclose(y, weight @ X.ravel() + bias)
    transposed = layer("InnerProduct", "inner_product_param { num_output: 6 transpose: true bias_term: false }")
    (z,) = run(transposed, X, weight=weight.T)
    np.testing.assert_allclose(z, weight @ X.ravel())
    (rows,) = run(
        layer("InnerProduct", "inner_product_param { num_output: 2 axis: -1 }"), X, weight=weight[:2, :5], bias=bias[:2]
    )
    np.testing.assert_allclose(rows, X @ weight[:2, :5].T + bias[:2])


def test_batch_norm_scale_and_bias_equal_their_formulas() -> None:
    mean, variance, factor, added = noise(4), noise(4) ** 2, noise(4, seed=1), noise(4, seed=2)
    (y,) = run(layer("BatchNorm", "batch_norm_param { eps: 0.25 }"), X, running_mean=mean, running_var=variance)
    close(y, (X - mean[:, None, None]) / np.sqrt(variance + 0.25)[:, None, None])
    (y,) = run(layer("BatchNorm"), X[:, 0, 0].copy(), running_mean=mean, running_var=variance)
    close(y, (X[:, 0, 0] - mean) / np.sqrt(variance + np.float32(1e-5)))
    (y,) = run(layer("Scale", "scale_param { bias_term: true }"), X, weight=factor, bias=added)
    close(y, X * factor[:, None, None] + added[:, None, None])
    (y,) = run(layer("Scale", "scale_param { axis: 1 num_axes: 2 }"), X, weight=noise(4, 3))
    close(y, X * noise(4, 3)[:, :, None])
    (y,) = run(layer("Scale", "scale_param { axis: -1 num_axes: -1 }"), X, weight=noise(5))
    close(y, X * noise(5))
    (y,) = run(layer("Bias", "bias_param { num_axes: 0 }"), X, bias=np.array(3.0))
    close(y, X + 3)
    (y,) = run(layer("Bias"), X, bias=added)
    close(y, X + added[:, None, None])


def test_a_second_bottom_scales_or_adds_picture_by_picture() -> None:
    factor = noise(4)
    for kind, wanted in (("Scale", X * factor[:, None, None]), ("Bias", X + factor[:, None, None])):
        (y,) = run(layer(kind, f"{kind.lower()}_param {{ axis: 0 }}", bottoms=2), X, factor)
        np.testing.assert_allclose(y, wanted)
        module = plan(layer(kind, f"{kind.lower()}_param {{ axis: 0 }}", bottoms=2), [(4, 3, 5), ()]).make()
        each = module(torch.ones(2, 4, 3, 5), torch.tensor([2.0, 3.0]))
        assert each[1].eq(3 if kind == "Scale" else 4).all() and each[0].eq(2 if kind == "Scale" else 3).all()


def test_prelu_has_a_slope_for_each_channel_or_one() -> None:
    grads = noise(4)
    (y,) = run(layer("PReLU"), X, weight=grads)
    np.testing.assert_allclose(y, np.where(X > 0, X, X * grads[:, None, None]))
    (y,) = run(layer("PReLU", "prelu_param { channel_shared: true }"), X, weight=np.array(0.5))
    np.testing.assert_allclose(y, np.where(X > 0, X, X / 2))


@pytest.mark.parametrize(
    ("options", "formula"),
    [
        ("", lambda a, b, c: a + b + c),
        ("eltwise_param { operation: SUM coeff: 1 coeff: -2 coeff: 0.5 }", lambda a, b, c: a - 2 * b + c / 2),
        ("eltwise_param { operation: PROD }", lambda a, b, c: a * b * c),
        ("eltwise_param { operation: MAX }", lambda a, b, c: np.maximum(np.maximum(a, b), c)),
    ],
    ids=["sum", "coefficients", "product", "maximum"],
)
def test_eltwise_combines_place_by_place(options: str, formula: Callable[..., Array]) -> None:
    parts = [noise(4, 3, 5, seed=seed) for seed in range(3)]
    (y,) = run(layer("Eltwise", options, bottoms=3), *parts)
    np.testing.assert_allclose(y, formula(*parts))


def test_concat_and_slice_are_each_others_inverse() -> None:
    parts = run(layer("Slice", "slice_param { slice_point: 1 slice_point: 3 }", tops=3), X)
    assert [part.shape[0] for part in parts] == [1, 2, 1]
    (y,) = run(layer("Concat", bottoms=3), *parts)
    np.testing.assert_array_equal(y, X)
    halves = run(layer("Slice", "slice_param { slice_dim: 1 }", tops=2), X)
    (y,) = run(layer("Concat", "concat_param { concat_dim: 1 }", bottoms=2), *halves)
    np.testing.assert_array_equal(y, X)
    rows = run(layer("Slice", "slice_param { axis: -1 slice_point: 2 }", tops=2), X)
    (y,) = run(layer("Concat", "concat_param { axis: 3 }", bottoms=2), *rows)
    np.testing.assert_array_equal(y, X)
    first, second = run(layer("Split", tops=2), X)
    assert (first == X).all() and (second == X).all()


def test_crop_takes_the_second_bottoms_extent() -> None:
    (y,) = run(layer("Crop", "crop_param { offset: 1 }", bottoms=2), X, noise(9, 2, 3))
    np.testing.assert_array_equal(y, X[:, 1:3, 1:4])
    (y,) = run(layer("Crop", "crop_param { axis: 1 offset: 2 offset: 0 offset: 1 }", bottoms=2), X, noise(2, 2, 3))
    np.testing.assert_array_equal(y, X[2:, :2, 1:4])
    (y,) = run(layer("Crop", bottoms=2), X, noise(1, 3, 1))
    np.testing.assert_array_equal(y, X[:, :, :1])


CONV = "convolution_param { num_output: 4 kernel_size: 3 %s }"
POOL = "pooling_param { kernel_size: 3 stride: 2 %s }"
BAD: dict[str, tuple[Spec, list[tuple[int, ...]], str]] = {
    "no kernel": (layer("Convolution", "convolution_param { num_output: 4 }"), [(4, 9, 9)], "needs kernel_size of at"),
    "no outputs": (layer("Convolution", "convolution_param { kernel_size: 3 }"), [(4, 9, 9)], "needs num_output of at"),
    "stride 0": (layer("Convolution", CONV % "stride: 0"), [(4, 9, 9)], "needs stride of at least 1 along both axes"),
    "kernels of both kinds": (layer("Convolution", CONV % "kernel_h: 3 kernel_w: 3"), [(4, 9, 9)], "gives kernel_h o"),
    "three dimensions": (layer("Convolution", CONV % "stride: 1 stride: 1 stride: 1"), [(4, 9, 9)], "only layers in t"),
    "another axis": (layer("Convolution", CONV % "axis: 2"), [(4, 9, 9)], "takes axis 2 for the channels: only axis 1"),
    "groups": (layer("Convolution", CONV % "group: 3"), [(4, 9, 9)], "cannot divide 4 channels in and 4 out"),
    "no groups": (layer("Convolution", CONV % "group: 0"), [(4, 9, 9)], "cannot divide 4 channels in and 4 out"),
    "too small": (layer("Convolution", CONV % ""), [(4, 9, 2)], "makes an empty blob 'top0' (4x7x0)"),
    "vector": (layer("Convolution", CONV % ""), [(4,)], "reads channels x height x width, but its bottom is 4"),
    "two bottoms": (layer("Convolution", CONV % "", bottoms=2), [(4, 9, 9)] * 2, "has 2 bottoms, but needs 1"),
    "two tops": (layer("Pooling", POOL % "", tops=2), [(4, 9, 9)], "has 2 tops, but needs 1"),
    "far padding": (layer("Convolution", CONV % "pad: 4000000000"), [(4, 9, 9)], "more than 268,435,456"),
    "wide kernel": (
        layer("Convolution", "convolution_param { num_output: 1 kernel_size: 4000000000 pad: 2 }"), [(4, 9, 9)],
        "makes a window of 4000000000x4000000000: 16,000,000,000,000,000,000 numbers are more than 268,435,456",
    ),
    "many outputs": (
        layer("Convolution", "convolution_param { num_output: 4000000000 kernel_size: 1 }"), [(4, 9, 9)],
        "makes blob 'top0' of 4000000000x9x9: 324,000,000,000 numbers are more than 268,435,456",
    ),
    "random pooling": (layer("Pooling", POOL % "pool: STOCHASTIC"), [(4, 9, 9)], "pools at random (STOCHASTIC)"),
    "pad not less": (layer("Pooling", POOL % "pad: 3"), [(4, 9, 9)], "pads by 3x3, which must be less than its window"),
    "one pad": (layer("Pooling", POOL % "pad_h: 1"), [(4, 9, 9)], "gives one of pad_h and pad_w: give both"),
    "stride beyond": (
        layer("Pooling", "pooling_param { kernel_size: 1 stride: 3 }"), [(1, 3, 3)], "lay its last window outside its",
    ),
    "global kernel": (layer("Pooling", POOL % "global_pooling: true"), [(4, 9, 9)], "pools globally and yet gives"),
    "global pad": (
        layer("Pooling", "pooling_param { global_pooling: true pad: 1 }"), [(4, 9, 9)], "padding must be 0 and the str",
    ),
    "even norm": (layer("LRN", "lrn_param { local_size: 4 }"), [(4, 9, 9)], "over local_size: 4, which must be odd"),
    "wide norm": (layer("LRN", "lrn_param { local_size: 4000000001 }"), [(4, 9, 9)], "more than 268,435,456"),
    "batch statistics": (
        layer("BatchNorm", "batch_norm_param { use_global_stats: false }"), [(4, 9, 9)], "write use_global_stats: true",
    ),
    "the batch's axis": (layer("Softmax", "softmax_param { axis: 0 }"), [(4,)], "works along axis 0 of a bottom 4"),
    "no such axis": (layer("Concat", "concat_param { axis: 4 }"), [(4, 9, 9)], "axis 4 of a bottom 4x9x9: its axes ar"),
    "unlike": (layer("Concat", bottoms=2), [(4, 9, 9), (4, 9, 8)], "bottoms of one shape but for axis 1, not 4x9x9, 4"),
    "ranks": (layer("Concat", bottoms=2), [(4, 9, 9), (4,)], "needs bottoms of one shape, not 4x9x9, 4"),
    "sum of unlike": (layer("Eltwise", bottoms=2), [(4, 9, 9), (4, 9, 1)], "needs bottoms of one shape, not 4x9x9, 4x"),
    "coefficients": (
        layer("Eltwise", "eltwise_param { coeff: 2 }", bottoms=2), [(4,)] * 2, "has 1 coefficients for SUM of 2",
    ),
    "factors": (
        layer("Eltwise", "eltwise_param { operation: PROD coeff: 2 coeff: 1 }", bottoms=2), [(4,)] * 2, "2 coefficient",
    ),
    "odd halves": (layer("Slice", tops=3), [(4, 9, 9)], "cannot cut axis 1 of 4x9x9 into 3 equal tops"),
    "points": (layer("Slice", "slice_param { slice_point: 4 }", tops=2), [(4, 9, 9)], "cuts axis 1 of 4x9x9 at [4] fo"),
    "too many points": (
        layer("Slice", "slice_param { slice_point: 1 slice_point: 2 }", tops=2), [(4,)], "1 rising points inside the a",
    ),
    "numbers": (
        layer("Reshape", "reshape_param { shape { dim: 0 dim: 7 } }"), [(4, 9, 9)], "cannot lay 4x9x9 (324 numbers) ou",
    ),
    "mixed": (layer("Reshape", "reshape_param { shape { dim: -1 dim: 2 } }"), [(4,)], "cannot lay 4 (4 numbers) out a"),
    "pushed": (
        layer("Reshape", "reshape_param { shape { dim: 1 } axis: 0 num_axes: 0 }"), [(4,)], "moves the batch's axis",
    ),
    "two unknowns": (
        layer("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: -1 } }"), [(4,)], "each is an extent, 0 (copied)",
    ),
    "no axis to copy": (
        layer("Reshape", "reshape_param { shape { dim: 0 dim: 0 dim: 0 } }"), [(4,)], "copies an axis that its bottom",
    ),
    "axes beyond": (
        layer("Reshape", "reshape_param { shape { dim: 4 } axis: 1 num_axes: 2 }"), [(4,)], "replaces 2 axes from axis",
    ),
    "backwards": (
        layer("Flatten", "flatten_param { axis: 3 end_axis: 1 }"), [(4, 9, 9)], "from axis 3 to axis 1, which lies bef",
    ),
    "crop": (layer("Crop", "crop_param { offset: 8 }", bottoms=2), [(4, 9, 9), (4, 2, 2)], "cannot cut 4x2x2 at [8, 8"),
    "crop offsets": (
        layer("Crop", "crop_param { offset: 1 offset: 1 offset: 1 }", bottoms=2), [(4, 9, 9), (4, 2, 2)], "has 3 offse",
    ),
    "scale beyond": (
        layer("Scale", "scale_param { num_axes: 4 }"), [(4, 9, 9)], "spans 4 axes from axis 1 on, but its bottom is 4x",
    ),
    "scale by pictures": (layer("Scale", bottoms=2), [(4, 9, 9), (4,)], "axis: 0 lays picture on picture"),
    "scale unlike": (
        layer("Scale", "scale_param { axis: 0 }", bottoms=2), [(4, 9, 9), (9,)], "cannot spread its second bottom 9 ov",
    ),
    "scale and bias": (
        layer("Scale", "scale_param { axis: 0 bias_term: true }", bottoms=2), [(4, 9, 9), (4,)], "learns a bias_term f",
    ),
    "dropout": (layer("Dropout", "dropout_param { dropout_ratio: 2 }"), [(4,)], "drops a share of 2, which must lie b"),
    "base": (layer("Log", "log_param { base: 1 }"), [(4,)], "has base: 1, to which there is no logarithm"),
    "negative base": (layer("Exp", "exp_param { base: -2 }"), [(4,)], "has base: -2, which must be positive, or -1 fo"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused_with_its_place_and_the_shapes(name: str) -> None:
    spec, shapes, reason = BAD[name]
    said = refused(spec, *shapes)
    assert said.startswith(f"layer 'this' ({spec.type}, line 7) ") and reason in said, said
    assert "\n" not in said


def test_every_type_of_layer_is_tried_here() -> None:
    tried = {kind for kind, _, _ in ELEMENTWISE.values()} | {"Convolution", "Deconvolution", "Pooling", "LRN"}
    tried |= {"InnerProduct", "BatchNorm", "Scale", "Bias", "PReLU", "Eltwise", "Concat", "Slice", "Crop"}
    assert tried == set(LAYERS)


def test_a_blob_may_have_as_many_numbers_as_are_allowed_and_not_one_more() -> None:
    spec = layer("ReLU")
    assert plan(spec, [(1, 2**14, 2**14)]).tops == [(1, 2**14, 2**14)]
    assert f"{MOST_NUMBERS + 2**14:,} numbers" in refused(spec, (1, 2**14, 2**14 + 1))


# Within-channel normalisation and the deconvnet


def within() -> torch.nn.Module:
    text = "lrn_param { local_size: 3 alpha: 2 norm_region: WITHIN_CHANNEL }"
    return plan(layer("LRN", text), [(2, 5, 5)]).make().double()


def test_the_deconvnet_goes_past_normalisation_within_channels() -> None:
    x, signal = torch.randn(1, 2, 5, 5).double().requires_grad_(), torch.randn(1, 2, 5, 5).double()
    norm = within()
    (true,) = torch.autograd.grad((norm(x) * signal).sum(), x)
    for skip in (True, False):
        with relu_rule(plain, skip_lrn=skip):
            (back,) = torch.autograd.grad((norm(x) * signal).sum(), x)
        assert torch.equal(back, signal) == skip
        assert torch.allclose(back, true) != skip
    (after,) = torch.autograd.grad((norm(x) * signal).sum(), x)
    assert torch.equal(after, true), "nothing is left behind"


def test_rules_within_rules_skip_what_the_inner_one_says() -> None:
    x = torch.randn(1, 2, 5, 5).double().requires_grad_()
    signal, norm = torch.randn(1, 2, 5, 5).double(), within()

    def back() -> bool:
        return torch.equal(torch.autograd.grad((norm(x) * signal).sum(), x)[0], signal)

    with relu_rule(plain, skip_lrn=True):
        with relu_rule(plain):
            assert not back()
        assert back()
    with pytest.raises(ZeroDivisionError), relu_rule(deconvnet, skip_lrn=True):
        raise ZeroDivisionError
    assert not back()


def test_a_normalisation_of_ones_own_can_say_what_it_is() -> None:
    class Own(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return normalised(x, x / (1 + x.square()))

    x = torch.randn(1, 3, 4, 4, requires_grad=True)
    with relu_rule(plain, skip_lrn=True):
        (back,) = torch.autograd.grad(Own()(x).sum(), x)
    assert back.eq(1).all()
    assert normalised(x.detach(), x.detach() * 2).eq(x.detach() * 2).all()


def test_receptive_fields_are_known_through_layers_that_are_not_torchs() -> None:
    stack = torch.nn.Sequential(
        within(), plan(layer("Pooling", "pooling_param { kernel_size: 3 stride: 2 pad: 2 }"), [(2, 9, 9)]).make()
    )
    net = Net(stack, size=9, channels=2, name="stack")
    norm, pool = net.layers["0"], net.layers["1"]
    assert norm.field.size == (3, 3) and pool.field.size == (5, 5) and pool.field.step == (2, 2)
    assert pool.field.offset == (-3, -3)
    assert trace(stack, (2, 9, 9))[-1].shape == pool.shape
