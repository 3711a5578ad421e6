"""The manifest: everything that a scan's result depends on, written before it begins and compared when it goes on.

What was asked for decides which pictures win. What it was computed with (device, versions, threads) decides the last
digits only, and stands in each shard: where it is the same too, so are all bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast

import torch

from ..data.pictures import Pictures
from ..data.storage import Place, local
from ..data.uploads import write_whole
from ..errors import AtlasError, DataError, OptionError
from ..layouts import layout_of
from ..net import Net
from ..parsing import Document
from ..provenance import network_record, versions
from ..recipes import Recipe
from ..tracing import Layer
from .selection import shuffled
from .units import count_units

SCHEMA = 1
"""Counts up whenever an atlas of this version could be misread by an older one."""

FILE = "manifest.json"

EXAMPLES, SAMPLE = 1024, 10_000
"""Pictures of which the places of all maxima are kept, for bands and random examples; and of which the maxima are, for
quantiles and AUC."""

_SHARD = 1024
"""Pictures in a shard, at most."""

_PIXELS, _LEAST, _MOST = 8 * 224**2, 8, 32
"""Pixels in one pass on a CPU; of a batch of few small pictures most time would go into calls. And of pictures."""

_BATCH_ELSEWHERE = 64

Detail = Literal["basic", "full"]


@dataclass(frozen=True)
class Settings:
    """What a scan keeps of every unit, and how pictures are taken together.

    `k` pictures of each kind; `statistics` "basic" (the strongest pictures and means) or "full"; `effect` the pictures
    where the unit mattered, too; `sample` pictures whose maxima are kept, of which `examples` with places; `batch`
    pictures in one pass and `shard` pictures in one file; `seed` of the sample.
    """

    k: int = 9
    statistics: Detail = "full"
    effect: bool = False
    examples: int = EXAMPLES
    sample: int = SAMPLE
    batch: int = 0
    shard: int = 0
    seed: int = 0

    def settled(self, device: str, size: tuple[int, int]) -> Settings:
        """Return settings, for pictures of a size, whose batches and shards are numbers.

        Raises OptionError for impossible ones.
        """
        fitting = min(max(_LEAST, _PIXELS // (size[0] * size[1])), _MOST) if device == "cpu" else _BATCH_ELSEWHERE
        batch = self.batch or fitting
        numbers = {"k": (self.k, 1), "batch": (batch, 2), "shard": (self.shard or batch, 1), "sample": (self.sample, 1)}
        for name, (value, least) in numbers.items():
            if value < least:
                raise OptionError(f"{name} is a whole number, at least {least}, not {value}")
        whole = self.shard or _SHARD // batch * batch or batch
        return replace(self, batch=batch, shard=whole, examples=min(self.examples, self.sample))


@dataclass(frozen=True)
class ScannedLayer:
    """A layer in a manifest: `units` of them on a grid of `rows` and `columns`, 0 where there are no positions."""

    name: str
    kind: str
    units: int
    rows: int
    columns: int

    @classmethod
    def of(cls, layer: Layer) -> ScannedLayer:
        """Describe a layer of a network."""
        rows, columns = layer.grid if layer.positions else (0, 0)
        return cls(layer.name, layer.kind, count_units(layer), rows, columns)


@dataclass(frozen=True)
class Manifest:
    """What a scan is of: network, weights, layers, pictures and settings.

    `pictures` is how many there are, `content` the hash of their names and labels in order; `classes` are the names of
    labels. `network` is a recipe's record of it.
    """

    network: Mapping[str, Any]
    weights: str
    size: tuple[int, int]
    layers: tuple[ScannedLayer, ...]
    pictures: int
    content: str
    classes: tuple[str, ...]
    settings: Settings
    schema: int = SCHEMA

    @property
    def key(self) -> str:
        """The SHA-256 of what decides the result, in hexadecimal digits."""
        text = json.dumps(self._deciding(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _deciding(self) -> dict[str, Any]:
        """Return everything but what only names things."""
        content = asdict(self)
        names = ("name", "note", "source")
        content["network"] = {name: value for name, value in self.network.items() if name not in names}
        return content

    @property
    def units(self) -> int:
        """How many units all layers have."""
        return sum(layer.units for layer in self.layers)

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.pictures // self.settings.shard)

    def range(self, shard: int) -> range:
        """Return the numbers of a shard's pictures."""
        start = shard * self.settings.shard
        return range(start, min(start + self.settings.shard, self.pictures))

    def recipe(self) -> Recipe:
        """Return the recipe that `remake` would load the network by."""
        return Recipe(method="scan", network=self.network, weights=self.weights, versions=versions())

    def write(self, folder: Place) -> None:
        """Write the manifest into an atlas's folder."""
        text = json.dumps(asdict(self) | {"key": self.key}, ensure_ascii=False, indent=1, default=str)
        write_whole(folder / FILE, text.encode("utf-8", "replace"))

    def difference(self, other: Manifest) -> str:
        """Say in what another manifest differs from this one; "" where they decide the same."""
        mine, theirs = _flat(self._deciding()), _flat(other._deciding())
        names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
        return "; ".join(f"{name} was {mine.get(name)} and is {theirs.get(name)}" for name in names[:6])


