"""`convscope report`: a page about a network and pictures, to hand on."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import named
from ..options import separated
from . import inputs
from .groups import beginning, grouped
from .network import Network
from .predict import Labels, Names
from .printing import print_file
from .progress import progress

if TYPE_CHECKING:
    from ..net import Net
    from ..reports.reporting import Report

PRESETS = ("why", "lesson", "wrong", "medical")
"""What the chapters of a report can be, by name."""


Preset = Annotated[
    str,
    typer.Option(
        help="what it holds: why (what the network says of each picture, and maps of why), lesson (the figures of "
        "Zeiler & Fergus and of Simonyan et al., on two to twenty pictures, to hand out), wrong (those pictures with "
        "labels that are named wrongly, with a map for the true class as well) or medical (as why, the position "
        "under question marked)",
        metavar=f"[{'|'.join(PRESETS)}]",
        autocompletion=beginning(PRESETS),
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        help="methods that draw maps, several with commas between or by repeating the option; by default grad_cam and "
        "occlusion, of more than 20 pictures grad_cam alone"
    ),
]
Paper = Annotated[
    str,
    typer.Option(help="paper of a PDF", metavar="[a4|letter]", autocompletion=beginning(("a4", "letter"))),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        help="file to write (.html, .pdf); of more than 50 pictures, more pages and a folder lie beside a page",
    ),
]


@grouped
def report(
    pictures: inputs.Pictures,
    network: Network,
    size: inputs.Size = None,
    preset: Preset = "why",
    methods: Methods = None,
    of: inputs.Of = None,
    check: Annotated[bool, typer.Option(help="compare each map with maps of the network with random weights")] = True,
    labels: Labels = None,
    names: Names = None,
    paper: Paper = "a4",
    out: Out = Path("report.html"),
) -> None:
    """Write a page about a network and pictures, to hand on: what it says of each, why, and how it was made.

    The page needs nothing from anywhere else. A run of more than 50 pictures that was ended goes on with the same
    command. Exit code 3 where some pictures could not be read: they stand on the page with the reason.
    """
    from ..outputs import check_report

    check_report(out)
    found = inputs.read_all(pictures)
    asked: dict[str, Any] = {
        "preset": preset,
        "of": of,
        "size": size,
        "check": check,
        "labels": labels,
        "names": names,
        "paper": paper,
    }
    if methods is not None:
        asked["methods"] = [name.replace("-", "_") for text in methods for name in separated(text)]
    with progress(), _telling_the_end(out):
        done = _write(network.load([each.where for each in found], size=size), found, out, asked)
    print_file(done.path)
    if done.existing:
        print(f"convscope: {done.existing} of {done.pictures} pictures were there already", file=sys.stderr)
    inputs.refuse_failures([named(where, reason) for where, reason in done.failures.items()], done.pictures, done.path)


def _write(net: Net, pictures: Any, out: Path, asked: dict[str, Any]) -> Report:
    from ..reports.reporting import report as write

    return write(net, pictures, out, **asked)


@contextmanager
def _telling_the_end(out: Path) -> Generator[None]:
    """Say what there is after ctrl-C or a signal that ended the report."""
    try:
        yield
    except KeyboardInterrupt:
        print(
            f"convscope: interrupted; what was made is in {out}. Run the same command again for all of it",
            file=sys.stderr,
        )
        raise
