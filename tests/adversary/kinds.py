"""The kinds of files that the package reads: real ones, how they are damaged, and how they are read."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from numpy.random import Generator, default_rng

from convscope.errors import ConvscopeError

from . import originals as make
from . import structures
from .mutations import BYTES, DEFINITIONS, TEXT, Mutation, one_of
from .structures import with_bytes

Read = Callable[[Path], object]
LARGEST = 10**6  # numbers of a layer, for a damaged network to be run


@dataclass(frozen=True)
class Kind:
    """One kind of file: what is damaged, how, and what reads it.

    `share` of all cases goes to it, in parts; what takes a second a file has a small one. `file` is its name where the
    name matters. `beside` are files that lie in the same folder.
    """

    originals: Callable[[], Sequence[bytes]]
    damage: Mutation
    read: Read
    file: str
    hostile: Callable[[], Sequence[bytes]] = tuple
    share: float = 10
    beside: Callable[[], dict[str, bytes]] = field(default=dict)

    def content(self, rng: Generator, number: int, real: Sequence[bytes], hostile: Sequence[bytes]) -> bytes:
        """Return the file of a number: first the real ones and the hostile ones, then damaged ones."""
        whole = [*real, *hostile]
        if number < len(whole):
            return whole[number]
        # A hostile file of megabytes is tried as it is only.
        return self.damage(one_of([*real, *real, *(h for h in hostile if len(h) < 5000)], rng), rng)


class Refused(ConvscopeError):  # noqa: N818  reads as what happened
    """What the command line refused."""


def command(*words: str) -> Read:
    """Return what reads a file by a command: FILE in its words stands for the file."""

    def run(path: Path) -> None:
        from convscope.cli import run as main

        said, out = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(out):
            code = main([str(path) if word == "FILE" else word for word in words])
        if code == 0:
            return
        lines = [line for line in said.getvalue().splitlines() if line.strip()]
        if code != 2 or not lines or not all(line.startswith("convscope: ") for line in lines):
            raise AssertionError(f"exit code {code}: {' / '.join(lines)[:300]}")
        raise Refused(lines[-1])

    return run


def every(*readers: Read) -> Read:
    """Return what reads a file in several ways; refused only where all refuse."""

    def read(path: Path) -> None:
        refusals = list[ConvscopeError]()
        for reader in readers:
            try:
                reader(path)
            except ConvscopeError as error:
                _check(error)
                refusals.append(error)
        if len(refusals) == len(readers):
            raise refusals[0]

    return read


def _check(error: ConvscopeError) -> None:
    text = str(error)
    if not text.strip() or "\n" in text or len(text) > 3000:
        raise AssertionError(f"not one sentence: {text[:200]!r} ({len(text)} characters)") from error


def picture(path: Path) -> None:
    """Read a picture, or the first frames of a film, in all ways."""
    from convscope.data import read_pictures
    from convscope.data.opening import mode_and_size, open_content

    first = None
    for found, _ in zip(read_pictures([str(path)]), range(3), strict=False):
        first = first or found
        found.open()
    if first is not None:
        open_content(first.where)
        mode_and_size(first.where)


def bands(path: Path) -> None:
    """Read a picture as a network of five bands would."""
    from convscope.data.opening import open_content

    open_content(path, bands=5)


def data(path: Path) -> None:
    """Read pictures with labels."""
    from convscope.data.datasets import open_data

    learn, hold = open_data(str(path))
    for part in (learn, hold):
        for index in range(min(3, len(part))):
            part.open(index)


def table(path: Path) -> None:
    """Read a table of pictures, and forget it: files that are kept open for the next picture are not left over."""
    from convscope.data import parquet

    try:
        every(picture, data)(path)
    finally:
        parquet._opened.cache_clear()


def data_set(name: str) -> Read:
    """Return what reads a data set of torchvision's."""

    def read(path: Path) -> None:
        from convscope.data.datasets import open_data
        from convscope.data.torchvision_sets import open_set

        open_set.cache_clear()
        learn, _ = open_data(f"torchvision:{name}:.")
        learn.open(0)

    return read


def training(*words: str) -> Read:
    """Return what resumes a training from a damaged file of its folder, and removes all else that it wrote there."""
    run = command(*words)

    def read(path: Path) -> None:
        content = path.read_bytes()
        try:
            run(path)
        finally:
            for other in path.parent.iterdir():
                other.unlink()
            path.write_bytes(content)

    return read


def classes(path: Path) -> None:
    from convscope.data.class_names import class_names

    class_names(path)


def shown(path: Path) -> None:
    from convscope.data.class_names import shown_names

    shown_names(path)


def boxes(path: Path) -> None:
    from convscope.data.boxes import read_boxes

    read_boxes(path if path.suffix != ".xml" else path.parent, path.parent)


def settings(path: Path) -> None:
    """Read a configuration and what it names."""
    from convscope.configuration import located, read

    found = read(path.parent)
    assert found.path is None or found.path.parent == path.parent
    for name in found.data:
        located(name)


def history(path: Path) -> None:
    from convscope.zoo.runs import read_history, snapshot

    read_history(path.parent)
    snapshot(path.parent, None)


