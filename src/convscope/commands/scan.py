"""`convscope scan`: what every unit of a network responds to over a whole data set, as an atlas."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import OptionError
from . import inputs
from .groups import beginning, grouped
from .network import Network, parts, print_remarks
from .printing import print_file
from .progress import progress

_DETAILS = ("basic", "full")

_LOOKED_AT = 64
"""Pictures that tell which network, and which size, is meant where nobody says it."""

Out = Annotated[Path, typer.Option("--out", "-o", help="folder of the atlas to write", metavar="ATLAS")]


@dataclass(frozen=True)
class Kept:
    """What a scan keeps of every unit, and how pictures are taken together."""

    layers: Annotated[
        list[str] | None,
        typer.Option(
            help="layers to scan, by name, number or pattern ('features.*'); by default every convolution and linear "
            "layer, or the normalisation after it, and the output",
            metavar="LAYER",
        ),
    ] = None
    k: Annotated[int, typer.Option("-k", help="how many pictures of each kind to keep of a unit", min=1)] = 9
    statistics: Annotated[
        str,
        typer.Option(
            help="basic: the strongest pictures and means; full: also the weakest, bands between them, histograms, "
            "quantiles and, with labels, AUC",
            metavar="[basic|full]",
            autocompletion=beginning(_DETAILS),
        ),
    ] = "full"
    effect: Annotated[
        bool, typer.Option("--effect", help="keep the pictures, too, where each unit mattered for the predicted class")
    ] = False
    batch: Annotated[int, typer.Option(help="pictures in one pass; 8 on a CPU and 64 elsewhere by default")] = 0
    shard: Annotated[int, typer.Option(help="pictures in one file of the atlas; about 1,000 by default")] = 0
    sample: Annotated[
        int | None, typer.Option(help="pictures that quantiles and AUC are computed from; 10,000 by default", min=0)
    ] = None
    seed: Annotated[int, typer.Option(help="of what is drawn at random")] = 0

    def options(self) -> dict[str, Any]:
        """Return the options of `scan`. Raises OptionError."""
        if self.statistics not in _DETAILS:
            raise OptionError(f"--statistics is basic or full, not {self.statistics!r}")
        options = asdict(self)
        return options | {"layers": parts(self.layers or []), "batch_size": options.pop("batch")}


@grouped
def scan(
    pictures: inputs.Pictures, network: Network, kept: Kept, out: Out = Path("atlas"), size: inputs.Size = None
) -> None:
    """Find the pictures that every unit of a network responds to most, over a whole data set, in one pass.

    The atlas is a folder of Parquet files, which `convscope patches` draws and pandas, polars and DuckDB read. A scan
    that was ended goes on where it was. Pictures that cannot be read are left out and listed in pictures.parquet.
    """
    options = kept.options()
    found = inputs.read_all(pictures)
    from ..atlas.scanning import scan as scan_data
    from ..context import listen

    with progress(), listen() as remarks:
        loaded = network.load([each.where for each in islice(found, _LOOKED_AT)], size=size)
        loaded = loaded if size is None else loaded.sized(size)
        scan_data(loaded, found, out, **options)
    print_remarks(remarks, loaded)
    print_file(out)
