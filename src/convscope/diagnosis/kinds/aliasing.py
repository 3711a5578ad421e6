"""Aliasing in the first layer, and frequencies that its filters leave out.

After Zeiler and Fergus (arXiv:1311.2901v3, sec. 4.1): filters of 11 x 11 in steps of 4 pixels were a mix of very low
and very high frequencies with little between, and the large step showed as aliasing one layer up; 7 x 7 in steps of 2
mended both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...sharing import hooked
from ...studies.intervals import bootstrap
from ..drawn import lines_of
from ..evidence import Evidence
from ..finding import Finding, Healthy, Said, Unseen
from ..grading import percent, severity, share_interval
from ..registration import kind
from ..sites import Site

_PICTURES = 64
_LEAST, _WORST = 0.2, 0.7
"""The share of what the first layer's middle filter picks up that folds over: reported from here on, and the worst.

The middle filter tells a large step from a few filters of fine detail, which layers with a step of 2 have as well.
"""

_HIGH = 0.3
"""Cycles a pixel from which on a frequency is high."""

_SMALLEST = 5
"""Pixels of a filter's side below which it tells no middle frequencies from others."""

_FEWEST = 16
_FEW = 0.1
"""The share of the filters below which middle frequencies are called missing."""

_MEASURE = "share of a filter's energy above the highest frequency that the layer's step can hold"


@kind(
    "aliasing",
    "Aliasing and missing frequencies in the first layer",
    helps="A smaller step in the first layer (2 rather than 4) with smaller filters (7 x 7 rather than 11 x 11), or a "
    "blur before the step.",
    disproof="The answer hardly changes when pictures are shifted by one pixel (convscope study invariance).",
)
def aliasing(evidence: Evidence) -> Iterator[Said]:
    """Look at the first convolution: what its step cannot hold, and which frequencies its filters see."""
    site = _first(evidence)
    if site is None:
        yield Unseen("aliasing", "the network has no convolution that reads pixels")
        return
    yield from _folded(evidence, site)
    yield from _left_out(site)


def _first(evidence: Evidence) -> Site | None:
    """Return the convolution that reads pixels."""
    channels = evidence.net.channels
    for site in evidence.sites:
        module = site.layer.module
        if isinstance(module, nn.Conv2d) and module.in_channels == channels and module.groups == 1:
            return site
    return None


def _folded(evidence: Evidence, site: Site) -> Iterator[Said]:
    module = site.layer.module
    assert isinstance(module, nn.Conv2d)
    step = max(module.stride)
    size = " x ".join(map(str, module.kernel_size))
    if step == 1:
        yield Healthy("aliasing", 0, f"{site.title} looks at every pixel ({size}, step 1), so that nothing folds over")
        return
    if step == max(module.kernel_size):
        yield Unseen(
            "aliasing",
            f"the windows of {site.title} ({size}, step {step}) are as large as its step: it cuts patches out",
        )
        return
    shares = _shares(evidence, site, module)
    n = len(shares)
    each = shares.mean(0)
    found = bootstrap(lambda rows: float(np.median(shares[rows].mean(0))), n, seed=evidence.seed)
    interval = None if np.isnan(found.low) else (found.low, found.high)
    told = f"of what the middle filter of {site.title} ({size}) picks up, {percent(found.value)} is finer than its step"
    told += f" of {step} pixels can hold"
    if found.value < _LEAST:
        yield Healthy("aliasing", n, told)
        return
    units = np.flatnonzero(each >= _LEAST).tolist()
    yield Finding(
        "aliasing",
        site.name,
        tuple(units),
        severity(found.value, _LEAST, _WORST),
        n,
        f"{told}: it comes out as coarser patterns that are not in the picture, and changes when the picture moves by "
        "a pixel",
        _MEASURE,
        found.value,
        interval,
        evidence=lines_of(
            list(range(1, len(each) + 1)),
            {"units": sorted(each.tolist(), reverse=True), "reported from": [_LEAST] * len(each)},
            (f"units of {site.title}, sorted", _MEASURE),
        ),
    )


def _shares(evidence: Evidence, site: Site, module: nn.Conv2d) -> np.ndarray:
    """Return the share of each picture's and filter's energy that folds over, (pictures, units)."""
    _, pixels = evidence.sample(_PICTURES)
    read: list[Tensor] = []

    def keep(_: nn.Module, inputs: Any, __: Any) -> None:
        read.append(inputs[0].detach())

    rows: list[np.ndarray] = []
    for batch in evidence.batches(pixels):
        read.clear()
        with torch.inference_mode(), hooked([(module, keep)]):
            evidence.net(batch)
            for inputs in read:
                dense = F.conv2d(inputs, module.weight, None, 1, 0, module.dilation)
                rows.append(_beyond(dense.float(), module.stride).cpu().numpy())  # type: ignore[arg-type]
    return np.concatenate(rows)


def _beyond(dense: Tensor, steps: tuple[int, int]) -> Tensor:
    """Return the share of maps' (n, units, h, w) energy at frequencies that steps cannot hold, (n, units)."""
    height, width = dense.shape[2:]
    window = torch.outer(torch.hann_window(height + 2)[1:-1], torch.hann_window(width + 2)[1:-1]).to(dense)
    centred = dense - (dense * window).sum((2, 3), keepdim=True) / window.sum()
    energy = torch.fft.fft2(centred * window).abs().square()
    y = torch.fft.fftfreq(height, device=dense.device).abs() > 0.5 / steps[0]
    x = torch.fft.fftfreq(width, device=dense.device).abs() > 0.5 / steps[1]
    beyond = y[:, None] | x[None]
    return (energy * beyond).sum((2, 3)) / energy.sum((2, 3)).clamp(min=1e-20)


def _left_out(site: Site) -> Iterator[Said]:
    """Look for filters between the lowest and the highest frequencies."""
    module = site.layer.module
    assert isinstance(module, nn.Conv2d)
    side, count = min(module.kernel_size), module.out_channels
    if side < _SMALLEST or count < _FEWEST:
        return
    peaks = peak_frequencies(module.weight.detach().float().cpu())
    low = 1 / side
    between = int(((peaks >= low) & (peaks < _HIGH)).sum())
    share, interval = between / count, share_interval(between, count)
    told = f"{between} of {count} filters of {site.title} see frequencies of {low:.2g} to {_HIGH:.2g}"
    if share >= _FEW or interval[1] >= 2 * _FEW:  # of few filters chance alone may leave out a band
        yield Healthy("aliasing", count, f"{told} cycles a pixel most, between the lowest and the highest")
        return
    yield Finding(
        "aliasing",
        site.name,
        tuple(range(count)),
        severity(_FEW - share, 0, _FEW),
        count,
        f"only {told} cycles a pixel most; the others see what is coarser or finer, and nothing between",
        "share of the filters that see middle frequencies most",
        share,
        interval,
        evidence=lines_of(
            list(range(1, count + 1)),
            {"filters": sorted(peaks.tolist()), "low": [low] * count, "high": [_HIGH] * count},
            (f"filters of {site.title}, sorted", "frequency seen most, cycles a pixel"),
        ),
    )


def peak_frequencies(weights: Tensor) -> Tensor:
    """Return the frequency in cycles a pixel at which each filter (units, c, h, w) is most sensitive, (units,)."""
    side = 64
    energy = torch.fft.fft2(weights, s=(side, side)).abs().square().sum(1)
    frequency = torch.fft.fftfreq(side)
    radius = torch.hypot(frequency[:, None], frequency[None]).flatten()
    return radius[energy.flatten(1).argmax(1)]