def describe(net: Net, layers: Sequence[Layer], pictures: Pictures, settings: Settings) -> Manifest:
    """Write the manifest of a scan. Raises DataError for a stream of pictures, and for none at all."""
    try:
        count = len(pictures)
    except TypeError:
        raise DataError(
            "a stream of pictures cannot be scanned, because nobody knows how many there are, and it cannot be read "
            "twice: give a folder, files, or a data set with a length"
        ) from None
    if count == 0:
        raise DataError("there are no pictures to scan")
    whole = hashlib.sha256()
    for picture in pictures:
        whole.update(f"{picture.name}\0{picture.label}\n".encode("utf-8", "surrogatepass"))
    return Manifest(
        *_network(net, layers),
        count,
        whole.hexdigest(),
        pictures.classes,
        settings.settled(net.device.type, net.size),
    )


def describe_network(manifest: Manifest, net: Net, layers: Sequence[Layer]) -> Manifest:
    """Write the manifest of the same scan by a network: it has the same key where the network is the same."""
    record, weights, size, scanned = _network(net, layers)
    return replace(manifest, network=record, weights=weights, size=size, layers=scanned)


def _network(
    net: Net, layers: Sequence[Layer]
) -> tuple[dict[str, Any], str, tuple[int, int], tuple[ScannedLayer, ...]]:
    return network_record(net), net.digest, net.size, tuple(map(ScannedLayer.of, layers))


def computed_with(net: Net) -> dict[str, Any]:
    """Return what decides the last digits."""
    return {
        **versions(),
        "device": net.device.type,
        "processor": _processor(net.device),
        "threads": torch.get_num_threads(),
        "layout": str(layout_of(net)).removeprefix("torch."),
        "type": str(next((p.dtype for p in net.body.parameters()), torch.float32)).removeprefix("torch."),
    }


def read_manifest(folder: Place) -> Manifest | None:
    """Read the manifest of an atlas; None where there is none. Raises AtlasError for one that is none."""
    file = folder / FILE
    if not file.is_file():
        return None
    document = Document.read(local(file), AtlasError)
    content = document.json(dict[str, object])
    schema = content.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise document.fault(
            f"it has schema {schema}, and this version of convscope reads up to {SCHEMA}: "
            "pip install --upgrade convscope"
        )
    return document.shaped(content, Manifest)


def sampled(manifest: Manifest) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which pictures are in the sample, and which are examples, (pictures,) each."""
    order = shuffled(torch.arange(manifest.pictures), manifest.settings.seed).argsort(stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(manifest.pictures)
    # Places are for bands, which a basic scan has not.
    examples = manifest.settings.examples if manifest.settings.statistics == "full" else 0
    return rank < manifest.settings.sample, rank < examples


def _processor(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()


def _flat(content: Any, name: str = "") -> dict[str, str]:
    """Return the leaves of nested tables as texts, by the names on the way to them."""
    if isinstance(content, dict) and content:
        parts = cast("dict[str, Any]", content).items()
        return {key: text for part, inner in parts for key, text in _flat(inner, f"{name}.{part}".strip(".")).items()}
    text = json.dumps(content)
    return {name: text if len(text) <= 60 else f"{text[:57]}..."}
