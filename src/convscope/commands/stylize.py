"""`convscope train-style` and `convscope stylize`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import addresses
from ..configuration import located
from ..errors import ConvscopeError, OutputError, named
from ..outputs import PICTURE_ENDINGS, check_file, check_folder
from ..stylizing.settings import KeepColour, Settings, Strength, Tile
from . import inputs
from .groups import grouped
from .network import Device, Network, Window, numbers
from .printing import print_file
from .progress import progress


@grouped
def train_style(
    style: Annotated[str, typer.Argument(metavar="STYLE", help="the picture whose style is learnt")],
    data: Annotated[str, typer.Option(help="folder of any pictures to learn from, however deep", metavar="FOLDER")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="style file to write, .safetensors; asked for again, it goes on")
    ],
    network: Network,
    settings: Settings,
    workers: Annotated[int, typer.Option(help="processes that load pictures")] = 2,
    preview: Annotated[
        Path | None, typer.Option(help="write what it makes of a picture to this file meanwhile")
    ] = None,
    preview_every: Annotated[int, typer.Option(help="steps between two previews")] = 200,
    preview_of: Annotated[
        str | None, typer.Option(help="the picture of the preview; the data's first by default")
    ] = None,
) -> None:
    """Train a network that paints any picture in the style of one; convscope stylize uses it.

    Any network that reads colour can judge: torchvision:vgg16 or torchvision:squeezenet1_0; zfnet64, which ships, may
    leave dark holes. A training that was interrupted or killed goes on when the same command is given again, also with
    more --steps.

    Johnson et al. 2016, arXiv:1603.08155
    """
    from ..context import listen
    from ..stylizing.training import check_output, find_data, open_style
    from ..stylizing.training import train_style as train

    check_output(out)
    taught, folder = inputs.find_one(style), located(data)
    open_style(taught)
    find_data(folder)
    with progress(), listen() as remarks:
        judge = network.load([taught])
        of = located(preview_of) if preview_of else None
        kept = {"workers": workers, "preview": preview, "preview_every": preview_every, "preview_of": of}
        try:
            written = train(judge, taught, folder, out, **kept, **vars(settings))
        finally:
            for remark in remarks:
                print(f"convscope: {remark}", file=sys.stderr)
    print_file(written)


def stylize(
    pictures: inputs.Pictures,
    style: Annotated[Path, typer.Option(help="style file of convscope train-style", metavar="FILE")],
    out: inputs.Out = None,
    tile: Tile = 1024,
    strength: Strength = 1.0,
    keep_colour: KeepColour = False,
    device: Device = "cpu",
    window: Window = None,
    yes: inputs.Yes = False,
) -> None:
    """Paint pictures of any size in a style that convscope train-style has learnt.

    Large pictures are painted in tiles, with the result of painting them at once and in little memory.

    Johnson et al. 2016, arXiv:1603.08155
    """
    found = inputs.find_all(pictures)
    targets = _targets(found, style, out)
    inputs.refuse_overwriting(found, targets)
    inputs.agree_to_many(len(found), targets[0].parent, yes=yes)
    from ..context import listen, track
    from ..stylizing.network import read_style
    from ..stylizing.painting import stylize as paint
    from ..zoo import find_device

    read_style(style)
    options: dict[str, Any] = {
        "tile": tile,
        "strength": strength,
        "keep_colour": keep_colour,
        "window": numbers(window),
    }
    failures: list[str] = []
    with progress():
        position = find_device(device)
        for picture, target in track(list(zip(found, targets, strict=True)), "painting pictures"):
            with listen() as remarks:
                try:
                    print_file(paint(picture, style, device=position, **options).save(target))
                except OutputError:
                    raise
                except ConvscopeError as error:
                    failures.append(named(picture, str(error)) if len(found) > 1 else str(error))
            for remark in remarks:
                print(f"convscope: {named(picture, remark)}", file=sys.stderr)
    inputs.refuse_failures(failures, len(found), targets[0].parent)


def _targets(pictures: Sequence[str], style: Path, out: Path | None) -> list[Path]:
    """Say where every picture goes: a file for one, a folder for several, none over another. Raises OutputError."""
    folder = len(pictures) > 1 or (out is not None and not out.suffix)
    if not folder:
        target = out or Path(f"{addresses.stem(pictures[0])}-{style.stem}.png")
        if target.suffix.lower() not in PICTURE_ENDINGS:
            raise OutputError(f"cannot write {target}: endings are {', '.join(PICTURE_ENDINGS)}")
        check_file(target)
        return [target]
    if out is not None and (out.suffix or out.is_file()):
        raise OutputError(f"several pictures are written to a folder: give -o FOLDER, not {out}")
    from ..data.naming import distinct_names

    position = out or Path(f"convscope-{style.stem}")
    check_folder(position)
    return [position / f"{name}.png" for name in distinct_names(pictures)]
