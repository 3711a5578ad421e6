"""`load`: a network by name, with weights from its library, from a file, or random."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path

import torch

from ..errors import NetworkError, nearest
from ..net import Net
from . import lenet, torchvision_models
from .weights import fit_weights, read_weights

DEFAULT = "lenet5"
"""The network of the command line when none is named; it needs no download."""

SEED = 0


def load(name: str, *, weights: str | Path | None = "default", device: str | torch.device | None = None) -> Net:
    """Load a network by name.

    Args:
        name: "lenet5", which ships with the package, or "torchvision:alexnet" and every other classification network
            of torchvision.
        weights: "default" for the library's own (downloaded once into torch's cache), the path of a .safetensors, .pt
            or .pth file, or None (on the command line "none") for random weights with a fixed seed, which every
            caption then says.
        device: where to put it; the CPU by default.

    Raises NetworkError for an unknown name, WeightsError when weights cannot be read, do not fit or are not finite.
    """
    prefix, _, model = name.partition(":")
    builder = BUILDERS.get(prefix if model else name)
    if builder is None:
        known = nearest(name, names())
        wanted = "" if model or name not in torchvision_models.names() else f" Did you mean 'torchvision:{name}'?"
        raise NetworkError(f"there is no network {name!r}; nearest: {known}.{wanted}")
    if isinstance(weights, str) and weights.lower() == "none":
        weights = None
    if weights is not None and weights != "default":
        weights = Path(weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        net = builder(model, weights)
    return net if device is None else net.to(device)


def names() -> list[str]:
    """List every name that `load` knows."""
    return ["lenet5", *(f"torchvision:{model}" for model in torchvision_models.names())]


def _lenet5(model: str, weights: str | Path | None) -> Net:
    if model:
        raise NetworkError(f"there is no network 'lenet5:{model}'; it is called 'lenet5'")
    body = lenet.lenet5()
    if weights is not None:
        shipped = Path(str(resources.files(__name__.rpartition(".")[0]) / "lenet5.safetensors"))
        path = shipped if weights == "default" else Path(weights)
        fit_weights(body, read_weights(path), network="lenet5")
    note = f"random weights, seed {SEED}" if weights is None else ""
    digits = [str(digit) for digit in range(10)]
    return Net(body, mean=lenet.MEAN, std=lenet.STD, size=28, classes=digits, name="lenet5", note=note)


BUILDERS: dict[str, Callable[[str, str | Path | None], Net]] = {
    "lenet5": _lenet5,
    "torchvision": lambda model, weights: torchvision_models.build(model, weights, seed=SEED),
}