def recipe(path: Path) -> None:
    from convscope.recipes import Recipe

    Recipe.from_json(path.read_text(encoding="utf-8", errors="surrogateescape"))


def drawing(path: Path) -> None:
    import convscope

    convscope.Drawing.load(path)


def remade(path: Path) -> None:
    import convscope

    with warnings.catch_warnings():  # another version is told by a warning, as it should be
        warnings.filterwarnings("ignore", "the drawing was made with")
        convscope.remake(path)


def network(address: str, **options: Any) -> Read:
    """Return what loads a network and runs it once. What is large and fits together is loaded and not run."""

    def read(path: Path) -> None:
        import torch

        from convscope import load

        given = {key: path if value == "FILE" else value for key, value in options.items()}
        net = load(address.replace("FILE", str(path)), **given)
        if max(math.prod(layer.shape) for layer in net.layers.values()) <= LARGEST:
            net(torch.zeros(2, net.channels, *net.size))

    return read


def style(path: Path) -> None:
    from convscope.stylizing.network import read_style

    read_style(path)


def hub(path: Path) -> None:
    import torch

    torch.hub.set_dir(str(path.parent.parent))
    network("hf:timm/x", weights=None)(path)


def _png() -> bytes:
    return make.saved("RGB", "PNG")


def _two() -> dict[str, bytes]:
    return {"a.png": _png(), "b.png": _png()}


def _evil() -> dict[str, bytes]:
    code = b"open('canary', 'w').close()\ndef build():\n    open('canary', 'w').close()\n"
    return {"a.png": _png(), "evil.py": code, "x.py": code, "my.py": code}


def _definition() -> dict[str, bytes]:
    return {"net.prototxt": make.DEFINITION.encode()}


def _labels() -> dict[str, bytes]:
    raw = "MNIST/raw/"
    labels, images = b"\0\0\x08\x01\0\0\0\x0a" + bytes(range(10)), make.idx()[0]
    return {
        raw + "train-labels-idx1-ubyte": labels,
        raw + "t10k-labels-idx1-ubyte": labels,
        raw + "t10k-images-idx3-ubyte": images,
    }


def _pictures_of_imagenet() -> dict[str, bytes]:
    return {f"{split}/{wnid}/a.JPEG": make.saved("RGB", "JPEG") for split in ("train", "val")
            for wnid in ("n01440764", "n01443537")}  # fmt: skip


def _other_legacy() -> dict[str, bytes]:
    return {"MNIST/processed/test.pt": make.legacy_idx()[0]}


def _history_of_a_run() -> dict[str, bytes]:
    return {"run/history.json": make.histories()[0]}


def _mean() -> list[bytes]:
    from convscope.zoo.caffe.schema import BlobProto

    blob = BlobProto(channels=3, height=2, width=2, num=1)
    blob.data = b"\0\0\x80?" * 12
    return [blob.SerializeToString()]


