"""Bounding boxes of objects in pictures, read from a table, a COCO file or a folder of VOC files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ..errors import DataError, OptionError
from .class_names import shown_names

Box = tuple[float, float, float, float]

FORMATS = (
    "a table (.csv) with columns path, left, top, right, bottom and perhaps class; a COCO file (.json); or a folder of "
    "VOC files (.xml); paths are relative to the folder of pictures or to the file itself"
)
_EDGES = (("left", "top", "right", "bottom"), ("x0", "y0", "x1", "y1"), ("xmin", "ymin", "xmax", "ymax"))


@dataclass(frozen=True)
class Boxed:
    """A picture with the boxes (left, top, right, bottom) of one class in it, in pixels; edges lie between pixels."""

    path: Path
    boxes: tuple[Box, ...]
    label: str = ""


def read_boxes(source: str | Path, folder: str | Path | None = None) -> list[Boxed]:
    """Read pictures with boxes; several boxes of one class in a picture become one entry.

    `source` is a table (.csv), a COCO file (.json) or a folder of VOC files; `folder` is where the pictures are. A
    picture without a class is labelled by the name of its folder. Raises DataError for anything else, for pictures
    that are missing and for boxes whose right edge is left of the left one.
    """
    source = Path(source)
    root = Path(folder) if folder is not None else source if source.is_dir() else source.parent
    if not source.exists():
        raise DataError(f"there is no {source}; boxes are {FORMATS}")
    rows = _rows(source)
    try:
        boxes: dict[tuple[str, str], list[Box]] = {}
        for path, label, box in rows:
            left, top, right, bottom = box
            if not (right >= left and bottom >= top):
                raise DataError(f"{source}: the box {box} of {path} is upside down: it is (left, top, right, bottom)")
            # Where the numbers are pixel indices, an object one pixel wide begins and ends at the same one.
            boxes.setdefault((path, label), []).append((left, top, max(right, left + 1), max(bottom, top + 1)))
    except (KeyError, ValueError, TypeError, AttributeError, csv.Error, ElementTree.ParseError) as error:
        raise DataError(f"cannot read boxes from {source} ({error}); boxes are {FORMATS}") from None
    if not boxes:
        raise DataError(f"there are no boxes in {source}; boxes are {FORMATS}")
    return [
        Boxed(where := _find(path, (root, source.parent), source), tuple(edges), label or where.parent.name)
        for (path, label), edges in boxes.items()
    ]


def _rows(source: Path) -> Iterator[tuple[str, str, Box]]:
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


def _is_inside(address: Path) -> bool:
    """Whether it is a picture inside a .tar, .parquet or .arrow file: shard.tar#000123.jpg."""
    file, mark, _ = str(address).rpartition("#")
    return bool(mark) and Path(file).is_file()


def _table(source: Path) -> Iterator[tuple[str, str, Box]]:
    with source.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        heads = {head.strip().lower(): head for head in table.fieldnames or ()}
        edges = next((names for names in _EDGES if all(name in heads for name in names)), None)
        if edges is None or "path" not in heads:
            raise DataError(f"the columns of {source} are {', '.join(heads) or 'none'}; boxes are {FORMATS}")
        for row in table:
            left, top, right, bottom = (float(row[heads[name]]) for name in edges)
            yield row[heads["path"]], row.get(heads.get("class", ""), "") or "", (left, top, right, bottom)


def _coco(source: Path) -> Iterator[tuple[str, str, Box]]:
    whole: Any = json.loads(source.read_text(encoding="utf-8"))
    pictures = {image["id"]: image["file_name"] for image in whole["images"]}
    names = {category["id"]: category["name"] for category in whole.get("categories", ())}
    for note in whole["annotations"]:
        left, top, width, height = (float(value) for value in note["bbox"])
        yield (
            pictures[note["image_id"]],
            names.get(note.get("category_id"), ""),
            (left, top, left + width, top + height),
        )


def _voc(folder: Path) -> Iterator[tuple[str, str, Box]]:
    for path in sorted(folder.rglob("*.xml")):
        root = ElementTree.parse(path).getroot()
        for item in root.iter("object"):
            edges = {edge.tag: float(edge.text or "nan") for edge in item.iter() if edge.tag[1:] in ("min", "max")}
            # VOC counts pixels from 1, the last one included.
            box = (edges["xmin"] - 1, edges["ymin"] - 1, edges["xmax"], edges["ymax"])
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
