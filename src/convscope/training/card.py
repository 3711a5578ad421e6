"""The model card: what a network was trained on, how, its accuracy, and which of its units are dead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..context import track
from ..net import Net
from ..outputs import write_text
from ..tapping import tap
from ..zoo.runs import History
from .evaluation import held_out
from .run import CARD, Run

_LARGER = (1.0, 1.5, 2.0, 2.5)


@dataclass(frozen=True)
class Measured:
    """How good a network is on the held-out pictures.

    `accuracy` maps the input's side in pixels to the top-1 accuracy, `top5` to the top-5; `per_class` is top-1 at the
    network's own size; `dead` maps a rectifier's name to the share of its channels that no held-out picture excites.
    """

    accuracy: dict[int, float]
    top5: dict[int, float]
    per_class: dict[str, float]
    dead: dict[str, float]


def write_card(run: Run, history: History, net: Net) -> Path:
    """Measure the finished network and write its card into the run's folder."""
    with torch.random.fork_rng(devices=[]):  # loading pictures draws a number
        text = card(history, net, measure(run, net))
    return write_text(run.folder / CARD, text)


def measure(run: Run, net: Net) -> Measured:
    """Run the network over the held-out pictures, at its own size and, where it can, at larger ones."""
    sides = [round(run.blueprint.size * share) for share in (_LARGER if run.blueprint.any_size else (1.0,))]
    accuracy, top5 = dict[int, float](), dict[int, float]()
    per_class: dict[str, float] = {}
    fired: dict[str, Tensor] = {}
    for side in track(sides, "card"):
        ranks, labels = _ranks(run, net, side, fired if side == sides[0] else None)
        accuracy[side] = float((ranks == 0).cpu().double().mean())
        top5[side] = float((ranks < 5).cpu().double().mean())
        if side == sides[0]:
            right = [(name, ranks[labels == label] == 0) for label, name in enumerate(net.classes)]
            per_class = {name: float(hits.cpu().double().mean()) for name, hits in right if len(hits)}
    dead = {name: 1 - float(seen.cpu().double().mean()) for name, seen in fired.items()}
    return Measured(accuracy, top5, per_class, dead)


def _ranks(run: Run, net: Net, side: int, fired: dict[str, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Return the rank (from 0) of every held-out picture's class among the scores, and the class."""
    ranks: list[Tensor] = []
    labels: list[Tensor] = []
    relus = [name for name, part in net.body.named_modules() if isinstance(part, nn.ReLU)]
    for pixels, own in held_out(run, net, size=side):
        with torch.inference_mode():
            seen = tap(net, pixels, ["", *(relus if fired is not None else [])])
        scores = seen.pop("")
        ranks.append((scores > scores.gather(1, own[:, None])).sum(1).cpu())
        labels.append(own.cpu())
        for name, values in seen.items() if fired is not None else ():
            alive = values.flatten(2).amax((0, 2)) > 0 if values.ndim > 2 else values.amax(0) > 0
            fired[name] = fired[name] | alive.cpu() if name in fired else alive.cpu()  # type: ignore[index]
    return torch.cat(ranks), torch.cat(labels)


def card(history: History, net: Net, measured: Measured) -> str:
    """Return the card as Markdown."""
    settings = history.settings
    minutes = sum(epoch.seconds for epoch in history.epochs) / 60
    parameters = sum(p.numel() for p in net.body.parameters())
    own = next(iter(measured.accuracy))
    blocks = [
        f"# {history.network}",
        f"{parameters:,} parameters, {len(history.classes)} classes, trained by this project.",
        f"## Data\n\n{history.about or 'Not described (`--about`).'}\n\n"
        f"{settings['pictures']:,} pictures to learn from, {settings['held out']:,} held out and never learned from; "
        f"{len(history.unreadable)} could not be read.",
        "## Recipe\n\n"
        + _table(
            ["setting", "value"],
            [[key, str(value)] for key, value in settings.items() if key != "network" and value is not None],
        ),
        f"## Machine\n\n{history.machine}; {minutes:.0f} minutes.",
        "## Accuracy on the held-out pictures\n\n"
        + _table(
            ["input (px)", "top-1", "top-5"],
            [[str(side), f"{share:.2%}", f"{measured.top5[side]:.2%}"] for side, share in measured.accuracy.items()],
        )
        + ("\n\nLarger inputs are the same pictures enlarged." if len(measured.accuracy) > 1 else ""),
        "## Snapshots\n\n"
        + _table(
            ["epoch", "loss", "accuracy"],
            [[str(e.epoch), f"{e.loss:.3f}", f"{e.accuracy:.2%}"] for e in history.snapshots],
        ),
        "## Units that no held-out picture excites\n\n"
        + _table(["layer", "share of channels"], [[name, f"{share:.1%}"] for name, share in measured.dead.items()]),
        f"## Accuracy per class, at {own} pixels\n\n"
        + _table(
            ["class", "accuracy"],
            [[name, f"{share:.0%}"] for name, share in sorted(measured.per_class.items(), key=lambda item: -item[1])],
        ),
    ]
    return "\n\n".join(blocks) + "\n"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
