"""Style transfer: a picture with the content of one picture and the style of others.

Gatys, Ecker and Bethge, "A Neural Algorithm of Artistic Style" (2015, arXiv:1508.06576). Content is the activity of a
deep layer (eq. 1); style is the correlations between channels of several layers, wherever (the Gram matrices of eq. 3).
L-BFGS minimizes the distance to both (eq. 7). Fig. 1 shows what each layer holds.

Here both costs are relative to the target's (`synthesis.likeness`), so that one pair of weights works for any network;
and the decorrelated spectrum is optimized, which takes on the style's colours and large forms in a fraction of the
steps. `parametrization="pixels"` is the paper's.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated

from torch import Tensor

from .. import registry
from ..context import Parts, keep_part, track
from ..data.images import PictureSource
from ..drawing.drawings import Gallery, Picture
from ..net import Net
from ..objectives import Term
from ..options import Range
from ..recipes import Recipe
from ..registry import view
from .ascent import AscentResult, Seed
from .colour import recoloured
from .likeness import scale_to
from .monitor import Monitor, Preview, PreviewEvery
from .pooling import Pooling, pooled_by
from .style_map import map_sheet, map_values, reconstruct, refuse_for_map
from .style_pictures import StylePictures, longer_side, scaled
from .style_problem import Init, Search, Solver, Space, StyleLayers, StyleProblem, Weights

_LARGEST = 512
_LARGEST_MAPPED = 256
_STEPS = 300
_STEPS_MAPPED = 100

TvWeight = Annotated[float, "weight of the total variation, the mean squared difference of neighbours", Range(0)]

ContentLayers = Annotated[
    list[str] | None,
    "layers of the content cost; default: the second of the last size but one (VGG: relu4_2)",
]

StyleLayerNames = Annotated[
    list[str] | None, "layers of the style cost; default: the first of each size (VGG: relu1_1 to relu5_1)"
]

Side = Annotated[
    int | None, "longer side of the result in pixels; default: the picture's, up to 512 (map: 256)", Range(1)
]

StyleScale = Annotated[float, "longer side of the style pictures, relative to the result's", Range(0, open=True)]


@view("Style transfer", paper="Gatys et al. 2015, arXiv:1508.06576", group="make")
def style(
    net: Net,
    picture: PictureSource,
    *,
    style: Annotated[list[PictureSource], "style pictures"],
    style_mix: Annotated[list[float] | None, "weight of each style picture; default: equal", Range(0)] = None,
    map: Annotated[bool, "show what each layer holds of content and style instead (the paper's Fig. 1)"] = False,
    content_layers: ContentLayers = None,
    style_layers: StyleLayerNames = None,
    content_weight: Annotated[float, "weight of the content cost; 0 makes a texture", Range(0)] = 1.0,
    style_weight: Annotated[float, "weight of the style cost", Range(0)] = 100.0,
    tv_weight: TvWeight = 0.0,
    init: Annotated[Init, "initial picture: content, noise, or zero (the network's mean colour)"] = "content",
    optimizer: Annotated[Solver, "lbfgs (the paper's) or adam (less memory)"] = "lbfgs",
    parametrization: Annotated[Space, "image parametrization: fourier (decorrelated spectrum) or pixels"] = "fourier",
    steps: Annotated[int | None, "evaluations at each scale; default: 300, for a map 100", Range(1)] = None,
    size: Side = None,
    scales: Annotated[int, "number of scales, each twice the one before: large pictures get large forms", Range(1)] = 1,
    style_scale: StyleScale = 1.0,
    keep_colour: Annotated[bool, "change the luminance alone and keep the picture's colours"] = False,
    pooling: Annotated[Pooling, "max (the network's own) or average, smoother according to the paper"] = "max",
    seed: Seed = 0,
    preview: Preview = None,
    preview_every: PreviewEvery = 50,
) -> Picture | Gallery:
    """Transfer the style of pictures to another: content from a deep layer, style from Gram matrices.

    The result is (c, h, w) in [0, 1], of the picture's aspect; style pictures may have any. Of several, the Gram
    matrices are averaged by `style_mix`. With `map`, a column for each style layer: reconstructions of its content, and
    of the style of all layers up to it, both from noise. Gram matrices do not add over tiles, so a picture is always
    optimized whole.

    Raises OptionError for weights that do not fit, LayerError for layers without spatial positions, PictureError for a
    style picture too narrow for the deepest layer, OutOfMemory with advice.
    """
    steps = steps if steps is not None else _STEPS_MAPPED if map else _STEPS
    search = Search(init, optimizer, parametrization, steps, scales, seed)
    weights = Weights(content_weight, style_weight, tv_weight)
    layers = StyleLayers.of(net, content_layers, style_layers)
    monitor = Monitor("style transfer", preview, preview_every)
    if map:
        own = {"content_layers": content_layers, "content_weight": content_weight, "style_weight": style_weight}
        refuse_for_map(own | {"init": init, "scales": scales, "keep_colour": keep_colour}, registry.VIEWS["style"])
    with pooled_by(pooling):
        content = net.prepare_whole(picture)
        styles = StylePictures.of(net, style, style_mix, style_scale)
        side = longer_side(content, size, _LARGEST_MAPPED if map else _LARGEST)
        problem = StyleProblem(net, content, styles, layers, weights, search, side, keep_colour, monitor)
        settled = {"style_layers": layers.style, "style_mix": styles.shares, "steps": steps, "size": side}
        if map:
            rows = reconstruct(problem)
            return Gallery(map_sheet(problem, rows), map_values(rows), Recipe(settled=settled))
        values, result = _transferred(problem)
    settled |= {"content_layers": layers.content, "cost": round(-float(result.scores[0]), 6)}
    return Picture(values, Recipe(settled=settled), *_captions(problem, result))


def _transferred(problem: StyleProblem) -> tuple[Tensor, AscentResult]:
    """Optimize the picture at each scale, starting from the one before; return it and the last scale's result."""
    result: AscentResult | None = None
    pixels = problem.pixels(problem.size)
    scales = range(problem.search.scales)[::-1]
    for scale in track(Parts(scales, [0.25**scale for scale in scales]), "scales") if len(scales) > 1 else scales:
        content = problem.pixels(max(1, round(problem.size / 2**scale)))
        size = f"{content.shape[3]} × {content.shape[2]}"
        first = problem.initial(content, problem.search.init) if result is None else _resized(result.pixels, content)
        try:
            result = problem.minimize(_terms(problem, content), first, f"style transfer at {size}")
        except KeyboardInterrupt as end:
            # Before its first step a scale has nothing, but the scale before has.
            if result is None:
                raise
            keep_part(end, f"interrupted before {size}: the scale before was enlarged")
            break
        if result.interrupted:
            break
    assert result is not None
    values = _resized(result.pixels, pixels)
    if problem.keep_colour:
        values = recoloured(values, scaled(problem.net, problem.content, problem.size))
    return values[0], result


def _terms(problem: StyleProblem, content: Tensor) -> list[tuple[float, Term]]:
    weights, layers = problem.weights, problem.layers
    terms: list[tuple[float, Term]] = []
    if weights.content:
        costs = problem.content_terms(content, layers.content)
        terms += [(weights.content / len(costs), term) for term in costs]
    if weights.style:
        costs = problem.style_terms(max(content.shape[-2:]), layers.style)
        terms += [(weights.style / len(costs), term) for term in costs]
    return terms


def _resized(pixels: Tensor, like: Tensor) -> Tensor:
    return scale_to(pixels.clamp(0, 1), (like.shape[2], like.shape[3]))


def _captions(problem: StyleProblem, result: AscentResult) -> tuple[str, str]:
    """Return title and subtitle."""
    search = problem.search
    styles = [PurePath(picture.name).stem or "another picture" for picture in problem.styles.pictures]
    scales = f" at the last of {search.scales} scales" if search.scales > 1 else ""
    return (
        f"{PurePath(problem.content.name).stem or 'A picture'} in the style of {' and '.join(styles)}",
        f"Style transfer · {problem.net.name} · {result.steps} steps of {search.optimizer}{scales}",
    )
