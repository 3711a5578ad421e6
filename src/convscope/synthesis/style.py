"""Style transfer: a picture with the content of one and the style of others.

Gatys, Ecker and Bethge, "A Neural Algorithm of Artistic Style" (2015, arXiv:1508.06576). Content is what a deep layer
holds, place by place (eq. 1); style is which channels of several layers are active together, wherever (the Gram
matrices of eq. 3). L-BFGS finds a picture that comes near to both (eq. 7). Fig. 1 shows what each layer carries.

Here both costs are relative to what the target weighs (`synthesis.likeness`), so that one pair of weights does for any
network; and the picture is changed as its spectrum in independent colours, which takes on the style's colours and large
forms in a fraction of the steps. `space="pixels"` is as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, get_args

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .. import registry
from ..batching import out_of_memory
from ..context import listen, say
from ..data.images import Fit, InputPicture, to_image
from ..data.images import prepare as cut
from ..data.opening import open_picture
from ..drawing.drawings import Gallery, Picture
from ..drawing.layout import Sheet, Tile
from ..errors import LayerError, OptionError, OutOfMemory, PictureError
from ..layers import first_of_stages, spatial_layer, stage_layers
from ..net import Net
from ..objectives import Objective, Term
from ..registry import view
from ..running import footnote, recipe
from ..tapping import tap
from ..terms import Penalty
from .ascent import Made, Preview, PreviewEvery, Seed, Steps, Watch, ascend
from .likeness import Content, Style, gram, scale_to
from .parametrizations import begin, noise

_LARGEST = 512
_LARGEST_MAPPED = 256
_STEPS = 300
_STEPS_MAPPED = 100
_LUMA = (0.299, 0.587, 0.114)
_NOISE = 0.02
_RATES = {"fourier": 0.05, "pixels": 0.02}
"""Adam's, by what it changes."""

_NARROW = 24
"""The shorter side of a style, in pixels, below which it is said to be narrow."""

_FEWEST = 4
"""Places of a style that a Gram matrix is taken over, at least."""

Optimised = Literal["fourier", "pixels"]
Optimiser = Literal["lbfgs", "adam"]
Begin = Literal["content", "noise", "zero"]
Pooling = Literal["max", "average"]

Styles = Annotated[list[Path | Any], "pictures whose style is taken, several with commas between"]
Mix = Annotated[list[float] | None, "the weight of each style; all alike by default"]
Map = Annotated[bool, "show instead what every layer carries of content and of style (the paper's Fig. 1)"]
ContentLayers = Annotated[
    list[str] | None, "where content is compared; by default the second layer of the last size but one, as relu4_2"
]
StyleLayers = Annotated[
    list[str] | None, "where style is compared; by default the first layer of every size, as relu1_1 to relu5_1"
]
ContentWeight = Annotated[float, "how much content counts, relative to the picture's own; 0 makes a texture"]
StyleWeight = Annotated[float, "how much style counts, relative to the styles' own: more paints more freely"]
TvWeight = Annotated[float, "how much roughness counts, the mean squared difference of neighbouring pixels"]
ParametrizationOption = Annotated[Begin, "begin with the content, with noise, or with zero, the network's mean colour"]
OptimiserOption = Annotated[Optimiser, "lbfgs, the paper's, or adam, which holds less in memory"]
SpaceOption = Annotated[Optimised, "what is changed: fourier (the spectrum, in independent colours), or pixels"]
Count = Annotated[int | None, "evaluations at every scale; 300 by default, 100 for a map"]
Side = Annotated[int | None, "the longer side of what is made, in pixels; the picture's own, up to 512 (a map's: 256)"]
Scales = Annotated[int, "make it at so many sizes, each twice the one before: large pictures get large forms"]
StyleScale = Annotated[float, "the longer side of the styles, as a share of that of what is made"]
KeepColour = Annotated[bool, "change the luminance alone: the picture keeps its colours"]
PoolingOption = Annotated[
    Pooling, "max, as the network has it, or average in its place, which the paper found smoother"
]


