"""What is true of pictures: labels, as folders and tables have them, matched to the classes of a network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath

from ..context import say
from ..data.class_names import shown_names, wordnet_names
from ..data.pictures import Indexed, Picture, Pictures
from ..data.shards import Label
from ..errors import DataError, nearest
from ..heads import STATE
from ..net import Net
from ..parsing import Document

NO_LABELS = "none"
"""What `labels` is where folders are no classes."""

_SYNSET = re.compile(r"(n\d{8})(?:[\s_-].*)?")
_PATHS = ("path", "picture", "file", "filename", "file_name", "image")
_LABELS = ("label", "class", "class_name", "truth", "target", "wnid", "synset", "index", "class_id", "name")
_UNNAMED = ("negative", "positive")
_YES = {"1": 1, "true": 1, "yes": 1, "positive": 1, "pos": 1, "0": 0, "false": 0, "no": 0, "negative": 0, "neg": 0}
_FORM = "a table of labels (.csv) has a column path and a column label, or two columns without heads"


def outcomes(net: Net) -> tuple[str, ...]:
    """Return the names of what a network may say: its outputs; of one probability, its absence and its presence."""
    names = tuple(net.class_name(index) for index in range(net.output.shape[0] if net.output.shape else 1))
    if not _is_single(net):
        return names
    return (f"not {names[0]}", names[0]) if net.classes else _UNNAMED


def _is_single(net: Net) -> bool:
    return net.output.shape in ((), (1,)) and net.head.kind != "value"


@dataclass(frozen=True)
class Truth:
    """Which class every picture belongs to, by its label; without labels, nothing is known.

    `classes` are what the network may say, by the names that are shown.
    """

    classes: tuple[str, ...] = ()
    indices: Mapping[Label, int] | None = None
    by_picture: Mapping[str, Label] | None = None
    of_parent: bool = False

    @property
    def known(self) -> bool:
        """Whether there are labels."""
        return self.indices is not None

    def of(self, picture: Picture) -> int | None:
        """Return the class of a picture, None where it has no label. Raises DataError for a label that is no class."""
        if self.indices is None:
            return None
        label = picture.label
        if self.by_picture is not None:
            label = self.by_picture.get(picture.where)
        elif self.of_parent:
            label = _parent(picture)
        if label is None or label in self.indices:
            return None if label is None else self.indices[label]
        index = _find(label, self.classes)  # of a stream, whose labels nobody knew before
        if index is None:
            raise DataError(f"{picture.where} has the label {label!r}, which is no class: {_examples(self.classes)}")
        return index


def find_truth(
    net: Net, pictures: Pictures, labels: str | Path | None = None, names: str | Path | None = None
) -> Truth:
    """Match the labels of pictures to the classes of a network.

    Args:
        net: the network.
        pictures: pictures, perhaps in a folder for each class.
        labels: a table of labels (.csv); "none" where folders are no classes; by default the labels of the source, else
            the folders that pictures lie in, where these are classes.
        names: a table of names that stand for labels (`shown_names`).

    Labels are names of classes, as the network or ImageNet writes them, their numbers, or WordNet ids. Where none is a
    class and the network has no names, as many labels as outputs name them in alphabetical order, and that is said.
    Raises DataError for labels of which some or, where a table gives them, all match no class.
    """
    if net.head.kind == "value" and labels not in (None, NO_LABELS):
        raise DataError(
            f"{net.name} gives a {net.head.word}, and only classes can be right or wrong: where it is a logit or a "
            f"probability, {STATE}"
        )
    if labels == NO_LABELS or net.head.kind == "value":
        return Truth()
    table = {} if names is None else shown_names(Path(names))
    classes = outcomes(net)
    if labels is not None:
        given = _labels_of(pictures, Path(labels))
        matched = _matched(net, classes, sorted(set(map(str, given.values()))), table)
        return Truth(_shown(net, classes, matched, table), matched, given)
    if not all(isinstance(part, Indexed) for part in pictures.parts):
        return Truth(classes, {})
    own = _own_labels(pictures)
    if own and any(_find(label, classes, table) is not None for label in own.values()):
        return _of_source(net, classes, own, table)
    parents = {_parent(picture): "" for picture in pictures}
    if parents and all(name and _find(name, classes, table) is not None for name in parents):
        return Truth(classes, _matched(net, classes, list(parents), table), of_parent=True)
    if not own:
        siblings = len({PurePath(picture.where).parent.parent for picture in pictures}) == 1 < len(parents)
        if not (siblings and _in_order(net, classes, parents)):
            return Truth()
        matched = _matched(net, classes, sorted(parents), table)
        return Truth(_shown(net, classes, matched, table), matched, of_parent=True)
    if _in_order(net, classes, own.values()):
        return _of_source(net, classes, own, table)
    say(f"{_unknown(net, classes, list(own.values()))}, so nothing is said of how right it is")
    return Truth()


def own_labels(pictures: Pictures, labels: str | Path | None = None) -> list[str | None]:
    """Return the labels that pictures have, whatever a network's classes are, None where there is none.

    They are those of a table; else the source's, by name where it has names; else the folders that pictures lie in,
    where these are several. Raises DataError for a table that labels none of them.
    """
    if labels == NO_LABELS:
        return [None] * len(pictures)
    if labels is not None:
        given = _labels_of(pictures, Path(labels))
        return [str(given[picture.where]) if picture.where in given else None for picture in pictures]
    named = _own_labels(pictures)
    if named:
        return [named.get(picture.label) for picture in pictures]
    parents = [_parent(picture) for picture in pictures]
    return list(parents) if len(set(parents)) > 1 and all(parents) else [None] * len(parents)


def _own_labels(pictures: Pictures) -> dict[Label, str]:
    """Return the labels of a source as text, by what stands in the pictures; in the order of the source's classes."""
    names = pictures.classes
    own = {picture.label for picture in pictures if picture.label is not None}
    if names:
        return {number: name for number, name in enumerate(names) if number in own}
    return {label: str(label) for label in sorted(own, key=str)}


