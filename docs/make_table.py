"""Write the table of docs/networks.md: which method runs on which network of timm, and why another does not.

    python docs/make_table.py

Every method is tried on every network, with random weights and options that make it quick. The tests compare the table
with what happens.
"""

from __future__ import annotations

import re
from pathlib import Path

from skimage.data import chelsea

from convscope import explain, load
from convscope.errors import ConvscopeError
from convscope.registry import METHODS, load_all

PAGE = Path(__file__).parent / "networks.md"
BEGIN, END = "<!-- table -->\n", "<!-- /table -->\n"
RUNS = "runs"
QUESTION = 281

NETWORKS = {
    "resnet50": 64,
    "convnext_tiny": 128,
    "efficientnet_b0": 128,
    "mobilenetv3_large_100": 128,
    "vit_tiny_patch16_224": 96,
    "swin_tiny_patch4_window7_224": 128,
}
"""The networks, and the side of the picture at which they are quick."""

QUICK = {
    "smooth_grad": {"samples": 2},
    "integrated_gradients": {"steps": 4},
    "extremal": {"steps": 4},
    "occlusion": {"patch": 32, "stride": 32},
    "score_cam": {"channels": 8},
    "rise": {"masks": 8},
}

Column = dict[str, str]


def column(network: str) -> Column:
    """Try every method on a network: "runs", or why not, by the method's name."""
    load_all()
    net = load(f"timm:{network}", weights=None, size=NETWORKS[network])
    return {method: _tried(net, method) for method in METHODS}


def _tried(net: object, method: str) -> str:
    try:
        values = explain(net, chelsea(), method, QUESTION, **QUICK.get(method, {})).values  # type: ignore[arg-type]
    except ConvscopeError as error:
        return str(error)
    return RUNS if values.abs().max() > 0 else "gives a map of zeros"


def table(columns: dict[str, Column]) -> str:
    """Lay columns out as Markdown, the reasons numbered and listed below."""
    reasons = list(dict.fromkeys(cell for cells in columns.values() for cell in cells.values() if cell != RUNS))
    lines = [f"| method | {' | '.join(f'`{name}`' for name in columns)} |", "|---" * (len(columns) + 1) + "|"]
    for method in next(iter(columns.values())):
        cells = (column[method] for column in columns.values())
        shown = (RUNS if cell == RUNS else f"no ({reasons.index(cell) + 1})" for cell in cells)
        lines.append(f"| `{method}` | {' | '.join(shown)} |")
    return "\n".join([*lines, "", *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1)), ""])


def written() -> dict[str, Column]:
    """Read the table back from the page."""
    text = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    reasons = dict(re.findall(r"(?m)^(\d+)\. (.*)$", text))
    head, _, *rows = ([cell.strip(" `") for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line)
    said = {name: dict[str, str]() for name in head[1:]}
    for method, *cells in rows:
        for name, cell in zip(said, cells, strict=True):
            said[name][method] = RUNS if cell == RUNS else reasons[cell[4:-1]]
    return said


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    made = table({name: column(name) for name in NETWORKS})
    PAGE.write_text(before + BEGIN + made + END + after, encoding="utf-8")
