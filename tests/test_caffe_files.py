"""Caffe's files: definitions of every age, their weights and means, and everything that is wrong with them."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from adversary.watching import ended_when_it_hangs
from convscope.errors import NetworkError, WeightsError
from convscope.zoo.caffe import prototxt
from convscope.zoo.caffe.definition import Definition, read_definition
from convscope.zoo.caffe.schema import BlobProto, LayerParameter, NetParameter, chosen
from convscope.zoo.caffe.weights import read_blobs, read_mean

KNOWN = {"Convolution", "ReLU", "Pooling", "LRN", "InnerProduct", "Dropout", "Softmax", "Concat", "Eltwise", "Slice"}

HEADER = 'name: "little"\ninput: "data"\ninput_shape { dim: 1 dim: 3 dim: 32 dim: 32 }\n'
CONV = (
    'layer {\n  name: "conv"\n  type: "Convolution"\n  bottom: "data"\n  top: "conv"\n'
    "  convolution_param { num_output: 4 kernel_size: 3 }\n}\n"
)

V2 = """
name: "little"  # layers may have comments, with { and "
input: "data"
input_dim: 1 input_dim: 3 input_dim: 32 input_dim: 32
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { name: "w" lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 8 kernel_size: 5 pad: 2 stride: 2 bias_term: false weight_filler { type: "x" } }
}
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
        pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1" lrn_param { local_size: 3 alpha: 0.5 beta: 0.25 k: 2 } }
layer { name: "drop" type: "Dropout" bottom: "norm1" top: "norm1" dropout_param { dropout_ratio: 0.25 } }
layer { name: "fc" type: "InnerProduct" bottom: "norm1" top: "fc" inner_product_param { num_output: 10 } }
layer { name: "cat" type: "Concat" bottom: "fc" bottom: "fc" top: "cat" concat_param { concat_dim: 1 } }
layer { name: "prob" type: "Softmax" bottom: "cat" top: "prob" }
"""

V1 = """
name: "little"
input: "data"
input_dim: 1 input_dim: 3 input_dim: 32 input_dim: 32
layers {
  name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1" param: "w" blobs_lr: 1 blobs_lr: 2 weight_decay: 1
  convolution_param { num_output: 8 kernel_size: 5 pad: 2 stride: 2 bias_term: false weight_filler { type: "x" } }
}
layers { name: "relu1" type: RELU bottom: "conv1" top: "conv1" }
layers { name: "pool1" type: POOLING bottom: "conv1" top: "pool1" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layers { name: "norm1" type: LRN bottom: "pool1" top: "norm1" lrn_param { local_size: 3 alpha: 0.5 beta: 0.25 k: 2 } }
layers { name: "drop" type: DROPOUT bottom: "norm1" top: "norm1" dropout_param { dropout_ratio: 0.25 } }
layers { name: "fc" type: INNER_PRODUCT bottom: "norm1" top: "fc" inner_product_param { num_output: 10 } }
layers { name: "cat" type: CONCAT bottom: "fc" bottom: "fc" top: "cat" concat_param { concat_dim: 1 } }
layers { name: "prob" type: SOFTMAX bottom: "cat" top: "prob" }
"""

V0 = """
name: "little"
input: "data"
input_dim: 1 input_dim: 3 input_dim: 32 input_dim: 32
layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "data" top: "pad1" }
layers {
  layer { name: "conv1" type: "conv" num_output: 8 kernelsize: 5 stride: 2 biasterm: false blobs_lr: 1.
          weight_filler { type: "x" } }
  param: "w" bottom: "pad1" top: "conv1"
}
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers { layer { name: "pool1" type: "pool" pool: AVE kernelsize: 3 stride: 2 } bottom: "conv1" top: "pool1" }
layers { layer { name: "norm1" type: "lrn" local_size: 3 alpha: 0.5 beta: 0.25 k: 2 } bottom: "pool1" top: "norm1" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.25 } bottom: "norm1" top: "norm1" }
layers { layer { name: "fc" type: "innerproduct" num_output: 10 } bottom: "norm1" top: "fc" }
layers { layer { name: "cat" type: "concat" concat_dim: 1 } bottom: "fc" bottom: "fc" top: "cat" }
layers { layer { name: "prob" type: "softmax" } bottom: "cat" top: "prob" }
"""

TRAINING = """
name: "trained"
layer {
  name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { crop_size: 20 mean_value: 1 }
  data_param { source: "no/such" backend: LMDB batch_size: 256 }
}
layer {
  name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 27 mean_value: 104 mean_value: 117 mean_value: 123 scale: 0.5 mirror: false }
  data_param { source: "no/such" backend: LMDB batch_size: 50 }
}
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" phase: TRAIN
        convolution_param { num_output: 4 kernel_size: 3 engine: CAFFE } propagate_down: true }
layer { name: "odd" type: "Python" bottom: "conv" top: "odd" exclude { phase: TEST } python_param { module: "m" } }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 10 } }
layer { name: "halves" type: "Slice" bottom: "label" top: "one" top: "two" slice_param { axis: 1 } }
layer { name: "best" type: "ArgMax" bottom: "fc" top: "best" argmax_param { top_k: 5 } }
layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "one" top: "accuracy" accuracy_param { top_k: 5 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "one" top: "loss" loss_weight: 0.3
        loss_param { normalization: VALID ignore_label: 255 } }
