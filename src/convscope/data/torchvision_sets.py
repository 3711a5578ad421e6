"""torchvision's data sets by name: "torchvision:MNIST:FOLDER", with labels and classes wherever a set keeps them."""

from __future__ import annotations

import inspect
import zipfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from ..errors import DataError, PictureError, nearest
from ..quiet import quiet
from .image_files import foreign_closed

T = TypeVar("T")

PREFIX = "torchvision:"
HELD_OUT = ("val", "validation", "test")
_UNPICKLED = ("LSUN", "LSUNClass")
"""Sets that unpickle whatever lies in their folders; of CIFAR's pickles torchvision checks the checksums."""


Labelled = tuple[Any, list[int], tuple[str, ...]]
"""A data set, the label of every item, and the names of its classes."""


def open_labelled(address: str) -> Iterator[Labelled]:
    """Open the part of a data set to learn from, then the one held out where it has one; nothing is downloaded.

    Raises DataError for an unknown set, one that is not in its folder, or one without classes.
    """
    kind, name, root = _named(address)
    first, rest, optional = _splits(kind)
    yield _opened(name, root, lambda: _labelled(kind(**root, **first)))
    for options in rest:
        try:
            yield _opened(name, root, lambda options=options: _labelled(kind(**root, **options)))
        except DataError:
            if not optional:
                raise
        else:
            return


def _splits(kind: Any) -> tuple[dict[str, Any], list[dict[str, Any]], bool]:
    """Return the options of the part to learn from, those of parts to hold out, and whether any may be missing."""
    takes = inspect.signature(kind.__init__).parameters
    if "train" in takes:
        return {"train": True}, [{"train": False}], False
    if "split" not in takes:
        return {}, [], True
    first = "trainval" if "trainval" in (inspect.getdoc(kind) or "") else "train"
    return {"split": first}, [{"split": split} for split in HELD_OUT], True


def _labelled(data: Any) -> Labelled:
    labels = labels_of(data)
    return data, labels, classes_of(data) or tuple(str(label) for label in range(max(labels) + 1))


def _named(address: str) -> tuple[Any, str, dict[str, str]]:
    from torchvision import datasets

    _, name, folder = (address if address.count(":") > 1 else address + ":").split(":", 2)
    sets = [key for key in datasets.__all__ if inspect.isclass(getattr(datasets, key))]
    if name not in sets:
        raise DataError(f"torchvision has no data set {name!r}; nearest: {nearest(name, sets)}")
    if name in _UNPICKLED:
        raise DataError(f"torchvision's {name} reads pickles of its folder, which can run code: give a folder of files")
    kind: Any = getattr(datasets, name)
    rooted = "root" in inspect.signature(kind.__init__).parameters
    if not folder and rooted:
        raise DataError(f"say where {name} is: {PREFIX}{name}:FOLDER")
    return kind, name, {"root": folder} if rooted else {}


def _opened(name: str, root: dict[str, str], make: Callable[[], T]) -> T:
    try:
        _refuse_compressed(Path(root.get("root", ".")))
        with foreign_closed(), quiet():
            return make()
    except Exception as error:  # every data set raises its own when files are missing
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"cannot read torchvision's {name} in {root.get('root', '.')}: {reason}") from None


def _refuse_compressed(root: Path) -> None:
    """Refuse tensors in a compressed archive, which may hold a thousand times its size; torch writes none.

    ImageNet and MNIST, as older versions of torchvision keep it, have such files.
    """
    for path in (root / "meta.bin", *root.glob("*/processed/*.pt")):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise DataError(f"{path.name} is compressed, which torch.save does not do")


@lru_cache(maxsize=4)
def open_set(address: str) -> Any:
    """Open the part of a data set to learn from, the same one every time. Raises DataError."""
    kind, name, root = _named(address)
    return _opened(name, root, lambda: kind(**root, **_splits(kind)[0]))


def image(address: str, index: str) -> Image.Image:
    """Return an item's image, of the part to learn from. Raises DataError or PictureError."""
    data = open_set(address)
    if not index.isdecimal() or int(index) >= len(data):
        raise PictureError(f"{address} has {len(data)} pictures, numbered from 0: there is no {index}")
    try:
        with foreign_closed():
            return data[int(index)][0]
    except Exception as error:  # Pillow's decoders raise anything on a damaged file
        raise PictureError(f"{address}#{index} cannot be read: {error}") from None


def labels_of(data: Any) -> list[int]:
    """Find the labels, without opening the pictures wherever the data set keeps them apart."""
    kept = _kept_labels(data)
    return [int(data[i][1]) for i in range(len(data))] if kept is None else kept


def kept_labels(data: Any) -> list[int] | None:
    """Return the labels that a data set keeps apart from its pictures; None where there are none."""
    try:
        return _kept_labels(data)
    except (TypeError, ValueError, RuntimeError):
        return None


def _kept_labels(data: Any) -> list[int] | None:
    for attribute in ("targets", "labels", "_labels", "_targets", "y", "_samples"):
        labels = getattr(data, attribute, None)
        if labels is not None and not callable(labels) and len(labels) == len(data):
            return [_label(entry) for entry in labels]
    return None


def _label(entry: Any) -> int:
    if isinstance(entry, tuple):  # (path, label)
        return int(entry[1])
    return int(entry[0]) if getattr(entry, "ndim", 0) else int(entry)  # QMNIST's labels have more columns


def classes_of(data: Any) -> tuple[str, ...]:
    """Return the names of a data set's classes, as far as it has any."""
    classes = getattr(data, "classes", None)
    if classes is None:
        classes = getattr((getattr(data, "features", None) or {}).get("label"), "names", None)  # Hugging Face's
    return tuple(", ".join(name) if isinstance(name, tuple) else str(name) for name in classes or ())