@view("Style transfer", paper="Gatys et al. 2015, arXiv:1508.06576")
def style(
    net: Net,
    picture: Any,
    *,
    style: Styles,
    style_mix: Mix = None,
    map: Map = False,
    content_layers: ContentLayers = None,
    style_layers: StyleLayers = None,
    content_weight: ContentWeight = 1.0,
    style_weight: StyleWeight = 100.0,
    tv_weight: TvWeight = 0.0,
    start: ParametrizationOption = "content",
    optimiser: OptimiserOption = "lbfgs",
    space: SpaceOption = "fourier",
    steps: Count = None,
    size: Side = None,
    scales: Scales = 1,
    style_scale: StyleScale = 1.0,
    keep_colour: KeepColour = False,
    pooling: PoolingOption = "max",
    seed: Seed = 0,
    preview: Preview = None,
    preview_every: PreviewEvery = 50,
) -> Picture | Gallery:
    """Paint a picture in the style of others: content from a deep layer, style from Gram matrices.

    The result is (c, h, w) in [0, 1], of the picture's aspect; styles may have any. Of several, the Gram matrices are
    averaged by `style_mix`. With `map`, a column for every style layer: the content that it holds, and the style of all
    layers up to it, both found from noise. Gram matrices do not add over tiles, so a picture is always made whole.

    Raises OptionError for weights that do not fit, LayerError for layers without places, PictureError for a style too
    narrow for the deepest layer, OutOfMemory with advice.
    """
    steps = steps if steps is not None else _STEPS_MAPPED if map else _STEPS
    course = _Course(start, optimiser, space, steps, scales, pooling, seed)
    weights = _Weights(content_weight, style_weight, tv_weight)
    layers = _Layers.of(net, content_layers, style_layers)
    watch = Watch("painting", preview, preview_every)
    with listen() as remarks, _pooling(pooling):
        content = _opened(net, picture)
        styles = _Styles.of(net, style, style_mix, style_scale)
        size = _side(content, size, _LARGEST_MAPPED if map else _LARGEST)
        work = _Work(net, content, styles, layers, weights, course, size, keep_colour, watch)
        if map:
            work.refuse_for_map(content_layers)
            return _mapped(work, remarks)
        return _painted(work, remarks)


@dataclass(frozen=True)
class _Course:
    """How the picture is looked for."""

    start: Begin
    optimiser: Optimiser
    space: Optimised
    steps: int
    scales: int
    pooling: Pooling
    seed: int

    def __post_init__(self) -> None:
        kinds = {"start": Begin, "optimiser": Optimiser, "space": Optimised, "pooling": Pooling}
        for name, kind in kinds.items():
            if getattr(self, name) not in get_args(kind):
                raise OptionError(f"{name} is {' or '.join(get_args(kind))}, not {getattr(self, name)!r}")
        if self.scales < 1 or self.steps < 1:
            raise OptionError(f"steps and scales are at least 1, not {self.steps} and {self.scales}")


@dataclass(frozen=True)
class _Weights:
    """What counts how much."""

    content: float
    style: float
    tv: float

    def __post_init__(self) -> None:
        if min(self.content, self.style, self.tv) < 0 or self.content + self.style == 0:
            raise OptionError(
                f"weights are not negative, and content_weight or style_weight is above 0: not {self.content:g}, "
                f"{self.style:g} and a tv_weight of {self.tv:g}"
            )


@dataclass(frozen=True)
class _Layers:
    """Where content and style are compared."""

    content: list[str]
    style: list[str]

    @classmethod
    def of(cls, net: Net, content: list[str] | None, style: list[str] | None) -> _Layers:
        """Check the layers asked for, or take the defaults."""
        sizes = stage_layers(net)
        if not sizes and not (content and style):
            raise LayerError(
                f"{net.name} has no layer with spatial positions: style transfer needs a convolutional network"
            )
        if not content:
            last_but_one = sizes[max(0, len(sizes) - 2)]
            content = [last_but_one[min(1, len(last_but_one) - 1)].name]
        style = style or [layer.name for layer in first_of_stages(net)]
        return cls(
            [spatial_layer(net, name, purpose="content").name for name in content],
            [spatial_layer(net, name, purpose="style").name for name in style],
        )