layer { name: "half" type: "Slice" bottom: "loss" top: "loss3" }
layer { name: "mine" type: "MyOwnLoss" bottom: "loss3" bottom: "two" }
layer { name: "hush" type: "Silence" bottom: "label" }
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """Write a definition, and return its path."""

    def write(text: str | bytes) -> Path:
        path = tmp_path / "net.prototxt"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def summary(definition: Definition) -> list[Any]:
    """What two definitions that mean the same have in common, however they are written."""
    return [definition.name, definition.inputs, definition.dropped] + [
        (spec.name, spec.type, spec.bottoms, spec.tops, spec.options) for spec in definition.layers
    ]


@pytest.mark.parametrize(
    ("file", "name", "side", "layers", "first", "last"),
    [
        ("caffenet_deploy", "CaffeNet", 227, 23, ("conv1", 8), ("prob", 208)),
        ("caffenet_deploy_fc8", "CaffeNet", 227, 22, ("conv1", 10), ("fc8", 201)),
        ("googlenet_deploy", "GoogleNet", 224, 142, ("conv1/7x7_s2", 8), ("prob", 2152)),
        ("squeezenet_v1.0_deploy", "squeezenet_v1.0_deploy", 227, 66, ("conv1", 16), ("prob", 550)),
    ],
)
def test_real_definitions(
    data: Any, file: str, name: str, side: int, layers: int, first: tuple[str, int], last: tuple[str, int]
) -> None:
    path = data(f"caffe/{file}.prototxt")
    definition = read_definition(path, known=KNOWN)
    assert (definition.name, definition.inputs, definition.dropped) == (name, {"data": (3, side, side)}, ())
    specs = definition.layers
    assert (len(specs), (specs[0].name, specs[0].line), (specs[-1].name, specs[-1].line)) == (layers, first, last)
    lines = path.read_text().splitlines()
    for spec in specs:
        assert lines[spec.line - 1].startswith("layer")
        assert f'"{spec.name}"' in lines[spec.line]


def test_options_have_the_schemas_defaults(data: Any) -> None:
    layers = {spec.name: spec for spec in read_definition(data("caffe/caffenet_deploy.prototxt")).layers}
    conv2 = layers["conv2"].options.convolution_param
    assert (conv2.num_output, list(conv2.pad), list(conv2.kernel_size), conv2.group) == (256, [2], [5], 2)
    assert (conv2.bias_term, list(conv2.stride), conv2.axis) == (True, [], 1)
    pool, norm = layers["pool1"].options.pooling_param, layers["norm1"].options.lrn_param
    assert (chosen(pool, "pool"), chosen(pool, "round_mode"), pool.stride, pool.pad) == ("MAX", "CEIL", 2, 0)
    assert (norm.k, norm.local_size, chosen(norm, "norm_region")) == (1, 5, "ACROSS_CHANNELS")
    assert chosen(LayerParameter().eltwise_param, "operation") == "SUM"
    assert LayerParameter().lrn_param.beta == 0.75
    assert LayerParameter().batch_norm_param.eps == pytest.approx(1e-5)


def test_three_ages_say_the_same(written: Callable[[str], Path]) -> None:
    definitions = []
    for text in (V2, V1, V0):
        definition = read_definition(written(text), known=KNOWN)
        for spec in definition.layers:  # what only training reads has another place in the older files, or none
            spec.options.convolution_param.ClearField("weight_filler")
            for parameter in spec.options.param:
                parameter.ClearField("lr_mult")
        definitions.append(summary(definition))
    conv = definitions[0][3][4]
    assert (conv.convolution_param.pad, conv.convolution_param.bias_term, conv.param[0].name) == ([2], False, "w")
    del conv.param[1:]
    assert definitions[0] == definitions[1] == definitions[2]


def test_a_training_definition_is_that_of_its_test_phase(written: Callable[[str], Path]) -> None:
    definition = read_definition(written(TRAINING), known=KNOWN)
    assert definition.inputs == {"data": (3, 27, 27)}
    assert [spec.name for spec in definition.layers] == ["conv", "fc"]
    assert definition.dropped == (
        "halves (Slice)", "best (ArgMax)", "accuracy (Accuracy)", "loss (SoftmaxWithLoss)", "half (Slice)",
        "mine (MyOwnLoss)", "hush (Silence)",
    )  # fmt: skip
    assert (list(definition.transform.mean_value), definition.transform.scale) == ([104, 117, 123], 0.5)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ('type: "Input" input_param { shape { dim: 9 dim: 1 dim: 5 dim: 6 } }', (1, 5, 6)),
        ('type: "Data" transform_param { crop_size: 7 force_gray: true }', (1, 7, 7)),
        ('type: "Data" data_param { crop_size: 7 }', (3, 7, 7)),
        ('type: "ImageData" image_data_param { new_height: 5 new_width: 6 is_color: false }', (1, 5, 6)),
        ('type: "MemoryData" memory_data_param { batch_size: 1 channels: 2 height: 3 width: 4 }', (2, 3, 4)),
        ('type: "WindowData" window_data_param { crop_size: 8 fg_threshold: 0.5 }', (3, 8, 8)),
        ('type: "DummyData" dummy_data_param { num: 1 channels: 3 height: 4 width: 5 }', (3, 4, 5)),
        ('type: "DummyData" dummy_data_param { shape { dim: 1 dim: 3 dim: 4 dim: 5 } }', (3, 4, 5)),
        ('type: "AnnotatedData" transform_param { crop_size: 9 resize_param { height: 300 } }', (3, 9, 9)),
    ],
)
def test_data_layers_become_the_input(written: Callable[[str], Path], layer: str, shape: tuple[int, ...]) -> None:
    assert read_definition(written(f'layer {{ name: "d" top: "data" {layer} }}\n{CONV}')).inputs == {"data": shape}