def _of_source(net: Net, classes: tuple[str, ...], own: Mapping[Label, str], table: Mapping[str, str]) -> Truth:
    matched = _matched(net, classes, list(own.values()), table)
    return Truth(_shown(net, classes, matched, table), {label: matched[text] for label, text in own.items()})


def _shown(
    net: Net, classes: tuple[str, ...], matched: Mapping[Label, int], table: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the names of classes: those of the labels where these were taken in order."""
    found = any(_find(label, classes, table) is not None for label in matched)
    if found or not _in_order(net, classes, map(str, matched)):
        return classes
    return tuple(str(label) for label in sorted(matched, key=matched.__getitem__))


def _matched(net: Net, classes: tuple[str, ...], labels: Sequence[str], table: Mapping[str, str]) -> dict[Label, int]:
    """Return the class of every label. Raises DataError where some are none."""
    found = {label: _find(label, classes, table) for label in labels}
    missing = [label for label, index in found.items() if index is None]
    if not missing:
        _tell_numbers(net, classes, found)
        return {label: index for label, index in found.items() if index is not None}
    if _is_single(net) and len(labels) == 2 and len(missing) == 1:
        (there,) = (index for index in found.values() if index is not None)
        say(f"{missing[0]!r} is taken for {classes[1 - there]!r}")
        return {label: 1 - there if index is None else index for label, index in found.items()}
    if len(missing) == len(labels) and _in_order(net, classes, labels):
        say(
            f"{net.name} has no names of classes: labels name its outputs in alphabetical order, {labels[0]!r} output "
            f"{'0 to 0.5' if _is_single(net) else '0'}, {labels[-1]!r} "
            f"{'0.5 to 1' if _is_single(net) else len(labels) - 1}; --classes FILE names them otherwise"
        )
        return {label: number for number, label in enumerate(labels)}
    raise DataError(f"{_unknown(net, classes, labels, missing)}; {_ways_out(missing)}")


def _tell_numbers(net: Net, classes: tuple[str, ...], found: Mapping[str, int | None]) -> None:
    """Say that labels are taken for numbers of classes, where these have names: folders may be months as well."""
    numbers = [label for label in found if label.isdigit() and _folded(label) not in _by_name(classes)]
    if numbers and net.classes and not _is_single(net):
        say(f"labels are numbers of classes, from 0: {numbers[0]!r} is {classes[found[numbers[0]] or 0]!r}")


def _in_order(net: Net, classes: Sequence[str], labels: Iterable[str]) -> bool:
    """Whether labels can be numbered as folders are when networks are trained on them."""
    return not net.classes and len(list(labels)) == len(classes)


def _unknown(net: Net, classes: Sequence[str], labels: Sequence[str], missing: Sequence[str] = ()) -> str:
    missing = missing or labels
    count = (
        f"none of the {len(labels)} labels" if len(missing) == len(labels) else f"not every one of {len(labels)} labels"
    )
    shown = ", ".join(map(repr, missing[:4])) + (f", and {len(missing) - 4} more" if len(missing) > 4 else "")
    verb = "is" if len(missing) == 1 else "are"
    return f"{count} is a class of {net.name}: {shown} {verb} none; {_examples(classes, missing[0])}"


def _examples(classes: Sequence[str], label: Label = "") -> str:
    return f"it has {len(classes)} classes, such as {nearest(str(label), classes)}"


def _ways_out(missing: Sequence[str]) -> str:
    if any(_SYNSET.fullmatch(label) for label in missing):
        return "--names FILE (id, name) gives WordNet ids the network's names; --labels none leaves labels out"
    return "--names FILE (label, name) gives labels the network's names; --labels none leaves labels out"


def _parent(picture: Picture) -> str:
    return PurePath(re.sub(r"[#\\]", "/", picture.where)).parent.name


# Labels and classes -------------------------------------------------------------------------------------------------


def _find(label: Label, classes: tuple[str, ...], table: Mapping[str, str] | None = None) -> int | None:
    """Return the number of the class that a label means, None where it means none."""
    if isinstance(label, int):
        return label if 0 <= label < len(classes) else None
    text = (table or {}).get(str(label), str(label))
    by_name = _by_name(classes)
    synset = _SYNSET.fullmatch(text.strip())
    index = by_name.get(_folded(text), by_name.get(_folded(text.split(",")[0])))
    if index is None and synset:
        known = wordnet_names()
        name = known.get(synset[1])
        index = None if name is None else by_name.get(_folded(name))
        # ImageNet numbers its classes in the order of their ids.
        return [*known].index(synset[1]) if index is None and name and len(classes) == len(known) else index
    if index is None and text.strip().isascii() and text.strip().isdigit():
        return int(text) if int(text) < len(classes) else None
    if index is None and (classes == _UNNAMED or (len(classes) == 2 and classes[0] == f"not {classes[1]}")):
        return _YES.get(_folded(text))
    return index


@lru_cache(maxsize=4)
def _by_name(classes: tuple[str, ...]) -> dict[str, int]:
    """Return the numbers of classes by their names, also the first of several, where that tells them apart."""
    whole = [_folded(name) for name in classes]
    first = [_folded(name.split(",")[0]) for name in classes]
    found: dict[str, int] = {}
    for names in (first, whole):
        counts = Counter(names)
        found |= {name: index for index, name in enumerate(names) if counts[name] == 1}
    return found


def _folded(name: str) -> str:
    """Return a name without what does not tell classes apart: case, and spaces, dashes and underscores."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


# Tables of labels ---------------------------------------------------------------------------------------------------


def _labels_of(pictures: Pictures, table: Path) -> dict[str, Label]:
    """Return the labels of pictures by address, as a table has them. Raises DataError."""
    labels = read_labels(table)
    found: dict[str, Label] = {}
    without = ""
    # A name alone is enough where it tells pictures apart, whatever folders the table's paths begin with.
    rows, last = _told_apart(labels), _told_apart(picture.where for picture in pictures)
    by_last = {where: labels[rows[name]] for name, where in last.items() if name in rows}
    for picture in pictures:
        ways = (picture.where, picture.name, _within(picture.where, table.parent))
        label = next((labels[way] for way in ways if way in labels), by_last.get(picture.where))
        if label is None:
            without = without or picture.where
        else:
            found[picture.where] = label
    if not found:
        raise DataError(
            f"{table} labels none of the pictures: its first path is {next(iter(labels))!r}, and the first picture "
            f"{without!r}; paths are as pictures are given, or relative to the table"
        )
    if without:
        say(f"{table.name} has no label for some pictures, such as {without}: nothing is counted of those")
    return found


def _told_apart(paths: Iterable[str]) -> dict[str, str]:
    """Return paths by their last part, those alone that share it with no other."""
    found: dict[str, str] = {}
    counts = Counter[str]()
    for path in paths:
        last = re.split(r"[/\\#]", path)[-1]
        counts[last] += 1
        found[last] = path
    return {last: path for last, path in found.items() if counts[last] == 1}


def _within(where: str, folder: Path) -> str:
    try:
        return str(Path(where).absolute().relative_to(folder.absolute()))
    except ValueError:
        return where


def read_labels(source: str | Path) -> dict[str, str]:
    """Read the labels of pictures by path from a table (.csv or .tsv), with or without heads.

    Raises DataError for what is no such table, or gives a picture two labels.
    """
    document = Document.read(Path(source), DataError)
    first = next((line for line in document.text.splitlines() if line.strip()), "")
    rows = document.rows(max(",;\t", key=first.count))
    heads = [cell.strip().lstrip("\ufeff").lower() for cell in rows[0]]
    at = [next((heads.index(name) for name in names if name in heads), None) for names in (_PATHS, _LABELS)]
    if at == [None, None] and len(heads) == 2:
        at = [0, 1]
    elif None in at:
        raise DataError(f"the columns of {source} are {', '.join(heads)}; {_FORM}")
    else:
        rows = rows[1:]
    path, label = (int(number or 0) for number in at)
    labels: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if len(row) <= max(path, label):
            raise document.fault(f"row {number} has {len(row)} cells; {_FORM}")
        if labels.setdefault(row[path], row[label].strip()) != row[label].strip():
            raise document.fault(f"it labels {row[path]!r} twice, {labels[row[path]]!r} and {row[label].strip()!r}")
    if not labels:
        raise document.fault(f"it has no rows; {_FORM}")
    return labels
