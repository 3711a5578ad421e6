"""Bounding boxes of objects in pictures, read from a table, a COCO file or a folder of VOC files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import cast

from ..errors import DataError, OptionError
from ..parsing import Document, shown
from . import storage
from .class_names import shown_names
from .folders import find_files

Box = tuple[float, float, float, float]

FORMATS = (
    "a table (.csv) with columns path, left, top, right, bottom and perhaps class; a COCO file (.json); or a folder of "
    "VOC files (.xml); paths are relative to the folder of pictures or to the file itself"
)
_EDGES = (("left", "top", "right", "bottom"), ("x0", "y0", "x1", "y1"), ("xmin", "ymin", "xmax", "ymax"))


@dataclass(frozen=True)
class Boxed:
    """A picture with the boxes (left, top, right, bottom) of one class in it, in pixels; edges lie between pixels.

    `path` is its address, a text where it lies in a storage.
    """

    path: Path | str
    boxes: tuple[Box, ...]
    label: str = ""


def read_boxes(source: str | Path, folder: str | Path | None = None) -> list[Boxed]:
    """Read pictures with boxes; several boxes of one class in a picture become one entry.

    `source` is a table (.csv), a COCO file (.json) or a folder of VOC files; `folder` is where the pictures are. A
    picture without a class is labelled by the name of its folder. Raises DataError for anything else, for pictures
    that are missing and for boxes whose right edge is left of the left one.
    """
    source = Path(source)
    root = storage.at(folder) if folder is not None else source if source.is_dir() else source.parent
    if not source.exists():
        raise DataError(f"there is no {source}; boxes are {FORMATS}")
    boxes: dict[tuple[str, str], list[Box]] = {}
    for path, label, box in box_rows(source):
        left, top, right, bottom = box
        if not (right >= left and bottom >= top):
            raise DataError(f"{source}: the box {box} of {path} is upside down: it is (left, top, right, bottom)")
        # Where the numbers are pixel indices, an object one pixel wide begins and ends at the same one.
        boxes.setdefault((path, label), []).append((left, top, max(right, left + 1), max(bottom, top + 1)))
    if not boxes:
        raise DataError(f"there are no boxes in {source}; boxes are {FORMATS}")
    names = {name for name, _ in storage.below(root)} if isinstance(root, storage.Remote) else set[str]()
    found: list[Boxed] = []
    for (path, label), edges in boxes.items():
        if isinstance(root, storage.Remote):
            where, parent = _find_remote(path, root, names, source)
        else:
            where = _find(path, (root, source.parent), source)
            parent = where.parent.name
        found.append(Boxed(where, tuple(edges), label or parent))
    return found


def box_rows(source: Path) -> Iterator[tuple[str, str, Box]]:
    """Yield path, class ("" where there is none) and box as a source has them. Raises DataError for no boxes."""
    if source.is_dir():
        return _voc(source)
    readers = {".csv": _table, ".json": _coco}
    if source.suffix.lower() not in readers:
        raise DataError(f"cannot read boxes from {source}; boxes are {FORMATS}")
    return readers[source.suffix.lower()](source)


def _find(path: str, roots: tuple[Path, ...], source: Path) -> Path:
    for root in roots:
        # The folder may be named in the paths as well: pictures/a.png in the folder pictures.
        for candidate in (root / path, root.parent / path):
            if candidate.is_file() or _is_inside(candidate):
                return candidate
    raise DataError(f"{source} names the picture {path}, which is not in {roots[0]}")


def _find_remote(path: str, root: storage.Remote, names: set[str], source: Path) -> tuple[str, str]:
    """Return the address of a picture in a folder of a storage, and the name of the folder that it is in."""
    for candidate in (path, path.removeprefix(f"{root.name}/")):
        file, mark, _ = candidate.rpartition("#")
        if candidate in names or (mark and file in names):
            return str(root / candidate), PurePosixPath(candidate).parent.name or root.name
    raise DataError(f"{source} names the picture {path}, which is not in {root}")


def _is_inside(address: Path) -> bool:
    """Whether it is a picture inside a .tar, .parquet or .arrow file: shard.tar#000123.jpg."""
    file, mark, _ = str(address).rpartition("#")
    return bool(mark) and Path(file).is_file()


