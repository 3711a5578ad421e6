"""Damaged and hostile files: each ends in one sentence or a network; none crashes, hangs, fills memory or runs code."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as to_safetensors

from adversary.watching import HANG
from convscope import Net, load
from convscope.errors import ConvscopeError

KINDS = ("onnx", "pt2", "safetensors", "pth", "prototxt", "caffemodel")
COUNT, AT_ONCE = 400, 100
GIGABYTE = 2**20  # ru_maxrss is in KiB
LARGEST = 10**6  # numbers of a layer, for a damaged network to be run
HUGE = (2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1)


DEFINITION = """name: "small" input: "data" input_dim: 1 input_dim: 3 input_dim: 12 input_dim: 12
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 4 kernel_size: 3 stride: 1 pad: 1 group: 1 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" relu_param { negative_slope: 0 } }
layer { name: "norm1" type: "LRN" bottom: "conv1" top: "norm1" lrn_param { local_size: 3 alpha: 0.0001 beta: 0.75 } }
layer { name: "pool1" type: "Pooling" bottom: "norm1" top: "pool1"
        pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "slice" type: "Slice" bottom: "pool1" top: "a" top: "b" slice_param { axis: 1 slice_point: 2 } }
layer { name: "power" type: "Power" bottom: "a" top: "c" power_param { power: 2 scale: 0.5 shift: 1 } }
layer { name: "concat" type: "Concat" bottom: "b" bottom: "c" top: "concat" concat_param { axis: 1 } }
layer { name: "up" type: "Deconvolution" bottom: "concat" top: "up"
        convolution_param { num_output: 4 kernel_size: 2 stride: 2 dilation: 1 bias_term: false } }
layer { name: "crop" type: "Crop" bottom: "up" bottom: "conv1" top: "crop" crop_param { axis: 2 offset: 0 } }
layer { name: "norm" type: "BatchNorm" bottom: "crop" top: "norm" batch_norm_param { eps: 0.001 } }
layer { name: "scale" type: "Scale" bottom: "norm" top: "norm" scale_param { axis: 1 num_axes: 1 bias_term: true } }
layer { name: "sum" type: "Eltwise" bottom: "norm" bottom: "conv1" top: "sum"
        eltwise_param { operation: SUM coeff: 1 coeff: -1 } }
layer { name: "shape" type: "Reshape" bottom: "sum" top: "shape"
        reshape_param { shape { dim: 0 dim: -1 dim: 6 } axis: 0 } }
layer { name: "flat" type: "Flatten" bottom: "shape" top: "flat" flatten_param { axis: 1 end_axis: -1 } }
layer { name: "fc" type: "InnerProduct" bottom: "flat" top: "fc" inner_product_param { num_output: 5 } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""


def original(kind: str) -> bytes:
    """A small real file: a network of this kind, or its weights."""
    torch.manual_seed(0)
    if kind == "prototxt":
        return DEFINITION.encode()
    if kind == "caffemodel":
        return caffemodel()
    if kind in ("safetensors", "pth"):
        state = {key: value.contiguous() for key, value in load("lenet5").body.state_dict().items()}
        return to_safetensors(state) if kind == "safetensors" else written(lambda file: torch.save(state, file))
    # fmt: off
    body = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(36, 5),
    ).eval()
    # fmt: on
    picture = (torch.zeros(1, 3, 8, 8),)
    if kind == "pt2":
        return written(lambda file: torch.export.save(torch.export.export(body, picture), file))
    return written(lambda file: torch.onnx.export(body, picture, file, dynamo=False))


def caffemodel() -> bytes:
    """Weights of the definition above, as Caffe writes them."""
    from convscope.zoo.caffe.schema import NetParameter

    shapes = {"conv1": [(4, 3, 3, 3), (4,)], "up": [(4, 4, 2, 2)], "norm": [(4,), (4,), (1,)], "scale": [(4,), (4,)],
              "fc": [(5, 576), (5,)]}  # fmt: skip
    model = NetParameter(name="small")
    for name, blobs in shapes.items():
        layer = model.layer.add(name=name)
        for shape in blobs:
            numbers = np.random.default_rng(0).random(shape, dtype=np.float32)
            layer.blobs.add(shape={"dim": shape}, data=numbers.tobytes())
    return model.SerializeToString()


