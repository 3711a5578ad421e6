"""What commands have in common: options, the network they name, the pictures they are given.

Nothing here imports torch before a command runs: `convscope --help` must be quick.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..outputs import NUMBER_ENDINGS, PICTURE_ENDINGS

if TYPE_CHECKING:
    from ..net import Net

NetName = Annotated[
    str | None,
    typer.Option(help="network: zfnet64 (the default), lenet5 (for small grey pictures), zfnet, torchvision:NAME, ..."),
]
Weights = Annotated[
    str,
    typer.Option(help="'default', 'none' for random ones, a .safetensors, .pt or .pth file, or a run's folder"),
]
Epoch = Annotated[
    int | None, typer.Option(help="the network as it was after this epoch of its training: convscope history NET")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help=f"file to write ({', '.join(PICTURE_ENDINGS)}); a folder for several pictures"),
]
Size = Annotated[int | None, typer.Option(help="side of the network's input in pixels, where it takes more than one")]
SaveValues = Annotated[Path | None, typer.Option(help=f"also write the raw numbers ({', '.join(NUMBER_ENDINGS)})")]
Of = Annotated[
    str | None,
    typer.Option(
        help="the question: class index or name, p(class) for its probability, layer:channel, "
        "layer:channel@row,column, sums; the first choice by default"
    ),
]
Pictures = Annotated[list[str], typer.Argument(metavar="PICTURE...", help="pictures or folders of pictures")]


def find_all(names: Iterable[str]) -> list[Path]:
    """Return pictures, and those of folders, in order."""
    from ..images import find_pictures

    found: list[Path] = []
    for name in names:
        found += find_pictures(Path(name)) if Path(name).is_dir() else [Path(name)]
    return found


def distinct_names(pictures: Sequence[Path]) -> list[str]:
    """Name outputs after the pictures, numbering those of the same name."""
    seen: dict[str, int] = {}
    names = list[str]()
    for picture in pictures:
        seen[picture.stem] = seen.get(picture.stem, 0) + 1
        names.append(picture.stem if seen[picture.stem] == 1 else f"{picture.stem}-{seen[picture.stem]}")
    return names


def load_named(name: str | None, weights: str, epoch: int | None, device: str, pictures: Sequence[Path]) -> Net:
    """Load the network that a command names, or say on stderr which was taken instead."""
    from ..zoo import default_for, find_device, load

    net = load(name or default_for(pictures), weights=weights, epoch=epoch, device=find_device(device))
    if name is None:
        known = f"{len(net.classes)} classes: {', '.join(net.classes[:4])}, ..."
        print(f"convscope: no --net given, so {net.name}, which knows {known}", file=sys.stderr)
    return net