_read_classes = every(classes, shown)
_read_drawing = every(drawing, command("show", "FILE"), command("show", "FILE", "--json"), remade)
_pictures: dict[str, tuple[Callable[[], Sequence[bytes]], Mutation]] = {
    "png": (make.png, with_bytes(structures.PNG)),
    "jpg": (make.jpeg, with_bytes(structures.JPEG)),
    "webp": (make.webp, with_bytes(structures.WEBP)),
    "gif": (make.gif, BYTES),
    "tif": (make.tiff, with_bytes(structures.TIFF)),
    "bmp": (make.bmp, BYTES),
    "ppm": (make.ppm, with_bytes(TEXT)),
    "mpo": (make.mpo, with_bytes(structures.JPEG)),
    "npy": (make.npy, with_bytes(structures.NPY)),
}
KINDS: dict[str, Kind] = {
    **{name: Kind(real, damage, every(picture, bands), f"x.{name}", make.hostile_pictures, share=30) for name, (real,
    damage) in _pictures.items()},
    "mp4": Kind(make.mp4, with_bytes(structures.MP4), picture, "x.mp4", make.hostile_pictures, share=1),
    "tar": Kind(make.tar, with_bytes(structures.TAR), every(picture, data), "x.tar", share=20),
    "parquet": Kind(lambda: make.tables(".parquet"), BYTES, table, "x.parquet", share=20),
    "arrow": Kind(lambda: make.tables(".arrow"), BYTES, table, "x.arrow", share=20),
    "idx": Kind(make.idx, BYTES, data_set, "MNIST/raw/train-images-idx3-ubyte", beside=_labels, share=4),
    "idx-pt": Kind(make.legacy_idx, with_bytes(structures.ZIP, structures.opcodes), data_set("MNIST"),
    "MNIST/processed/training.pt", make.hostile_pth, beside=_other_legacy, share=2),
    "cifar": Kind(make.cifar, with_bytes(structures.opcodes), data_set("CIFAR10"), "cifar-10-batches-py/data_batch_1",
    make.hostile_pickles, share=1),
    "imagenet": Kind(make.meta, with_bytes(structures.ZIP, structures.opcodes), data_set("ImageNet"), "meta.bin",
    make.hostile_pth, beside=_pictures_of_imagenet, share=2),
    "run": Kind(make.runs, make.resigned(with_bytes(structures.ZIP, structures.opcodes)),
    training(*make.TRAINING), "run/checkpoint.pt", make.hostile_runs, beside=make.classes_of_pictures, share=2),
    "snapshot": Kind(make.snapshots, with_bytes(structures.SAFETENSORS), network("lenet5", weights="run"),
    "run/epoch-001.safetensors", make.hostile_safetensors, beside=_history_of_a_run, share=4),
    "style-run": Kind(make.style_runs, make.resigned(with_bytes(structures.ZIP, structures.opcodes)),
    training(*make.STYLE_TRAINING, "2"), "run/s.checkpoint", make.hostile_runs, beside=make.classes_of_pictures,
    share=1),
    "classes-json": Kind(make.class_json, with_bytes(structures.tree), _read_classes, "x.json", make.hostile_json,
    share=20),
    "classes-csv": Kind(make.class_table, TEXT, _read_classes, "x.csv", make.hostile_text),
    "classes-txt": Kind(make.class_text, TEXT, _read_classes, "x.txt", make.hostile_text, share=20),
    "boxes-csv": Kind(make.boxes_table, TEXT, boxes, "x.csv", make.hostile_text, beside=_two),
    "boxes-coco": Kind(make.boxes_coco, with_bytes(structures.tree), boxes, "x.json", make.hostile_json, beside=_two,
    share=20),
    "boxes-voc": Kind(make.boxes_voc, TEXT, boxes, "x.xml", make.hostile_xml, beside=_two),
    "toml": Kind(make.configuration, structures.toml, every(settings, command("layers", "small"), command("nets",
    "small")),
                 "convscope.toml", make.hostile_toml, beside=_evil, share=6),
    "pyproject": Kind(make.pyproject, structures.toml, every(settings, command("nets", "small")), "pyproject.toml",
                      make.hostile_toml, beside=_evil, share=6),
    "history": Kind(make.history, with_bytes(structures.tree), every(history, command("history", ".")),
    "history.json",
                    make.hostile_json, share=20),
    "recipe": Kind(make.recipe, with_bytes(structures.tree), recipe, "x.json", make.hostile_json, share=20),
    "drawing-png": Kind(lambda: make.drawings(".png"), with_bytes(structures.drawing_png), _read_drawing, "x.png",
    share=2, beside=_evil),
    "drawing-npz": Kind(lambda: make.drawings(".npz"), with_bytes(structures.drawing_npz), _read_drawing, "x.npz",
    share=4, beside=_evil),
    "drawing-safetensors": Kind(lambda: make.drawings(".safetensors"), with_bytes(structures.SAFETENSORS),
    _read_drawing,
                                "x.safetensors", make.hostile_safetensors, share=4, beside=_evil),
    "safetensors": Kind(make.safetensors, with_bytes(structures.SAFETENSORS), network("lenet5", weights="FILE"),
    "x.safetensors",
                        make.hostile_safetensors, share=8),
    "pth": Kind(make.pth, with_bytes(structures.ZIP, structures.opcodes), network("lenet5", weights="FILE"), "x.pth",
                make.hostile_pth, share=8),
    "style": Kind(make.style, with_bytes(structures.SAFETENSORS), style, "x.safetensors", make.hostile_safetensors,
    share=8),
    "prototxt": Kind(make.prototxts, DEFINITIONS, network("caffe:FILE", weights=None), "x.prototxt",
    make.hostile_prototxt, share=8),
    "caffemodel": Kind(make.caffemodel, with_bytes(structures.protobuf), network("caffe:net.prototxt",
    weights="FILE"), "x.caffemodel",
                       make.hostile_protobuf, share=8, beside=_definition),
    "binaryproto": Kind(_mean, with_bytes(structures.protobuf), network("caffe:net.prototxt", weights=None,
    mean="FILE"), "x.binaryproto",
                        make.hostile_protobuf, share=4, beside=_definition),
    "onnx": Kind(make.onnx, with_bytes(structures.protobuf), network("onnx:FILE", mean=0.5), "x.onnx",
    make.hostile_protobuf, share=4),
    "pt2": Kind(make.pt2, with_bytes(structures.ZIP), network("pt2:FILE", mean=0.5), "x.pt2", make.hostile_pt2,
    share=4),
    "hub": Kind(make.hub_config, with_bytes(structures.tree), hub, "checkpoints/hf-timm--x-config.json",
    make.hostile_json, share=3),
}  # fmt: skip


@cache
def sources(name: str) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """Return a kind's real and hostile files: made once."""
    return KINDS[name].originals(), KINDS[name].hostile()


def content(name: str, seed: int, number: int) -> bytes:
    """Return the file that (kind, seed, number) stands for."""
    rng = default_rng([sorted(KINDS).index(name), seed, number])
    return KINDS[name].content(rng, number, *sources(name))


@cache
def beside(name: str) -> dict[str, bytes]:
    """Return the files that lie in the same folder."""
    return KINDS[name].beside()
