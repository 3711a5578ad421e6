"""Which normalisation a network was trained with, where nobody said it: how right it is under the usual ones.

A network that reads pixels otherwise than it was trained to is wrong more often, and with labels at hand that shows.
"""

from __future__ import annotations

from typing import Any

import torch

from ..assumptions import NOT_NORMALISED, Assumption
from ..context import say
from ..data.loading import read_ahead
from ..data.pictures import Indexed, Pictures
from ..data.preprocessing import Size
from ..net import Net
from ..predictions import answers
from .truth import Truth

_MOST = 64
"""Pictures that are tried, spread evenly over all."""

_FEWEST = 8
_CLEARLY = 0.1
"""How much more of the pictures must be right under one normalisation than under another."""

_COLOURS = {"--mean imagenet": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}}
_USUAL: dict[str, dict[str, Any]] = {
    "--mean 0.5 --std 0.5": {"mean": 0.5, "std": 0.5},
    "--mean 0 --std 0.00392157": {"mean": 0.0, "std": 1 / 255},
}


def say_likelier_normalisation(net: Net, pictures: Pictures, truth: Truth, size: Size | None) -> None:
    """Say under which of the usual normalisations a network is right more often, where none was given.

    Nothing is said where fewer than 8 pictures of a sample of 64 have labels, and where no other one stands out.
    """
    listed = all(isinstance(part, Indexed) for part in pictures.parts)
    if NOT_NORMALISED not in net.assumptions or not truth.known or not listed:
        return
    pixels = _labelled(net, pictures, truth, size)
    if len(pixels) < _FEWEST:
        return
    own = _right(net, pixels)
    usual = {way: _right(net.changed(**units), pixels) for way, units in _ways(net.channels).items()}
    way = max(usual, key=lambda each: usual[each])
    if usual[way] - own >= _CLEARLY * len(pixels):
        text = (
            f"of {len(pixels)} labelled pictures {own} are right with pixels as they are, and {usual[way]} with {way}, "
            "the most of the usual normalisations: state that one"
        )
        say(Assumption(text, f"right more often with {way}", ("mean", "std")))


def _labelled(net: Net, pictures: Pictures, truth: Truth, size: Size | None) -> list[tuple[torch.Tensor, int]]:
    """Return the pixels of pictures spread evenly over all, and the class of each, where both are to be had."""
    count = len(pictures)
    # Pictures of a class often lie side by side.
    sample = [pictures[index] for index in dict.fromkeys(i * count // _MOST for i in range(_MOST))] if count else []
    labelled = [(picture, true) for picture in sample if (true := truth.of(picture)) is not None]
    loaded = read_ahead([picture for picture, _ in labelled], lambda content: net.prepare(content, size=size))
    pairs = zip(loaded, labelled, strict=True)
    return [(net.pixels(one.value), true) for one, (_, true) in pairs if one.value is not None]


def _ways(channels: int) -> dict[str, dict[str, Any]]:
    return {**(_COLOURS if channels == 3 else {}), **_USUAL}


def _right(net: Net, pixels: list[tuple[torch.Tensor, int]]) -> int:
    """Count the pictures whose first choice is their label; of one probability, those on its side of a half."""
    count = 0
    for picture, true in pixels:
        numbers = answers(net, picture)[1][0]
        count += int(numbers.argmax() if len(numbers) > 1 else numbers[0] >= 0.5) == true
    return count
