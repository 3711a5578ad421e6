"""Parameter randomisation: a map that explains what was learnt must change when that is taken away.

Adebayo et al., "Sanity Checks for Saliency Maps" (arXiv:1810.03292, sec. 3): re-initialise the weights from the output
down, layer upon layer (cascading), or one layer at a time (independent), and compare the maps before and after. The
gradient and Grad-CAM lose all likeness; guided backpropagation hardly notices the upper layers (the authors' erratum:
it is not invariant to the lower ones).

Likeness is measured in three ways. `magnitude`: Spearman's rank correlation of the magnitudes, summed over colour
channels; the sign of a map may turn over while it shows the same edges. `signed`: the same of all numbers with their
sign. `ssim`: structural similarity (Wang et al. 2004; windows of 7 pixels) of the magnitudes divided by their maxima. A
map without contrast is like another one without contrast (1) and unlike all others (0).
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..context import say, track
from ..data.images import to_image
from ..drawing import colours, layout
from ..drawing.drawings import Gallery, Heatmap, as_picture, robust_limit
from ..drawing.layout import Sheet, Tile
from ..errors import LayerError, NetworkError, OptionError, nearest
from ..net import Net
from ..ranks import rank_correlation
from ..running import ObjectiveLike
from .cases import Case

Weights = Literal["he", "reset", "permuted"]

_PARAMETRIZATIONS = "parametrizations"
_TILE = 132

_FOLLOWS, _IGNORES = 0.4, 0.6
"""Below, a map follows the weights; above, it hardly does. Gradients reach 0.2 to 0.35, since even under random weights
they are larger where the picture has contrast; guided backpropagation reaches 0.7 to 0.8."""

_ATTEMPTS, _MAPS = 12, 3
"""How often random weights are drawn until they answer, and how often a map is made until it has contrast."""


@dataclass(frozen=True, eq=False)
class Cascade:
    """Maps of one picture while the network loses its weights, and how like the intact map they are.

    `maps` holds the intact map and one per stage, each (c, h, w); stage i randomised the layers down to `stages[i]`,
    the output's layer first (or, where `independent`, only those from the one before). `magnitude` and `signed` are
    rank correlations in [-1, 1], `ssim` a structural similarity, one per stage.
    """

    heatmap: Heatmap
    stages: tuple[str, ...]
    maps: tuple[Tensor, ...]
    magnitude: tuple[float, ...]
    signed: tuple[float, ...]
    ssim: tuple[float, ...]
    independent: bool = False

    @property
    def likeness(self) -> tuple[float, ...]:
        """The larger rank correlation of each stage, of the numbers or of their magnitudes, without its sign."""
        return tuple(max(abs(one), abs(other)) for one, other in zip(self.magnitude, self.signed, strict=True))

    @property
    def score(self) -> float:
        """The mean likeness over the stages: near 0 where the map follows the weights, 1 where it ignores them."""
        return float(np.mean(self.likeness))


def randomised(net: Net, layers: Collection[str] | None = None, *, weights: Weights = "he", seed: int = 0) -> Net:
    """Copy a network with random weights in some layers; the network itself is left as it is.

    Args:
        net: the network.
        layers: names as `weighted_layers` gives them; all of them by default.
        weights: "he" draws weights of variance 2 / inputs without biases (He et al. 2015), which keeps signals of one
            size through rectified layers; "reset" calls the modules' own `reset_parameters`, under which they shrink;
            "permuted" shuffles every tensor, which keeps the distribution of the trained weights. Normalisations are
            reset, their statistics too; what has no initialisation of its own is permuted.
        seed: of the random numbers; a layer gets the same ones whichever others are randomised with it, on any device.

    Raises LayerError for a layer without weights, NetworkError when the network cannot be copied.
    """
    known = weighted_layers(net)
    chosen = known if layers is None else tuple(layers)
    for name in chosen:
        if name not in known:
            raise LayerError(f"{net.name} has no layer {name!r} with weights; nearest: {nearest(name, known)}")
    twin = _twin(net)
    _randomise(twin, [(known.index(name), name) for name in chosen], weights, seed)
    twin.note = f"random weights in {'all' if len(chosen) == len(known) else len(chosen)} layers, seed {seed}"
    return twin


def weighted_layers(net: Net) -> tuple[str, ...]:
    """List the modules that hold weights of their own, the output's first, the picture's last."""
    positions: dict[str, int] = {}
    for position, name in enumerate(net.layers):
        positions[name.partition("#")[0]] = position
    owners = [
        (_place(name, positions), number, name)
        for number, (name, module) in enumerate(net.body.named_modules())
        if any(True for _ in module.parameters(recurse=False))
    ]
    if not owners:
        raise NetworkError(f"{net.name} has no weights: there is nothing to randomise")
    return tuple(name for _, _, name in sorted(owners, reverse=True))


def _place(name: str, positions: dict[str, int]) -> int:
    """When a module runs; one that is never called itself runs when what holds it does."""
    while name and name not in positions:
        name = name.rpartition(".")[0]
    return positions.get(name, len(positions))


def _twin(net: Net) -> Net:
    try:
        return copy.deepcopy(net)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise NetworkError(f"{net.name} cannot be copied, and only a copy may lose its weights: {error}") from None


def _randomise(net: Net, layers: Sequence[tuple[int, str]], weights: Weights, seed: int) -> None:
    """Give random weights to numbered layers of a network, in place."""
    if weights not in ("he", "reset", "permuted"):
        raise OptionError(f"weights is 'he', 'reset' or 'permuted', not {weights!r}")
    for number, name in layers:
        module = net.body.get_submodule(name)
        generator = torch.Generator().manual_seed(seed * 100_003 + number)
        own = callable(getattr(module, "reset_parameters", None))
        if weights == "permuted" or not own or _PARAMETRIZATIONS in dict(module.named_children()):
            _permute(module, generator)
            continue
        _reset(module, generator)
        if weights == "he":
            _rescale(module)


def _reset(module: nn.Module, generator: torch.Generator) -> None:
    """Call a module's own initialisation, on the CPU so that every device gets the same numbers."""
    device = next(module.parameters(recurse=False)).device
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.set_state(generator.get_state())
        module.cpu()
        module.reset_parameters()  # type: ignore[operator]
        module.to(device)


