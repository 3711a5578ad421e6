"""`convscope reproduce`: the experiments of a paper on networks and pictures, and which of its claims hold there."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import outputs
from ..errors import PicturesFailed
from ..reproductions.papers import PAPERS, find_paper
from . import inputs
from .groups import beginning, grouped
from .nets import complete_network
from .network import Network, print_remarks
from .network import parts as separate
from .predict import Labels
from .printing import print_file
from .progress import progress
from .report import Paper as OfPaper

if TYPE_CHECKING:
    from ..net import Net
    from ..reproductions.reproduction import Reproduction

_DEFAULT = "zfnet64"
_LOOKED_AT = 64
"""Pictures that tell at which size a network is meant to read, where nobody says it."""

_MARK = ".convscope-reproduction"
"""The file by which a folder of parts is known as one that was made here, and may be taken away."""

_OR_NAMED = "for one network alone NET=FOLDER"

Which = Annotated[
    str,
    typer.Argument(metavar="PAPER", help=f"the paper: {' or '.join(PAPERS)}", autocompletion=beginning(tuple(PAPERS))),
]
Nets = Annotated[
    list[str] | None,
    typer.Option(
        "--net",
        help=f"the network, repeated for several, as all commands take it; {_DEFAULT} by default: convscope nets",
        metavar="NET",
        autocompletion=complete_network,
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        help="pictures that the networks were not trained on, best with a folder for each class; "
        f"{_OR_NAMED}; by default pictures that ship, with which little can be judged",
        metavar="FOLDER",
    ),
]
Train = Annotated[
    list[str] | None,
    typer.Option("--train", help=f"some pictures that they were trained on; {_OR_NAMED}", metavar="FOLDER"),
]
Transfer = Annotated[
    list[str] | None,
    typer.Option("--transfer", help=f"pictures of classes that they were not taught; {_OR_NAMED}", metavar="FOLDER"),
]
Boxes = Annotated[
    Path | None,
    typer.Option(
        help="boxes around the objects of --data: a table (.csv) with columns path, left, top, right, bottom, COCO "
        "(.json) or a folder of VOC's files",
        metavar="FILE",
    ),
]
Parts = Annotated[
    Path | None,
    typer.Option(
        help="boxes around parts of them, such as eyes: a table with a column class, the part's name, as well; by "
        "default eyes and noses in validation pictures of Tiny ImageNet",
        metavar="FILE",
    ),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="report to write (.html, .pdf); PAPER.html by default")]
AsJson = Annotated[Path | None, typer.Option("--json", help="write all verdicts as JSON", metavar="FILE")]
Keep = Annotated[
    Path | None,
    typer.Option(
        help="folder that keeps what takes long, so that a run that was ended goes on; by default one beside the "
        "report, which is taken away when that is whole",
        metavar="FOLDER",
    ),
]


@grouped
def reproduce(
    which: Which,
    network: Network,
    nets: Nets = None,
    data: Data = None,
    train: Train = None,
    transfer: Transfer = None,
    labels: Labels = None,
    boxes: Boxes = None,
    parts: Parts = None,
    limit: Annotated[
        int,
        typer.Option(help="pictures of each source that are taken at most; 5,000, or 1,000 large ones, by default"),
    ] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="about a quarter of the pictures and repetitions")] = False,
    seed: Annotated[int, typer.Option(help="of what is drawn at random")] = 0,
    size: inputs.Size = None,
    paper: OfPaper = "a4",
    out: Out = None,
    as_json: AsJson = None,
    keep: Keep = None,
) -> None:
    """Go through a paper's experiments on networks of yours, and judge which of its claims hold there.

    One report: for every figure and table what the paper did, its numbers beside yours, what differs, and a verdict by
    a rule that is stated beforehand and can fail. The same command goes on where one that was ended has stopped. Exit
    code 3 where some pictures could not be read.
    """
    chosen = find_paper(which)
    out = Path(f"{chosen.name}.html") if out is None else out
    _check(out, as_json, keep)
    names = separate(nets or [_DEFAULT])
    given = [_given(sources, names) for sources in (data, train, transfer)]
    from ..reproductions.reproducing import reproduce as go_through

    with _kept(out, keep) as place, progress():
        loaded = [_loaded(network, name, given[0], size) for name in names]
        asked: dict[str, Any] = {
            "labels": labels,
            "boxes": boxes,
            "parts": parts,
            "limit": limit,
            "keep": place,
            "quick": quick,
            "seed": seed,
        }
        made = go_through(chosen.name, loaded, *given, **asked)
        _write(made, out, paper, as_json)
    for net in loaded:
        print_remarks(made.recipe.remarks if net is loaded[0] else (), net)
    _print(made)
    print_file(out)
    if as_json is not None:
        print_file(as_json)
    inputs.tell_failures(made.failures)
    if made.failures:
        raise PicturesFailed(f"pictures failed: {len(made.failures):,}; the report is of the others")


def _check(out: Path, as_json: Path | None, keep: Path | None) -> None:
    """Refuse what cannot be written before any work."""
    outputs.check_report(out)
    if as_json is not None:
        outputs.check_format(as_json, ".json")
        outputs.check_file(as_json)
    outputs.check_folder(_beside(out) if keep is None else keep)


def _given(sources: Sequence[str] | None, names: Sequence[str]) -> Any:
    """Return sources as `reproduce` takes them: by the names of networks, "" for those that none is named for."""
    found: dict[str, list[str]] = {}
    for text in sources or ():
        name, _, rest = text.partition("=")
        own = bool(rest) and name in names
        found.setdefault(name if own else "", []).extend(inputs.read_data([rest if own else text]))
    return found or None


def _loaded(network: Network, name: str, data: Any, size: Any) -> Net:
    from ..data.pictures import read_pictures

    source = None if data is None else data.get(name, data.get(""))
    some = [] if source is None else [each.where for each in islice(read_pictures(source), _LOOKED_AT)]
    net = replace(network, net=name).load(some, size=size)
    return net if size is None else net.sized(size)


def _beside(out: Path) -> Path:
    return out.with_name(f"{out.stem}-parts")


@contextmanager
def _kept(out: Path, keep: Path | None) -> Generator[Path]:
    """Yield the folder for what takes long; one of our own is taken away when all is written."""
    place = _beside(out) if keep is None else keep
    mark = place / _MARK
    if keep is None and not place.exists():
        outputs.write_text(mark, "What `convscope reproduce` keeps until its report is whole.\n")
    try:
        yield place
    except KeyboardInterrupt:
        print(
            f"convscope: interrupted; what was done is in {place}. Run the same command again to go on", file=sys.stderr
        )
        raise
    if keep is None and mark.is_file():
        shutil.rmtree(place, ignore_errors=True)


def _write(made: Reproduction, out: Path, paper: Any, as_json: Path | None) -> None:
    made.save(out, paper=paper)
    if as_json is not None:
        outputs.write_text(as_json, made.json() + "\n")


def _print(made: Reproduction) -> None:
    """Print a line for each claim and network, and how many hold."""
    for claim in made.claims:
        print(f"{claim.figure:18}  {claim.network:20}  {claim.told}: {claim.sentence}")
    print(f"\n{made.headline}")
