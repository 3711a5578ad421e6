"""Draw the layers of the package: which module may import which, as tests/test_structure.py holds it.

python docs/make_layers.py writes docs/images/layers.png.
"""

from __future__ import annotations

import ast
import json
import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).parent.parent

PARTS = (
    ("Ground: context, mechanisms on torch, options, registry, recipes", "#e8eef7", "#3b5f94"),
    ("Pictures in, drawings out", "#e6f3ec", "#2f7a55"),
    ("Network, layers, objectives", "#fbf1df", "#96691a"),
    ("The runner", "#f7e8ee", "#99405f"),
    ("Methods, views, synthesis, checks, sources of networks, training, styles", "#efeafa", "#6049a0"),
    ("Command line and demonstration", "#f0f0ee", "#55554f"),
)
"""Parts from the bottom up: title, colour, ink."""

FIRST = {"errors": 0, "data": 1, "tracing": 2, "predictions": 3, "attribution": 4, "commands": 5}
"""The first module of each part; a row of the order that begins with one begins the part."""


_STEP, _GAP = 0.38, 0.07


def order() -> list[list[str]]:
    """Read ORDER from the test, without running it."""
    tree = ast.parse((ROOT / "tests" / "test_structure.py").read_text())
    assigned = (node for node in tree.body if isinstance(node, ast.Assign))
    return next(ast.literal_eval(node.value) for node in assigned if getattr(node.targets[0], "id", "") == "ORDER")


def label(name: str) -> str:
    """Return a module's name as files have it, or a room's with a slash."""
    return f"{name}/" if (ROOT / "src" / "convscope" / name).is_dir() else f"{name}.py"


def draw(rows: list[list[str]]) -> Figure:
    """Draw one row per rank, the lowest at the bottom, in the colours of its part."""
    top = _STEP * len(rows)
    figure = Figure(figsize=(9.6, top + 0.75), dpi=110, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 9.6)
    axes.set_ylim(-0.12, top + 0.63)
    axes.axis("off")
    axes.text(0.2, top + 0.3, "Each row imports from the rows below it only", fontsize=11, weight="bold", va="center")
    starts: dict[int, int] = {}
    for rank, names in enumerate(rows):
        part = FIRST.get(names[0], max(starts, default=0))
        starts.setdefault(part, rank)
        _row(axes, names, rank * _STEP, part)
    ends = [*list(starts.values())[1:], len(rows)]
    for (part, start), end in zip(starts.items(), ends, strict=True):
        _bracket(axes, part, start * _STEP + 0.02, end * _STEP - 0.10)
    return figure


def _row(axes: Axes, names: list[str], y: float, part: int) -> None:
    _, colour, ink = PARTS[part]
    labels = [label(name) for name in names]
    weights = [len(text) + 3 for text in labels]
    width = 7.2 - _GAP * (len(names) - 1)
    x = 0.2
    style = "round,pad=0,rounding_size=0.05"
    for text, weight in zip(labels, weights, strict=True):
        side = width * weight / sum(weights)
        axes.add_patch(
            FancyBboxPatch((x, y), side, 0.3, boxstyle=style, facecolor=colour, edgecolor=ink, linewidth=0.8)
        )
        axes.text(x + side / 2, y + 0.15, text, color="#1c1c1c", fontsize=8.5, ha="center", va="center")
        x += side + _GAP


def _bracket(axes: Axes, part: int, low: float, high: float) -> None:
    title, _, ink = PARTS[part]
    axes.plot([7.62, 7.62], [low, high], color=ink, linewidth=2.5, solid_capstyle="butt")
    lines = "\n".join(textwrap.wrap(title, 22))
    axes.text(7.75, (low + high) / 2, lines, color=ink, fontsize=8.5, va="center", linespacing=1.25)


if __name__ == "__main__":
    # The order is written into the picture, so that a test sees when it is out of date.
    draw(order()).savefig(
        ROOT / "docs" / "images" / "layers.png", metadata={"Software": None, "Order": json.dumps(order())}
    )
