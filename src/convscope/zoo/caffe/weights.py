"""Read what Caffe has written: weights (.caffemodel) and means (.binaryproto)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from ...errors import WeightsError
from .schema import BlobProto, NetParameter

MOST_BYTES = 2**31 - 1
"""protobuf's own limit."""

MOST_AXES = 32
"""Caffe's own limit."""

_LEGACY = ("num", "channels", "height", "width")

_WEIGHTS, _MEAN = "caffemodel with weights", "mean (.binaryproto or .npy)"

# What other files begin with. Caffe writes fields in the order of their numbers: a solverstate begins with its
# iteration and the name of a net, a mean with its four sides.
_STARTS = {
    rb"\Z": "empty",
    rb"\x89HDF\r\n\x1a\n": "HDF5, which is not read; let Caffe save it with snapshot_format: BINARYPROTO",
    rb"PK\x03\x04": "a zip file, as torch's are; its name should end in .pth",
    rb"\x80[\x02-\x05]": "a pickle of Python; if it is torch's, its name should end in .pth",
    rb"\x93NUMPY": "an array of numpy; its name should end in .npy",
    rb"version https://git-lfs": "a pointer of git-lfs; fetch the file itself with git lfs pull",
    rb"\x08[\x80-\xff]*[\x00-\x7f][\x12\x1a]": "a solverstate; the caffemodel of the same iteration lies beside it",
    rb"\x08\x01\x10": "a mean, or another single blob",
}


@dataclass(frozen=True)
class Blob:
    """Numbers of a layer in their shape; a legacy shape is padded with ones in front to four numbers."""

    data: NDArray[np.float32]
    legacy: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in the file."""
        return self.data.shape


def read_blobs(path: Path) -> dict[str, list[Blob]]:
    """Read the blobs of every layer of a caffemodel, by the layer's name.

    The numbers are float32 and read-only. Memory: twice the file while reading, once afterwards. Raises WeightsError
    for a missing, damaged or other file, and for blobs whose numbers do not fill their shape.
    """
    blobs: dict[str, list[Blob]] = {}
    for name, written in _layers(path):
        if name in blobs:
            raise WeightsError(f"{path} holds weights of two layers named {name!r}: it is damaged, or two files in one")
        where = f"layer {name!r} in {path}"
        blobs[name] = [_blob(blob, f"blob {position} of {where}") for position, blob in enumerate(written)]
    return blobs


def _layers(path: Path) -> list[tuple[str, Any]]:
    """Return names and blobs of the layers that have blobs; those of a V0 layer may lie inside or beside it."""
    message = _parsed(path, NetParameter, _WEIGHTS)
    try:
        layers: list[tuple[Any, Any]] = [(layer.name, layer.blobs) for layer in message.layer]
        layers += [(layer.name or layer.layer.name, layer.blobs or layer.layer.blobs) for layer in message.layers]
    except UnicodeDecodeError:
        layers = [(b"", [])]
    # protobuf's versions differ in what they do with a name that is not UTF-8: bytes, or an error.
    if not all(isinstance(name, str) for name, _ in layers):
        raise WeightsError(f"{path} is damaged: the name of a layer is not text")
    if not layers:
        raise WeightsError(_other(path, _WEIGHTS))
    found = [(name, blobs) for name, blobs in layers if blobs]
    if not found:
        raise WeightsError(f"{path} has {len(layers):,} layers, none with weights: give the file that training wrote")
    return found


def _parsed(path: Path, kind: Any, wanted: str) -> Any:
    """Read a file as a message; it is in memory twice only until this returns."""
    message = kind()
    try:
        message.ParseFromString(_content(path, wanted))
    except DecodeError:
        raise WeightsError(_other(path, wanted)) from None
    return message


def _content(path: Path, wanted: str) -> bytes:
    if path.is_dir():
        raise WeightsError(f"{path} is a folder: give the {wanted} in it")
    try:
        size = path.stat().st_size
        if size <= MOST_BYTES:
            return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"there is no {wanted} at {path}: {error.strerror or error}") from None
    raise WeightsError(f"{path} has {size:,} bytes, and a {wanted} at most {MOST_BYTES:,}")


def _other(path: Path, wanted: str) -> str:
    """Say what a file is that is not what it is given as."""
    with path.open("rb") as file:
        head = file.read(4096)
    said = next((said for start, said in _STARTS.items() if re.match(start, head)), None)
    if said is None and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        said = "text; a definition is named as caffe:FILE.prototxt"
    return f"{path} is no {wanted}: it is {said or 'damaged, cut short, or of another kind'}"


def _blob(written: Any, where: str) -> Blob:
    """Return a blob's numbers in its shape; `where` names it in errors."""
    content, kind = (written.double_data, "<f8") if written.double_data else (written.data, "<f4")
    if not content:
        raise WeightsError(f"{where} holds no numbers (or holds them unpacked, which is not read)")
    # Caffe writes no shape at all for a blob without axes, such as a gradient that all channels share.
    legacy = any(written.HasField(side) for side in _LEGACY)
    shape = tuple(getattr(written, side) for side in _LEGACY) if legacy else tuple(written.shape.dim)
    held, size = divmod(len(content), np.dtype(kind).itemsize)
    if len(shape) > MOST_AXES or any(side < 1 for side in shape) or math.prod(shape) != held or size:
        said = "x".join(map(str, shape[:MOST_AXES])) or "of a single number"
        raise WeightsError(f"{where} has the shape {said}, but holds {len(content):,} bytes: {held:,} numbers")
    return Blob(np.frombuffer(content, kind).astype(np.float32, copy=False).reshape(shape), legacy)


def read_mean(path: Path) -> tuple[float, ...]:
    """Read a mean image (.binaryproto or .npy) as one number per channel, in Caffe's order and units.

    The file holds channels x height x width, maybe with a 1 in front, or (.npy) the channels' numbers alone. Raises
    WeightsError.
    """
    image = _mean_of_numpy(path) if path.suffix == ".npy" else _mean_of_caffe(path)
    said = "x".join(map(str, image.shape)) or "a single number"
    if image.ndim == 4 and len(image) == 1:
        image = image[0]
    if image.ndim not in (1, 3) or image.size == 0 or image.dtype.kind not in "fiu":
        raise WeightsError(
            f"{path} has the shape {said} ({image.dtype}): a mean is channels x height x width, or a number per channel"
        )
    with np.errstate(all="ignore"):
        means = image.reshape(len(image), -1).mean(1, dtype=np.float64)
    if not np.isfinite(means).all():
        raise WeightsError(f"{path} holds numbers that are NaN or infinite: it is no mean of pictures")
    return tuple(means.tolist())


def _mean_of_caffe(path: Path) -> NDArray[Any]:
    message = _parsed(path, BlobProto, _MEAN)
    if not (message.data or message.double_data):
        raise WeightsError(_other(path, _MEAN))
    return _blob(message, f"the mean {path}").data


def _mean_of_numpy(path: Path) -> NDArray[Any]:
    if not path.is_file():
        raise WeightsError(f"there is no {_MEAN} at {path}" + (": it is a folder" if path.is_dir() else ""))
    try:
        # Mapped, so that a header that promises more than the file holds takes no memory.
        image = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise WeightsError(f"{path} is no {_MEAN}: {str(error).splitlines()[0][:200]}") from None
    if not isinstance(image, np.ndarray):
        raise WeightsError(f"{path} holds several arrays: save the mean alone with numpy.save")
    return image