@dataclass(frozen=True)
class _Styles:
    """The pictures whose style is taken, how much of each, and how large they are seen."""

    views: list[InputPicture]
    shares: list[float]
    scale: float

    @classmethod
    def of(cls, net: Net, pictures: Any, mix: Sequence[float | str] | None, scale: float) -> _Styles:
        """Open the pictures and settle their shares, which add up to 1."""
        pictures = list(pictures) if isinstance(pictures, (list, tuple)) else [pictures]
        if not any(str(one) for one in pictures):
            raise OptionError("there is no style: name a picture, as style=['gravel.png'] or --style gravel.png")
        if not scale > 0:
            raise OptionError(f"style_scale is a share above 0, not {scale:g}")
        shares = _numbers(mix) if mix else [1.0] * len(pictures)
        if len(shares) != len(pictures) or min(shares) < 0 or sum(shares) == 0:
            raise OptionError(
                f"style_mix has one weight for each of the {len(pictures)} styles, not negative and not all 0: "
                f"not {', '.join(f'{share:g}' for share in shares)}"
            )
        return cls([_opened(net, one) for one in pictures], [share / sum(shares) for share in shares], scale)


@dataclass(frozen=True, eq=False)
class _Work:
    """All that is settled before the first step."""

    net: Net
    content: InputPicture
    styles: _Styles
    layers: _Layers
    weights: _Weights
    course: _Course
    size: int
    keep_colour: bool
    watch: Watch

    def __post_init__(self) -> None:
        if self.keep_colour and self.net.channels != 3:
            raise OptionError(f"{self.net.name} reads grey pictures: there is no colour to keep")

    def refuse_for_map(self, content_layers: list[str] | None) -> None:
        """Raise OptionError for what a map, which takes every layer by itself and begins with noise, cannot do."""
        options = registry.VIEWS["style"].options
        given = {
            "content_layers": content_layers,
            "content_weight": self.weights.content,
            "style_weight": self.weights.style,
            "start": self.course.start,
            "scales": self.course.scales,
            "keep_colour": self.keep_colour,
        }
        for name, value in given.items():
            if value != options[name].default:
                raise OptionError(f"a map shows every layer by itself, from noise: leave {name} out, or map")

    def pixels(self, side: int) -> Tensor:
        """Return the content, its longer side in pixels given; its luminance where colours are kept."""
        pixels = _scaled(self.net, self.content, side)
        return _luminance(pixels).expand(-1, 3, -1, -1) if self.keep_colour else pixels

    def content_terms(self, pixels: Tensor, layers: Sequence[str]) -> list[Term]:
        """Return the likeness to the content in every layer (eq. 1)."""
        seen = _read(self.net, pixels, layers)
        return [Content(name, seen[name]) for name in layers]

    def style_terms(self, side: int, layers: Sequence[str]) -> list[Term]:
        """Return the likeness to the styles in every layer (eq. 4), for a picture whose longer side is given."""
        grams: dict[str, Tensor] = {}
        for one, share in zip(self.styles.views, self.styles.shares, strict=True):
            seen = self._style(one, side, layers) if share else {}
            for name, activity in seen.items():
                grams[name] = grams.get(name, 0.0) + share * gram(activity)
        return [Style(name, grams[name]) for name in layers]

    def _style(self, one: InputPicture, side: int, layers: Sequence[str]) -> dict[str, Tensor]:
        pixels = _scaled(self.net, one, max(1, round(side * self.styles.scale)))
        height, width = pixels.shape[-2:]
        larger = width / one.original.width
        if larger > 2 and side == self.size:
            say(f"{one.name or 'the style'} is enlarged {larger:.1f} times: its texture is blurred")
        elif min(height, width) < _NARROW and side == self.size:
            say(f"{one.name or 'the style'} is only {width} × {height} px here: little of its texture is left")
        if self.keep_colour:
            pixels = _matched(_luminance(pixels), _luminance(self.pixels(side))).expand(-1, 3, -1, -1)
        try:
            seen = _read(self.net, pixels, layers)
            if any(activity[0, 0].numel() < _FEWEST for activity in seen.values()):
                raise PictureError(f"{layers[-1]} has fewer than {_FEWEST} places of it")
        except PictureError as error:
            raise PictureError(
                f"the style {one.name} is too narrow at {width} × {height} px: {error}. Use a picture that is less "
                "long, a larger style_scale or size, or leave out the deepest style_layers"
            ) from error
        return seen

    def make(self, terms: list[tuple[float, Term]], first: Tensor, label: str) -> Made:
        """Make the picture that costs least, beginning with `first`."""
        course = self.course
        if self.weights.tv:
            terms = [*terms, (self.weights.tv / first.numel(), Penalty("tv"))]
        objective = Objective(tuple((-weight, term) for weight, term in terms))
        rate = 1.0 if course.optimiser == "lbfgs" else _RATES[course.space]
        beginning = begin(course.space, first.contiguous(), [course.seed], spread=0.0)
        watch = replace(self.watch, label=label)
        try:
            # The gradient is the cost's own: nothing is led past rectifiers.
            return ascend(
                self.net, [objective], beginning, steps=Steps(course.steps, course.optimiser, rate), redirect=False,
                watch=watch, seeds=[course.seed],
            )  # fmt: skip
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise OutOfMemory(
                f"memory ran out at {first.shape[3]} × {first.shape[2]} px, and a Gram matrix needs the whole picture: "
                "use a smaller size, the optimiser adam, or leave out the finest style_layers"
            ) from error

    def first(self, like: Tensor, start: Begin) -> Tensor:
        """Return what to begin with, for a picture like the one given."""
        if start == "content":
            return like
        mean = like.new_tensor(self.net.mean)[:, None, None].expand_as(like)
        if start == "zero":
            return mean
        channels, height, width = like.shape[1:]
        return (mean + noise((channels, height, width), [self.course.seed], _NOISE).to(like)).clamp(0, 1)

    def options(self) -> dict[str, Any]:
        """Return all effective settings, for the recipe."""
        course, weights = self.course, self.weights
        return {
            "style": [one.name or "array" for one in self.styles.views],
            "style_mix": self.styles.shares,
            "style_layers": self.layers.style,
            "tv_weight": weights.tv,
            "optimiser": course.optimiser,
            "space": course.space,
            "steps": course.steps,
            "size": self.size,
            "style_scale": self.styles.scale,
            "pooling": course.pooling,
            "seed": course.seed,
        }


