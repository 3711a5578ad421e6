"""`convscope evolution`: how units of a network came about, as a figure."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import OptionError, OutputError, PicturesFailed
from ..outputs import NUMBER_ENDINGS, PICTURE_ENDINGS, check_file, check_folder
from . import inputs
from .groups import beginning, grouped
from .network import Network, parts, print_remarks
from .paper import Figure
from .printing import print_file
from .progress import progress

if TYPE_CHECKING:
    from ..atlas.snapshots import Snapshot
    from ..net import Net

_METHODS = ("deconvnet", "guided", "gradient")

_LOOKED_AT = 64
"""Pictures that tell which network, and which size, is meant where nobody says it."""

Out = Annotated[Path, typer.Option("--out", "-o", help=f"the figure ({', '.join(PICTURE_ENDINGS)})", metavar="FILE")]


Layers = Annotated[
    list[str] | None,
    typer.Option(
        help="layers, by name, number or pattern; by default a low, a middle and a high convolution", metavar="LAYER"
    ),
]
Units = Annotated[
    str | None, typer.Option(help="units of each layer: 0,5,12, or so many at random, random:8; four by default")
]
Epochs = Annotated[
    list[str] | None,
    typer.Option(
        help="epochs of the network's own training whose snapshots are drawn, 1,2,5; eight at most by default: "
        "convscope history NET",
        metavar="INT",
    ),
]
How = Annotated[
    str,
    typer.Option(
        help="how a unit is projected down to pixels",
        metavar=f"[{'|'.join(_METHODS)}]",
        autocompletion=beginning(_METHODS),
    ),
]
Atlases = Annotated[
    Path,
    typer.Option(
        help="folder that keeps what was found with each snapshot, so that other units need no new pass over the "
        "pictures, and a run that was ended goes on",
        metavar="FOLDER",
    ),
]
Batch = Annotated[
    int, typer.Option(help="pictures in one pass; by default 8 on a CPU, of small ones up to 32, and 64 elsewhere")
]
Values = Annotated[
    Path | None, typer.Option(help=f"write the numbers of the figure ({', '.join(NUMBER_ENDINGS)})", metavar="FILE")
]


@grouped
def evolution(
    pictures: inputs.Pictures,
    network: Network,
    figure: Figure,
    layers: Layers = None,
    units: Units = None,
    epochs: Epochs = None,
    method: How = "deconvnet",
    atlases: Atlases = Path("convscope-evolution"),
    batch: Batch = 0,
    size: inputs.Size = None,
    out: Out = Path("evolution.png"),
    save_values: Values = None,
) -> None:
    """Show how units came about: what each responded to most at several moments of the training.

    Over all pictures, for each snapshot: the strongest picture of a unit, and what the unit projects down to there.
    Snapshots are those of the network's own training (zfnet64 ships with some, --weights RUN has those of a run of
    convscope train), or several files of weights: --weights a.pt,b.pt, a folder of them, or 'checkpoints/*.ckpt'.

    Zeiler & Fergus 2013, arXiv:1311.2901v3, Fig. 4
    """
    _check(out, save_values, atlases, figure, method)
    numbers = _epochs(epochs)
    found = inputs.read_all(pictures)
    inputs.refuse_overwriting((each.where for each in found), [out, *filter(None, [save_values])])
    from ..atlas.evolution import evolution as draw
    from ..context import listen

    with progress(), listen() as remarks:
        some = [each.where for each in islice(found, _LOOKED_AT)]
        loaded, snapshots = _snapshots(network, some, size, numbers)
        drawing = draw(
            snapshots,
            found,
            atlases,
            layers=parts(layers or []),
            units=units,
            method=method,  # type: ignore[arg-type]
            batch_size=batch,
        )
    print_remarks(list(dict.fromkeys([*remarks, *drawing.recipe.remarks])), loaded)
    print_file(figure.save(drawing, out))
    if save_values is not None:
        print_file(drawing.save_values(save_values))
    left_out = len(snapshots) - drawing.numbers()["values"].shape[1]
    if left_out:
        raise PicturesFailed(f"{left_out} of {len(snapshots)} snapshots could not be read; the figure is of the others")


def _check(out: Path, values: Path | None, atlases: Path, figure: Figure, method: str) -> None:
    """Refuse what cannot be written before any work."""
    if method not in _METHODS:
        raise OptionError(f"--method is {', '.join(_METHODS)}, not {method!r}")
    if out.suffix.lower() not in PICTURE_ENDINGS:
        raise OutputError(f"cannot write {out}: endings are {', '.join(PICTURE_ENDINGS)}")
    if values is not None and values.suffix not in (".npz", ".safetensors"):
        raise OutputError(f"cannot write numbers to {values}: endings are .npz, .safetensors")
    figure.check(out)
    for file in filter(None, (out, values)):
        check_file(file)
    check_folder(atlases)


def _epochs(texts: list[str] | None) -> list[int]:
    given = parts(texts or [])
    if not all(text.isdecimal() for text in given):
        raise OptionError(f"--epochs are whole numbers, as 1,2,5; not {','.join(given)!r}")
    return [int(text) for text in given]


def _snapshots(network: Network, pictures: list[str], size: object, epochs: list[int]) -> tuple[Net, list[Snapshot]]:
    """Return the network that is named, and its snapshots."""
    from ..atlas.snapshots import is_run, snapshots_of, weights_named

    files: list[str] = []
    if network.weights is not None and not is_run(network.weights):
        files = weights_named(network.weights)
        network = replace(network, weights="none")  # only to know how it is loaded
    net = network.load(pictures, size=size)
    net = net if size is None else net.sized(size)  # type: ignore[arg-type]
    return net, snapshots_of(net, epochs=epochs, weights=files)