def _rescale(module: nn.Module) -> None:
    """Bring weights to He et al.'s variance, 2 / inputs, and clear biases, unless it is a normalisation."""
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            length = float(parameter.float().square().mean().sqrt())
            if parameter.ndim > 1 and length:
                parameter.mul_((2 / parameter[0].numel()) ** 0.5 / length)
            elif any(other.ndim > 1 for other in module.parameters(recurse=False)):
                parameter.zero_()


def _permute(module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))


def cascade(
    net: Net,
    heatmap: Heatmap,
    *,
    stages: int = 6,
    independent: bool = False,
    weights: Weights = "he",
    seed: int = 0,
    of: ObjectiveLike = None,
) -> Cascade:
    """Randomise a network from the output down and follow what becomes of a map.

    Args:
        net: the network that made the map; it is left as it was.
        heatmap: the map, as `explain` returns it.
        stages: how many maps are made; the first stage randomises the output's layer alone, the others equal shares.
        independent: randomise the layers of each stage alone, all others being intact.
        weights, seed: as in `randomised`.
        of: the objective again, where it was a function.

    The objective stays that of the intact map. Raises NetworkError when other weights made the map, OptionError for
    stages below 1.
    """
    case = Case.of(net, heatmap, of)
    groups = _groups(weighted_layers(net), stages)
    twin, maps = _twin(net), [heatmap.values]
    for group in track(groups, f"{case.entry.name}: randomising"):
        if independent:
            twin = _twin(net)
        twin.note = f"random weights down to {group[-1][1]}"
        maps.append(_map_of_random_weights(twin, case, group, weights, seed))
    return Cascade(
        heatmap=heatmap,
        stages=tuple(group[-1][1] for group in groups),
        maps=tuple(maps),
        magnitude=tuple(rank_correlation(strength(maps[0]), strength(map_)) for map_ in maps[1:]),
        signed=tuple(rank_correlation(maps[0], map_) for map_ in maps[1:]),
        ssim=tuple(structural_similarity(strength(maps[0]), strength(map_)) for map_ in maps[1:]),
        independent=independent,
    )


def _map_of_random_weights(
    twin: Net, case: Case, group: Sequence[tuple[int, str]], weights: Weights, seed: int
) -> Tensor:
    """Randomise layers of a copy and make the map again, with other random numbers where it is the same everywhere.

    Where the last layer ends in a rectifier, half of all random weights never answer, and a map of nothing says nothing
    about the method. Whether they answer takes one pass, a map may take thousands.
    """
    map_, made = torch.zeros_like(case.values), 0
    for attempt in range(_ATTEMPTS):
        _randomise(twin, group, weights, seed + 1009 * attempt)
        if not _answers(twin, case):
            continue
        map_, made = case.again(twin, case.pixels)[0], made + 1
        if bool((map_ != map_.flatten()[0]).any()):
            return map_
        if made == _MAPS:
            break
    say(
        f"{case.entry.name} gives a map without contrast for all random weights that were tried, down to {group[-1][1]}"
    )
    return map_


def _answers(net: Net, case: Case) -> bool:
    """Whether the objective has another answer for the picture than for its mirror image, or for grey."""
    pixels = case.pixels
    with torch.inference_mode():
        scores = case.objective(net, torch.cat([pixels, pixels.flip(3), torch.full_like(pixels, 0.5)]))
    return bool((scores != scores[0]).any())


def _groups(layers: tuple[str, ...], stages: int) -> list[list[tuple[int, str]]]:
    """Cut numbered layers into stages: the first one layer, the others of equal length."""
    if stages < 1:
        raise OptionError(f"stages is at least 1, not {stages}")
    count = min(stages, len(layers))
    ends = np.rint(np.linspace(1, len(layers), count)).astype(int) if count > 1 else [len(layers)]
    starts = [0, *ends[:-1]]
    numbered = list(enumerate(layers))
    return [numbered[start:end] for start, end in zip(starts, ends, strict=True)]


