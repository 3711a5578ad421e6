"""Scores of single detections, for networks that return boxes instead of class scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import NetworkError, OptionError


def box_score(
    box: Sequence[float], label: int, *, called: str = ""
) -> Callable[[Sequence[Mapping[str, Tensor]]], Tensor]:
    """Score a label in a box of a detector, for `Net(detector, output=box_score(box, label))`.

    Args:
        box: (left, top, right, bottom) in pixels of the network's input, as the detector gives it.
        label: the label's number.
        called: what captions call the label.

    Returns a function of what torchvision's detectors return, one dict of boxes, labels and scores per picture, to one
    number per picture (n,): of all detections of that label, the largest score times overlap with the box
    (intersection over union), after Petsiuk et al. 2021, arXiv:2006.03204, sec. 3.2. Without such a detection it is 0:
    a box that vanishes behind a square has lost all of its score. Gradients are those of the score; the overlap is
    taken as a constant. Raises OptionError for a box without an area.
    """
    left, top, right, bottom = (float(number) for number in box)
    if right <= left or bottom <= top:
        raise OptionError(f"a box is (left, top, right, bottom), not {(left, top, right, bottom)}")
    return _BoxScore((left, top, right, bottom), int(label), called)


@dataclass(frozen=True)
class _BoxScore:
    box: tuple[float, float, float, float]
    label: int
    called: str

    def __call__(self, detections: Any) -> Tensor:
        try:
            return torch.stack(
                [self._best(detected["boxes"], detected["labels"], detected["scores"]) for detected in detections]
            )
        except (KeyError, TypeError, IndexError):
            raise NetworkError(
                "box_score reads a list of dicts with 'boxes', 'labels' and 'scores', as torchvision's detectors "
                f"return it, not {type(detections).__name__}: give a function of your own, Net(..., output=lambda ...)"
            ) from None

    def _best(self, boxes: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
        nearby = scores * self._overlap(boxes.detach()).to(scores) * (labels == self.label)
        # The sum of no scores is a zero that still has a gradient.
        return nearby.max() if len(nearby) else nearby.sum()

    def _overlap(self, boxes: Tensor) -> Tensor:
        own = boxes.new_tensor(self.box)
        sides = (torch.minimum(boxes[:, 2:], own[2:]) - torch.maximum(boxes[:, :2], own[:2])).clamp(min=0)
        common = sides.prod(1)
        return common / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + (own[2:] - own[:2]).prod() - common)

    def __str__(self) -> str:
        left, top, right, bottom = (round(number) for number in self.box)
        return f"{self.called or f'label {self.label}'} in the box ({left}, {top}, {right}, {bottom})"
