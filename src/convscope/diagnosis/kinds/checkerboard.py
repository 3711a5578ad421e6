"""Checkerboard patterns from layers that enlarge their input in steps.

After Odena, Dumoulin and Olah, "Deconvolution and checkerboard artifacts" (Distill, 2016): where a transposed
convolution's window is no multiple of its step, some positions are written to more often than others.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ...layers import picture_layers
from ...studies.intervals import bootstrap
from ...tapping import tap
from ...tracing import Layer
from ..drawn import Drawn, lines_of, maps
from ..evidence import Evidence
from ..finding import Finding, Healthy, Said
from ..grading import percent, severity
from ..registration import kind
from ..sites import named

_PICTURES = 32
_LEAST, _WORST = 0.25, 1.0
"""How much the strength of answers differs from position to position of a step, of its mean."""

_MEASURE = "deviation of the answers' energy over the positions of a step, of its mean"


@kind(
    "checkerboard",
    "Checkerboard patterns",
    helps="A window that is a multiple of the step (4 for steps of 2), or enlarging by interpolation with a plain "
    "convolution behind; for sub-pixel convolutions the same start for all positions of a step (ICNR).",
    disproof="The layer's answers to an even picture show no pattern that repeats with the step.",
)
def checkerboard(evidence: Evidence) -> Iterator[Said]:
    """Look for layers that enlarge, and answer more strongly at some positions of each step than at others."""
    layers = [(layer, step) for layer in picture_layers(evidence.net) if (step := _step(layer)) != (1, 1)]
    if not layers:
        yield Healthy(
            "checkerboard", 0, "no layer of the network enlarges its input in steps, so that none leaves a pattern"
        )
        return
    found, most, where = False, 0.0, ""
    for layer, step in layers:
        energy = _energies(evidence, layer, step)
        value = bootstrap(lambda rows, energy=energy: _uneven(energy[rows]), len(energy), seed=evidence.seed)
        if value.value < _LEAST:
            most, where = (value.value, named(layer)) if value.value >= most else (most, where)
            continue
        found = True
        yield _finding(evidence, layer, step, energy, (value.value, value.low, value.high))
    if not found:
        told = (
            f"the answers of {len(layers)} layers that enlarge are as strong at all positions of a step: they differ by"
        )
        yield Healthy("checkerboard", _PICTURES, f"{told} {percent(most)} of their mean at most, in {where}")


def _step(layer: Layer) -> tuple[int, int]:
    """Return by how much a layer enlarges its input, in rows and columns."""
    module = layer.module
    if isinstance(module, nn.ConvTranspose2d) and layer.spatial:
        return tuple(module.stride)  # type: ignore[return-value]
    if isinstance(module, nn.PixelShuffle) and layer.spatial:
        return module.upscale_factor, module.upscale_factor
    return 1, 1


def _energies(evidence: Evidence, layer: Layer, step: tuple[int, int]) -> np.ndarray:
    """Return the energy of answers at each position of a step, (pictures, units, positions), away from the border."""
    _, pixels = evidence.sample(_PICTURES)
    rows: list[Tensor] = []
    with torch.inference_mode():
        for batch in evidence.batches(pixels):
            maps = tap(evidence.net, batch, [layer.name])[layer.name].float()
            maps = maps - maps.mean((0, 2, 3), keepdim=True)
            (top, left), (high, wide) = _inside(maps, step)
            inner = maps[:, :, top : top + high * step[0], left : left + wide * step[1]]
            parts = inner.unflatten(3, (wide, step[1])).unflatten(2, (high, step[0]))
            rows.append(parts.square().mean((2, 4)).flatten(2).cpu())
    return torch.cat(rows).numpy()


def _inside(maps: Tensor, step: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return where to begin, and how many whole steps there are, with two steps left out at the border if possible."""
    counts = [size // each for size, each in zip(maps.shape[2:], step, strict=True)]
    border = [2 if count > 6 else 0 for count in counts]
    starts = [edge * each for edge, each in zip(border, step, strict=True)]
    whole = [count - 2 * edge for count, edge in zip(counts, border, strict=True)]
    return (starts[0], starts[1]), (whole[0], whole[1])


def _uneven(energy: np.ndarray) -> float:
    """Return how much energy (pictures, units, positions) differs over positions, of its mean: the middle unit's."""
    each = energy.mean(0)
    return float(np.median(each.std(1) / np.maximum(each.mean(1), 1e-20)))


def _finding(
    evidence: Evidence, layer: Layer, step: tuple[int, int], energy: np.ndarray, value: tuple[float, float, float]
) -> Finding:
    module, each = layer.module, energy.mean(0)
    of = "x".join(map(str, step))
    uneven = isinstance(module, nn.ConvTranspose2d) and any(
        size % by for size, by in zip(module.kernel_size, module.stride, strict=True)
    )
    why = ""
    if uneven and isinstance(module, nn.ConvTranspose2d):
        size = "x".join(map(str, module.kernel_size))
        why = f": its window of {size} is no multiple of the step, so that positions are written to unevenly often"
    relative = np.sqrt(each / np.maximum(each.mean(1, keepdims=True), 1e-20))
    units = np.flatnonzero(each.std(1) / np.maximum(each.mean(1), 1e-20) >= _LEAST).tolist()
    return Finding(
        "checkerboard",
        layer.name,
        tuple(units),
        severity(value[0], _LEAST, _WORST),
        len(energy),
        f"the answers of {named(layer)} differ in strength from position to position of each {of} step, their energy "
        f"by {percent(value[0])} of its mean{why}",
        _MEASURE,
        value[0],
        None if np.isnan(value[1]) else (value[1], value[2]),
        evidence=_drawn(evidence, layer, units, relative),
    )


def _drawn(evidence: Evidence, layer: Layer, units: list[int], relative: np.ndarray) -> Drawn:
    """Draw the pattern where the layer's units are at hand, else the strength at each position of the step."""
    site = next((site for site in evidence.sites if site.layer.name == layer.name), None)
    if site is not None:
        return maps(evidence, site, units[:3], 4)
    return lines_of(
        list(range(relative.shape[1])),
        {f"unit {unit}": relative[unit].tolist() for unit in units[:6]},
        ("position of the step, by rows", "strength, of the unit's mean"),
    )