def _painted(work: _Work, remarks: list[str]) -> Picture:
    """Make the picture at every scale, each beginning with the one before."""
    made: Made | None = None
    pixels = work.pixels(work.size)
    for scale in reversed(range(work.course.scales)):
        content = work.pixels(max(1, round(work.size / 2**scale)))
        first = work.first(content, work.course.start) if made is None else _resized(made.pixels, content)
        try:
            made = work.make(_terms(work, content), first, f"painting {content.shape[3]} × {content.shape[2]}")
        except KeyboardInterrupt:
            # Before its first step a scale has nothing, but the scale before has.
            if made is None:
                raise
            say(f"interrupted before {content.shape[3]} × {content.shape[2]}: the scale before was enlarged")
            break
        if made.interrupted:
            break
    assert made is not None
    values = _resized(made.pixels, pixels)
    if work.keep_colour:
        values = recoloured(values, _scaled(work.net, work.content, work.size))
    return _picture(work, values[0], made, remarks)


def _terms(work: _Work, content: Tensor) -> list[tuple[float, Term]]:
    weights, layers = work.weights, work.layers
    terms: list[tuple[float, Term]] = []
    if weights.content:
        found = work.content_terms(content, layers.content)
        terms += [(weights.content / len(found), term) for term in found]
    if weights.style:
        found = work.style_terms(max(content.shape[-2:]), layers.style)
        terms += [(weights.style / len(found), term) for term in found]
    return terms


