"""What commands have in common: options, the network they name, the pictures they are given.

Nothing here imports torch before a command runs: `convscope --help` must be quick.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..configuration import located
from ..errors import OptionError, OutputError, PictureError, PicturesFailed
from ..options import separated
from ..outputs import FILM_ENDINGS, NUMBER_ENDINGS, PICTURE_ENDINGS, TABLE_ENDINGS
from ..zoo.sources import forms
from .nets import complete_network
from .printing import ask, read_addresses

if TYPE_CHECKING:
    from ..data.pictures import Pictures as DataPictures
    from ..net import Net

_PANEL = "Network"
_FIGURE = "Figure for a paper"

NETWORK = (
    "weights",
    "epoch",
    "device",
    "mean",
    "std",
    "classes",
    "head",
    "fit",
    "value_range",
    "show",
    "window",
    "net_seed",
)
"""Options that say, beside --net, which network it is."""


MANY = 10_000
"""How many pictures are drawn without a question, one file for each."""

_TOLD = 1000
"""From how many pictures on it is told beforehand how many there are."""


_NAMED = 10
"""Pictures that failed and are named, at most."""


def beginning(words: Iterable[str] | Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return what completes a word in a shell: those of the words that begin with it."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in (words() if callable(words) else words) if word.startswith(incomplete)]

    return complete


NetName = Annotated[
    str | None,
    typer.Option(
        help="zfnet64 (the default), lenet5 (for small grey pictures), efficientnet-lite0 (ImageNet; the extra "
        f"imagenet), zfnet, {forms()}, or a name of your configuration: convscope nets",
        autocompletion=complete_network,
        rich_help_panel=_PANEL,
    ),
]
Network = Annotated[
    str | None,
    typer.Argument(metavar="NET", help="the network, as --net has it: convscope nets", autocompletion=complete_network),
]
Weights = Annotated[
    str,
    typer.Option(
        help="'default', 'none' for random ones, a .safetensors, .pt, .pth or .caffemodel file, or a run's folder",
        rich_help_panel=_PANEL,
    ),
]
Epoch = Annotated[
    int | None,
    typer.Option(
        help="the network as it was after this epoch of its training: convscope history NET", rich_help_panel=_PANEL
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps", rich_help_panel=_PANEL)]
Mean = Annotated[
    list[str] | None,
    typer.Option(
        help="what is subtracted from pixels in [0, 1]: 0.485,0.456,0.406 or imagenet; for caffe: in Caffe's units "
        "and order, 104,117,123, or a .binaryproto or .npy file; the network's own by default",
        rich_help_panel=_PANEL,
    ),
]
Std = Annotated[
    list[str] | None,
    typer.Option(
        help="per-channel standard deviation: 0.229,0.224,0.225 or imagenet; the network's own by default",
        rich_help_panel=_PANEL,
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        help="file with the classes' names: .txt, one per line, .csv or .json; or imagenet",
        metavar="FILE",
        rich_help_panel=_PANEL,
    ),
]
Head = Annotated[
    str | None,
    typer.Option(
        help="what the outputs are: softmax (scores of exclusive classes), sigmoid (one logit per label), probability "
        "(probabilities already) or value (numbers that are none); by default what the network's source or last "
        "operation says",
        autocompletion=beginning(("softmax", "sigmoid", "probability", "value")),
        metavar="[softmax|sigmoid|probability|value]",
        rich_help_panel=_PANEL,
    ),
]
Fit = Annotated[
    str | None,
    typer.Option(
        help="how pictures of other proportions fit: cover (the centre cut out, the default), contain (padded with the "
        "mean colour) or stretch",
        metavar="[cover|contain|stretch]",
        autocompletion=beginning(("cover", "contain", "stretch")),
        rich_help_panel=_PANEL,
    ),
]
ValueRange = Annotated[
    list[str] | None,
    typer.Option(
        help="the values of black and white in pictures of more than 8 bits: 0,4095; all that the type can hold by "
        "default",
        metavar="BLACK,WHITE",
        rich_help_panel=_PANEL,
    ),
]
Window = Annotated[
    list[str] | None,
    typer.Option(
        help="the values that are shown as black and white: 3500,23000, or auto for those that 99 % of a picture's "
        "values lie between; by default so where little would be seen. It changes no number",
        metavar="BLACK,WHITE",
        rich_help_panel=_PANEL,
    ),
]
Show = Annotated[
    list[str] | None,
    typer.Option(
        help="the bands that are shown, numbered from 0: three as red, green and blue (3,2,1), one in grey (7), or "
        "each, for a file per band; the first three by default",
        metavar="BANDS",
        rich_help_panel=_PANEL,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help=f"file to write ({', '.join(PICTURE_ENDINGS)}); for several pictures a folder, or a film "
        f"({', '.join(FILM_ENDINGS)})",
    ),
]


def _size(text: Any) -> Any:
    """Read a side in pixels, or "HEIGHT,WIDTH". Raises OptionError."""
    parts = re.fullmatch(r"(\d+)(?:[,x](\d+))?", str(text))
    if parts is None:
        raise OptionError(f"size is a number of pixels, or HEIGHT,WIDTH as in 256,128; not {text!r}")
    return int(parts[1]) if parts[2] is None else (int(parts[1]), int(parts[2]))


Size = Annotated[
    Any,
    typer.Option(
        help="side of the network's input in pixels, or HEIGHT,WIDTH, where it takes more than one",
        parser=_size,
        metavar="PIXELS",
    ),
]
SaveValues = Annotated[Path | None, typer.Option(help=f"also write the raw numbers ({', '.join(NUMBER_ENDINGS)})")]
Of = Annotated[
    str | None,
    typer.Option(
        help="the objective: class index or name, p(class) for its probability, layer:channel, "
        "layer:channel@row,column, sums; the first choice by default"
    ),
]
NetSeed = Annotated[
    int | None,
    typer.Option(
        help="seed of a network that draws random numbers in eval mode: every pass draws the same",
        rich_help_panel=_PANEL,
    ),
]
Overlay = Annotated[
    bool, typer.Option("--overlay", help="write only the map over the picture, at the original's resolution")
]
SharedScale = Annotated[bool, typer.Option("--shared-scale", help="one colour scale for all pictures")]
ColourMap = Annotated[
    str | None,
    typer.Option(
        help="colour map: fire, polar, grey, jet",
        autocompletion=beginning(("fire", "polar", "grey", "jet")),
    ),
]
Check = Annotated[
    bool,
    typer.Option("--check", help="say whether the map follows the weights: compare it with maps of random ones"),
]
Width = Annotated[
    str | None,
    typer.Option(
        help="width of the figure on paper: 3.3in, 84mm, 8.4cm or 240pt; tiles fill it, letters keep their size",
        metavar="LENGTH",
        rich_help_panel=_FIGURE,
    ),
]
Font = Annotated[
    float | None,
    typer.Option(help="size of captions in points; 8.6 by default", metavar="POINTS", rich_help_panel=_FIGURE),
]
Titles = Annotated[
    bool,
    typer.Option(
        "--titles/--no-titles",
        help="title, subtitle and note, or none of them: then they belong into the paper's caption",
        rich_help_panel=_FIGURE,
    ),
]
Columns = Annotated[
    int | None,
    typer.Option(help="how many tiles stand in a row", metavar="INT", rich_help_panel=_FIGURE),
]
Yes = Annotated[bool, typer.Option("--yes", help=f"draw more than {MANY:,} pictures without asking")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for scripts")]
TableOut = Annotated[
    Path | None,
    typer.Option("--out", "-o", help=f"file to write ({', '.join((*TABLE_ENDINGS, *PICTURE_ENDINGS))})"),
]
Pictures = Annotated[
    list[str],
    typer.Argument(
        metavar="PICTURE",
        help="pictures or folders of pictures, or names of your configuration's data; - reads addresses from standard "
        "input, one per line",
    ),
]


def read_all(names: Sequence[str]) -> DataPictures:
    """Return all pictures that are named, in order.

    A name is a picture, a folder, a pattern, a .tar, .parquet or .arrow file, "sample:NAME", a name of the
    configuration's data, or "-": names on standard input. Raises PictureError or DataError; ends the command where
    standard input names none, as what found none says it.
    """
    from ..data.pictures import read_pictures

    given: list[str] = []
    for name in names:
        given += read_addresses() if name == "-" else [located(name)]
    if not given and "-" in names:
        print("convscope: no pictures on standard input, so nothing to do", file=sys.stderr)
        raise typer.Exit
    return read_pictures(given)


def find_one(name: str) -> Path:
    """Return the address of one picture or folder; "-" reads it from standard input. Raises OptionError for several."""
    if name != "-":
        return Path(located(name))
    addresses = read_addresses()
    if len(addresses) != 1:
        raise OptionError(f"this takes one picture, and standard input names {len(addresses)}")
    return Path(addresses[0])


def find_all(names: Sequence[str]) -> list[Path]:
    """Return the addresses of all pictures that are named, as `read_all` does."""
    return [Path(picture.where) for picture in read_all(names)]


def agree_to_many(count: int, place: Path, *, yes: bool) -> None:
    """Tell how many pictures will be drawn into a folder where they are many, and ask where they are very many.

    Raises OptionError where nobody can answer.
    """
    if count > _TOLD:
        print(f"convscope: {count:,} pictures, to be drawn into {place}", file=sys.stderr)
    if count > MANY and not yes:
        ask("Draw them all?", f"{count:,} pictures are more than {MANY:,}: --yes draws them all without asking")


def refuse_failures(failures: Sequence[str], count: int, place: Path | str) -> None:
    """Raise PicturesFailed where some of several pictures failed; a thousand are counted, and the first named.

    Raises PictureError where the only one failed: then nothing was done.
    """
    if failures and count == 1:
        raise PictureError(failures[0])
    if failures:
        more = len(failures) - _NAMED
        shown = "; ".join(failures[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
        others = f", the others are in {place}" if str(place) else ""
        raise PicturesFailed(f"{len(failures)} of {count} pictures failed{others}: {shown}")


def distinct_names(pictures: Sequence[Path]) -> list[str]:
    """Name outputs after the pictures, in their folders below the one that all have in common: "a/0001", "b/0001".

    A name depends on the common folder, not on what else is there, unless only endings differ ("cat.jpg", "cat.png"):
    then these stay. Without a common folder the last part is the name where that tells all apart. Names that are the
    same, also to file systems that do not tell capitals apart, are numbered. No name leads out of a folder.
    """
    from ..data.folders import common_root

    addresses = [str(picture) for picture in pictures]
    last = [re.split(r"[/\\#:]", address)[-1] for address in addresses]
    root = common_root(addresses)
    if not root and len(set(last)) == len(set(addresses)):
        plain = [_inside(name) for name in last]
    else:
        plain = [_inside(address.removeprefix(root)) for address in addresses]
    files = {name: name.removesuffix(Path(name).suffix) if _is_ending(Path(name).suffix) else name for name in plain}
    shared = {stem for stem, count in Counter(files.values()).items() if count > 1}
    kept = [name if files[name] in shared else files[name] for name in plain]
    return _numbered(kept)


def _numbered(names: Sequence[str]) -> list[str]:
    """Number names that come again, by numbers that no other name has."""
    there, used, last, distinct = {name.casefold() for name in names}, set[str](), Counter[str](), list[str]()
    for name in names:
        own, chosen = name.casefold(), name
        while (low := chosen.casefold()) in used or (low != own and low in there):
            last[own] += 1
            chosen = f"{name}-{last[own] + 1}"
        used.add(low)
        distinct.append(chosen)
    return distinct


def _inside(address: str) -> str:
    """Return an address as a relative path without dots that lead elsewhere."""
    parts = (re.sub(r"[\\#:]+", "-", part).strip("-.") for part in address.split("/"))
    return "/".join(filter(None, parts)) or "picture"


def refuse_overwriting(pictures: Iterable[Path], targets: Iterable[Path]) -> None:
    """Refuse to write over the pictures that are read. Raises OutputError."""
    there = {_identity(target): target for target in targets if target.is_file()}
    for picture in pictures if there else ():
        if picture.is_file() and (target := there.get(_identity(picture))):
            raise OutputError(f"{target} is a picture that is read here, and would be written over: give another -o")


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_ending(suffix: str) -> bool:
    """Whether a name ends as a picture's file does: "17" after "b.parquet-" is a row."""
    from ..data.folders import SUFFIXES

    return suffix.lower() in SUFFIXES