def checked(net: Net, heatmap: Heatmap, *, stages: int = 3, seed: int = 0, of: ObjectiveLike = None) -> Heatmap:
    """Return a map that carries its randomisation score, in its note and in the recipe's remarks.

    It costs `stages` more maps: by default with a random output layer, with the upper half of the layers random, and
    with all of them. `of` is the objective again, where it was a function.
    """
    remark = verdict(cascade(net, heatmap, stages=stages, seed=seed, of=of).score)
    recipe = replace(heatmap.recipe, remarks=(*heatmap.recipe.remarks, remark))
    return replace(heatmap, note="\n".join(filter(None, (heatmap.note, remark))), recipe=recipe)


def verdict(score: float) -> str:
    """Say what a randomisation score means."""
    meaning = (
        "follows the weights"
        if score < _FOLLOWS
        else "only partly follows the weights"
        if score < _IGNORES
        else "hardly follows the weights, it shows the picture more than what was learnt"
    )
    return f"randomisation check: rank correlation {score:.2f} with maps of random weights: {meaning}"


def strength(map_: Tensor) -> Tensor:
    """Return the magnitude of a map (c, h, w), summed over its channels, as (h, w) in float64."""
    return map_.double().abs().sum(0)


def structural_similarity(one: Tensor, other: Tensor) -> float:
    """Return the structural similarity of two maps (h, w) that are never negative, each divided by its maximum."""
    from skimage.metrics import structural_similarity as ssim

    tops = float(one.max()), float(other.max())
    if min(tops) <= 0:
        return float(max(tops) <= 0)
    side = min(7, *one.shape)
    pair = [(map_ / top).cpu().numpy() for map_, top in zip((one, other), tops, strict=True)]
    likeness: Any = ssim(*pair, win_size=side - (side + 1) % 2, data_range=1.0)
    return float(likeness)


def cascades(
    net: Net,
    heatmaps: Sequence[Heatmap],
    *,
    stages: int = 6,
    independent: bool = False,
    weights: Weights = "he",
    seed: int = 0,
    of: ObjectiveLike = None,
) -> Gallery:
    """Draw maps of one picture by several methods while the network loses its weights: a row per method.

    The options are those of `cascade`. Raises OptionError when there is no map.
    """
    if not heatmaps:
        raise OptionError("cascades draws one row per map: give at least one")
    found = [
        cascade(net, map_, stages=stages, independent=independent, weights=weights, seed=seed, of=of)
        for map_ in heatmaps
    ]
    return drawn(net, found)


def drawn(net: Net, found: Sequence[Cascade]) -> Gallery:
    """Draw cascades of one picture, all of the same stages."""
    first = found[0].heatmap
    picture = Tile(layout.enlarged(to_image(first.picture.pixels), _TILE))
    rows = [
        (picture if number == 0 else None, _tile(one, 0), *(_tile(one, stage) for stage in range(1, len(one.maps))))
        for number, one in enumerate(found)
    ]
    way = (
        "Layers lose their weights group by group" if found[0].independent else "Weights are lost from the output down"
    )
    names = [name or "all" for name in found[0].stages]
    values = {one.heatmap.recipe.method: torch.stack([map_.float() for map_ in one.maps]) for one in found}
    methods = ", ".join(one.heatmap.recipe.method for one in found)
    return Gallery(
        content=Sheet(
            title=f"{way}: what remains of each map?",
            rows=tuple(rows),
            subtitle=f"{first.title} · {net.name}" + (f" · {first.picture.name}" if first.picture.name else ""),
            note="Likeness to the intact map: rank correlation of the numbers · of their magnitudes · structural "
            "similarity. A map that explains what was learnt loses all three. Every map has a colour scale of its own.",
            columns=("picture", "intact", *(f"{'only ' if found[0].independent else 'to '}{name}" for name in names)),
            labels=tuple(one.heatmap.subtitle.partition(" · ")[0] for one in found),
        ),
        values=values,
        recipe=replace(first.recipe, method=f"check: {methods}", options={"stages": len(found[0].stages)}, remarks=()),
    )


def _tile(one: Cascade, stage: int) -> Tile:
    map_ = one.maps[stage]
    figures = [each[stage - 1] for each in (one.signed, one.magnitude, one.ssim)] if stage else []
    caption = " · ".join(f"{round(figure, 2) + 0.0:.2f}".replace("-", "−") for figure in figures)
    values = map_.detach().float().cpu().numpy()
    if one.heatmap.projects:
        return Tile(layout.enlarged(as_picture(values)[0], _TILE), caption)
    flat = values.sum(0)
    limit = robust_limit(flat)
    low, colour = (-limit, "polar") if one.heatmap.signed else (0.0, "fire")
    return Tile(layout.enlarged(Image.fromarray(colours.paint(flat, low, limit, colour)), _TILE), caption)
