"""The options that say which network a command uses and how that reads pictures, and the network that they name.

Nothing here imports torch before a command runs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import OptionError
from ..options import separated
from ..zoo.sources import forms
from .groups import beginning
from .nets import complete_network

if TYPE_CHECKING:
    from ..net import Net

_PANEL = "Network"


def _option(text: str, words: Sequence[str] = (), metavar: str | None = None) -> Any:
    """Return an option of the panel; one that takes certain words completes and shows them."""
    shown = f"[{'|'.join(words)}]" if words else metavar
    return typer.Option(
        help=text, metavar=shown, autocompletion=beginning(words) if words else None, rich_help_panel=_PANEL
    )


Name = Annotated[
    str | None,
    typer.Option(
        help="zfnet64 (the default), lenet5 (for small grey pictures), efficientnet-lite0 (ImageNet; the extra "
        f"imagenet), zfnet, {forms()}, or a name of your configuration: convscope nets",
        autocompletion=complete_network,
        rich_help_panel=_PANEL,
    ),
]
First = Annotated[
    str | None,
    typer.Argument(metavar="NET", help="the network, as --net has it: convscope nets", autocompletion=complete_network),
]
Device = Annotated[str, _option("cpu, cuda, cuda:1, mps")]
Window = Annotated[
    list[str] | None,
    _option(
        "the values that are shown as black and white: 3500,23000, or auto for those that 99% of a picture's values "
        "lie between; by default so where little would be seen. It changes no number",
        metavar="BLACK,WHITE",
    ),
]


@dataclass(frozen=True)
class Network:
    """Which network, and how it reads and shows pictures."""

    net: Name = None
    weights: Annotated[
        str | None,
        _option(
            "a .safetensors, .pt, .pth, .ckpt or .caffemodel file, a run's folder, 'none' for random ones, or "
            "'default': the network's own, as without the option"
        ),
    ] = None
    epoch: Annotated[
        int | None, _option("the network as it was after this epoch of its training: convscope history NET")
    ] = None
    device: Device = "cpu"
    mean: Annotated[
        list[str] | None,
        _option(
            "what is subtracted from pixels in [0, 1]: 0.485,0.456,0.406 or imagenet; for caffe: in Caffe's units and "
            "order, 104,117,123, or a .binaryproto or .npy file; the network's own by default"
        ),
    ] = None
    std: Annotated[
        list[str] | None,
        _option("per-channel standard deviation: 0.229,0.224,0.225 or imagenet; the network's own by default"),
    ] = None
    classes: Annotated[
        str | None,
        _option(
            "the classes' names with commas between, a file of them (.txt, one per line, .csv or .json), or imagenet",
            metavar="NAMES",
        ),
    ] = None
    head: Annotated[
        str | None,
        _option(
            "what the outputs are: softmax (scores of exclusive classes), sigmoid (one logit per label), probability "
            "(probabilities already) or value (numbers that are none); by default what the network's source or last "
            "operation says",
            ("softmax", "sigmoid", "probability", "value"),
        ),
    ] = None
    fit: Annotated[
        str | None,
        _option(
            "how pictures of other proportions fit: cover (the centre cut out, the default), contain (padded with the "
            "mean colour) or stretch",
            ("cover", "contain", "stretch"),
        ),
    ] = None
    value_range: Annotated[
        list[str] | None,
        _option(
            "the values of black and white in pictures of more than 8 bits: 0,4095; all that the type can hold by "
            "default",
            metavar="BLACK,WHITE",
        ),
    ] = None
    show: Annotated[
        list[str] | None,
        _option(
            "the bands that are shown, numbered from 0: three as red, green and blue (3,2,1), one in grey (7), or "
            "each, for a file per band; the first three by default",
            metavar="BANDS",
        ),
    ] = None
    window: Window = None
    net_seed: Annotated[
        int | None, _option("seed of a network that draws random numbers in eval mode: every pass draws the same")
    ] = None

    def load(self, pictures: Sequence[str] = (), *, size: Any = None) -> Net:
        """Load the network that a command or the configuration names, or say on stderr which was taken instead.

        What was assumed of it is said there too. `size` is what the command reads its pictures at, None where it was
        not given.
        """
        from ..zoo import default_for, find_device, load
        from ..zoo.configured import default_network
        from ..zoo.input_sizes import at_size_of

        name = default_network() if self.net is None else self.net
        given = default_for(pictures) if name is None else name
        weights = self.weights or "default"
        net = load(given, weights=weights, epoch=self.epoch, device=find_device(self.device), **self._reading)
        if name is None:
            some = [*net.classes[:4], *(["..."] if len(net.classes) > 4 else [])]
            known = f" ({len(net.classes)} classes: {', '.join(some)})" if some else ""
            print(f"convscope: using the default {net.name}{known}; choose another with --net", file=sys.stderr)
        net = net if size is not None else at_size_of(net, pictures)
        for each in net.assumptions:
            if size is None or each.options != ("size",):
                print(f"convscope: assumed: {each}", file=sys.stderr)
        return net

    @property
    def _reading(self) -> Any:
        """What is said of pixels and outputs, as `load` takes it."""
        told: dict[str, Any] = {"mean": numbers(self.mean), "std": numbers(self.std), "classes": self.classes}
        told |= {"head": self.head, "fit": self.fit, "value_range": numbers(self.value_range)}
        told |= {"show": _bands(self.show), "window": numbers(self.window), "seed": self.net_seed}
        return {key: value for key, value in told.items() if value is not None}


def one_network(context: typer.Context, network: str | None, net: str | None) -> str | None:
    """Return the network named first or by --net, which a configuration may give. Raises OptionError for two."""
    source = context.get_parameter_source("net")
    if network is not None and source is not None and source.name == "COMMANDLINE":
        raise OptionError(f"here are two networks, {network} and --net {net}: name one of them")
    return net if network is None else network


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


def numbers(texts: Sequence[str] | None) -> list[float] | str | None:
    """Read numbers; other text, such as the name of a file, is left as it is."""
    try:
        return None if texts is None else [float(part) for part in parts(texts)]
    except ValueError:
        return ",".join(texts or [])


def parts(texts: Iterable[str]) -> list[str]:
    """Return the values of an option that was given once or more, each time with commas between."""
    return [value for text in texts for value in separated(text)]
