"""Names of classes: what is shown for a class whose folder is called n02123045."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError


def read_class_names(table: Path, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names to show for classes: `table` (.csv) has a class in its first column, its name in the second.

    Of several names with commas between, as WordNet has them, the first is shown where it is one class's alone. Raises
    DataError for a table that cannot be read or has no name for a class.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = {row[0].strip(): row[1].strip() for row in csv.reader(file) if len(row) > 1}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the names of classes in {table}: {error}") from None
    missing = [name for name in classes if not rows.get(name)]
    if missing:
        raise DataError(f"{table} has no name for {len(missing)} classes: {', '.join(missing[:5])}")
    shown = [rows[name] for name in classes]
    # "tabby, tabby cat" is shown as "tabby", unless two classes would then be called the same.
    short = [name.split(",")[0].strip() for name in shown]
    counts = Counter(short)
    return tuple(s if counts[s] == 1 else full for s, full in zip(short, shown, strict=True))
