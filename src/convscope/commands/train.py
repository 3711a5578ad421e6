"""`convscope train` and `convscope history`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..configuration import located
from ..drawing.tables import Column, Table
from ..errors import NetworkError, OptionError, nearest
from ..recipes import Recipe
from .groups import grouped
from .network import Name, one_network, parts
from .printing import print_file
from .progress import progress
from .tables import TableOutput

if TYPE_CHECKING:
    from ..training.run import Run
    from ..zoo.runs import History


_SNAPSHOTS = "1,2,5,10,20"


def train(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="zfnet64, lenet5, lenet5-1998, zfnet, alexnet-zf or a variant")
    ],
    data: Annotated[
        str,
        typer.Option(
            help="folder with one folder of pictures per class, .tar, .parquet or .arrow files with labels, or "
            "torchvision:MNIST:FOLDER",
            metavar="DATA",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="folder of the run; runs/NETWORK by default. Run the same command again to resume"
        ),
    ] = None,
    recipe: Annotated[str, typer.Option(help="default, or paper: Zeiler & Fergus' own")] = "default",
    epochs: Annotated[int | None, typer.Option(help="number of epochs; the recipe's by default")] = None,
    batch: Annotated[int | None, typer.Option(help="pictures per step, over all devices")] = None,
    rate: Annotated[float | None, typer.Option(help="learning rate")] = None,
    seed: Annotated[int, typer.Option(help="random seed of initial weights, order, augmentation and dropout")] = 0,
    snapshots: Annotated[
        list[str] | None,
        typer.Option(help="epochs whose weights are kept; the last one always is", show_default=_SNAPSHOTS),
    ] = None,
    names: Annotated[Path | None, typer.Option(help="table (.csv): a class's folder, the name to show")] = None,
    held_out: Annotated[
        float, typer.Option(help="fraction of every class held out where the data have no val or test part")
    ] = 0.1,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps; several GPUs: torchrun -m convscope train ...")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, bf16, fp16 or fp32")] = "auto",
    workers: Annotated[int, typer.Option(help="processes that load pictures, per device")] = 2,
    about: Annotated[str, typer.Option(help="a sentence on the data and their licence, for the model card")] = "",
) -> None:
    """Train a network of the project's own on a folder of pictures, with snapshots of its history.

    The folder of the run holds snapshots (epoch-001.safetensors, ...) that --weights reads, history.json, a model card
    and a checkpoint. Run the same command again to resume a run that was interrupted or killed.
    """
    from ..training.machines import precision_of, processes

    first = os.environ.get("RANK", "0") == "0"
    with progress() if first else nullcontext(), processes(_device(device)) as here:
        run = _run(network, located(data), recipe, names, held_out, seed, epochs=epochs, batch=batch, rate=rate)
        run.folder = out or Path("runs") / network.replace(":", "-")
        run.snapshots = _epochs(snapshots or [_SNAPSHOTS])
        run.device, run.precision = here, precision_of(precision, here)
        if workers < 0:
            raise OptionError(f"workers is 0 or more, not {workers}")
        run.workers, run.about = workers, about
        try:
            _train(run)
        except KeyboardInterrupt:
            print("run the same command again to resume from the last checkpoint", file=sys.stderr)
            raise


def _run(
    network: str, data: str, recipe_name: str, names: Path | None, held_out: float, seed: int, **changes: Any
) -> Run:
    from ..data.datasets import open_data
    from ..training.recipes import recipe
    from ..training.run import Run
    from ..zoo.blueprints import TRAINABLE

    if network not in TRAINABLE:
        plain = ", ".join(name for name in TRAINABLE if ":" not in name)
        raise NetworkError(
            f"convscope trains {plain} and their variants, not {network!r}; nearest: {nearest(network, TRAINABLE)}"
        )
    if not -(2**63) <= seed < 2**63:
        raise OptionError(f"seed is a whole number of 64 bits, not {seed}")
    blueprint = TRAINABLE[network]
    chosen = recipe(blueprint, recipe_name, **changes)
    learn, hold = open_data(data, names=names, held_out=held_out, seed=seed)
    if not blueprint.any_classes and len(learn.classes) != blueprint.classes:
        raise NetworkError(f"{network} has {blueprint.classes} classes; {data} has {len(learn.classes)}")
    return Run(blueprint, chosen, learn, hold, Path(), seed=seed)


def _train(run: Run) -> None:
    import torch.distributed as dist

    from ..training.card import write_card
    from ..training.run import CARD
    from ..training.trainer import train
    from ..zoo.loading import load

    history = train(run)
    if dist.is_initialized() and dist.get_rank() > 0:
        return
    if history.unreadable:
        shown = ", ".join(history.unreadable[:10]) + (", ..." if len(history.unreadable) > 10 else "")
        print(f"skipped {len(history.unreadable)} pictures that cannot be read: {shown}", file=sys.stderr)
    if not (run.folder / CARD).exists():
        write_card(run, history, load(run.blueprint.name, weights=run.folder, device=run.device))
    print_file(run.folder)


def _device(name: str) -> Any:
    import torch

    from ..zoo import find_device

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return find_device(name)


def _epochs(texts: Sequence[str]) -> tuple[int, ...]:
    try:
        epochs = tuple(sorted({int(part) for part in parts(texts)}))
    except ValueError:
        given = ",".join(texts)
        raise OptionError(f"snapshots are epochs with commas between, such as 1,2,5, not {given!r}") from None
    if epochs and epochs[0] < 1:
        raise OptionError(f"epochs are numbered from 1: there is no snapshot of epoch {epochs[0]}")
    return epochs


@grouped
def history(
    context: typer.Context,
    output: TableOutput,
    network: Annotated[
        str | None, typer.Argument(metavar="NETWORK", help="zfnet64, lenet5, or the folder of a run")
    ] = None,
    net: Name = None,
) -> None:
    """List the snapshots of a network's training: epoch, loss, held-out accuracy.

    --epoch N opens one of them with any method: convscope filters --net zfnet64 --epoch 1
    """
    from ..zoo.runs import read_history, shipped, shipping

    output.check()
    name = one_network(context, network, net) or "zfnet64"
    folder = shipped(name) if name in shipping() else Path(name)
    if not folder.is_dir():
        raise OptionError(
            f"there is no history of {name!r}: {', '.join(shipping())} have one, and every folder of convscope train"
        )
    output.print(_history_table(read_history(folder)))


def _history_table(history: History) -> Table:
    """Return the epochs of a training as a table."""
    columns = (
        Column("epoch", "whole"),
        Column("loss", "number", format=".3f"),
        Column("rate", "number", format=".4f"),
        Column("accuracy", "number", head="held-out accuracy", format=".2%"),
        Column("snapshot", unbroken=True),
    )
    rows = ((each.epoch, each.loss, each.rate, each.accuracy, each.snapshot) for each in history.epochs)
    recipe = Recipe(method="history", network={"name": history.network})
    return Table(columns, tuple(rows), recipe, f"{history.network}, {len(history.classes)} classes")
