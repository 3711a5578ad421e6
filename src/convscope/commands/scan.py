"""`convscope scan`: what every unit of a network responds to over a whole data set, as an atlas."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import OptionError
from . import inputs
from .groups import beginning, grouped
from .network import Network, parts, print_remarks
from .printing import print_file
from .progress import progress

if TYPE_CHECKING:
    from ..atlas.scanning import Engine

_DETAILS = ("basic", "full")

_ENGINES = ("local", "ray")

_PANEL = "Where it is computed"

_LOOKED_AT = 64
"""Pictures that tell which network, and which size, is meant where nobody says it."""

Out = Annotated[
    str, typer.Option("--out", "-o", help="folder of the atlas to write, or s3://bucket/folder", metavar="ATLAS")
]


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
    batch: Annotated[
        int, typer.Option(help="pictures in one pass; by default 8 on a CPU, of small ones up to 32, and 64 elsewhere")
    ] = 0
    shard: Annotated[int, typer.Option(help="pictures in one file of the atlas; about 1,000 by default")] = 0
    sample: Annotated[
        int | None, typer.Option(help="pictures that quantiles and AUC are computed from; 10,000 by default", min=1)
    ] = None
    seed: Annotated[int, typer.Option(help="of what is drawn at random")] = 0

    def options(self) -> dict[str, Any]:
        """Return the options of `scan`. Raises OptionError."""
        if self.statistics not in _DETAILS:
            raise OptionError(f"--statistics is basic or full, not {self.statistics!r}")
        options = asdict(self)
        return options | {"layers": parts(self.layers or []), "batch_size": options.pop("batch")}


@dataclass(frozen=True)
class Where:
    """What computes the shards."""

    engine: Annotated[
        str,
        typer.Option(
            help="local: this machine; ray: a Ray cluster (the extra cluster), started here unless --address names one",
            metavar="[local|ray]",
            autocompletion=beginning(_ENGINES),
            rich_help_panel=_PANEL,
        ),
    ] = "local"
    workers: Annotated[
        int | None,
        typer.Option(
            help="processes that compute, each with its share of the cores; by default this one alone, and with ray as "
            "many as there are cores",
            min=1,
            rich_help_panel=_PANEL,
        ),
    ] = None
    devices: Annotated[
        list[str] | None,
        typer.Option(
            help="what processes compute on, one process for each: cuda:0,cuda:1; with ray cuda, a GPU for each task",
            metavar="DEVICE",
            rich_help_panel=_PANEL,
        ),
    ] = None
    address: Annotated[
        str | None,
        typer.Option(
            help="address of a Ray cluster that runs: 10.0.0.1:6379, ray://HOST:10001 or auto", rich_help_panel=_PANEL
        ),
    ] = None

    def network(self, network: Network) -> Network:
        """Return the network on the first of the devices: how many pictures are in a batch depends on it."""
        named = parts(self.devices or [])
        return replace(network, device=named[0]) if named and self.engine == "local" else network

    def chosen(self) -> Engine | None:
        """Return the engine, None for this process. Raises OptionError for options that contradict each other."""
        devices = parts(self.devices or [])
        if self.engine not in _ENGINES:
            raise OptionError(f"--engine is local or ray, not {self.engine!r}")
        if self.engine == "ray":
            from ..atlas import cluster

            if len(devices) > 1:
                raise OptionError("with --engine ray it is Ray that deals out the GPUs: give --devices cuda")
            return cluster.ray(self.address, device="".join(devices), workers=self.workers or 0)
        if self.address is not None:
            raise OptionError("--address is of a Ray cluster: give --engine ray, too")
        if self.workers is None and len(devices) < 2:
            return None
        from ..atlas import engines

        return engines.local(self.workers or 0, devices)


@grouped
def scan(
    pictures: inputs.Pictures,
    network: Network,
    kept: Kept,
    where: Where,
    out: Out = "atlas",
    size: inputs.Size = None,
) -> None:
    """Find the pictures that every unit of a network responds to most, over a whole data set, in one pass.

    The atlas is a folder of Parquet files, which `convscope patches` draws and pandas, polars and DuckDB read. A scan
    that was ended goes on where it was. Pictures that cannot be read are left out and listed in pictures.parquet; then
    the exit code is 3.
    """
    options, engine, network = kept.options(), where.chosen(), where.network(network)
    found = inputs.read_all(pictures)
    from ..atlas.scanning import scan as scan_data
    from ..atlas.tables import failures_of
    from ..context import listen

    with progress(), listen() as remarks:
        loaded = network.load([each.where for each in islice(found, _LOOKED_AT)], size=size)
        loaded = loaded if size is None else loaded.sized(size)
        atlas = scan_data(loaded, found, out, engine=engine, **options)
    print_remarks(remarks, loaded)
    print_file(atlas)
    inputs.refuse_failures(failures_of(atlas), len(found), atlas)
