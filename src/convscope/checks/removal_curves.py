"""Deletion and insertion curves of several maps in one figure."""

from __future__ import annotations

from collections.abc import Sequence

from ..drawing.drawings import Curve, Heatmap
from ..errors import OptionError
from ..net import Net
from ..objectives import as_objective
from ..predictions import ObjectiveLike
from .removal import Removal, deletion, insertion


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
        raise OptionError("curves draws two lines per map: give at least one map")
    paths: dict[str, Removal] = {}
    for heatmap in heatmaps:
        name = heatmap.subtitle.partition(" · ")[0]
        removed = deletion(net, heatmap, baseline=deletion_baseline, steps=steps, seed=seed, batch=batch, of=of)
        inserted = insertion(net, heatmap, baseline=insertion_baseline, steps=steps, seed=seed, batch=batch, of=of)
        paths |= {f"{name}, {path.kind}: {path.auc:.2f}": path for path in (removed, inserted)}
    last, first = next(reversed(paths.values())), heatmaps[0]
    return Curve(
        x=last.shares,
        series={name: path.scores for name, path in paths.items()},
        recipe=first.recipe,
        title="Deletion and insertion of the most important pixels first",
        subtitle=f"{net.name}" + (f" · {first.picture.name}" if first.picture.name else ""),
        note=f"Baselines: {deletion_baseline} for deletion, {insertion_baseline} for insertion; areas under the curves "
        "after the names. Low is good for deletion, high for insertion.",
        x_label="fraction of the pixels",
        y_label=as_objective(net, last.objective).title(net) if last.objective else "score",
    )