def written(write: Callable[[Any], Any]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(buffer)
    return buffer.getvalue()


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one to three ways, more often where its structure is than in its numbers."""
    mutations = MUTATIONS if b"\0" in data else MUTATIONS_OF_TEXT
    for _ in range(rng.integers(1, 4)):
        data = mutations[rng.integers(len(mutations))](data, rng)
    return data


def position(data: bytes, rng: np.random.Generator) -> int:
    """Somewhere: near the beginning, near the end, or anywhere."""
    span = min(len(data), 3000)
    start = (0, len(data) - span, int(rng.integers(len(data) - span + 1)))[rng.integers(3)]
    return start + int(rng.integers(max(span, 1)))


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: position(data, rng)]


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.integers(1, 17)):
        if changed:
            changed[position(data, rng) % len(changed)] ^= 1 << rng.integers(8)
    return bytes(changed)


def overwritten(data: bytes, rng: np.random.Generator) -> bytes:
    """A huge number, as little-endian bytes or as protobuf writes it."""
    at, number = position(data, rng), HUGE[rng.integers(len(HUGE))]
    varint = b"\xff" * 8 + b"\x7f"
    new = varint if rng.random() < 0.5 else number.to_bytes(8, "little")
    return data[:at] + new + data[at + (len(new) if rng.random() < 0.7 else 1) :]


def spliced(data: bytes, rng: np.random.Generator) -> bytes:
    a, b, length = position(data, rng), position(data, rng), int(rng.integers(1, 400))
    return data[:a] + data[b : b + length] + data[a + (length if rng.random() < 0.5 else 0) :]


def renumbered(data: bytes, rng: np.random.Generator) -> bytes:
    """Another number where one is written in text: sizes and places in headers."""
    found = list(re.finditer(rb"(?<=[\[,: ])\d+(?=[\],} ])", data))
    if not found:
        return spliced(data, rng)
    match = found[rng.integers(len(found))]
    new = [b"-1", b"0", b"7", b"1e9", b"null", *(str(n).encode() for n in HUGE)][rng.integers(10)]
    return data[: match.start()] + new + data[match.end() :]


def resized(data: bytes, rng: np.random.Generator) -> bytes:
    """Another number that the schema takes where one is written: sizes, strides, axes."""
    found = list(re.finditer(rb"(?<=: )\d+", data))
    match = found[rng.integers(len(found))] if found else None
    new = (0, 1, 2, 3, 5, 16, 1000, 65535, 2**20, 2**31 - 1, 2**32 - 1)[rng.integers(11)]
    return data if match is None else data[: match.start()] + str(new).encode() + data[match.end() :]


def relined(data: bytes, rng: np.random.Generator) -> bytes:
    """Without a line, or with one twice, or elsewhere."""
    lines = data.split(b"\n")
    line = lines.pop(rng.integers(len(lines)))
    for _ in range(rng.integers(0, 3)):
        lines.insert(rng.integers(len(lines) + 1), line)
    return b"\n".join(lines)


def reworded(data: bytes, rng: np.random.Generator) -> bytes:
    """With one word of the file where another was."""
    words = list(re.finditer(rb"\w+", data))
    if not words:
        return data
    old, new = (words[rng.integers(len(words))] for _ in range(2))
    return data[: old.start()] + new[0] + data[old.end() :]


MUTATIONS_OF_TEXT = (resized, resized, resized, resized, renumbered, relined, reworded, spliced)
MUTATIONS = (truncated, flipped, overwritten, spliced, renumbered, renumbered)


class Runs:
    """What a pickle calls when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def hostile(kind: str, canary: Path) -> list[bytes]:
    """Files made on purpose: code, bombs, lies about sizes, and nesting without end."""
    bomb, deep = bytes(3 * 10**9 // 2), "[" * 200_000 + "]" * 200_000
    if kind == "safetensors":
        header = json.dumps({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 2**62]}}).encode()
        lies = [(2**63 - 1).to_bytes(8, "little") + b"{}", len(header).to_bytes(8, "little") + header]
        return [*lies, len(deep).to_bytes(8, "little") + deep.encode()]
    if kind == "pth":
        evil = pickle.dumps({"a": Runs(canary)})
        nested: Any = ()
        for _ in range(900):
            nested = (nested,)
        plain = {"archive/version": b"3", "archive/byteorder": b"little"}
        pickles = [evil, b"\x80\x02" + b"]" * 10**6 + b".", b"\x80\x02" + b"(" * 10**7, pickle.dumps(nested)]
        stored = [archive(plain | {"archive/data.pkl": content}, zipfile.ZIP_STORED) for content in pickles]
        own = written(lambda file: torch.save({"a": Runs(canary)}, file))
        return [evil, own, *stored, archive(plain | {"archive/data.pkl": bomb})]
    if kind == "pt2":
        return [archive({"m/models/m.json": bomb}), archive({"m/models/m.json": deep.encode()}, zipfile.ZIP_STORED),
                written(lambda file: torch.save(Runs(canary), file))]  # fmt: skip
    if kind == "prototxt":
        wide = (DEFINITION.replace("num_output: 5", f"num_output: {n}").encode() for n in (10**6, 4 * 10**9))
        return [*((text * 20_000).encode() for text in ("layer {", "layer < ", "a { ")), *wide,
                b"layer { name: '" + b"x" * 10**6 + b"' }", b"a: " * 10**6, (DEFINITION * 900).encode()]  # fmt: skip
    # Protobuf: a graph within a graph within a graph, and one tensor that says it is enormous.
    nest = b""
    for _ in range(5000):
        nest = b"\x3a" + varint(len(nest)) + nest
    return [nest, b"\x3a" + varint(2**62) + b"\x00" * 100]


def varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def opened(kind: str, path: Path) -> Net:
    if kind in ("onnx", "pt2"):
        return load(f"{kind}:{path}", mean=0.5)
    if kind == "prototxt":
        return load(f"caffe:{path}", weights=None)
    if kind == "caffemodel":
        definition = path.with_suffix(".prototxt")
        definition.write_text(DEFINITION)
        return load(f"caffe:{definition}", weights=path)
    return load("lenet5", weights=path)


def attempt(kind: str, path: Path) -> str:
    """Load a file and run it once; return what went wrong, or nothing."""
    try:
        net = opened(kind, path)
        # What is large and fits together may be loaded; running it takes what it takes.
        if max(math.prod(layer.shape) for layer in net.layers.values()) <= LARGEST:
            net(torch.zeros(2, net.channels, *net.size))
    except ConvscopeError as error:
        sentence = str(error)
        return "" if "\n" not in sentence and sentence else f"not one sentence: {sentence!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    return ""


def work(kind: str, folder: Path, first: int) -> None:
    """Go through one part of the mutations of a file, and print what went wrong; killed by a watchdog when it hangs."""
    torch.set_num_threads(1)
    data = (folder / "original").read_bytes()
    path = folder / f"{first}.{kind}"
    path.write_bytes(data)
    problem = attempt(kind, path)
    assert not problem, problem
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = sorted(folder.glob("hostile-*"))
    for i in range(len(made) or AT_ONCE):
        seed = [KINDS.index(kind), first + i]
        path.write_bytes(made[i].read_bytes() if made else mutated(data, np.random.default_rng(seed)))
        print(f"at {seed}", flush=True)
        signal.setitimer(signal.ITIMER_PROF, HANG / 5)  # of its own time; most take milliseconds
        problem = attempt(kind, path)
        signal.setitimer(signal.ITIMER_PROF, 0)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if problem or grown > GIGABYTE:
            print(f"PROBLEM {seed} {problem or f'memory grew by {grown >> 10} MiB'}", flush=True)
            before += grown


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, COUNT, AT_ONCE))
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_end_in_a_sentence_or_a_network(kind: str, first: int, tmp_path: Path) -> None:
    examine(kind, first, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_files_end_in_a_sentence(kind: str, tmp_path: Path) -> None:
    # Made here: what making them takes is not what reading them takes.
    for i, content in enumerate(hostile(kind, tmp_path / "canary")):
        (tmp_path / f"hostile-{i}").write_bytes(content)
    examine(kind, 0, tmp_path)


def examine(kind: str, first: int, tmp_path: Path) -> None:
    """Go through mutations in a process of their own, so that a crash is seen."""
    if kind == "onnx":
        pytest.importorskip("onnx2torch")
    (tmp_path / "original").write_bytes(original(kind))
    command = [sys.executable, str(Path(__file__)), kind, str(tmp_path), str(first)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=6 * HANG, check=False)
    last = (done.stdout.splitlines() or [""])[-1]
    assert done.returncode == 0, f"ended by {done.returncode} {last}: {done.stderr[-2000:]}"
    assert "PROBLEM" not in done.stdout, "\n".join(line for line in done.stdout.splitlines() if "PROBLEM" in line)
    assert not (tmp_path / "canary").exists()


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
