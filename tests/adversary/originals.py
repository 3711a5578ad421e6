"""Small real files of every kind that the package reads, made here, and hostile ones made on purpose."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .mutations import Mutation
from .structures import varint

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


def prototxts() -> list[bytes]:
    return [DEFINITION.encode()]


NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def written(write: Callable[[Any], Any]) -> bytes:
    """Return what something writes into a file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(buffer)
    return buffer.getvalue()


def pixels(mode: str = "RGB", size: tuple[int, int] = (23, 17), seed: int = 0) -> Image.Image:
    """A picture with something in it."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    noise[4:12, 4:12] = (200, 30, 40)
    return Image.fromarray(noise).convert(mode)


def saved(mode: str, kind: str, **options: Any) -> bytes:
    """A picture in a format of Pillow's."""
    return written(lambda file: pixels(mode).save(file, kind, **options))


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[274], exif[270], exif[305] = 6, "a picture", "x" * 40
    return exif


def frames(kind: str) -> bytes:
    """An animation of three frames."""
    film = [pixels("RGB", seed=seed) for seed in range(3)]
    return written(lambda file: film[0].save(file, kind, save_all=True, append_images=film[1:], duration=80))


def png() -> list[bytes]:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("convscope", "{}")
    info.add_itxt("words", "wörter" * 30, zip=True)
    deep = tiff16("PNG")
    plain = [saved(mode, "PNG") for mode in ("L", "RGB", "RGBA", "P", "1", "LA")]
    return [*plain, saved("RGB", "PNG", pnginfo=info, exif=_exif(), dpi=(72, 72)), *deep, frames("PNG")]


def tiff16(kind: str) -> list[bytes]:
    """Pictures of 16 bits: grey by Pillow, colour by OpenCV."""
    import cv2

    colour = np.random.default_rng(0).integers(0, 65536, (17, 23, 3), dtype=np.uint16)
    grey = written(lambda file: Image.fromarray(colour[:, :, 0]).save(file, kind))
    return [grey, bytes(cv2.imencode("." + kind.lower(), colour)[1])]


def tiff() -> list[bytes]:
    import tifffile

    bands = np.random.default_rng(0).integers(0, 4096, (5, 17, 23), dtype=np.uint16)
    many = written(lambda file: tifffile.imwrite(file, bands, planarconfig="separate", photometric="minisblack"))
    pages = written(lambda file: tifffile.imwrite(file, bands, photometric="minisblack", metadata=None))
    tiles = written(
        lambda file: tifffile.imwrite(file, np.zeros((64, 64, 3), np.float32), tile=(16, 16), photometric="rgb")
    )
    big = written(lambda file: tifffile.imwrite(file, bands[0], bigtiff=True, byteorder=">"))
    kinds = ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "group4")
    plain = [saved("1" if kind == "group4" else "RGB", "TIFF", compression=kind) for kind in kinds]
    return [*plain, saved("CMYK", "TIFF"), frames("TIFF"), *tiff16("TIFF"), many, pages, tiles, big]


def jpeg() -> list[bytes]:
    plain = [saved(mode, "JPEG") for mode in ("RGB", "L", "CMYK")]
    return [*plain, saved("RGB", "JPEG", progressive=True, exif=_exif(), icc_profile=b"x" * 200, comment="c")]


def mpo() -> list[bytes]:
    return [written(lambda file: pixels().save(file, "MPO", save_all=True, append_images=[pixels(seed=1)]))]


def webp() -> list[bytes]:
    return [saved("RGB", "WEBP"), saved("RGBA", "WEBP", lossless=True, exif=_exif()), frames("WEBP")]


def gif() -> list[bytes]:
    return [saved("P", "GIF"), frames("GIF")]


def bmp() -> list[bytes]:
    return [saved(mode, "BMP") for mode in ("RGB", "L", "1", "P")]


def ppm() -> list[bytes]:
    plain = b"P3\n# made\n2 2\n255\n" + b" ".join(b"%d" % n for n in range(12)) + b"\n"
    return [saved("RGB", "PPM"), saved("L", "PPM"), saved("1", "PPM"), plain, b"P5\n3 2\n65535\n" + bytes(12)]


def npy() -> list[bytes]:
    arrays = (np.zeros((9, 7, 3), np.uint8), np.ones((7, 9), np.float32) / 2, np.zeros((3, 9, 7), np.uint16))
    return [written(lambda file, array=array: np.save(file, array)) for array in arrays]


