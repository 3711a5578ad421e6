"""Fidelity: does the answer change where the map says that it would?

Petsiuk, Das and Saenko, "RISE" (arXiv:1806.07421, sec. 4.1): take the most important pixels away first and watch the
probability of the class fall (deletion), or put them first into a blurred picture and watch it rise (insertion). The
area under the curve, by trapezoids, is one number: low for deletion, high for insertion. Samek et al.
(arXiv:1509.06321, eq. 12) average the drop along the same path, AOPC = 1/(L+1) sum_k f(x0) - f(xk).

Yeh et al., "On the (In)fidelity and Sensitivity of Explanations" (arXiv:1901.09392): for perturbations I of the
picture, infidelity (def. 2.1) is E[(I.phi - (f(x) - f(x - I)))^2]; sensitivity (def. 3.1) is how far the map itself
moves when the picture moves by less than a radius, max ||phi(x + d) - phi(x)|| / ||phi(x)||.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..baselines import baseline_pixels
from ..batching import in_batches
from ..context import say
from ..drawing.drawings import Curve, Heatmap
from ..errors import OptionError
from ..net import Net
from ..objectives import Objective, Probability, as_objective
from ..running import ObjectiveLike
from .cases import Case

First = Literal["most", "least"]


@dataclass(frozen=True)
class Removal:
    """Scores along a path from one picture to another: `shares` of the pixels exchanged, from 0 to 1."""

    kind: str
    objective: str
    shares: tuple[float, ...]
    scores: tuple[float, ...]

    @property
    def auc(self) -> float:
        """The area under the curve, by trapezoids: the mean score along the path."""
        scores, shares = np.asarray(self.scores), np.asarray(self.shares)
        return float((np.diff(shares) * (scores[1:] + scores[:-1]) / 2).sum())

    @property
    def aopc(self) -> float:
        """The mean drop of the score from its first value (Samek et al., eq. 12)."""
        return float(np.mean(self.scores[0] - np.asarray(self.scores)))


def deletion(
    net: Net,
    heatmap: Heatmap,
    *,
    baseline: str = "mean",
    first: First = "most",
    steps: int = 32,
    seed: int = 0,
    batch: int = 32,
    of: ObjectiveLike = None,
) -> Removal:
    """Take pixels away, the most important first, and follow the score.

    Args:
        net, heatmap: a map and the network that made it.
        baseline: what replaces removed pixels, as in `convscope.baselines`; the mean colour is the paper's zero.
        first: "most" or "least" important pixels.
        steps: how many steps lead from the whole picture to none of it.
        seed: of the order among pixels of equal importance, which is random, and of the fill where it is noise.
        batch: how many pictures go through the network at once.
        of: the score; by default the probability of the class that was asked for, or else the objective itself.

    The importance of a pixel is the map there, colour channels summed; its magnitude where the map is a picture.
    """
    case, objective = _asked(net, heatmap, of)
    gone = baseline_pixels(net, case.pixels, baseline, seed=seed)
    order = ranking(importance(case), first=first, seed=seed)
    return _followed("deletion", net, objective, case.pixels, gone, order, steps, batch)


def insertion(
    net: Net,
    heatmap: Heatmap,
    *,
    baseline: str = "blur",
    first: First = "most",
    steps: int = 32,
    seed: int = 0,
    batch: int = 32,
    of: ObjectiveLike = None,
) -> Removal:
    """Put pixels into a blurred picture, the most important first, and follow the score.

    The options are those of `deletion`; `fill` is what the path begins with.
    """
    case, objective = _asked(net, heatmap, of)
    start = baseline_pixels(net, case.pixels, baseline, seed=seed)
    order = ranking(importance(case), first=first, seed=seed)
    return _followed("insertion", net, objective, start, case.pixels, order, steps, batch)


def _asked(net: Net, heatmap: Heatmap, of: ObjectiveLike) -> tuple[Case, Objective]:
    """Read back a map, and settle the score: a class is scored by its probability."""
    case = Case.of(net, heatmap, of)
    index = case.objective.class_index
    if of is None and index is not None and len(net.output.shape) == 1:
        return case, Objective(((1.0, Probability(index)),))
    return case, case.objective


def importance(case: Case) -> Tensor:
    """Return how much each pixel matters (h, w): the map, channels summed, or the magnitude of one that is a picture.

    The sign of a gradient says which way a pixel would have to change, not whether it matters.
    """
    return (case.values.abs() if case.entry.projects else case.values).sum(0)


def ranking(values: Tensor, *, first: First = "most", seed: int = 0) -> Tensor:
    """Order the places of a map (h, w) by value, flat indices (h*w,); equal values in a random, seeded order.

    Maps that were cut off at zero are equal over large parts of the picture; reading order would take those away from
    the top.
    """
    if first not in ("most", "least"):
        raise OptionError(f"first is 'most' or 'least', not {first!r}")
    flat = values.flatten()
    shuffled = torch.randperm(len(flat), generator=torch.Generator().manual_seed(seed)).to(flat.device)
    order = flat[shuffled].argsort(descending=True, stable=True)
    ranked = shuffled[order]
    return ranked if first == "most" else ranked.flip(0)


def path_scores(
    net: Net, objective: Objective, start: Tensor, end: Tensor, order: Tensor, counts: Sequence[int], batch: int
) -> Tensor:
    """Score pictures in which the first pixels of an order come from `end`, the others from `start`.

    `start` and `end` are (1, c, h, w), `order` flat indices (h*w,), `counts` how many pixels; returns (len(counts),).
    """
    position = torch.empty_like(order)
    position[order] = torch.arange(len(order), device=order.device)
    position = position.view(start.shape[-2:])
    numbers = torch.tensor(counts, device=order.device)

    def scores(piece: slice) -> Tensor:
        exchanged = position < numbers[piece, None, None]
        return objective(net, torch.where(exchanged[:, None], end, start))

    with torch.inference_mode():
        return torch.cat(list(in_batches(scores, len(counts), batch, "exchanging pixels"))).clone()


def _followed(
    kind: str, net: Net, objective: Objective, start: Tensor, end: Tensor, order: Tensor, steps: int, batch: int
) -> Removal:
    if steps < 1:
        raise OptionError(f"steps is at least 1, not {steps}")
    counts = [round(step * len(order) / steps) for step in range(steps + 1)]
    scores = path_scores(net, objective, start, end, order, counts, batch)
    shares = tuple(count / len(order) for count in counts)
    return Removal(kind, str(objective), shares, tuple(scores.double().tolist()))


def curves(
    net: Net,
    heatmaps: Sequence[Heatmap],
    *,
    steps: int = 32,
    deletion_baseline: str = "mean",
    insertion_baseline: str = "blur",
    seed: int = 0,
    batch: int = 32,
    of: ObjectiveLike = None,
) -> Curve:
    """Draw the deletion and insertion curves of several maps of one picture, with their areas.

    The options are those of `deletion` and `insertion`. Raises OptionError when there is no map.
    """
    if not heatmaps:
        raise OptionError("curves draws two lines per map: give at least one")
    series: dict[str, Sequence[float]] = {}
    shares: Sequence[float] = ()
    objective = ""
    for map_ in heatmaps:
        name = map_.subtitle.partition(" · ")[0]
        gone = deletion(net, map_, baseline=deletion_baseline, steps=steps, seed=seed, batch=batch, of=of)
        back = insertion(net, map_, baseline=insertion_baseline, steps=steps, seed=seed, batch=batch, of=of)
        series[f"{name}, deletion: {gone.auc:.2f}"] = gone.scores
        series[f"{name}, insertion: {back.auc:.2f}"] = back.scores
        shares, objective = gone.shares, gone.objective
    view = heatmaps[0].picture
    return Curve(
        x=shares,
        series=series,
        recipe=heatmaps[0].recipe,
        title="Pixels taken away and put back, the most important first",
        subtitle=f"{net.name}" + (f" · {view.name}" if view.name else ""),
        note=f"Deletion fills with {deletion_baseline}, insertion starts from {insertion_baseline}; the areas after "
        "the names. "
        "Low is good for deletion, high for insertion.",
        x_label="share of the pixels",
        y_label=as_objective(net, objective).title(net) if objective else "score",
    )


@dataclass(frozen=True)
class Infidelity:
    """How far a map is from predicting what perturbations do to the score.

    `mean_square` is the paper's infidelity; `unexplained` is that of the map times its best factor, `factor`, divided
    by the mean square of the true drops: from 0 (they are as the map says, up to a factor) to 1 (it says nothing).
    """

    mean_square: float
    unexplained: float
    factor: float


def infidelity(
    net: Net,
    heatmap: Heatmap,
    *,
    samples: int = 64,
    patch: int | None = None,
    baseline: str = "mean",
    seed: int = 0,
    batch: int = 32,
    of: ObjectiveLike = None,
) -> Infidelity:
    """Compare what a map says of covered squares with what covering them does to the score.

    Args:
        net, heatmap: a map and the network that made it.
        samples: how many squares, at random places, all wholly inside the picture.
        patch: their side in pixels of the network's input; by default a quarter of it.
        baseline: what covers them, as in `convscope.baselines`.
        seed: of the places, and of the fill where it is noise.
        batch: how many pictures go through the network at once.
        of: the objective again, where it was a function.

    A map that is a picture, such as a gradient, predicts the drop I.phi, where I = picture - fill inside the square;
    a map of one number per pixel, which is in score, predicts its sum over the square.
    """
    case = Case.of(net, heatmap, of)
    squares = _squares(case.pixels, samples, patch, seed)
    covers = case.pixels - baseline_pixels(net, case.pixels, baseline, seed=seed)
    weights = covers if case.entry.projects else torch.ones_like(case.pixels[:, :1])
    said = (squares.flatten(1).to(case.values) @ (weights[0].to(case.values) * case.values).sum(0).flatten()).double()

    def score(piece: slice) -> Tensor:
        return case.objective(net, case.pixels - squares[piece, None].to(covers) * covers)

    with torch.inference_mode():
        before = case.objective(net, case.pixels).double()
        after = torch.cat(list(in_batches(score, samples, batch, "infidelity"))).double()
    return compared(said, (before - after).clone())


def compared(said: Tensor, true: Tensor) -> Infidelity:
    """Compare predicted with true drops of the score, both (samples,)."""
    power, weight = float((true**2).mean()), float((said**2).mean())
    factor = float((said * true).mean()) / weight if weight else 0.0
    rest = float(((factor * said - true) ** 2).mean())
    if power == 0:
        say("covering squares does not change the score: infidelity says nothing here")
    return Infidelity(float(((said - true) ** 2).mean()), rest / power if power else 0.0, factor)


def _squares(pixels: Tensor, samples: int, patch: int | None, seed: int) -> Tensor:
    """Draw random squares as masks (samples, h, w)."""
    height, width = pixels.shape[-2:]
    patch = max(1, min(height, width) // 4) if patch is None else patch
    if not 1 <= patch <= min(height, width):
        raise OptionError(f"a patch of {patch} px does not fit a picture of {height}x{width}")
    if samples < 1:
        raise OptionError(f"samples is at least 1, not {samples}")
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (
        torch.randint(0, extent - patch + 1, (samples, 1), generator=generator) for extent in (height, width)
    )
    inside = [
        (torch.arange(extent) >= start) & (torch.arange(extent) < start + patch)
        for extent, start in ((height, rows), (width, columns))
    ]
    return (inside[0][:, :, None] & inside[1][:, None, :]).to(pixels.device)


def sensitivity(
    net: Net,
    heatmap: Heatmap,
    *,
    radius: float = 0.02,
    samples: int = 8,
    seed: int = 0,
    batch: int = 4,
    of: ObjectiveLike = None,
) -> float:
    """Return how far the map moves, relative to its length, when every pixel moves by at most `radius`.

    The largest of `samples` random movements, uniform in [-radius, radius] per number; 0 for a map that is zero
    before and after. The objective stays that of the map. `of` is the objective again, where it was a function.
    """
    if samples < 1 or radius < 0:
        raise OptionError(f"samples is at least 1 and radius at least 0, not {samples} and {radius}")
    case = Case.of(net, heatmap, of)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(samples, *case.pixels.shape[1:], generator=generator, dtype=torch.float64).mul(2 * radius)
    moved = case.pixels + (noise - radius).to(case.pixels)
    return _moved(net, case, moved, batch)


def _moved(net: Net, case: Case, moved: Tensor, batch: int) -> float:
    """Return the largest relative distance of the maps of moved pictures (n, c, h, w) from the map of a case."""

    def distances(piece: slice) -> Tensor:
        return (case.again(net, moved[piece]) - case.values).flatten(1).norm(dim=1)

    largest = max(float(one.max()) for one in in_batches(distances, len(moved), batch, "sensitivity"))
    # As the paper's authors do, a map that is zero counts as of length one.
    return largest / (float(case.values.norm()) or 1.0)