def _picture(work: _Work, values: Tensor, made: Made, remarks: list[str]) -> Picture:
    course, weights = work.course, work.weights
    options = {
        **work.options(),
        "content_layers": work.layers.content,
        "content_weight": weights.content,
        "style_weight": weights.style,
        "start": course.start,
        "scales": course.scales,
        "keep_colour": work.keep_colour,
        "cost": round(-float(made.scores[0]), 6),
    }
    styles = [PurePath(one.name).stem or "another picture" for one in work.styles.views]
    return Picture(
        values,
        recipe(work.net, "style", [work.content, *work.styles.views], "", options, remarks),
        f"{PurePath(work.content.name).stem or 'A picture'} in the style of {' and '.join(styles)}",
        f"Style transfer · {work.net.name} · {made.steps} steps of {course.optimiser}"
        + (f" at the last of {course.scales} scales" if course.scales > 1 else ""),
        footnote(work.net, registry.VIEWS["style"], remarks),
    )


def _mapped(work: _Work, remarks: list[str]) -> Gallery:
    """Reconstruct content from every layer, and style from the layers up to it, until done or interrupted."""
    content, names = work.pixels(work.size), work.layers.style
    first = work.first(content, "noise")
    rows: dict[str, list[Tensor]] = {"content": [], "style": []}
    for count, name in enumerate(names, 1):
        for row, found in rows.items():
            terms = (
                work.content_terms(content, [name]) if row == "content" else work.style_terms(work.size, names[:count])
            )
            try:
                made = work.make([(1 / len(terms), term) for term in terms], first, f"{row} of {name}")
            except KeyboardInterrupt:
                if not rows["content"]:
                    raise
                say(f"interrupted before the {row} of {name}")
                return _sheet(work, rows, remarks)
            found.append(made.pixels[0].clamp(0, 1))
            if made.interrupted:
                return _sheet(work, rows, remarks)
    return _sheet(work, rows, remarks)


def _sheet(work: _Work, rows: dict[str, list[Tensor]], remarks: list[str]) -> Gallery:
    names, styles = work.layers.style, work.styles.views
    made = len(rows["content"])
    shown = [work.content, styles[0]]
    tiles: list[tuple[Tile | None, ...]] = []
    for original, values in zip(shown, rows.values(), strict=True):
        first = Tile(_fitted(to_image(_scaled(work.net, original, work.size)[0].cpu().numpy())), original.name)
        found = [Tile(_fitted(to_image(one.cpu().numpy()))) for one in values]
        tiles.append((first, *found, *[None] * (made - len(found))))
    mixed = f" (of {len(styles)}, mixed)" if len(styles) > 1 else ""
    sheet = Sheet(
        f"What every layer of {work.net.name} carries",
        tuple(tiles),
        "above: a picture found from noise whose activity in the layer is that of the content · below: one whose Gram "
        f"matrices are those of the style{mixed}, in this layer and all before it · {work.course.steps} steps each",
        footnote(work.net, registry.VIEWS["style"], remarks),
        ("picture", *(f"{name} · {_shape(work.net, name)}" for name in names[:made])),
        ("content", "style"),
    )
    values = {row: torch.stack(found) for row, found in rows.items() if found}
    options = {**work.options(), "map": True}
    return Gallery(sheet, values, recipe(work.net, "style", [work.content, *styles], "", options, remarks))


def _shape(net: Net, name: str) -> str:
    layer = net.layer(name)
    size = layer.field.size
    return "sees all" if layer.field.shared else f"sees {size[0]:g} px"