def mp4() -> list[bytes]:
    import imageio_ffmpeg

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "film.mp4")
        writer = imageio_ffmpeg.write_frames(str(path), (32, 32), fps=5)
        writer.send(None)
        for seed in range(5):
            writer.send(pixels(size=(32, 32), seed=seed).tobytes())
        writer.close()
        return [path.read_bytes()]


# Texts ----------------------------------------------------------------------------------------------------------------


def class_json() -> list[bytes]:
    forms = (
        list(NAMES),
        dict(enumerate(NAMES)),
        {name: i for i, name in enumerate(NAMES)},
        {"id2label": dict(enumerate(NAMES))},
        [{"id": i, "name": name} for i, name in enumerate(NAMES)],
        {str(i): [f"n{i:08}", n] for i, n in enumerate(NAMES)},
    )
    return [json.dumps(form).encode() for form in forms]


def class_table() -> list[bytes]:
    rows = "".join(f"{i},{name}\n" for i, name in enumerate(NAMES))
    return [b"index,name\n" + rows.encode(), "\n".join(NAMES).encode(), rows.replace(",", "\t").encode()]


def class_text() -> list[bytes]:
    numbered = "\n".join(f"{i}: {name}" for i, name in enumerate(NAMES))
    wordnet = "\n".join(f"n{i:08} {name}, {name}" for i, name in enumerate(NAMES))
    return ["\n".join(NAMES).encode(), numbered.encode(), repr(dict(enumerate(NAMES))).encode(), wordnet.encode()]


def boxes_table() -> list[bytes]:
    rows = [("a.png", 1, 2, 9, 8, "cat"), ("a.png", 3, 3, 5, 5, "dog"), ("b.png", 0, 0, 20, 10, "cat")]
    return [("path,left,top,right,bottom,class\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)).encode()]


def boxes_coco() -> list[bytes]:
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "annotations": [{"image_id": 1, "bbox": [1, 2, 8, 6], "category_id": 3}, {"image_id": 2, "bbox": [0.0, 0.0,
        5.5, 5.5]}],
        "categories": [{"id": 3, "name": "cat"}],
    }  # fmt: skip
    return [json.dumps(content).encode()]


def boxes_voc() -> list[bytes]:
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"
    whole = f"<annotation><filename>a.png</filename>\n<object><name>cat</name>\n{box}</object></annotation>"
    return [b'<?xml version="1.0"?>\n' + whole.encode()]


def configuration() -> list[bytes]:
    return [b"""net = "small"
plugins = []
[networks.small]
load = "lenet5"
mean = [0.5]
classes = ["a", "b"]
size = 28
value_range = [0, 255]
[networks."other one"]
load = "onnx:net.onnx"
weights = "none"
output = 1
seed = 3
[data]
cat = "a.png"
[defaults]
size = 28
[defaults.saliency]
smooth = 3
overlay = true
of = "3"
"""]  # fmt: skip


def pyproject() -> list[bytes]:
    inside = re.sub(rb"(?m)^\[", b"[tool.convscope.", configuration()[0])
    return [b"[project]\nname = 'x'\n[tool.convscope]\n" + inside]


def history() -> list[bytes]:
    from convscope.zoo.runs import HISTORY, shipped

    return [(shipped("lenet5") / HISTORY).read_bytes()]


def hub_config() -> list[bytes]:
    content = {
        "architecture": "resnet10t", "num_classes": 4, "num_features": 512, "model_args": {"stem_width": 8},
        "label_names": ["a", "b", "c", "d"], "label_descriptions": {"a": "cat"},
        "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
        "crop_pct": 0.9,
                           "interpolation": "bicubic", "first_conv": "conv1", "classifier": "fc", "license": "x"},
    }  # fmt: skip
    return [json.dumps(content).encode()]


# Drawings -------------------------------------------------------------------------------------------------------------


@cache
def _elsewhere(make: Callable[..., list[bytes]], *given: Any) -> list[bytes]:
    """Make files in a fork: torch forks no process that has computed a gradient."""
    with get_context("fork").Pool(1) as elsewhere:
        return elsewhere.apply(make, given)


def drawings(suffix: str) -> list[bytes]:
    """A map and a table of numbers as the package writes them."""
    return _elsewhere(_drawings, suffix)


def _drawings(suffix: str) -> list[bytes]:
    import convscope
    from convscope.data.samples import digits

    net, digit = convscope.load("lenet5"), str(digits()[3])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "drawing" + suffix)
        made = [convscope.explain(net, digit, "saliency"), convscope.maps(net, digit, layer="conv2")]
        found = list[bytes]()
        for drawing in made:
            (drawing.save if suffix == ".png" else drawing.save_values)(path)
            found.append(path.read_bytes())
    return found


