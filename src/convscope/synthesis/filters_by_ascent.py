"""Every filter of a layer: activation maximization of all channels, as one mosaic."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from ..drawing.drawings import Gallery
from ..drawing.layout import Sheet, Tile, enlarged, in_rows, number
from ..errors import ObjectiveError, OptionError
from ..layers import channelled_layer
from ..net import Net
from ..objectives import Objective, Unit
from ..options import Range
from ..recipes import Recipe
from ..registry import view
from ..tracing import OUTPUT, Layer
from .ascent import AscentResult, Seed
from .many import Settings, maximize_many, refuse_dead
from .maximize import Batch, gathered
from .monitor import Monitor, Preview, PreviewEvery
from .presets import PresetName, RateOption, StepsOption, TransformOption, find_preset


@view(
    "Filters by activation maximization",
    paper="Erhan et al. 2009; Olah et al. 2017, doi:10.23915/distill.00007",
    group="make",
)
def filters_by_ascent(
    net: Net,
    *,
    layer: Annotated[str, "the layer whose channels are shown"],
    channels: Annotated[list[str] | None, "channels, such as 0-31 or 3,17,40; default: all"] = None,
    size: Annotated[
        int | None, "side of each picture in pixels; default: about twice the receptive field", Range(1)
    ] = None,
    preset: PresetName = "lucid",
    steps: StepsOption = None,
    rate: RateOption = None,
    transform: TransformOption = None,
    batch: Batch = None,
    seed: Seed = 0,
    preview: Preview = None,
    preview_every: PreviewEvery = 50,
) -> Gallery:
    """Synthesize the picture that maximizes each channel of a layer, as a mosaic: what deep filters look like.

    Where `filters` shows the weights of the first layer, this works for any layer. Returns a Gallery with `pictures`
    (channels, c, h, w) in [0, 1] and `scores` (channels,). Raises LayerError for a layer without channels.
    """
    chosen = channelled_layer(net, layer)
    numbers = _channels(chosen, channels)
    sized = net.sized(size or _fitting(net, chosen)) if chosen.spatial else net if size is None else net.sized(size)
    objectives = [Objective(((1.0, Unit(chosen.name, k, "mean" if chosen.spatial else None)),)) for k in numbers]
    settings = Settings(
        find_preset(preset).with_options(steps=steps, rate=rate, transform=transform),
        seed,
        batch,
        Monitor(f"filters of {chosen.name or 'the output'}", preview, preview_every),
    )
    results, settings = maximize_many(sized, objectives, settings)
    refuse_dead(sized, objectives, results)
    sheet = _mosaic(sized, chosen, numbers, results, settings)
    settled = {"layer": chosen.name, "size": sized.size[0], **settings.settled()}
    return Gallery(sheet, gathered(results), Recipe(settled=settled))


def _channels(layer: Layer, pieces: list[str] | None) -> list[int]:
    count = layer.shape[0]
    if pieces is None:
        return list(range(count))
    channels = list[int]()
    text = ",".join(pieces)
    for piece in pieces:
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", piece)
        if match is None:
            raise OptionError(f"channels must be given as 0-31 or 3,17,40, not {text!r}")
        channels += range(int(match[1]), int(match[2] or match[1]) + 1)
    if not channels or max(channels) >= count:
        raise ObjectiveError(f"layer {layer.name!r} has channels 0 to {count - 1}: cannot show {text}")
    return channels


def _fitting(net: Net, layer: Layer) -> int:
    """Return a side of about twice the receptive field, and no more than the network reads."""
    field = max(layer.lattice.size)
    return int(min(max(48, 16 * round(field * 2 / 16)), *net.size))


def _mosaic(
    net: Net, layer: Layer, numbers: list[int], results: Mapping[int, AscentResult], settings: Settings
) -> Sheet:
    most = 16 if len(results) > 64 else 8
    side = 64 if len(results) > 64 else 130
    tiles = [
        Tile(
            enlarged(net.image(result.pixels[0]), side),
            f"{numbers[i]} · {number(float(result.scores[0])) if any(result.reached) else 'no gradient'}",
        )
        for i, result in sorted(results.items())
    ]
    what = "Classes" if layer.name == OUTPUT else f"Channels of {layer.name}"
    return Sheet(
        f"{what} of {net.name} by activation maximization",
        in_rows(tiles, most=most),
        f"channel · mean activity · {settings.summary(net)}",
    )