def test_old_data_layers_tell_mean_and_scale(written: Callable[[str], Path]) -> None:
    v1 = 'layers { name: "d" type: DATA top: "data" data_param { scale: 0.25 mean_file: "m" crop_size: 9 } }'
    v0 = 'layers { layer { name: "d" type: "data" scale: 0.25 meanfile: "m" cropsize: 9 } top: "data" top: "label" }'
    conv = 'layers { name: "c" type: CONVOLUTION bottom: "data" top: "c" }'
    for text in (v1, v0):
        definition = read_definition(written(text + conv))
        transform = definition.transform
        assert (definition.inputs, transform.scale, transform.mean_file) == ({"data": (3, 9, 9)}, 0.25, "m")


def test_names_are_kept_and_messages_may_be_written_as_lists(written: Callable[[str], Path]) -> None:
    text = HEADER + (
        'layer: [{ name: "a.b/c" type: "ReLU" bottom: ["data"], top: "x" },\n'
        '  { name: "d" type: "Concat" bottom: ["x", "data"] top: "y" }] # layer { type: "Odd" }\n'
        'layer # a comment between\n < name: "e" type: \'ReLU\' bottom: "y" top: "y" >'
    )
    specs = read_definition(written(text), known=KNOWN).layers
    assert [(spec.name, spec.bottoms, spec.line) for spec in specs] == [
        ("a.b/c", ("data",), 4), ("d", ("x", "data"), 5), ("e", ("y",), 6),
    ]  # fmt: skip


def test_field_numbers_are_caffes() -> None:
    """As bytes on the wire: field number times 8 plus the kind of value."""
    assert NetParameter(input_dim=[5]).SerializeToString() == b"\x20\x05"
    assert BlobProto(double_data=b"abcdefgh").SerializeToString() == b"\x42\x08abcdefgh"
    assert BlobProto(data=b"abcd", shape={"dim": [1]}).SerializeToString() in (
        b"\x2a\x04abcd\x3a\x02\x08\x01",
        b"\x2a\x04abcd\x3a\x03\x0a\x01\x01",
    )


def test_inputs_that_only_losses_read_are_left_out(written: Callable[[str], Path]) -> None:
    loss = 'layer { name: "loss" type: "EuclideanLoss" bottom: "conv" bottom: "label" }'
    dims = "".join(f"input_dim: {side} " for side in (1, 2, 3, 4, 1, 3, 8, 9))
    declared = f'input: "label" input: "data" {dims}\n{CONV}{loss}'
    shape = "shape { dim: 1 dim: 3 dim: 8 dim: 9 }"
    layer = f'layer {{ name: "in" type: "Input" top: "label" top: "data" input_param {{ {shape} }} }}'
    for text in (declared, f"{layer}\n{CONV}{loss}"):
        definition = read_definition(written(text), known=KNOWN)
        assert (definition.inputs, definition.dropped) == ({"data": (3, 8, 9)}, ("loss (EuclideanLoss)",))


def test_a_label_may_be_prepared_and_its_name_used_again(written: Callable[[str], Path]) -> None:
    text = (
        'layer { name: "d" type: "Data" top: "data" top: "label" transform_param { crop_size: 9 } }\n'
        'layer { name: "s" type: "Slice" bottom: "label" top: "left" top: "right" }\n'
        'layer { name: "unread" type: "ReLU" bottom: "left" top: "nothing" }\n'
        'layer { name: "label" type: "ReLU" bottom: "data" top: "label" }\n'
        'layer { name: "end" type: "ReLU" bottom: "label" top: "end" }'
    )
    assert [spec.name for spec in read_definition(written(text), known=KNOWN).layers] == ["label", "end"]


NAMES = st.text("abcdefghij0123456789_/.-", min_size=1, max_size=8)


@st.composite
def definitions(draw: st.DrawFn) -> Any:
    """A chain of layers as Caffe would write it: some in place, some with options, among them unread ones."""
    message = NetParameter(name=draw(NAMES), input=["data"])
    message.input_shape.add(dim=[1, *draw(st.lists(st.integers(1, 64), min_size=3, max_size=3))])
    at = "data"
    for name in draw(st.lists(NAMES.filter(lambda name: name != "data"), min_size=1, max_size=6, unique=True)):
        kind = draw(st.sampled_from(sorted(KNOWN)))
        top = at if kind in ("ReLU", "Dropout") and draw(st.booleans()) else name
        layer = message.layer.add(name=name, type=kind, bottom=[at], top=[top])
        if draw(st.booleans()):
            layer.convolution_param.num_output = draw(st.integers(0, 2**32 - 1))
            layer.convolution_param.kernel_size.extend(draw(st.lists(st.integers(0, 99), max_size=3)))
            layer.lrn_param.alpha = draw(st.floats(-9, 9, width=32))
            layer.pooling_param.pool = draw(st.integers(0, 2))
            layer.param.add(name=draw(st.text(max_size=5).filter(lambda t: "\ufffd" not in t)))
        at = top
    return message