def recipe() -> list[bytes]:
    from convscope.drawing.files import read_recipe

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "drawing.npz")
        path.write_bytes(drawings(".npz")[0])
        return [read_recipe(path).to_json().encode()]


# Networks and weights -------------------------------------------------------------------------------------------------


def lenet_state() -> dict[str, Any]:
    from convscope import load

    return {key: value.contiguous() for key, value in load("lenet5").body.state_dict().items()}


def safetensors() -> list[bytes]:
    from safetensors.torch import save

    return [
        save(
            lenet_state(), metadata={"convscope": json.dumps({"network": "lenet5", "classes": list(NAMES), "epoch": 1})}
        )
    ]


def pth() -> list[bytes]:
    import torch

    nested = {
        "epoch": 3,
        "model": {"module." + key: value for key, value in lenet_state().items()},
        "args": {"lr": 0.1},
    }
    forms = (lenet_state(), nested)
    old = [written(lambda f, s=s: torch.save(s, f, _use_new_zipfile_serialization=False)) for s in forms]
    return [*(written(lambda file, state=state: torch.save(state, file)) for state in forms), *old]


def style() -> list[bytes]:
    import torch
    from safetensors.torch import save

    from convscope.stylizing.network import KIND, StyleNet

    torch.manual_seed(0)
    record = {"network": KIND, "width": 2, "blocks": 1}
    return [save(StyleNet(2, 1).state_dict(), metadata={"convscope": json.dumps(record)})]


TRAINING = ("train", "lenet5", "--data", "data", "-o", "run", "--epochs", "2", "--batch", "10", "--workers", "0",
            "--device", "cpu", "--snapshots", "1")  # fmt: skip
STYLE_TRAINING = ("train-style", "style.png", "--data", "data", "-o", "run/s.safetensors", "--net", "zfnet64", "--size",
                  "32", "--width", "2", "--blocks", "1", "--batch", "2", "--workers", "0", "--steps")  # fmt: skip


def classes_of_pictures() -> dict[str, bytes]:
    """A folder of ten classes of two small pictures."""
    digits = {f"data/{name}/{n}.png": written(lambda f, n=n: pixels("L", (28, 28), n).save(f, "PNG"))
              for name in NAMES for n in range(2)}  # fmt: skip
    return digits | {"style.png": written(lambda file: pixels(size=(32, 32)).save(file, "PNG"))}


def runs() -> list[bytes]:
    """Checkpoints of a training of two epochs: after the first one, and at its end."""
    return _elsewhere(_runs, "checkpoint.pt")


def snapshots() -> list[bytes]:
    """The first snapshot of a training."""
    return _elsewhere(_runs, "epoch-001.safetensors")[:1]


def histories() -> list[bytes]:
    """The history of a training after its first epoch, and at its end."""
    return _elsewhere(_runs, "history.json")


def _runs(name: str) -> list[bytes]:
    from convscope.training.checkpoint import State

    found, tell = list[bytes](), State.tell

    def kept(self: State, line: str) -> None:
        if line.startswith("epoch"):
            found.append(Path("run", name).read_bytes())

    State.tell = kept  # type: ignore[method-assign]
    try:
        _trained(*TRAINING)
    finally:
        State.tell = tell  # type: ignore[method-assign]
    return found


def style_runs() -> list[bytes]:
    """Checkpoints of a training of a style, after one step and after two."""
    return _elsewhere(_style_runs)


def _style_runs() -> list[bytes]:
    return [_trained(*STYLE_TRAINING, steps)["s.checkpoint"] for steps in ("1", "2")]


def _trained(*words: str) -> dict[str, bytes]:
    """Train by the command line in a folder of its own, and return the files that it wrote."""
    import contextlib

    from convscope.cli import run

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name, content in classes_of_pictures().items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(content)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said := io.StringIO()):
            assert run(words) == 0, said.getvalue()
        return {path.name: path.read_bytes() for path in Path("run").iterdir()}


def caffemodel() -> list[bytes]:
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
    return [model.SerializeToString()]


def body() -> tuple[Any, Any]:
    import torch

    torch.manual_seed(0)
    # fmt: off
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(36, 5),
    ).eval()
    # fmt: on
    return net, (torch.zeros(1, 3, 8, 8),)


