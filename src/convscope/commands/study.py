"""What the command of a study does: run it over data, print its table, and write figure, table and numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..context import whole
from ..errors import OutputError, PicturesFailed
from ..outputs import NUMBER_ENDINGS, PICTURE_ENDINGS, TABLE_ENDINGS, check_file, check_pyarrow
from ..recipes import FAILED
from . import inputs
from .network import Network, print_remarks
from .paper import Figure
from .printing import print_file
from .progress import progress
from .registered import Signature, command_line

if TYPE_CHECKING:
    from ..drawing.study import Study

_ROWS = 40
"""Rows of a table that are printed; files hold all."""


def run_study(
    signature: Signature,
    data: Sequence[str],
    options: Mapping[str, Any],
    *,
    network: Network,
    figure: Figure,
    size: Any = None,
    out: Path | None = None,
    table: Path | None = None,
    save_values: Path | None = None,
    as_json: bool = False,
) -> None:
    """Run a study; print its table, unless files are to be listed as JSON, and write what is wanted."""
    drawn = out or Path(f"{command_line(signature.name, signature.kind).split()[-1]}.png")
    targets = {drawn: PICTURE_ENDINGS} | ({table: TABLE_ENDINGS} if table is not None else {})
    targets |= {save_values: NUMBER_ENDINGS} if save_values is not None else {}
    _check(targets)
    figure.check(drawn)
    given = inputs.read_data(data) if signature.takes else []
    inputs.refuse_overwriting(given, targets)
    with progress(), whole():
        net = network.load(given[:1], size=size)
        study = _study(signature, net if size is None else net.sized(size), given, options)
    written = [figure.save(study, drawn)]
    written += [study.save(table)] if table is not None else []
    written += [study.save_values(save_values)] if save_values is not None else []
    if not as_json:
        study.readable.print(_ROWS)
        for path in written:
            print_file(path)
    else:
        print(json.dumps([str(path) for path in written], ensure_ascii=False))
        print_remarks(study.recipe.remarks, net)  # else the table's note has them
    failures: list[str] = study.recipe.settled.get(FAILED, [])
    inputs.tell_failures(failures)
    if failures:
        raise PicturesFailed(f"pictures failed: {len(failures):,}; the study is of the others")


def _study(signature: Signature, net: Any, given: Sequence[str], options: Mapping[str, Any]) -> Study:
    from .. import registry
    from ..running import run

    entry = registry.load_all()[signature.name]
    return run(entry, net, *([list(given)] if entry.takes else []), **options)


def _check(targets: Mapping[Path, Sequence[str]]) -> None:
    """Refuse what cannot be written before any work. Raises OutputError."""
    for path, endings in targets.items():
        if path.suffix.lower() not in endings:
            hint = "; --table writes tables" if path.suffix.lower() in TABLE_ENDINGS else ""
            raise OutputError(f"cannot write {path}: endings are {', '.join(endings)}{hint}")
        if path.suffix.lower() == ".parquet":
            check_pyarrow()
        check_file(path)