def test_lines_are_right_after_long_ones(written: Callable[[str], Path]) -> None:
    """Long lines are broken for the parser, which counts its own."""
    text = HEADER + LAYER.replace("\n", " ") * 99 + "\n\n# ...\n" + LAYER.replace("}", "}}") + LAYER
    with pytest.raises(NetworkError, match="cannot be read at line 7: Expected identifier"):
        read_definition(written(text))
    with pytest.raises(NetworkError, match="cannot be read at line 4: Couldn't parse integer: x"):
        read_definition(written(HEADER + LAYER.replace("\n", " ") * 99 + "input_dim: x"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=definitions(), one_line=st.booleans(), pointy=st.booleans())
def test_what_caffe_writes_is_read_back(written: Any, message: Any, one_line: bool, pointy: bool) -> None:
    text = text_format.MessageToString(message, as_one_line=one_line, pointy_brackets=pointy)
    definition = read_definition(written(text), known=KNOWN)
    assert definition.name == message.name
    assert definition.inputs == {"data": tuple(message.input_shape[0].dim[1:])}
    assert [spec.options for spec in definition.layers] == list(message.layer)
    if not one_line:
        lines = text.splitlines()
        assert [lines[spec.line - 1][:5] for spec in definition.layers] == ["layer"] * len(message.layer)


LAYER = 'layer { name: "x" type: "ReLU" bottom: "data" top: "x" }\n'

REFUSED: dict[str, tuple[str | bytes, str]] = {
    "empty": (" \n", "is empty: a definition is a .prototxt"),
    "binary": (
        b"\n\x05hello\xa2\x06\xff\xfe",
        "is not text .byte 7 is not UTF-8.: .* caffemodel is given as weights=FILE",
    ),
    "zeros": (b"name: 'x'\0\0", "is not text .character 9 is a zero."),
    "large": (b"#" * (prototxt.MOST_BYTES + 1), "has 2,097,153 bytes, and a definition at most 2,097,152"),
    "no layers": ('name: "x"', "defines no layers: a definition has blocks such as layer { name"),
    "not prototxt": ("Dear Sir,\nthank you", "defines no layers"),
    "solver": ('net: "train_val.prototxt"\nbase_lr: 0.01', "holds a solver's settings: give the definition"),
    "unclosed": (HEADER + "layer { name: 'x'", 'line 4: Expected "}"'),
    "unopened": (HEADER + LAYER + "}", "line 5: Expected identifier or number"),
    "number": (HEADER + CONV.replace("3 }", "3.5 }"), "line 9: Couldn't parse integer: 3.5"),
    "negative": (HEADER + CONV.replace("3 }", "-3 }"), "line 9: Value out of range: -3"),
    "twice": (HEADER + CONV.replace("3 }", "3 bias_term: true bias_term: false }"), "should not have multiple"),
    "enum": (
        HEADER + 'layer { name: "p" type: "Pooling" bottom: "data" top: "p" pooling_param { pool: MEAN } }',
        "line 4: there is no PoolMethod MEAN; nearest: 'MAX'",
    ),
    "misspelt fields": (
        HEADER + CONV.replace("kernel_size", "kernal_size") + LAYER.replace("bottom", "botom"),
        r"does not know: 'kernal_size' .line 9; nearest: 'kernel_size'., 'botom' .line 11; nearest: 'bottom'.$",
    ),
    "misspelt header": ("inputt: 'data'" + LAYER, "does not know: 'inputt' .line 1; nearest: 'input'."),
    "misspelt rule": (HEADER + LAYER.replace("}", "include { phse: TEST } }"), "'phse' .line 4; nearest: 'phase'."),
    "field by number": (HEADER + LAYER.replace("}", '5: "x" }'), "does not know: '5' .line 4"),
    "unknown types": (
        HEADER + LAYER.replace("ReLU", "Foo") * 2 + CONV + LAYER.replace("ReLU", "Bar"),
        "unknown types: 'Foo' .line 4, 5., 'Bar' .line 13.; known are Concat, Convolution, Dropout",
    ),
    "unknown old types": (
        'layers { name: "x" type: FOO }\nlayers { name: "x" type: CONV }\nlayers { name: "y" type: "BatchNorm" }',
        "`layers` cannot have: 'FOO' .line 1., 'CONV' .line 2., 'BatchNorm' .line 3.; nearest: .*layer { type",
    ),
    "unknown oldest type": (
        HEADER + 'layers { layer { name: "x" type: "odd" } bottom: "data" top: "y" }',
        "'Odd' .line 4.",
    ),
    "both ages": (HEADER + LAYER + "layers { }", "both `layer` .line 4. and `layers` .line 5."),
    "two names": (HEADER + LAYER + "\n\n" + LAYER, "two layers named 'x', in lines 4 and 7"),
    "no name": (HEADER + LAYER.replace('name: "x"', ""), "the ReLU layer at line 4 has no name"),
    "missing blob": (
        HEADER + CONV + LAYER.replace('"data"', '"dta"') + LAYER.replace('"x"', '"z"').replace('"data"', '"w"'),
        r"no layer makes .*: 'dta' for layer 'x' .ReLU, line 11., 'w' for layer 'z' .* there are 'data', 'conv'",
    ),
    "cycle": (
        HEADER
        + 'layer { name: "a" type: "Concat" bottom: "data" bottom: "b" top: "a" }\n'
        + 'layer { name: "b" type: "ReLU" bottom: "a" top: "b" }',
        "'b' for layer 'a' .Concat, line 4.",
    ),
    "made twice": (
        HEADER + LAYER + LAYER.replace('"x"', '"y"', 1),
        "layer 'y' .ReLU, line 5. makes 'x', which layer 'x' .ReLU, line 4. has made",
    ),
    "no input": (LAYER, r'says no input: write input: "data" input_shape { dim: 1 dim: 3 dim: 227 dim: 227 }'),
    "unread input": (HEADER + LAYER.replace('"data"', '"image"'), "'image' for layer 'x' .ReLU, line 4.; there are"),
    "idle input": (HEADER + 'layer { name: "x" type: "ReLU" top: "x" }', "no layer of .* reads its input 'data'"),
    "no shape": ('input: "data" ' + LAYER, 'the size of its input .data.: .* or write input: "data" input_shape'),
    "no dims": ('input: "data" input_dim: 3 input_dim: 4 ' + LAYER, "has 1 inputs, 2 input_dim and 0 input_shape"),
    "dims and shapes": (HEADER + "input_dim: 1 " + LAYER, "both input_dim and input_shape"),
    "no crop": (
        'layer { name: "d" type: "Data" top: "data" top: "label" data_param { backend: LMDB } }\n' + LAYER,
        "its input 'data' .layer 'd' .Data, line 1..: .* crop_size: 227 in its transform_param, .* force_gray: true",
    ),
    "no size of numbers": (
        'layer { name: "d" type: "HDF5Data" top: "data" }\n' + LAYER,
        "its input 'data' .layer 'd' .HDF5Data, line 1..: .* write in place of layer 'd' input: \"data\" input_shape {",
    ),
    "two inputs": (
        HEADER
        + 'input: "info" input_shape { dim: 1 dim: 3 }\n'
        + 'layer { name: "x" type: "Concat" bottom: "data" bottom: "info" top: "x" }',
        "has 2 inputs that are read, 'data', 'info'",
    ),
    "input twice": (
        HEADER + LAYER + 'layer { name: "d" type: "Input" top: "data" input_param { shape { dim: 1 } } }',
        "makes 'data' twice",
    ),
    "flat input": (HEADER.replace("dim: 32 dim: 32", "") + LAYER, "has shape 1x3, not that of pictures .number"),
    "zero": (HEADER.replace("dim: 3 ", "dim: 0 ") + LAYER, "shape 1x0x32x32: every number is at least 1"),
    "vast": (HEADER.replace("32", "65536") + LAYER, "12,884,901,888 numbers are more than 268,435,456"),
    "deep": (HEADER + "layer { convolution_param { " * 10_000, "line 4: braces lie more than 32 deep"),
    "many": (HEADER + "layer { }\n" * 5001, "has 5,001 layers, and at most 5,000"),
    "both rules": (HEADER + LAYER.replace("}", "include { } exclude { } }"), "rules to include and to exclude"),
    "only losses": (HEADER + LAYER.replace("ReLU", "EuclideanLoss"), "no layers that run at test time"),
    "not a number": (
        HEADER + LAYER.replace("}", "relu_param { negative_slope: nan } }"),
        "layer 'x' .ReLU, line 4. has negative_slope: nan, which is no finite number",
    ),
    "not numbers": (
        HEADER + LAYER.replace("}", "eltwise_param { coeff: 1 coeff: inf } }"),
        "layer 'x' .ReLU, line 4. has coeff: .1.0, inf., which is no finite number",
    ),
    "mean by another name": (
        'layer { name: "d" type: "Data" top: "data"\ntransform_param { crop_size: 9 mean_vlaue: 104 } }\n' + CONV,
        r"does not know: 'mean_vlaue' .line 2; nearest: 'mean_value'.$",
    ),
    "output of a label": (
        'layer { name: "d" type: "Data" top: "data" top: "label" transform_param { crop_size: 9 } }\n'
        + CONV
        + 'layer { name: "sum" type: "Eltwise" bottom: "conv" bottom: "label" top: "sum" }',
        "layer 'sum' .Eltwise, line 9. makes an output from 'label', which only training has: delete the layer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(REFUSED))
def test_bad_definitions_are_refused_in_one_sentence(written: Callable[[str | bytes], Path], case: str) -> None:
    text, said = REFUSED[case]
    path = written(text)
    with pytest.raises(NetworkError, match=said) as error:
        read_definition(path, known=KNOWN)
    assert str(error.value).count(str(path)) == 1
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_what_is_no_file_is_refused(tmp_path: Path, data: Any) -> None:
    with pytest.raises(NetworkError, match=r"is a folder: give the definition in it, such as .*deploy\.prototxt"):
        read_definition(tmp_path)
    with pytest.raises(NetworkError, match=r"there is no definition at .*x\.prototxt: No such file"):
        read_definition(tmp_path / "x.prototxt")
    with pytest.raises(NetworkError, match=r"has 4,998,888 bytes, .* caffemodel is given as weights=FILE"):
        read_definition(data("caffe/squeezenet_v1.0.caffemodel"))


def test_what_does_not_run_is_not_looked_at(written: Callable[[str], Path]) -> None:
    """Fillers, rates, how a loss is normalised and layers that are left out may say what our schema leaves out."""
    more = 'weight_filler { type: "msra" odd: 3 } }\n  loss_param { new: VALID } blobs { }\n}'
    text = HEADER + CONV.replace("}\n}", more)
    text += 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "conv" bottom: "data" new_param { odd: true } }'
    assert [spec.name for spec in read_definition(written(text), known=KNOWN).layers] == ["conv"]


def test_stages_and_levels(written: Callable[[str], Path]) -> None:
    rules = {
        "a": 'include { stage: "deploy" }', "b": 'include { not_stage: "deploy" }', "c": "include { min_level: 1 }",
        "d": "exclude { max_level: 3 }", "e": "exclude { phase: TRAIN }",
        "f": 'include { phase: TRAIN } include { min_level: -1 stage: "x" }',
        "g": "include { phase: TRAIN } include { }",
    }  # fmt: skip
    text = HEADER + "".join(
        f'layer {{ name: "{name}" type: "ReLU" bottom: "data" top: "{name}" {rule} }}\n' for name, rule in rules.items()
    )
    assert [spec.name for spec in read_definition(written(text)).layers] == ["b", "e", "g"]
    staged = read_definition(written(text + 'state { stage: "deploy" }'))
    assert [spec.name for spec in staged.layers] == ["a", "e", "g"]


LARGE = {
    "dims": lambda size: LAYER + "input_dim: 1\n" * (size // 13),
    "unknown fields": lambda size: LAYER + "layer{" + "unknown{a:1}" * (size // 12) + "}",
    "comment": lambda size: LAYER + "#" * size,
    "spaces": lambda size: LAYER + " " * size + "}",
    "string": lambda size: LAYER + 'name: "' + "\\\\" * (size // 2),
    "words": lambda size: LAYER + "a " * (size // 2),
    "layers": lambda size: "".join(LAYER.replace('"x"', f'"{i}"') for i in range(size // 64)),
}


def calls(function: Callable[[], Any]) -> int:
    """Count the calls of functions, Python's and C's, that something takes."""
    count = 0

    def counted(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def read_or_refuse(path: Path) -> None:
    try:
        read_definition(path, known=KNOWN)
    except NetworkError as error:
        assert len(str(error)) < 3000


@pytest.mark.slow
@pytest.mark.parametrize("kind", LARGE)
def test_work_grows_with_the_size_of_a_definition(kind: str, written: Callable[[str], Path]) -> None:
    """Twice the text takes twice the calls, and not four times; the largest that is read is read."""
    small, large = (calls(partial(read_or_refuse, written(HEADER + LARGE[kind](n)))) for n in (2**15, 2**16))
    assert large <= 2.2 * small + 1000
    with ended_when_it_hangs():
        read_or_refuse(written(HEADER + LARGE[kind](prototxt.MOST_BYTES - 500)))


REAL = ["caffenet_deploy", "caffenet_deploy_fc8", "squeezenet_v1.0_deploy"]
SNIPPETS = [
    "layer { convolution_param { " * 10_000, "kernal_size: 3", "}", "{", "[", '"', "dim: 99999999999999999999", "-1",
    "dim: " + "9" * 5000, "input_dim: 0", "bottom: 'data' " * 3000, "layers { type: CONVOLUTION }", "#", "\\xff", "<",
    "type: nan", "\ud7ff\u2028", "\0", "state { phase: TEST level: 2 }", "layer { type: 'Data' top: 'data' }",
    "include { phase: TRAIN }", "reshape_param { shape { dim: -1 dim: 9223372036854775808 } }", "coeff: inf",
    "blobs { data: 1 }", "1e999",
]  # fmt: skip


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A few damages: cut off, flip a byte, repeat or delete lines, change a number, put something in."""
    kinds = st.sampled_from(["cut", "flip", "repeat", "delete", "number", "insert"])
    steps = draw(st.lists(st.tuples(kinds, st.floats(0, 1), st.integers(0, 2**33)), min_size=1, max_size=4))

    def mutate(content: bytes) -> bytes:
        for kind, where, value in steps:
            at = int(where * len(content))
            lines = content.splitlines(keepends=True)
            row = int(where * len(lines))
            if kind == "cut":
                content = content[:at]
            elif kind == "flip":
                content = content[:at] + bytes([value % 256]) + content[at + 1 :]
            elif kind == "repeat":
                content = b"".join(lines[:row] + lines[row : row + 1 + value % 30] * (1 + value % 50) + lines[row:])
            elif kind == "delete":
                content = b"".join(lines[:row] + lines[row + 1 + value % 5 :])
            elif kind == "number":
                head, tail = content[:at], content[at:]
                content = head + re.sub(rb"\d+", str(value).encode(), tail, count=1)
            else:
                content = content[:at] + SNIPPETS[value % len(SNIPPETS)].encode() + content[at:]
        return content

    return mutate


@settings(max_examples=550, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=st.sampled_from(REAL), mutate=mutations())
def test_damaged_definitions_are_read_or_refused(data: Any, written: Any, file: str, mutate: Any) -> None:
    path = written(mutate(data(f"caffe/{file}.prototxt").read_bytes()))
    try:
        with ended_when_it_hangs():
            definition = read_definition(path, known=KNOWN)
    except NetworkError as error:
        assert "\n" not in str(error)
    else:
        made = set(definition.inputs)
        for spec in definition.layers:
            assert spec.type in KNOWN
            assert set(spec.bottoms) <= made
            made |= set(spec.tops)


def model(age: str, blobs: dict[str, list[Any]], *, legacy: bool, double: bool) -> bytes:
    """Write a caffemodel as Caffe of that age did."""
    message = NetParameter(name="little")
    for name, arrays in blobs.items():
        layer = message.layer.add(type="Convolution") if age == "V2" else message.layers.add(type=4)
        inner = layer.layer if age == "V0" else layer
        inner.name = name
        for array in arrays:
            baseline(inner.blobs.add(), array, legacy=legacy, double=double)
    return message.SerializeToString()


def baseline(blob: Any, array: Any, *, legacy: bool = False, double: bool = False) -> Any:
    if legacy:
        blob.num, blob.channels, blob.height, blob.width = (1,) * (4 - array.ndim) + array.shape
    elif array.ndim:  # of a blob without axes Caffe writes no shape
        blob.shape.dim.extend(array.shape)
    if double:
        blob.double_data = array.astype("<f8").tobytes()
    else:
        blob.data = array.astype("<f4").tobytes()
    return blob


SHAPES = st.lists(st.integers(1, 4), max_size=4).map(tuple)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    age=st.sampled_from(["V0", "V1", "V2"]),
    legacy=st.booleans(),
    double=st.booleans(),
    shapes=st.dictionaries(NAMES, st.lists(SHAPES, min_size=1, max_size=3), min_size=1, max_size=4),
)
def test_weights_of_every_age_are_read_back(
    tmp_path: Path, age: str, legacy: bool, double: bool, shapes: dict[str, list[tuple[int, ...]]]
) -> None:
    random = np.random.default_rng(0)
    arrays = {name: [random.standard_normal(shape).astype(np.float32) for shape in of] for name, of in shapes.items()}
    path = tmp_path / "x.caffemodel"
    path.write_bytes(model(age, arrays, legacy=legacy, double=double))
    read = read_blobs(path)
    assert list(read) == list(arrays)
    for name, blobs in read.items():
        assert len(blobs) == len(arrays[name])
        for blob, array in zip(blobs, arrays[name], strict=True):
            assert blob.data.dtype == np.float32
            assert blob.legacy == legacy
            assert blob.shape == ((1,) * (4 - array.ndim) + array.shape if legacy else array.shape)
            assert (blob.data == array.reshape(blob.shape)).all()


def test_the_real_weights_are_those_of_the_twin(data: Any) -> None:
    blobs = read_blobs(data("caffe/squeezenet_v1.0.caffemodel"))
    twin = load_file(data("weights/squeezenet1_0.safetensors"))
    assert len(blobs) == 26
    assert sum(blob.data.size for layer in blobs.values() for blob in layer) == sum(map(np.size, twin.values()))
    weight, bias = blobs["fire2/squeeze1x1"]
    assert np.array_equal(weight.data, twin["features.3.squeeze.weight"])
    assert np.array_equal(bias.data, twin["features.3.squeeze.bias"])


def test_other_files_given_as_weights_are_named(data: Any, tmp_path: Path) -> None:
    real = data("caffe/squeezenet_v1.0.caffemodel")
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    for content, said in {
        b"": "is no caffemodel with weights: it is empty",
        data("caffe/caffenet_deploy.prototxt").read_bytes(): "it is text; a definition is named as caffe:FILE.prototxt",
        b"\x89HDF\r\n\x1a\n" + bytes(100): "it is HDF5, which is not read",
        b"PK\x03\x04" + bytes(100): "it is a zip file, as torch's are",
        b"\x80\x02}q\x00.": "it is a pickle",
        array.getvalue(): "it is an array of numpy",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n": "it is a pointer of git-lfs",
        b"\x08\x90\x4e\x12\x05a.bin\x1a\x02\x08\x01": "it is a solverstate",
        b"\x08\x01\x10\x03\x18\x02\x20\x02\x2a\x04abcd": "it is a mean",
        real.read_bytes()[:-9]: "it is damaged, cut short, or of another kind",
        bytes(range(255, 0, -1)): "it is damaged",
        NetParameter(layer=[{"name": "a"}]).SerializeToString(): "has 1 layers, none with weights",
        NetParameter(layer=[{"name": "aa"}]).SerializeToString().replace(b"aa", b"\xff\0"): "a layer is not text",
    }.items():
        path = tmp_path / "x.caffemodel"
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=said) as error:
            read_blobs(path)
        assert "\n" not in str(error.value)
    with pytest.raises(WeightsError, match="is a folder: give the caffemodel"):
        read_blobs(tmp_path)
    with pytest.raises(WeightsError, match=r"there is no caffemodel with weights at .*y\.caffemodel: No such file"):
        read_blobs(tmp_path / "y.caffemodel")


def test_blobs_that_do_not_fill_their_shape_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    for dims, count, said in [
        ([2, 3], 5, "blob 1 of layer 'fc' in .* has the shape 2x3, but holds 20 bytes: 5 numbers"),
        ([2**40, 2**40], 5, "has the shape 1099511627776x1099511627776, but"),
        ([-1, -5], 5, "has the shape -1x-5"),
        ([], 5, "has the shape of a single number, but holds 20 bytes"),
        ([1] * 40, 1, "has the shape 1x1x1"),
        ([2, 3], 0, "holds no numbers .or holds them unpacked"),
    ]:
        message = NetParameter()
        baseline(message.layer.add(name="fc").blobs.add(), np.zeros(2))
        blob = message.layer[0].blobs.add(data=bytes(4 * count))
        blob.shape.dim.extend(dims)
        path.write_bytes(message.SerializeToString())
        with pytest.raises(WeightsError, match=said):
            read_blobs(path)
    twice = NetParameter()
    for _ in range(2):
        baseline(twice.layer.add(name="fc").blobs.add(), np.zeros(2))
    path.write_bytes(twice.SerializeToString())
    with pytest.raises(WeightsError, match="weights of two layers named 'fc'"):
        read_blobs(path)


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutate=mutations(), small=st.booleans())
def test_damaged_weights_are_read_or_refused(data: Any, tmp_path: Path, mutate: Any, small: bool) -> None:
    little = model("V1", {"a": [np.ones((2, 3))], "b": [np.ones(4), np.ones(1)]}, legacy=True, double=False)
    content = little if small else data("caffe/squeezenet_v1.0.caffemodel").read_bytes()[-70_000:]
    path = tmp_path / "x.caffemodel"
    path.write_bytes(mutate(content))
    try:
        with ended_when_it_hangs():
            read = read_blobs(path)
    except WeightsError as error:
        assert "\n" not in str(error)
    else:
        assert all(blob.data.dtype == np.float32 for blobs in read.values() for blob in blobs)


MEAN = np.array([104.0, 117.0, 123.0])


@pytest.mark.parametrize("form", ["legacy", "shape", "double", "flat"])
def test_means_are_read_per_channel(tmp_path: Path, form: str) -> None:
    noise = np.random.default_rng(0).standard_normal((3, 5, 7))
    image = MEAN[:, None, None] + noise - noise.mean((1, 2), keepdims=True)
    path = tmp_path / "mean.binaryproto"
    shaped = image if form == "flat" else image[None]
    blob = baseline(BlobProto(), shaped, legacy=form == "legacy", double=form == "double")
    path.write_bytes(blob.SerializeToString())
    assert read_mean(path) == pytest.approx(tuple(MEAN), rel=1e-6)


@pytest.mark.parametrize("kind", ["image", "batch", "numbers", "bytes"])
def test_means_of_numpy_are_read_per_channel(tmp_path: Path, kind: str) -> None:
    image = MEAN[:, None, None] * np.ones((3, 5, 7))
    path = tmp_path / "mean.npy"
    np.save(path, {"image": image, "batch": image[None], "numbers": MEAN, "bytes": image.astype(np.uint8)}[kind])
    assert read_mean(path) == tuple(MEAN)


def test_bad_means_are_refused(tmp_path: Path, data: Any) -> None:
    path = tmp_path / "mean.npy"
    vast = io.BytesIO()
    np.lib.format.write_array_header_1_0(vast, {"descr": "<f4", "fortran_order": False, "shape": (3, 2**20, 2**20)})
    for array, said in {
        "objects": (np.array([{}, 1], dtype=object), "is no mean .*objects"),
        "flat": (np.zeros((4, 4)), r"has the shape 4x4 .float64.: a mean is channels x height x width"),
        "none": (np.zeros((3, 0, 4)), "has the shape 3x0x4"),
        "one": (np.zeros(()), "has the shape a single number"),
        "words": (np.array(["a"]), "has the shape 1 .<U1."),
        "nan": (np.full((3, 2, 2), np.nan), "NaN or infinite"),
    }.values():
        np.save(path, array)
        with pytest.raises(WeightsError, match=said):
            read_mean(path)
    for content in (b"", b"\x93NUMPY", b"not an array", vast.getvalue() + bytes(64)):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="is no mean"):
            read_mean(path)
    np.savez(tmp_path / "many.npz", MEAN)
    (tmp_path / "many.npz").rename(path)
    with pytest.raises(WeightsError, match="holds several arrays"):
        read_mean(path)
    with pytest.raises(WeightsError, match=r"is no mean .*: it is damaged, cut short, or of another kind"):
        read_mean(data("caffe/squeezenet_v1.0.caffemodel"))
    with pytest.raises(WeightsError, match=r"there is no mean .*: it is a folder"):
        read_mean(folder(tmp_path / "y.npy"))
    for name in ("x.npy", "x.binaryproto"):
        with pytest.raises(WeightsError, match="there is no mean"):
            read_mean(tmp_path / name)


def folder(path: Path) -> Path:
    path.mkdir()
    return path