def onnx() -> list[bytes]:
    import torch

    return [written(lambda file: torch.onnx.export(*body(), file, dynamo=False))]


def pt2() -> list[bytes]:
    import torch

    return [written(lambda file: torch.export.save(torch.export.export(*body()), file))]


# Data -----------------------------------------------------------------------------------------------------------------


def tar() -> list[bytes]:
    def write(file: Any) -> None:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for number in range(4):
                sides = {".png": saved("RGB", "PNG"), (".cls", ".json", ".txt", ".cls")[number]: b"%d" % (number % 2)}
                for ending, content in sides.items():
                    member = tarfile.TarInfo(f"{number:04}{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))

    return [written(write)]


def tables(suffix: str) -> list[bytes]:
    import pyarrow as pa
    from pyarrow import ipc, parquet

    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    rows = {"image": [{"bytes": saved("RGB", "PNG"), "path": "a.png"}] * 4, "label": [0, 1, 0, 1]}
    noted = {"huggingface": json.dumps({"info": {"features": features}})}
    plain = pa.table({"jpg": [saved("RGB", "JPEG")] * 4, "cls": [0, 1, 0, 1]})
    both = (pa.table(rows).replace_schema_metadata(noted), plain)
    if suffix == ".parquet":
        return [
            written(lambda file, table=table: parquet.write_table(table, file, compression="snappy")) for table in both
        ]

    def write(file: Any, table: Any) -> None:
        with ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)

    return [written(lambda file, table=table: write(file, table)) for table in both]


def cifar() -> list[bytes]:
    """A pickle as CIFAR-10 has it."""
    return [pickle.dumps({b"data": np.zeros((4, 3072), np.uint8), b"labels": [0, 1, 2, 3]}, 2)]


def meta() -> list[bytes]:
    """What torchvision keeps of ImageNet: a dict and a list, by torch."""
    import torch

    return [
        written(lambda file: torch.save(({"n01440764": ("tench",), "n01443537": ("goldfish",)}, ["n01440764"]), file))
    ]


def legacy_idx() -> list[bytes]:
    """Pictures as torchvision kept MNIST's before 2021."""
    import torch

    kept = torch.zeros(10, 28, 28, dtype=torch.uint8), torch.arange(10)
    return [written(lambda file: torch.save(kept, file))]


def idx() -> list[bytes]:
    """Pictures as MNIST has them."""
    return [b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (10, 28, 28)) + bytes(10 * 784)]


# Hostile ones ---------------------------------------------------------------------------------------------------------


