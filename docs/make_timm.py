"""Write docs/timm.md: what convscope refuses on the smallest network of every family of timm.

python tests/timm_families.py FILE.json finds out; python docs/make_timm.py FILE.json writes the page.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import timm

METHODS = ("gradient", "grad_cam", "occlusion", "guided_backprop", "maximize")

SHORT = {
    r"the network uses (.+?), where": r"\1",
    r"the network multiplies by a mask": "a mask as factor",
    r"no ReLU lies between": "no ReLU",
    r"the network contains (\w+)": r"unknown: \1",
    r".* has no late layer with spatial positions": "name a layer",
    r".* does not depend on the patch tokens": "name an earlier layer",
    r"where the units of layer .* lie": "units moved: name a layer",
    r".*no gradient reached the picture": "no gradient at random weights",
}
"""What a refusal says, in a word or two."""

HEAD = """# timm's families

What happens on the smallest network of each of timm's {families} families (timm {version}, random weights, its own
size). The gradient and occlusion are compared with plain passes, the other methods must give finite numbers, and the
network itself must run afterwards as before. ✓ is right; otherwise it is said in words why not, here in short.
{right} of {total} are right, the others are refused, nothing is wrong. Guided backpropagation and the deconvnet are
rules for ReLU, so they refuse networks with GELU, SiLU or hard swish. `make nightly` repeats this, and
`python docs/make_timm.py` writes the page.

| family | network | {methods} |
|---|---|{rule}|
"""


def short(what: str) -> str:
    """Say in a word or two what happened."""
    if what == "right":
        return "✓"
    for pattern, words in SHORT.items():
        match = re.match(pattern, what)
        if match:
            return match.expand(words)
    raise ValueError(f"no short form of: {what}")


def page(found: dict[str, dict[str, Any]]) -> str:
    """Return the page as Markdown."""
    cells = {family: [short(entry["methods"].get(m, "")) for m in METHODS] for family, entry in found.items()}
    right = sum(cell == "✓" for row in cells.values() for cell in row)
    head = HEAD.format(
        families=len(found), version=timm.__version__, right=right, total=len(found) * len(METHODS),
        methods=" | ".join(f"`{m}`" for m in METHODS), rule="|".join("---" for _ in METHODS),
    )  # fmt: skip
    rows = [f"| {family} | {found[family]['network']} | {' | '.join(row)} |" for family, row in cells.items()]
    return head + "\n".join(rows) + "\n"


if __name__ == "__main__":
    results = json.loads(Path(sys.argv[1]).read_text())
    (Path(__file__).parent / "timm.md").write_text(page(results))
