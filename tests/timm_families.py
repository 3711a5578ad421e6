"""One small network of every family of timm: what convscope makes of it, compared with plain passes.

python tests/timm_families.py FILE.json writes what happens for all of them (about an hour on one core);
docs/make_timm.py makes a page of it.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convscope import Net, explain, load, maximize
from convscope.errors import ConvscopeError

Row = dict[str, str]
"""What happens by each method: "right", "WRONG ...", "CRASH ..." or a refusal's words."""


def families() -> Iterator[tuple[str, str]]:
    """Yield each family of timm and its smallest network that reads colour pictures of up to 256 pixels."""
    import timm

    for family in timm.list_modules():
        sizes: list[tuple[int, str]] = []
        for name in timm.list_models(module=family):
            try:
                with torch.device("meta"), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    body = timm.create_model(name)
            except Exception:  # not every network can be made without data
                continue
            channels, height, _ = body.default_cfg.get("input_size", (3, 224, 224))
            if channels == 3 and height <= 256:
                sizes.append((sum(p.numel() for p in body.parameters()), name))
        if sizes:
            yield family, min(sizes)[1]


def tried(name: str) -> Row:
    """Load a network with random weights and try it by each method."""
    torch.manual_seed(0)
    row: Row = {}
    try:
        net = load(f"timm:{name}", weights=None)
    except ConvscopeError as error:
        return {"load": str(error)}
    pixels = torch.rand(1, 3, *net.size)
    for method, check in CHECKS.items():
        try:
            row[method] = check(net, pixels)
        except ConvscopeError as error:
            row[method] = str(error)
        except Exception as error:  # what this is to find
            row[method] = f"CRASH {type(error).__name__}: {error}"
    return row


def _body_after_layers(net: Net, pixels: Tensor) -> str:
    """Whether the user's own network runs after its layers have been listed."""
    assert net.layers
    net.body.eval()(pixels)
    return "right"


def _gradient(net: Net, pixels: Tensor) -> str:
    leaf = pixels.clone().requires_grad_()
    (expected,) = torch.autograd.grad(net(leaf)[0, 3], leaf)
    got = torch.as_tensor(explain(net, pixels, "gradient", of="3").values)
    return _compared(got - expected[0], float(expected.abs().max()), 1e-3)


def _occlusion(net: Net, pixels: Tensor) -> str:
    """A grid of squares that touch, so that a map holds each square's score."""
    height, width = net.size
    side = height // 4
    values = torch.as_tensor(explain(net, pixels, "occlusion", of="3", patch=side, stride=side).values)[0]
    mean = torch.tensor(net.mean).view(1, -1, 1, 1)
    got: list[Tensor] = []
    expected: list[Tensor] = []
    with torch.no_grad():
        base = net(pixels)[0, 3]
        for y in range(0, height - side + 1, side):
            for x in range(0, width - side + 1, side):
                picture = pixels.clone()
                picture[:, :, y : y + side, x : x + side] = mean
                expected.append(base - net(picture)[0, 3])
                got.append(values[y + side // 2, x + side // 2])
    right = torch.stack(expected)
    return _compared(torch.stack(got) - right, float(right.max() - right.min()), 1e-2)


def _compared(difference: Tensor, extent: float, share: float) -> str:
    off = float(difference.abs().max())
    return "right" if off <= share * extent + 1e-6 else f"WRONG by {off / max(extent, 1e-9):.2g} of the range"


def _made_by(make: Callable[[Net, Tensor], Any]) -> Callable[[Net, Tensor], str]:
    def check(net: Net, pixels: Tensor) -> str:
        values = make(net, pixels).values
        arrays = list(values.values()) if isinstance(values, dict) else [values]
        return "right" if all(np.isfinite(array).all() for array in arrays) else "WRONG: not finite"

    return check


CHECKS: dict[str, Callable[[Net, Tensor], str]] = {
    "layers": _body_after_layers,
    "gradient": _gradient,
    "grad_cam": _made_by(lambda net, pixels: explain(net, pixels, "grad_cam", of="3")),
    "occlusion": _occlusion,
    "guided_backprop": _made_by(lambda net, pixels: explain(net, pixels, "guided_backprop", of="3")),
    "maximize": _made_by(lambda net, pixels: maximize(net, of="3", steps=2)),
}


def faults(row: Row) -> Row:
    """Return what must not happen."""
    return {method: what for method, what in row.items() if what.startswith(("WRONG", "CRASH"))}


def main(path: str) -> int:
    warnings.simplefilter("ignore")
    found: dict[str, dict[str, Any]] = {}
    for family, name in families():
        found[family] = {"network": name, "methods": tried(name)}
        print(family, name, faults(found[family]["methods"]) or "nothing wrong", flush=True)
        Path(path).write_text(json.dumps(found, indent=1))
    return any(faults(entry["methods"]) for entry in found.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