class Runs:
    """What a pickle calls when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch canary",)


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


DEEP = "[" * 200_000 + "]" * 200_000


def hostile_safetensors() -> list[bytes]:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 2**62]}}).encode()
    lies = [(2**63 - 1).to_bytes(8, "little") + b"{}", len(header).to_bytes(8, "little") + header]
    return [*lies, len(DEEP).to_bytes(8, "little") + DEEP.encode()]


@cache
def hostile_pth() -> list[bytes]:
    import torch

    evil = pickle.dumps({"a": Runs()})
    nested: Any = ()
    for _ in range(900):
        nested = (nested,)
    plain = {"archive/version": b"3", "archive/byteorder": b"little"}
    pickles = [evil, b"\x80\x02" + b"]" * 10**6 + b".", b"\x80\x02" + b"(" * 10**7, pickle.dumps(nested)]
    stored = [archive(plain | {"archive/data.pkl": content}, zipfile.ZIP_STORED) for content in pickles]
    own = written(lambda file: torch.save({"a": Runs()}, file))
    return [evil, own, *stored, archive(plain | {"archive/data.pkl": bytes(3 * 10**9 // 2)})]


def _signed(content: bytes) -> bytes:
    """A checkpoint that somebody signed again after a change."""
    from convscope.training.keeping import signed

    at = content.rfind(b"PK\5\6")
    return signed(content[: at + 20] + b"\0\0") if at >= 0 else content


def resigned(damage: Mutation) -> Mutation:
    """Return what damages a checkpoint, and signs it again two times of three."""

    def change(data: bytes, rng: Any) -> bytes:
        damaged = damage(data, rng)
        return damaged if rng.random() < 0.33 else _signed(damaged)

    return change


def hostile_runs() -> list[bytes]:
    """Checkpoints that are hostile, signed and not."""
    return [*hostile_pth(), *(_signed(content) for content in hostile_pth())]


def hostile_pt2() -> list[bytes]:
    import torch

    bomb, deep = bytes(3 * 10**9 // 2), DEEP.encode()
    return [archive({"m/models/m.json": bomb}), archive({"m/models/m.json": deep}, zipfile.ZIP_STORED),
            written(lambda file: torch.save(Runs(), file))]  # fmt: skip


def hostile_prototxt() -> list[bytes]:
    wide = (DEFINITION.replace("num_output: 5", f"num_output: {n}").encode() for n in (10**6, 4 * 10**9))
    return [*((text * 20_000).encode() for text in ("layer {", "layer < ", "a { ")), *wide,
            b"layer { name: '" + b"x" * 10**6 + b"' }", b"a: " * 10**6, (DEFINITION * 900).encode()]  # fmt: skip


def hostile_protobuf() -> list[bytes]:
    """A graph within a graph within a graph, and one tensor that says it is enormous."""
    nest = b""
    for _ in range(5000):
        nest = b"\x3a" + varint(len(nest)) + nest
    return [nest, b"\x3a" + varint(2**62) + b"\x00" * 100]


def hostile_pickles() -> list[bytes]:
    return [pickle.dumps(Runs()), pickle.dumps({b"data": Runs(), b"labels": [0]}, 2)]


def hostile_pictures() -> list[bytes]:
    """What Pillow opens by content whatever the name says, and bombs."""
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n%%EOF\n"
    huge = struct_png(60_000, 60_000)
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    return [
        postscript,
        huge,
        struct_png(2**31 - 1, 1),
        struct_png(1, 1_000_000),
        svg,
        b"",
        b"\0",
        bytes(5000),
        b"P6\n99999999 99999999\n255\n",
    ]


def struct_png(width: int, height: int) -> bytes:
    """A PNG of a size that its data do not have."""
    from .structures import PNG_LAYOUT

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    return PNG_LAYOUT.join([(b"IHDR", head), (b"IDAT", b"\x78\x9c\x03\0\0\0\0\x01"), (b"IEND", b"")])


def hostile_json() -> list[bytes]:
    digits = b"9" * 200_000
    return [
        DEEP.encode(),
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        digits,
        b"[" + digits + b"]",
        b"null",
        b"3",
        b'"x"',
        b"[]",
        b"{}",
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\0}\0",
        b'{"epochs": ' + digits + b"}",
        b"[1e400]",
        b"",
        b"NaN",
    ]


def hostile_text() -> list[bytes]:
    return [
        *hostile_json(),
        b"{" + b"(" * 5000 + b")" * 5000 + b"}",
        b"{" + b"-" * 100_000 + b"1}",
        b"{0: '" + b"x" * 10**7 + b"'}",
        b'"' + b"x" * 200_000,
        b"\n" * 10**6,
        b"a," * 10**6,
        b"\0",
        b"{0: 1" + b"+1" * 100_000 + b"}",
        b"{0:" * 3000 + b"0" + b"}" * 3000,
    ]


def hostile_toml() -> list[bytes]:
    chain = b"".join(b"[networks.n%d]\nload = 'n%d'\n" % (n, n + 1) for n in range(2000))
    dotted = b".".join([b"a"] * 20_000) + b" = 1\n"
    return [
        b"tool = 3\n",
        b"net = " + b"9" * 5000,
        b"x = " + b"[" * 10_000 + b"]" * 10_000,
        b"net = 'n0'\n" + chain,
        dotted,
        b"[data]\ncat = '~nobody/x'\n",
        b"[networks.a]\nload = 'a'\n",
        b"net = 'a'\n[networks.a]\nload = 'b'\n[networks.b]\nload = 'a'\n",
        b"net = 'file:evil.py:build'\n",
        b"plugins = ['evil.py']\n",
        b"[networks.e]\nload = 'file:evil.py:build'\n",
        b"\xff",
        b"a = {" + b"b={" * 5000,
        b"[tool.convscope]\nplugins = ['evil.py']\nnet = 'file:evil.py:build'\n",
        b"[tool]\nconvscope = 3\n",
        b"[[tool]]\nconvscope = 3\n",
    ]


def hostile_xml() -> list[bytes]:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE a [<!ENTITY l0 "ha">{laughs}]><a>&l9;</a>'
    outside = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><object><name>&x;</name></object></annotation>'
    return [
        bomb.encode(),
        outside.encode(),
        b"<a>" * 200_000,
        b"<a>" * 200_000 + b"</a>" * 200_000,
        b"",
        b"<a b='" + b"x" * 10**6 + b"'/>",
    ]
