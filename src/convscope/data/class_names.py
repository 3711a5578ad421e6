"""Names of classes, as people have them: lists, dicts by index or by name, and files of either."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import count, islice
from pathlib import Path
from typing import Any

from ..errors import DataError, OptionError
from ..options import separated
from ..parsing import Document, shown

ClassNames = Iterable[str] | Mapping[int, str] | Mapping[str, str] | Mapping[str, int] | str | Path
"""A list, a dict by index (`id2label`), a dict by name (`class_to_idx`), a file of one of these, or "imagenet"."""

IMAGENET = "imagenet"

FORMS = (
    "names in order, a dict from indices to names, a dict from names to indices, or a file of one of these: .txt with "
    "one name per line, .csv or .json"
)

_WORDNET = re.compile(r"^n\d{8}[\s,]+")
_NUMBERED = re.compile(r"^(\d{1,9})[\s:,]+(\S.*)$")
_HEADS = frozenset("name names class classes class_name label labels label_name category index idx id class_id".split())
_TABLES = "id2label label2id idx_to_class class_to_idx classes class_names names labels label_names categories".split()
"""Where JSON files of others keep names, beside other things; a config.json of transformers has the first two."""


def class_names(given: ClassNames | object) -> tuple[str, ...]:
    """Return the names of outputs in order, from any form in which people have them (`FORMS`).

    Raises OptionError for text that names no file, for what is no text, for indices with gaps or used twice, and for
    names that are all the same.
    """
    if isinstance(given, (str, Path)):
        return _of_text(given)
    if isinstance(given, Mapping):
        return _checked(_of_mapping(given))
    if isinstance(given, (set, frozenset)) or not isinstance(given, Iterable):
        raise OptionError(f"classes are {FORMS}; not {type(given).__name__}{_ordered(given)}")
    return _checked(list(given))


def _ordered(given: Any) -> str:
    return ", which has no order: classes=sorted(...) or, better, in the order of the outputs" if given else ""


def _of_text(given: str | Path) -> tuple[str, ...]:
    if given == IMAGENET:
        from torchvision.models import AlexNet_Weights

        return tuple(AlexNet_Weights.IMAGENET1K_V1.meta["categories"])
    path = Path(given)
    # Unlike Path's, this `exists` is false for a text that is too long for a name.
    if isinstance(given, str) and "," in given and not os.path.exists(given):  # noqa: PTH110
        return tuple(separated(given))
    if isinstance(given, str) and not path.suffix and not path.exists():
        raise OptionError(
            f"classes are {FORMS}, or 'imagenet'; there is no file {given!r}: to name one output write "
            f"classes=[{given!r}], or '{given},' with a comma"
        )
    return read_names(path)


def read_names(path: Path) -> tuple[str, ...]:
    """Read the names of outputs from a file: .json, .csv or .tsv, else text with one name per line.

    In text a number or a WordNet id before the name is left out. Raises OptionError.
    """
    read = _READERS.get(path.suffix.lower(), _of_lines)
    try:
        names = _checked(read(Document.read(path, OptionError)))
    except OptionError as error:
        text = str(error)
        raise OptionError(f"the names of classes: {text}" if str(path) in text else f"{path}: {text}") from None
    if not names:
        raise OptionError(f"{path} holds no names of classes: write one per line")
    return names


def _checked(names: Sequence[Any]) -> tuple[str, ...]:
    """Return names as text, without line breaks. Raises OptionError for what are no names."""
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise OptionError(
                f"class names are text, and that of output {index} is {shown(name)} ({type(name).__name__}): "
                "classes=[str(name) for name in names]"
            )
        if not name.strip():
            raise OptionError(f"the name of output {index} is empty: give every output a name")
    plain = tuple(" ".join(str(name).split()) for name in names)
    if len(plain) > 1 and len(set(plain)) == 1:
        raise OptionError(f"all {len(plain)} class names are {plain[0]!r}: give each output its own")
    return plain


def _of_mapping(table: Mapping[Any, Any]) -> list[Any]:
    """Return the values of a dict by index, or the keys of one by name, in the order of the indices."""
    if not table:
        return []
    if all(_index(value) is not None and not isinstance(value, str) for value in table.values()):
        pairs = [(_index(value), key) for key, value in table.items()]
    elif all(_index(key) is not None for key in table):
        pairs = [(_index(key), _name(value)) for key, value in table.items()]
    else:
        key, value = next(iter(table.items()))
        raise OptionError(
            f"a dict of class names goes from indices to names, {{0: 'cat'}}, or from names to indices, {{'cat': 0}}; "
            f"this one has {shown(key)}: {shown(value)}"
        )
    return _in_order(pairs)


def _in_order(pairs: Sequence[tuple[int | None, Any]]) -> list[Any]:
    """Return names by index. Raises OptionError for indices that are missing, or given twice."""
    counts = Counter(index for index, _ in pairs)
    twice = next((index for index, times in counts.items() if times > 1), None)
    if twice is not None:
        same = [shown(name) for index, name in pairs if index == twice]
        raise OptionError(f"index {twice} has {len(same)} names, {' and '.join(same[:3])}: give each output one")
    names = {index: name for index, name in pairs if index is not None}
    missing = max(names, default=-1) + 1 - len(names)
    gaps = [str(index) for index in islice((index for index in count() if index not in names), min(missing, 5))]
    if gaps == ["0"]:
        raise OptionError("the indices begin at 1, those of outputs at 0: {index - 1: name for index, name in ...}")
    if gaps:
        more = f", ... ({missing:,} in all)" if missing > 5 else ""
        raise OptionError(f"there is no name for index {', '.join(gaps)}{more}: outputs are counted without gaps")
    return [names[index] for index in sorted(names)]


def _index(value: Any) -> int | None:
    """Return an index given as any kind of integer, or its digits; None for anything else."""
    if isinstance(value, str):
        digits = value.strip()
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        return None
    number = value.__index__()
    return number if number >= 0 else None


def _name(value: Any) -> Any:
    """Return a name alone, where Keras has (WordNet id, name) and COCO {"name": ...}."""
    if isinstance(value, (list, tuple)) and value:
        return value[-1]
    return value.get("name", value) if isinstance(value, Mapping) else value


def _of_json(document: Document) -> list[Any]:
    content: Any = document.json(object)
    if isinstance(content, dict):
        inner = next((content[key] for key in _TABLES if isinstance(content.get(key), (dict, list))), None)
        content = content if inner is None else inner
    if isinstance(content, dict):
        return _of_mapping(content)
    if not isinstance(content, list):
        raise document.fault(f"it holds {shown(content)}, not a list or a dict of names")
    if content and all(isinstance(entry, dict) and "id" in entry for entry in content):
        return _in_order([(_index(entry["id"]), _name(entry)) for entry in content])
    return [_name(entry) for entry in content]


def _of_table(document: Document) -> list[Any]:
    """Return the names of a table: a column of names, also beside one of indices, with or without heads."""
    first = next((line for line in document.text.splitlines() if line.strip()), "")
    rows = [[cell.strip() for cell in row] for row in document.rows(max(",;\t", key=first.count))]
    rows = [row for row in rows if any(row)]
    if not rows:
        return []
    heads = [cell.lower() for cell in rows[0]]
    if len(rows) > 1 and any(head in _HEADS for head in heads) and not any(head.isdigit() for head in heads):
        rows = rows[1:]
    else:
        heads = []
    columns = min(len(row) for row in rows)
    indexed = [at for at in range(columns) if all(_index(row[at]) is not None for row in rows)]
    named = [at for at in range(columns) if at not in indexed]
    if not named:
        raise document.fault("it has no column of names")
    named_so = [at for at in named if at < len(heads) and heads[at] in ("name", "class_name", "label_name")]
    # Where a WordNet id stands before the name, the name is the last.
    at = named_so[0] if named_so else named[-1]
    return _in_order([(_index(row[indexed[0]]), row[at]) for row in rows]) if indexed else [row[at] for row in rows]


def _of_lines(document: Document) -> list[Any]:
    if document.text.lstrip().startswith("{"):  # a dict as Python writes it
        content: Any = document.literal(object)
        return _of_mapping(content) if isinstance(content, dict) else sorted(content, key=str)
    lines = [line.strip() for line in document.text.splitlines() if line.strip()]
    numbered = [_NUMBERED.match(line) for line in lines]
    first = int(numbered[0][1]) if lines and numbered[0] else 0
    if lines and all(match and int(match[1]) == first + at for at, match in enumerate(numbered)) and first in (0, 1):
        lines = [match[2] for match in numbered if match]
    stripped = [_WORDNET.sub("", line) for line in lines]
    return stripped if all(stripped) else lines


_READERS: dict[str, Callable[[Document], list[Any]]] = {".json": _of_json, ".csv": _of_table, ".tsv": _of_table}


def read_class_names(table: Path, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names to show for classes whose folders or labels have others, such as WordNet ids (`shown_names`).

    Raises DataError for a table that cannot be read or has no name for a class.
    """
    rows = shown_names(table)
    missing = [name for name in classes if not rows.get(name)]
    if missing:
        raise DataError(f"{table} has no name for {len(missing)} classes: {', '.join(missing[:5])}")
    shown = [rows[name] for name in classes]
    # "tabby, tabby cat" is shown as "tabby", unless two classes would then be called the same.
    short = [name.split(",")[0].strip() for name in shown]
    counts = Counter(short)
    return tuple(s if counts[s] == 1 else full for s, full in zip(short, shown, strict=True))


def shown_names(table: Path) -> dict[str, str]:
    """Read which names stand for labels: .csv (label, name), a .json dict, or .txt with both in each line.

    Raises DataError.
    """
    document = Document.read(table, DataError)
    if table.suffix.lower() == ".json":
        return {key: str(_name(value)) for key, value in document.json(dict[str, Any]).items()}
    text = document.text
    if table.suffix.lower() == ".txt":
        parts = (line.split(maxsplit=1) for line in text.splitlines())
        return {part[0].rstrip(",:"): part[1].strip() for part in parts if len(part) > 1}
    rows = document.rows("\t" if "\t" in text and "," not in text else ",")
    return {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}


@cache
def wordnet_names() -> dict[str, str]:
    """Return torchvision's names of ImageNet's 1,000 classes by WordNet id, in the order of the classes."""
    text = resources.files(__package__ or "convscope").joinpath("imagenet_synsets.txt").read_text(encoding="utf-8")
    return {line[:9]: line[10:] for line in text.splitlines()}
