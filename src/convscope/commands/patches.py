"""`convscope patches`: the pictures of a layer's units, out of an atlas, beside what they project down to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import OptionError, OutputError
from ..outputs import PICTURE_ENDINGS, check_file
from .groups import beginning, grouped
from .network import Network, print_remarks
from .paper import Figure
from .printing import print_file
from .progress import progress

if TYPE_CHECKING:
    from ..atlas.atlas import Atlas

BANDS = ("strongest", "effect", "strong", "middle", "weak", "weakest", "random")
METHODS = ("deconvnet", "guided", "gradient")


def _words(words: tuple[str, ...], text: str) -> Any:
    return typer.Option(help=text, metavar=f"[{'|'.join(words)}]", autocompletion=beginning(words))


@grouped
def patches(
    atlas: Annotated[str, typer.Argument(metavar="ATLAS", help="the folder or address that convscope scan wrote")],
    network: Network,
    figure: Figure,
    layer: Annotated[
        str | None, typer.Option(help="the layer, by name or number; the only one where one was scanned")
    ] = None,
    units: Annotated[
        str,
        typer.Option(
            help="which units: 0,5,12; so many at random, random:16; or those that tell a class best, top:AUC:16",
            metavar="UNITS",
        ),
    ] = "random:16",
    band: Annotated[
        str,
        _words(
            BANDS,
            "which pictures of a unit: the strongest or weakest, those in which it mattered most, some of its upper "
            "quarter, middle or lower quarter, or any at random",
        ),
    ] = "strongest",
    k: Annotated[int, typer.Option("-k", help="pictures of each unit", min=1)] = 9,
    method: Annotated[str, _words(METHODS, "how a unit is projected down to pixels")] = "deconvnet",
    root: Annotated[
        list[str] | None,
        typer.Option(help="where the scanned pictures lie now, if they were moved: NAME=FOLDER", metavar="NAME=FOLDER"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help=f"the figure to write ({', '.join(PICTURE_ENDINGS)})")
    ] = None,
) -> None:
    """Draw the pictures that excite units of a layer, cut to what each unit sees, beside their projections.

    They are those of an atlas, in which convscope scan keeps what every unit responds to. The network is the atlas's
    own; one that was not loaded by name is given again with --net.
    """
    for name, value, words in (("band", band, BANDS), ("method", method, METHODS)):
        if value not in words:
            raise OptionError(f"--{name} is {', '.join(words)}, not {value!r}")
    if out is not None and out.suffix.lower() not in PICTURE_ENDINGS:
        raise OutputError(f"cannot write {out}: endings are {', '.join(PICTURE_ENDINGS)}")
    figure.refuse("")
    figure.check_room(1)
    from ..atlas.atlas import Atlas
    from ..atlas.patches import patches as draw

    roots = roots_of(root or [])
    with progress():
        given = None if network == Network() else network.load()
        opened = Atlas(atlas, net=given, roots=roots)
        chosen = _layer(opened, layer)
        place = out or Path(f"{opened.path.name}-{chosen or 'output'}.png")
        check_file(place)
        drawing = draw(opened, chosen, units, band=band, k=k, method=method)  # type: ignore[arg-type]
        figure.save(drawing, place)
    print_remarks(drawing.recipe.remarks, opened.net)
    print_file(place)


def roots_of(texts: list[str]) -> dict[str, str]:
    """Return where pictures lie, as --root says it. Raises OptionError for what is no NAME=PLACE."""
    pairs = [text.partition("=") for text in texts]
    wrong = next((text for text, (name, _, place) in zip(texts, pairs, strict=True) if not (name and place)), None)
    if wrong is not None:
        raise OptionError(f"--root is NAME=FOLDER, as --root pictures=/data/pictures, not {wrong!r}")
    return {name: place for name, _, place in pairs}


def _layer(atlas: Atlas, name: str | None) -> str:
    """Find the layer that is named, or the only one. Raises OptionError where several were scanned."""
    if name is not None:
        return atlas.net.layer(name).name if name else name
    if len(atlas.layers) > 1:
        raise OptionError(f"{len(atlas.layers)} layers were scanned: name one, as --layer {list(atlas.layers)[-2]}")
    return next(iter(atlas.layers))