def _fitted(image: Image.Image) -> Image.Image:
    ratio = _LARGEST_MAPPED / max(image.size)
    size = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    return image.convert("RGB").resize(size, Image.Resampling.NEAREST if ratio >= 2 else Image.Resampling.LANCZOS)


def _read(net: Net, pixels: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Read layers of one picture. Raises PictureError where it is too small for them."""
    with torch.no_grad():
        return tap(net, pixels, layers)


# Pictures ---------------------------------------------------------------------------------------------------------


def _opened(net: Net, source: Any) -> InputPicture:
    """Read a whole picture, at its own size and aspect."""
    if isinstance(source, Tensor):
        return net.prepare(source)
    image = open_picture(source)
    name = PurePath(source).name if isinstance(source, (str, Path)) else ""
    return cut(image, Fit((image.height, image.width), min(image.size)), channels=net.channels, name=name)


def _side(content: InputPicture, asked: int | None, most: int) -> int:
    """Settle the longer side of what is made, and say so where it is not the picture's own."""
    if asked is not None:
        if asked < 1:
            raise OptionError(f"size is the longer side in pixels, at least 1, not {asked}")
        return asked
    own = max(content.original.size)
    if own > most:
        say(f"made {most} px long, from {own}: ask for more with size")
    return min(own, most)


def _scaled(net: Net, one: InputPicture, side: int) -> Tensor:
    """Return a picture's pixels (1, c, h, w) with the longer side given, on the network's device."""
    pixels = net.pixels(one)
    ratio = side / max(pixels.shape[-2:])
    height, width = (max(1, round(length * ratio)) for length in pixels.shape[-2:])
    return scale_to(pixels, (height, width))


def _resized(pixels: Tensor, like: Tensor) -> Tensor:
    return scale_to(pixels.clamp(0, 1), (like.shape[2], like.shape[3]))


def _numbers(mix: Sequence[float | str]) -> list[float]:
    try:
        return [float(weight) for weight in mix]
    except ValueError:
        raise OptionError(f"style_mix is numbers, as 0.7,0.3, not {', '.join(map(str, mix))}") from None


# Colour -----------------------------------------------------------------------------------------------------------


def _luminance(pixels: Tensor) -> Tensor:
    """Return the luminance of pictures (n, 3, h, w), (n, 1, h, w) in [0, 1]. Rec. 601."""
    return (pixels * pixels.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)


def _matched(luminance: Tensor, target: Tensor) -> Tensor:
    """Give a luminance the mean and spread of another. Gatys et al. 2016, arXiv:1606.05897, eq. 10."""
    away = (luminance - luminance.mean()) * (target.std() / luminance.std().clamp(min=1e-6))
    return (away + target.mean()).clamp(0, 1)


def recoloured(made: Tensor, colours: Tensor) -> Tensor:
    """Lay the luminance of one picture under the colours of another, (n, 3, h, w) in [0, 1].

    All channels change by the same, so that differences of colour stay exactly; where a channel would leave [0, 1], the
    luminance gives way. Gatys et al. 2016, arXiv:1606.05897, sec. 5.1.
    """
    change = _luminance(made) - _luminance(colours)
    least, most = -colours.amin(1, keepdim=True), 1 - colours.amax(1, keepdim=True)
    return colours + change.maximum(least).minimum(most)


# Pooling ----------------------------------------------------------------------------------------------------------


class _Averaging(TorchFunctionMode):
    """Takes the mean of every window where a network takes its maximum; the network is not touched."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func not in (F.max_pool2d, torch.max_pool2d) or given.get("return_indices"):
            return func(*args, **given)
        return _average(*args, **given)


def _average(
    pixels: Tensor,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    if dilation != 1:
        raise OptionError("this network's maxima skip places, and a mean cannot: use pooling max")
    return F.avg_pool2d(pixels, kernel_size, stride, padding, ceil_mode, count_include_pad=False)


def _pooling(asked: Pooling) -> Any:
    return _Averaging() if asked == "average" else nullcontext()
