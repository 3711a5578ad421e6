"""Infidelity and sensitivity: perturbed pictures against what the map predicts, and the maps of perturbed pictures.

Yeh et al., "On the (In)fidelity and Sensitivity of Explanations" (arXiv:1901.09392): for perturbations I of the
picture, infidelity (def. 2.1) is E[(I.phi - (f(x) - f(x - I)))^2]; sensitivity (def. 3.1) is how far the map itself
moves when the picture moves by less than a radius, max ||phi(x + d) - phi(x)|| / ||phi(x)||.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..baselines import baseline_pixels
from ..batching import in_batches
from ..context import say
from ..drawing.drawings import Heatmap
from ..errors import OptionError
from ..interruptions import orderly
from ..net import Net
from ..predictions import ObjectiveLike
from .cases import Case


@dataclass(frozen=True)
class Infidelity:
    """How far a map is from predicting what perturbations do to the score.

    `mean_square` is the paper's infidelity; `unexplained` is that of the map times its best factor, `factor`, divided
    by the mean square of the true drops: from 0 (the map predicts them up to a factor) to 1 (it predicts nothing).
    """

    mean_square: float
    unexplained: float
    factor: float


@orderly
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
    """Compare the drops that a map predicts for occluded squares with the drops of the score.

    Args:
        net, heatmap: a map and the network that made it.
        samples: number of squares, at random positions, all wholly inside the picture.
        patch: their side in pixels of the network's input; by default a quarter of it.
        baseline: what replaces their pixels, as in `convscope.baselines`.
        seed: seed of the positions, and of the baseline where it is noise.
        batch: number of pictures per pass.
        of: the objective again, where it was a function.

    A map that is a picture, such as a gradient, predicts the drop I.phi, where I = picture - baseline inside the
    square; a map of one number per pixel, which is in score, predicts its sum over the square.
    """
    case = Case.of(net, heatmap, of)
    squares = _squares(case.pixels, samples, patch, seed)
    change = case.pixels - baseline_pixels(net, case.pixels, baseline, seed=seed)
    weights = change if case.entry.projects else torch.ones_like(case.pixels[:, :1])
    importance = (weights[0].to(case.values) * case.values).sum(0).flatten()
    predicted = (squares.flatten(1).to(case.values) @ importance).cpu().double()

    def score(piece: slice) -> Tensor:
        return case.objective(net, case.pixels - squares[piece, None].to(change) * change)

    with torch.inference_mode():
        before = case.objective(net, case.pixels).cpu().double()
        after = torch.cat(list(in_batches(score, samples, batch, "infidelity"))).cpu().double()
    return compare_drops(predicted, (before - after).clone())


def compare_drops(predicted: Tensor, true: Tensor) -> Infidelity:
    """Compare predicted with true drops of the score, both (samples,)."""
    power, weight = float((true**2).mean()), float((predicted**2).mean())
    factor = float((predicted * true).mean()) / weight if weight else 0.0
    rest = float(((factor * predicted - true) ** 2).mean())
    if power == 0:
        say("occluding squares does not change the score: infidelity is undefined, shown as 0")
    return Infidelity(float(((predicted - true) ** 2).mean()), rest / power if power else 0.0, factor)


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


@orderly
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
    """Return how far the map moves, relative to its norm, when every pixel changes by at most `radius`.

    The maximum over `samples` random changes, uniform in [-radius, radius] per number; 0 for a map that is zero
    before and after. The objective stays that of the map. `of` is the objective again, where it was a function.
    """
    if samples < 1 or radius < 0:
        raise OptionError(f"samples is at least 1 and radius at least 0, not {samples} and {radius}")
    case = Case.of(net, heatmap, of)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(samples, *case.pixels.shape[1:], generator=generator, dtype=torch.float64).mul(2 * radius)
    return _largest_move(net, case, case.pixels + (noise - radius).to(case.pixels), batch)


def _largest_move(net: Net, case: Case, pixels: Tensor, batch: int) -> float:
    """Return the largest relative distance of the maps of pixels (n, c, h, w) from the map of a case."""

    def distances(piece: slice) -> Tensor:
        return (case.again(net, pixels[piece]) - case.values).flatten(1).norm(dim=1)

    largest = max(float(part.max()) for part in in_batches(distances, len(pixels), batch, "sensitivity"))
    # As the paper's authors do, a map that is zero counts as of norm one.
    return largest / (float(case.values.norm()) or 1.0)
