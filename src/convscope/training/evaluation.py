"""Held-out pictures as a network reads them, and which of them it classifies correctly."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torchvision.transforms import v2

from ..data.batches import Prepared, Share, batches
from ..net import Net
from .checkpoint import State
from .machines import gathered, share_of_work
from .run import Run


def correct(run: Run, state: State) -> list[bool]:
    """Return for every held-out picture that could be read whether the network's top-1 is its class."""
    hits: list[Tensor] = []
    for pixels, labels in held_out(run, state.net, state):
        with torch.inference_mode():
            hits.append(state.net(pixels).argmax(1).eq(labels).cpu())
    return gathered(torch.cat(hits).tolist() if hits else [])


def held_out(
    run: Run, net: Net, state: State | None = None, size: int | None = None
) -> Iterable[tuple[Tensor, Tensor]]:
    """Load the held-out pictures as the network reads them: pixels (n, c, h, w) in [0, 1] and classes (n,)."""
    side = size or run.blueprint.size
    fit = net.fit.scaled(side)
    look = v2.Compose([v2.Resize(fit.resize, antialias=True), v2.CenterCrop(side), v2.PILToTensor()])
    prepared = Prepared(run.hold, [look], run.blueprint.channels, run.seed)
    share = share_of_work() if state else Share()
    for batch in batches(prepared, 250, share=share, workers=run.workers):
        if state:
            state.note_unreadable(run.hold, batch.unreadable)
        if len(batch.labels):
            yield (batch.pixels.to(run.device).float() / 255), batch.labels.to(run.device)