def one_network(context: typer.Context, network: str | None, net: str | None) -> str | None:
    """Return the network named first or by --net, which a configuration may give. Raises OptionError for two."""
    source = context.get_parameter_source("net")
    if network is not None and source is not None and source.name == "COMMANDLINE":
        raise OptionError(f"here are two networks, {network} and --net {net}: name one of them")
    return net if network is None else network


def load_named(
    name: str | None,
    weights: str,
    epoch: int | None,
    device: str,
    pictures: Sequence[Path],
    *,
    mean: Sequence[str] | None = None,
    std: Sequence[str] | None = None,
    classes: str | None = None,
    head: str | None = None,
    fit: str | None = None,
    value_range: Sequence[str] | None = None,
    show: Sequence[str] | None = None,
    window: Sequence[str] | None = None,
    net_seed: int | None = None,
    size: Any = None,
) -> Net:
    """Load the network that a command or the configuration names, or say on stderr which was taken instead.

    What was assumed of it is said there too. `size` is what the command reads its pictures at, None where it was not
    given.
    """
    from ..zoo import default_for, find_device, load
    from ..zoo.configured import default_network
    from ..zoo.input_sizes import at_size_of

    told = {"mean": _numbers(mean), "std": _numbers(std), "classes": classes, "head": head}
    told |= {"fit": fit, "value_range": _numbers(value_range), "show": _bands(show), "seed": net_seed}
    told["window"] = _numbers(window)
    reading: Any = {key: value for key, value in told.items() if value is not None}
    chosen = default_network() if name is None else name
    given = default_for(pictures) if chosen is None else chosen
    net = load(given, weights=weights, epoch=epoch, device=find_device(device), **reading)
    if chosen is None:
        some = [*net.classes[:4], *(["..."] if len(net.classes) > 4 else [])]
        known = f" ({len(net.classes)} classes: {', '.join(some)})" if some else ""
        print(f"convscope: using the default {net.name}{known}; choose another with --net", file=sys.stderr)
    net = net if size is not None else at_size_of(net, pictures)
    for each in net.assumptions:
        if size is None or each.options != ("size",):
            print(f"convscope: assumed: {each}", file=sys.stderr)
    return net


def print_remarks(remarks: Sequence[str], net: Net) -> None:
    """Print what a run said; what was assumed of its network was said when that was loaded."""
    known = set(map(str, net.assumptions))
    for remark in remarks:
        if remark not in known:
            print(f"convscope: {remark}", file=sys.stderr)


def _bands(texts: Sequence[str] | None) -> list[int] | str | None:
    """Read numbers of bands; other text is left as it is."""
    try:
        return None if texts is None else [int(part) for part in parts(texts)]
    except ValueError:
        return ",".join(parts(texts or []))


def _numbers(texts: Sequence[str] | None) -> list[float] | str | None:
    """Read numbers; other text, such as the name of a file, is left as it is."""
    try:
        return None if texts is None else [float(part) for part in parts(texts)]
    except ValueError:
        return ",".join(texts or [])


def parts(texts: Iterable[str]) -> list[str]:
    """Return the values of an option that was given once or more, each time with commas between."""
    return [value for text in texts for value in separated(text)]
