"""Tables: values in files, rounded for readers, numbers right below each other, nothing cut in a picture."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convscope.drawing.paper import SCREEN
from convscope.drawing.table_pages import arranged
from convscope.drawing.tables import Column, Table
from convscope.drawing.typesetting import Words, length, line_height
from convscope.errors import OptionError, OutputError
from convscope.recipes import Recipe

RECIPE = Recipe("layers", {"name": "a network"}, "0123")
COLUMNS = (
    Column("number", "whole"),
    Column("layer", unbroken=True),
    Column("sees", "size", unit="px"),
    Column("parameters", "whole"),
    Column("top_1", "number", head="top-1", format=".2%"),
    Column("shared", "flag"),
    Column("remark"),
)
ROWS = (
    (1, "conv1", (7, 7.5), 1234567, 0.12345, True, 'a | b, "c"\nd'),
    (None, "head.norm", (1, 1), None, math.nan, False, ""),
    (-3, "head", None, 0, 1.0, None, "a remark that is much longer than a column should be " * 3),
)


def table(**words: str) -> Table:
    return Table(COLUMNS, ROWS, RECIPE, **{"title": "A table", "subtitle": "of layers", "note": "A note.", **words})


def test_text_is_for_readers_and_fits_its_width() -> None:
    text = table().text(90)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 90
    assert "A table" in lines[0] and "A note." in text and "of layers" in text
    assert "1,234,567" in text and "12.35%" in text and "7 × 7.5" in text and "sees (px)" in text and "−3" in text
    assert "nan" not in text and "None" not in text
    rows = [line for line in lines if "conv1" in line or "head" in line]
    ends = [line.index(end) + len(end) for line, end in ((rows[0], "12.35%"), (rows[2], "100.00%"))]
    assert ends[0] == ends[1], "numbers end below each other"
    assert "head.norm" in text, "names of layers are not broken"


def test_markdown_has_one_line_per_row() -> None:
    lines = table().markdown().splitlines()
    assert lines[0] == "A table. of layers" and lines[-1] == "A note."
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(ROWS)
    assert rows[1].split(" | ")[:3] == ["| --:", "---", "---"]
    assert r"a \| b" in rows[2]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {len(COLUMNS) + 1}


def test_csv_and_json_hold_the_values() -> None:
    lines = list(csv.reader(io.StringIO(table().csv())))
    assert lines[0] == [column.name for column in COLUMNS]
    assert lines[1] == ["1", "conv1", "7x7.5", "1234567", "0.12345", "True", 'a | b, "c"\nd']
    assert lines[3][2] == "" and lines[2][0] == ""
    records = json.loads(table().json())
    assert records[0]["parameters"] == 1234567 and records[0]["sees"] == [7, 7.5] and records[0]["shared"] is True
    assert records[1]["top_1"] is None, "JSON has no NaN"
    assert records[2] == dict(zip(lines[0], [-3, "head", None, 0, 1.0, None, ROWS[2][6]], strict=True))


def test_parquet_keeps_kinds_and_recipe(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    found = parquet.read_table(table().save(tmp_path / "x.parquet"))
    assert found.schema.metadata[b"convscope"].decode() == RECIPE.to_json()
    assert found["parameters"].to_pylist() == [1234567, None, 0]
    assert found["sees"].to_pylist() == [[7, 7.5], [1, 1], None]
    assert found["shared"].to_pylist() == [True, False, None]


def test_html_escapes_and_aligns() -> None:
    html = Table((Column("<b>"), Column("n", "number")), (("<i>", 0.5),), RECIPE, "<u>").html()
    assert "<b>" not in html and "<i>" not in html and "<u>" not in html and "&lt;i&gt;" in html
    assert html.count("text-align:right") == 2 and "tabular-nums" in html
    assert table()._repr_html_() == table().html() and table()._repr_png_ is None


@pytest.mark.parametrize("suffix", [".csv", ".json", ".md", ".txt", ".html", ".png", ".jpg", ".webp", ".pdf", ".svg"])
def test_every_ending_is_written(suffix: str, tmp_path: Path) -> None:
    path = table().save(tmp_path / "deep" / f"x{suffix}")
    assert path.stat().st_size > 100 and [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_ending_that_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"endings are \.csv, \.json, \.md, \.txt, \.html, \.parquet, \.png"):
        table().save(tmp_path / "x.xlsx")


def test_numbers_are_the_columns_of_numbers() -> None:
    numbers = table().numbers()
    assert list(numbers) == ["number", "parameters", "top_1"]
    np.testing.assert_array_equal(numbers["parameters"], [1234567, np.nan, 0])


def test_cells_of_another_kind_are_refused() -> None:
    with pytest.raises(OptionError, match="row 0 of the table has 1 cells for 2 columns"):
        Table((Column("a"), Column("b")), (("x",),), RECIPE)
    with pytest.raises(OptionError, match="column 'a' of the table holds whole, not True"):
        Table((Column("a", "whole"),), ((True,),), RECIPE)


def test_nothing_is_cut_or_overlaps_in_a_picture() -> None:
    page = arranged(table(), SCREEN)
    boxes = []
    for item in page.items:
        if isinstance(item, Words) and item.text.strip():
            wide = length(item.text, item.kind, bold=item.bold)
            left = item.x - wide if item.anchor == "ra" else item.x
            boxes.append((left, item.y, left + wide, item.y + line_height(item.kind), item.text))
    for number, one in enumerate(boxes):
        assert one[0] >= 0 and one[1] >= 0 and one[2] <= page.width and one[3] <= page.height, one
        for other in boxes[number + 1 :]:
            apart = min(one[2], other[2]) - max(one[0], other[0]) <= 1
            assert apart or min(one[3], other[3]) - max(one[1], other[1]) <= 1, (one, other)
    assert page.width < 1200


def test_a_picture_holds_the_recipe(tmp_path: Path) -> None:
    assert Image.open(table().save(tmp_path / "x.png")).info["convscope"] == RECIPE.to_json()


def test_tables_as_text_need_neither_numpy_nor_torch() -> None:
    code = (
        "import sys; from convscope.drawing.tables import Column, Table\n"
        "table = Table((Column('a', 'whole'),), ((1,),))\n"
        "table.text(), table.csv(), table.json(), table.markdown(), table.html()\n"
        "print(sorted({'numpy', 'torch', 'PIL', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_short_repr() -> None:
    assert repr(table()) == "<Table 'A table', 3 rows of 7 columns>"
