"""`evolution`: how units of a network came about, from several snapshots of its training and a whole data set."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from ..context import listen, track
from ..data.pictures import Pictures, read_pictures
from ..drawing.drawings import Gallery
from ..interruptions import orderly
from ..layers import output_or_layer
from ..net import Net
from .atlas import Atlas
from .crops import Method
from .finding import Found
from .manifest import Settings, describe
from .moments import Moment, drawn, moment_of
from .patches import units_named
from .scanning import scan
from .snapshots import Snapshot, Snapshots, as_snapshots, layers_of, readable
from .units import choose_layers

_UNITS = "random:4"


@orderly
def evolution(
    snapshots: Snapshots | Sequence[Snapshot],
    data: Any,
    atlases: str | Path | None = None,
    *,
    layers: Sequence[str] = (),
    units: Sequence[int] | str | None = None,
    method: Method = "deconvnet",
    batch_size: int = 0,
) -> Gallery:
    """Draw what units responded to most at several moments of a training, and their projections down to pixels.

    Args:
        snapshots: a network whose training kept some, as `load("zfnet64")`; or networks by name, in order, as
            [("epoch 1", net_1), ("epoch 2", net_2)], where a function may stand for a network and load it.
        data: whatever `convscope.data.read_pictures` reads and can count.
        atlases: the folder in which each snapshot's scan is kept, so that a call that was ended goes on, and other
            units need no other scan; by default none is kept.
        layers: names, numbers of convolutions or patterns; by default a low, a middle and a high convolution.
        units: of each layer, numbers, also as a text with commas, or so many at random, as "random:8"; four by default.
        method: how a unit is projected: "deconvnet", "guided" or "gradient".
        batch_size: pictures in one pass; by default 8 on a CPU, of small ones up to 32, and 64 elsewhere.

    A row is a unit, a column a snapshot. A snapshot that cannot be read is left out, and said. Raises OptionError for
    fewer than two snapshots, LayerError where they are not of one network.
    """
    pictures, moments = read_pictures(data), list[Moment]()
    with listen() as remarks, _kept(atlases) as folder:
        found, counts = readable(as_snapshots(snapshots), layers)
        net, content = found[0].load(), ""
        wanted, note = units_of(net, counts, units), net.note
        for snapshot in track(found, "evolution"):
            atlas = _scanned(snapshot, pictures, folder, list(counts), batch_size)
            moment, said = moment_of(snapshot.name, atlas, wanted, method)
            moments.append(moment)
            remarks.extend(said)
            net, content = atlas.net, atlas.manifest.content
    if net.note != note:  # such as which epoch it is, which is not so of all
        net = net.changed(note="")
    return drawn(net, moments, wanted, method, len(pictures), content, remarks)


def evolution_in(snapshots: Sequence[Snapshot], pixels: Tensor, wanted: Mapping[str, Sequence[int]]) -> Gallery:
    """Draw what units, by layer, responded to most among pictures in memory (n, c, h, w), as `evolution` does."""
    moments, net = list[Moment](), snapshots[-1].load()
    for snapshot in track(snapshots, "evolution"):
        at = snapshot.load()
        found = Found(at, pixels, layers_of(at, list(wanted)))
        moments.append(moment_of(snapshot.name, found, wanted, "deconvnet")[0])
    content = hashlib.sha256(pixels.cpu().numpy().tobytes()).hexdigest()
    return drawn(net, moments, wanted, "deconvnet", len(pixels), content)


def units_of(net: Net, layers: Iterable[str], units: Sequence[int] | str | None) -> dict[str, list[int]]:
    """Return the units of each layer that an option names. Raises OptionError for units that a layer lacks."""
    return {layer: units_named(output_or_layer(net, layer), _UNITS if units is None else units) for layer in layers}


@contextmanager
def _kept(atlases: str | Path | None) -> Generator[Path]:
    """Yield the folder for the scans, a temporary one where none is named."""
    if atlases is not None:
        yield Path(atlases)
        return
    with TemporaryDirectory(prefix="convscope-") as folder:
        yield Path(folder)


def _scanned(snapshot: Snapshot, pictures: Pictures, folder: Path, layers: list[str], batch_size: int) -> Atlas:
    """Scan for the strongest picture of each unit, in a folder of what decides the result: other scans go elsewhere."""
    net, name = snapshot.load(), re.sub(r"[^A-Za-z0-9]+", "-", snapshot.name).strip("-")
    settings = Settings(1, "basic", sample=1, batch=batch_size)
    key = describe(net, choose_layers(net, layers), pictures, settings).key
    place = folder / f"{name[:40]}-{key[:12]}"
    scan(net, pictures, place, layers=layers, k=1, statistics="basic", sample=1, batch_size=batch_size)
    return Atlas(place, net=net)
