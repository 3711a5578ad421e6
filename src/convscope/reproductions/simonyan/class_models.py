"""Fig. 1: class models, by the score and by the posterior, and the closed form of a linear score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...attribution.gradient import gradients
from ...drawing.drawings import Gallery
from ...drawing.layout import Sheet, Tile, enlarged, number
from ...net import Net
from ...objectives import as_objective
from ...predictions import answers
from ...studies.intervals import Interval, bootstrap, wilson
from ...synthesis.class_model import PRESETS, class_model, regularised, with_contrast
from ...synthesis.many import Settings
from ..claims import Statement, above
from ..registration import Found, Unfit, experiment
from ..subject import Subject

_ABOVE = Statement(
    "class-model-scores-highest",
    "A class model has a higher score than pictures of the class",
    rule="the class models of more than half of the classes, by the interval over classes, have a higher unnormalised "
    "score than any picture of the data.",
    paper="twelve pictures (dumbbell, cup, dalmatian, bell pepper, lemon, husky, washing machine, computer keyboard, "
    "kit fox, goose, ostrich, limousine), and no numbers.",
)
_POSTERIOR = Statement(
    "posterior-less-prominent",
    "Where the posterior is maximised instead of the score, the class stands out less",
    rule="with the same start, steps and lambda, the logarithm of the posterior leaves the class's score lower: the "
    "interval of the difference over classes lies above 0.",
    paper='its pictures are "not visually prominent"; no numbers.',
)
_OTHERS = Statement(
    "posterior-lowers-others",
    "The posterior rises mostly by lower scores of the other classes",
    rule="of what the score of the class less the log-sum-exp of the others gains from the zero image on, the others' "
    "part is more than half, with its interval over classes.",
    paper="the posterior can be raised by lowering the other classes: its reason for maximising the score; no numbers.",
)
_LINEAR = Statement(
    "closed-form",
    "For a linear score the class model is w / (2 lambda)",
    rule="for linear scores whose weights are the network's own gradients, the ascent of the class models ends within "
    "0.001% of it.",
    paper="follows from the problem that is stated: the maximum of w.I - lambda |I|².",
)

_NEAR = 1e-5
_SIDE = 170


@experiment(
    "simonyan",
    20,
    "Fig. 1",
    "Class models",
    did="from the zero image, the score S_c(I) - lambda |I|², before the softmax, was maximised by back-propagation, "
    "and the mean image added; twelve classes are shown. It names neither lambda nor step nor number of steps.",
    differs="lambda is measured for each class, so that values stay in the range of pixels; Adam with a rate of 0.01. "
    "The contrast of the pictures is raised for the eye, by the same factor for score and posterior. Of the posterior "
    "the logarithm is maximised, which has the same maximum and is in units of the score.",
    claims=(_ABOVE, _POSTERIOR, _OTHERS, _LINEAR),
    work=3,
)
def class_models(subject: Subject) -> Found:
    """Make class models by score and by posterior, and compare their scores with those of pictures."""
    net = subject.net
    if len(net.output.shape) != 1 or net.output.shape[0] < 2:
        raise Unfit(f"{net.name} has outputs of shape {net.output.shape}: a class model needs scores of two classes")
    if net.head.kind != "softmax":
        raise Unfit(f"{net.name} gives {net.head.word}: the paper's posterior is a softmax of unnormalised scores")
    pictures = subject.some(1000, 200)
    classes, steps = _classes(subject, subject.number(8, 4, 4)), subject.number(128, 96, 32)
    kept = subject.kept("class-models", pictures, lambda: _made(net, classes, steps), classes=classes, steps=steps)
    found = _Models(net, classes, kept["models"], kept["posterior"], kept["lambdas"])
    best = _scores_of(subject, pictures).amax(0)[classes]
    won = wilson(int((found.own("models") > best).sum()), len(classes))
    lower = _over(found.own("models") - found.own("posterior"), subject.seed)
    fall = found.others("start") - found.others("posterior")
    share = _over(fall / (fall + found.raised()), subject.seed)
    claims = [
        _ABOVE.judged(
            above(won, 0.5),
            f"{won.value:.0%} [{won.low:.0%}, {won.high:.0%}] of {len(classes)} classes: scores of "
            f"{number(float(found.own('models').mean()))} on average, of pictures {number(float(best.mean()))} at most "
            f"({len(pictures):,} pictures); probabilities of the classes {_range(found.shares('models'))}.",
            numbers={"share": won},
            reason="too few classes to tell",
        ),
        _POSTERIOR.judged(
            above(lower),
            f"The class's score is {_between(lower)} lower by the posterior, which reaches "
            f"{_range(found.shares('posterior'))}, by the score {_range(found.shares('models'))}.",
            numbers={"difference": lower},
            reason="too few classes to tell",
        ),
        _OTHERS.judged(
            above(share, 0.5),
            f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}] of the gain is the fall of the others".replace(
                "-", "−"
            )
            + f", {number(float(fall.mean()))} on average.",
            numbers={"share": share},
            reason="too few classes to tell",
        ),
        _closed_form(subject, found),
    ]
    did = (
        f"{len(classes)} classes drawn at random (seed {subject.seed}), {steps} steps from the zero image, lambda "
        f"{number(float(found.lambdas.min()))} to {number(float(found.lambdas.max()))}."
    )
    return Found(did, claims, figures=[_figure(found)])


def _classes(subject: Subject, count: int) -> list[int]:
    """Draw classes at random: of those that the data shows, where these are the network's."""
    known = {answer for answer in subject.data.answers if answer is not None} if subject.known else set[int]()
    existing = sorted(known) or [*range(subject.net.output.shape[0])]
    drawn = np.random.default_rng(subject.seed).permutation(existing)[:count]
    return sorted(int(each) for each in drawn)