def _table(source: Path) -> Iterator[tuple[str, str, Box]]:
    document = Document.read(source, DataError)
    columns, *rows = document.rows() or [[]]
    heads = {head.strip().lower(): at for at, head in enumerate(columns)}
    edges = next((names for names in _EDGES if all(name in heads for name in names)), None)
    if edges is None or "path" not in heads:
        raise DataError(f"the columns of {source} are {', '.join(heads) or 'none'}; boxes are {FORMATS}")
    for number, row in enumerate(rows, 2):
        if len(row) < len(columns):
            raise document.fault(f"row {number} has {len(row)} cells, and the first has {len(columns)}")
        box = tuple(_edge(document, f"{name} in row {number}", row[heads[name]]) for name in edges)
        yield row[heads["path"]], row[heads["class"]] if "class" in heads else "", cast("Box", box)


def _edge(document: Document, place: str, text: str | None) -> float:
    """Return an edge of a box, a finite number. Raises DataError."""
    try:
        value = float(text or "nan")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise document.fault(f"{place} is {shown(text)}; a number is needed")
    return value


@dataclass(frozen=True)
class _Image:
    id: int | str
    file_name: str


@dataclass(frozen=True)
class _Category:
    id: int | str
    name: str


@dataclass(frozen=True)
class _Annotation:
    image_id: int | str
    bbox: tuple[float, float, float, float]
    category_id: int | str | None = None


@dataclass(frozen=True)
class _Coco:
    """What is read of a COCO file: boxes are (left, top, width, height)."""

    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category] = field(default_factory=list[_Category])


_COCO_BYTES = 2**30
"""That of COCO's 118,287 pictures to train on has 470 million."""


def _coco(source: Path) -> Iterator[tuple[str, str, Box]]:
    document = Document.read(source, DataError, most=_COCO_BYTES)
    whole = document.json(_Coco)
    pictures = {image.id: image.file_name for image in whole.images}
    names = {category.id: category.name for category in whole.categories}
    for number, note in enumerate(whole.annotations):
        if note.image_id not in pictures:
            raise document.fault(f"annotations[{number}].image_id is {shown(note.image_id)}, which no image has")
        left, top, width, height = note.bbox
        label = names.get(note.category_id, "") if note.category_id is not None else ""
        yield pictures[note.image_id], label, (left, top, left + width, top + height)


def _voc(folder: Path) -> Iterator[tuple[str, str, Box]]:
    for path in find_files(folder, (".xml",)):
        document = Document.read(path, DataError)
        root = document.xml()
        for item in root.iter("object"):
            edges = {edge.tag: edge.text for edge in item.iter() if edge.tag[1:] in ("min", "max")}
            left, top, right, bottom = (_edge(document, name, edges.get(name)) for name in _EDGES[-1])
            # VOC counts pixels from 1, the last one included.
            box = (left - 1, top - 1, right, bottom)
            yield root.findtext("filename") or path.stem, item.findtext("name") or "", box


def spread_over(pictures: Sequence[Boxed], limit: int | None) -> list[Boxed]:
    """Choose at most `limit` pictures at equal distances, so that all classes have their share. Raises OptionError."""
    if limit is None or limit >= len(pictures):
        return list(pictures)
    if limit < 1:
        raise OptionError(f"limit is at least 1, not {limit}")
    return [pictures[number * len(pictures) // limit] for number in range(limit)]


def renamed(pictures: Sequence[Boxed], table: Path) -> list[Boxed]:
    """Replace labels by names to show: a .csv (label, name), a .json dict, or .txt with both in each line.

    Of several names with commas between, as WordNet has them, the first is taken. Raises DataError.
    """
    shown = {label: name.partition(",")[0].strip() for label, name in shown_names(table).items()}
    if not any(picture.label in shown for picture in pictures):
        raise DataError(
            f"{table} names none of the classes, such as {pictures[0].label!r}: its columns are class, name"
        )
    return [replace(picture, label=shown.get(picture.label, picture.label)) for picture in pictures]
