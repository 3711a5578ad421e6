"""Class names as people have them, in Python and in files, and what is refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
from convscope import Net
from convscope.data.boxes import Boxed, renamed
from convscope.data.class_names import class_names
from convscope.errors import ConvscopeError, DataError, NetworkError, OptionError

NAMES = ("cat", "dog", "owl")

PYTHON: dict[str, Any] = {
    "list": ["cat", "dog", "owl"],
    "tuple": NAMES,
    "generator": (name for name in NAMES),
    "array": np.array(NAMES),
    "keys": dict.fromkeys(NAMES).keys(),
    "id2label": {2: "owl", 0: "cat", 1: "dog"},
    "id2label as text": {"2": "owl", "0": "cat", "1": "dog"},
    "numpy keys": {np.int64(at): name for at, name in enumerate(NAMES)},
    "keras": {"0": ["n01", "cat"], "1": ["n02", "dog"], "2": ["n03", "owl"]},
    "class_to_idx": {"owl": 2, "cat": 0, "dog": 1},
    "numpy indices": {name: np.int64(at) for at, name in enumerate(NAMES)},
    "spaces": [" cat", "dog\n", "owl"],
}

FILES: dict[str, str] = {
    "lines.txt": "cat\ndog\n\nowl\n",
    "bom.txt": "\ufeffcat\r\ndog\r\nowl\r\n",
    "wordnet.txt": "n00000001 cat\nn00000002 dog\nn00000003 owl\n",
    "numbered.txt": "0 cat\n1 dog\n2 owl\n",
    "colons.txt": "0: cat\n1: dog\n2: owl\n",
    "from one.txt": "1 cat\n2 dog\n3 owl\n",
    "python.txt": "{0: 'cat', 1: 'dog', 2: 'owl'}",
    "no ending": "cat\ndog\nowl\n",
    "list.json": json.dumps(NAMES),
    "id2label.json": json.dumps({"2": "owl", "0": "cat", "1": "dog"}),
    "class_to_idx.json": json.dumps({"owl": 2, "cat": 0, "dog": 1}),
    "config.json": json.dumps({"architectures": ["X"], "id2label": {"1": "dog", "0": "cat", "2": "owl"}, "size": 3}),
    "label2id.json": json.dumps({"label2id": {"dog": 1, "cat": 0, "owl": 2}}),
    "classes.json": json.dumps({"classes": NAMES, "epoch": 3}),
    "coco.json": json.dumps({"categories": [{"id": at, "name": name} for at, name in enumerate(NAMES)]}),
    "names.csv": "cat\ndog\nowl\n",
    "head.csv": "name\ncat\ndog\nowl\n",
    "index.csv": "2,owl\n0,cat\n1,dog\n",
    "index and head.csv": "index,name\n2,owl\n0,cat\n1,dog\n",
    "turned.csv": "class_name;id\nowl;2\ncat;0\ndog;1\n",
    "wordnet.csv": "n00000001,cat\nn00000002,dog\nn00000003,owl\n",
    "table.tsv": "idx\tname\n0\tcat\n1\tdog\n2\towl\n",
    "quoted.csv": 'index,name\n0,"cat"\n1,"dog"\n2,"owl"\n',
}


def body(outputs: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, outputs)).eval()


@pytest.mark.parametrize("form", PYTHON)
def test_every_form_in_python(form: str) -> None:
    assert Net(body(), size=8, classes=PYTHON[form] if form != "generator" else iter(NAMES)).classes == NAMES


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(FILES[name], encoding="utf-8")
    assert Net(body(), size=8, classes=path).classes == Net(body(), size=8).changed(classes=path).classes == NAMES
    if path.suffix:
        assert class_names(str(path)) == NAMES


def test_names_in_one_text_have_commas_between() -> None:
    assert Net(body(), size=8, classes="cat, dog,owl").classes == NAMES
    assert class_names('"goldfish, Carassius auratus",cat') == ("goldfish, Carassius auratus", "cat")
    assert class_names("lesion,") == ("lesion",)
    assert len(class_names(",".join(f"class {number}" for number in range(1000)))) == 1000


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("cat", r"there is no file 'cat': to name one output write classes=\['cat'\]"),
        ("none.txt", r"the names of classes: cannot read none.txt: No such file"),
        (
            [0, 1, 2],
            r"class names are text, and that of output 0 is 0 \(int\): classes=\[str\(name\) for name in names\]",
        ),
        (["cat", None, "owl"], r"that of output 1 is nothing"),
        (["cat", "", "owl"], r"the name of output 1 is empty"),
        (["cat"] * 3, r"all 3 class names are 'cat'"),
        ({"cat"}, r"not set, which has no order: classes=sorted"),
        (3, r"classes are names in order, .* not int"),
        ({0: "cat", 2: "owl"}, r"there is no name for index 1"),
        ({1: "cat", 2: "dog", 3: "owl"}, r"the indices begin at 1, those of outputs at 0: \{index - 1: name"),
        ({"cat": 0, "dog": 1, "hound": 1}, r"index 1 has 2 names, 'dog' and 'hound'"),
        ({"cat": "feline"}, r"this one has 'cat': 'feline'"),
        ({0: "cat", 10**12: "dog"}, r"index 1, 2, 3, 4, 5, ... \(999,999,999,999 in all\)"),
        ({-1: "cat", 0: "dog"}, r"goes from indices to names"),
    ],
    ids=str,
)
def test_what_is_no_list_of_names_is_refused_in_words(given: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Net(body(), size=8, classes=given)
    with pytest.raises(OptionError, match=words):
        cs.load("lenet5", classes=given)


def test_names_for_other_outputs_than_there_are() -> None:
    def asked(names: Any, outputs: int) -> None:
        cs.explain(Net(body(outputs), size=8, classes=names), torch.rand(3, 8, 8), "gradient")

    with pytest.raises(NetworkError, match="has 2 class names for 3 outputs: give one name each"):
        asked(["a", "b"], 3)
    with pytest.raises(NetworkError, match=r"without the background: classes=names\[1:\]"):
        asked(["background", "a", "b", "c"], 3)
    with pytest.raises(NetworkError, match=r"one output is that of one class, as classes=\['tumour'\]"):
        asked(["healthy", "tumour"], 1)


def test_two_classes_of_one_name_are_told_apart() -> None:
    """ImageNet has two cranes, the bird and the machine."""
    net = Net(body(), size=8, classes=["crane", "dog", "crane"])
    assert [net.class_name(index) for index in range(3)] == ["crane (0)", "dog", "crane (2)"]


def test_a_recipe_keeps_names_given_as_a_dict(tmp_path: Path) -> None:
    net = cs.load("torchvision:squeezenet1_1", weights=None, size=64, classes={i: f"n{i}" for i in range(1000)})
    assert net.source is not None and net.source.options["classes"][999] == "n999"


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "txt"])
def test_names_of_labels_come_from_every_kind_of_file(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"names.{ending}"
    path.write_text(
        {"csv": 'n01,"tabby, cat"\n', "tsv": "n01\ttabby\n", "json": '{"n01": "tabby"}', "txt": "n01 tabby\n"}[ending]
    )
    (boxed,) = renamed([Boxed(Path("a.png"), ((0, 0, 1, 1),), "n01")], path)
    assert boxed.label == "tabby"
    with pytest.raises(DataError, match="names none of the classes, such as 'n02'"):
        renamed([Boxed(Path("a.png"), ((0, 0, 1, 1),), "n02")], path)


def test_damaged_files_of_names_are_refused_in_a_sentence(tmp_path: Path) -> None:
    for name, content in (
        ("a.json", b"{]"), ("b.json", b"3"), ("c.json", b"[1, 2]"), ("d.csv", b"1,2\n3,4\n"), ("e.txt", b""),
        ("f.txt", b"caf\xe9"), ("g.json", b'{"a": {"b": 1}}'), ("h.csv", b"0,cat\n0,dog\n"), ("i.txt", b"{0: x}"),
        ("j.json", b"[" * 100_000), ("k.csv", b"\x00,1\n"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConvscopeError) as error:
            class_names(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)