def _made(net: Net, classes: Sequence[int], steps: int) -> dict[str, Tensor]:
    """Maximise scores and log-posteriors of classes alike."""
    by_score = class_model(net, of=list(classes), preset="paper", steps=steps)
    lambdas = by_score.values["lambdas"]
    preset = PRESETS["paper"]
    settings = Settings(replace(preset, optimizer=replace(preset.optimizer, steps=steps)))
    objectives = [as_objective(net, _posterior(each)) for each in classes]
    results, _ = regularised(net, objectives, lambdas.tolist(), settings)
    posterior = torch.cat([results[at].pixels for at in range(len(classes))])
    return {"models": by_score.values["models"].cpu(), "posterior": posterior.cpu(), "lambdas": lambdas}


def _posterior(index: int) -> Callable[[Tensor], Tensor]:
    def log_posterior(scores: Tensor) -> Tensor:
        return scores[:, index] - scores.logsumexp(1)

    return log_posterior


@dataclass(frozen=True)
class _Models:
    """Pictures (classes, c, h, w) by score and by posterior."""

    net: Net
    classes: Sequence[int]
    models: Tensor
    posterior: Tensor
    lambdas: Tensor

    @property
    def start(self) -> Tensor:
        """The picture from which all begin: zero, and the mean."""
        mean = torch.tensor(self.net.mean)[None, :, None, None]
        return mean.expand_as(self.models)

    def raised(self) -> Tensor:
        """Return by how much the posterior raises the score of each class."""
        return self.own("posterior") - self.own("start")

    def scores(self, by: str) -> Tensor:
        with torch.inference_mode():
            return self.net(getattr(self, by).to(self.net.device)).double().cpu()

    def own(self, by: str) -> Tensor:
        """Return the score of each model for its own class."""
        return self.scores(by)[range(len(self.classes)), list(self.classes)]

    def others(self, by: str) -> Tensor:
        """Return the log-sum-exp of each model's scores for all other classes."""
        scores = self.scores(by).clone()
        scores[range(len(self.classes)), list(self.classes)] = -torch.inf
        return scores.logsumexp(1)

    def shares(self, by: str) -> Tensor:
        """Return the probability of each model for its own class."""
        return answers(self.net, getattr(self, by).to(self.net.device))[1].cpu()[
            range(len(self.classes)), list(self.classes)
        ]


def _scores_of(subject: Subject, pictures: Any) -> Tensor:
    """Return the unnormalised scores of pictures (n, classes)."""
    with torch.inference_mode():
        return torch.cat([subject.net(pixels).double().cpu() for _, pixels in pictures.batches()])


def _over(values: Tensor, seed: int) -> Interval:
    numbers = values.numpy()
    return bootstrap(lambda rows: float(numbers[rows].mean()), len(numbers), seed=seed)


def _closed_form(subject: Subject, found: _Models) -> Any:
    """Give the ascent linear scores, whose maximum is known."""
    net, steps = subject.net, 80
    (_, first), *_ = subject.some(8, 8).batches(1)
    objectives = [as_objective(net, each) for each in found.classes[:2]]
    weights = gradients(net, first, objectives).flatten(1).cpu()
    linear = nn.Linear(weights.shape[1], 2, bias=False)
    linear.weight.data.copy_(weights)
    score = Net(
        nn.Sequential(nn.Flatten(), linear), mean=net.mean, size=(first.shape[2], first.shape[3]), channels=net.channels
    )
    off = list[float]()
    for at in range(2):
        l2 = float(found.lambdas[at])
        made = class_model(score, of=at, l2=l2, preset="paper", optimizer="ascent", rate=0.3 / l2, steps=steps)
        mean = torch.tensor(net.mean)[:, None, None]
        exact = weights[at].reshape(first.shape[1:]) / (2 * l2)
        off.append(float((made.values["models"][0].cpu() - mean - exact).norm() / exact.norm()))
    if not np.isfinite(off).all():
        return _LINEAR.unjudged("a gradient of the network is zero, and with it the closed form")
    return _LINEAR.judged(
        max(off) <= _NEAR, f"Relative deviation {max(off):.1e} after {steps} steps, at lambdas of class models above."
    )


def _figure(found: _Models) -> Gallery:
    """Draw models by score above those by posterior, on one contrast."""
    columns = list[tuple[Tile, Tile]]()
    scores = {by: found.own(by) for by in ("models", "posterior")}
    shares = {by: found.shares(by) for by in scores}
    for at, index in enumerate(found.classes):
        tiles, factor = list[Tile](), None
        for by, own in scores.items():
            picture, factor = with_contrast(found.net, getattr(found, by)[at], factor)
            caption = f"score {number(float(own[at]))}, p = {float(shares[by][at]):.2g}"
            if by == "models":
                caption = f"{found.net.class_name(index)}: {caption}"
            tiles.append(Tile(enlarged(found.net.image(picture), _SIDE), caption))
        columns.append((tiles[0], tiles[1]))
    rows = list[tuple[Tile, ...]]()
    for start in range(0, len(columns), 4):
        rows += [tuple(row) for row in zip(*columns[start : start + 4], strict=True)]
    labels = ("by score", "by posterior") * (len(rows) // 2)
    title = f"Class models of {found.net.name}"
    sheet = Sheet(title, tuple(rows), "from the zero image, with the same lambda, steps and contrast", labels=labels)
    values: Mapping[str, Tensor] = {"models": found.models, "posterior": found.posterior, "lambdas": found.lambdas}
    return Gallery(sheet, values)


def _range(shares: Tensor) -> str:
    low, high = float(shares.min()), float(shares.max())
    return f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"


def _between(interval: Interval) -> str:
    return f"{number(interval.value)} [{number(interval.low)}, {number(interval.high)}]"
