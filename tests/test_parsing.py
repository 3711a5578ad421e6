"""The guard at the border: texts of others are read as data, or refused in one line of the caller's error."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

import convscope
from convscope.errors import DataError
from convscope.parsing import MOST_DEPTH, Document

SOURCE = Path(convscope.__file__).parent
LEVELS = 100_000


def document(text: str) -> Document:
    return Document("FILE", text, DataError)


def json(text: str) -> Any:
    return document(text).json(object)


def literal(text: str) -> Any:
    return document(text).literal(object)


def toml(text: str) -> Any:
    return document(text).toml()


REFUSED: list[tuple[Callable[[str], Any], str, str]] = [
    (json, "", "FILE is empty"),
    (json, "[1,", "FILE is not JSON: Expecting value"),
    (json, "[" * LEVELS, "nested more than 64 deep"),
    (json, '{"a":' * LEVELS, "nested more than 64 deep"),
    (json, "[" * 65 + "]" * 65, "nested more than 64 deep"),
    (json, "[1" + "0" * 400 + "]", "a number has more than 300 digits"),
    (json, "[" + "1" * 5_000 + "]", "a number has more than 300 digits"),
    (json, '{"a": 1, "b": 2, "a": 3}', "FILE: the key 'a' is there twice"),
    (literal, "{0: 'cat', 0: 'dog'}", "the key '0' is there twice"),
    (literal, "[" * LEVELS, "too many nested parentheses"),
    (literal, "-" * LEVELS + "1", "nested more than 64 deep"),
    (literal, "1+" * LEVELS + "1", "nested more than 64 deep"),
    (literal, "not " * LEVELS + "1", "nested more than 64 deep"),
    (literal, "1" * 5_000, "a number has more than 300 digits"),
    (literal, "__import__('os').remove('x')", "nothing is run"),
    (literal, "{[]: 1}", "nothing is run"),
    (literal, "{0: 'cat'", "was never closed, line 1"),
    (literal, " " * 2**21, "characters"),
    (toml, "a = 1\na = 2", "FILE is not TOML: Cannot overwrite a value"),
    (toml, "a = " + "[" * LEVELS, "nested more than 64 deep"),
    (toml, "a = " + "{a = " * 100 + "1" + "}" * 100, "nested more than 64 deep"),
    (toml, "a = " + "1" * 5_000, "a number has more than 300 digits"),
    (toml, "a = 0x" + "f" * 5_000, "a number has more than 300 digits"),
    (toml, ".".join("a" * 20_000) + " = 1", "a key has more than 64 parts"),
    (toml, "[" + " . ".join(['"a"'] * 20_000) + "]", "a key has more than 64 parts"),
    (lambda text: document(text).rows(), '"' + "x" * 200_000, "FILE is not a table: field larger than field limit"),
    (lambda text: document(text).xml(), "<a><b></a>", "FILE is not XML: mismatched tag: line 1"),
    (lambda text: document(text).xml(), '<!DOCTYPE a [<!ENTITY b "b">]><a>&b;</a>', "it has a document type"),
]


@pytest.mark.parametrize(("parse", "text", "words"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_what_cannot_be_read_is_one_short_line(parse: Callable[[str], Any], text: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        parse(text)
    message = str(caught.value)
    assert message.startswith("FILE") and words in message and len(message) < 200 and "\n" not in message


@dataclass
class Part:
    loss: float
    kind: Literal["a", "b"] = "a"
    file: str | None = None


@dataclass
class Whole:
    history: tuple[Part, ...]
    size: int | tuple[int, int] = 0
    named: dict[str, str] | None = None


def test_content_takes_the_shape_of_a_type() -> None:
    text = '{"history": [{"loss": 3, "new": 1}, {"loss": 0.5, "file": "x", "kind": "b"}], "size": [2, 3]}'
    assert document(text).json(Whole) == Whole((Part(3.0), Part(0.5, "b", "x")), (2, 3))
    assert literal("{0: 'cat', 1: ['dog', None, True, 2.5]}") == {0: "cat", 1: ["dog", None, True, 2.5]}
    assert document('a,b\n"x\ny",2\n\n').rows() == [["a", "b"], ["x\ny", "2"]]
    assert document("é.'b.c'.\"d\" = 1".replace("é", "a")).toml() == {"a": {"b.c": {"d": 1}}}
    assert json("[" * MOST_DEPTH + "]" * MOST_DEPTH)[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "FILE: it is a list of 0; a table is needed"),
        ("{}", "FILE: it has no history"),
        ('{"history": 3}', "FILE: history is 3; a list is needed"),
        ('{"history": [{"loss": 1}, {}]}', "FILE: history[1] has no loss"),
        ('{"history": [{"loss": "abc"}]}', "FILE: history[0].loss is 'abc'; a number is needed"),
        ('{"history": [{"loss": true}]}', "FILE: history[0].loss is true; a number is needed"),
        ('{"history": [{"loss": NaN}]}', "FILE: history[0].loss is nan; a number is needed"),
        ('{"history": [{"loss": 1e400}]}', "FILE: history[0].loss is inf; a number is needed"),
        ('{"history": [{"loss": 1, "kind": "c"}]}', "FILE: history[0].kind is 'c'; 'a' or 'b' is needed"),
        ('{"history": [{"loss": 1, "file": {}}]}', "FILE: history[0].file is a table of 0; text or nothing is needed"),
        ('{"history": [], "size": 1.5}', "FILE: size is 1.5; a whole number or a list of 2 is needed"),
        ('{"history": [], "size": [1, "x"]}', "FILE: size[1] is 'x'; a whole number is needed"),
        ('{"history": [], "named": {"a b": 1}}', "FILE: named.'a b' is 1; text is needed"),
        ('{"history": "' + "x" * 500 + '"}', "FILE: history is '" + "x" * 35 + " ...; a list is needed"),
    ],
)
def test_what_does_not_fit_is_named_by_its_place(text: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        document(text).json(Whole)
    assert str(caught.value) == words


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_are_told_apart(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "x").write_bytes("ein Kätzchen, 猫".encode(encoding))
    assert Document.read(tmp_path / "x", DataError).text == "ein Kätzchen, 猫"


def test_xml_names_its_encoding_itself() -> None:
    content = '<?xml version="1.0" encoding="ISO-8859-1"?><a>é</a>'.encode("latin-1")
    assert Document.decoded(content, "FILE", DataError).xml().text == "é"


@pytest.mark.parametrize(("content", "words"), [(b"caf\xe9", r"byte 3 \(0xe9\)"), (b"a\0b", "character 1 is a zero")])
def test_bytes_that_are_no_text_are_refused(content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Document.decoded(content, "FILE", DataError)


def test_halves_of_characters_are_replaced() -> None:
    assert json(r'["\ud800", "\ud83d\ude00"]') == ["?", "😀"]


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "large").write_bytes(b"x" * 11)
    cases = {
        tmp_path / "pipe": "is a pipe",
        "/dev/zero": "is a device",
        "/proc/self/mem": "Input/output error",
        tmp_path: "Is a directory",
        tmp_path / "loop": "Too many levels of symbolic links",
        tmp_path / ("x" * 300): "File name too long",
        tmp_path / "absent": "No such file",
        "a\0b": "no file can have such a name",
        tmp_path / "large": "more than 10 bytes",
    }
    for path, words in cases.items():
        with pytest.raises(DataError, match=words):
            Document.read(path, DataError, most=10)
