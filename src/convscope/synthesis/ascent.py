"""Ascent: change pictures step by step until they are what was asked for.

    x  <-  settle( step( x, d score / d x ) )

The loop knows nothing of what is asked (an `Objective`), what the picture is made of (a `Start`) or how it is shaken (a
`Transform`). It stops the network at the last layer asked for, looks at the loss only every few steps, keeps the best
that it has seen, and hands that out when it is interrupted or the loss is no longer a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import Tensor

from .. import outputs, rules
from ..baselines import blurred
from ..batching import out_of_memory, release_memory
from ..context import say, track
from ..data.images import to_image
from ..drawing.layout import number, side_by_side
from ..errors import OptionError, OutOfMemory, OutputError, RuleError, SynthesisError
from ..net import Net
from ..objectives import Objective
from ..tapping import tap
from ..tracing import PIXELS
from .parametrizations import Parametrization, Pixels
from .transforms import Transform

Optimiser = Literal["adam", "lbfgs", "ascent"]
Seed = Annotated[int, "start of all random numbers: the same seed gives the same bytes on a CPU"]
Preview = Annotated[Path | None, "write what there is so far to this picture, every --preview-every steps"]
PreviewEvery = Annotated[int, "steps between two previews"]

_LOOK = 10
"""Steps between two looks at the loss: each makes a GPU wait."""

_REDIRECTED = 16
"""Steps in which gradient is led past silent rectifiers, as in lucid."""

_SMALLEST = 128
"""The side of the smallest tiles, in pixels."""

_MARGIN = 16
"""The part of a tile's side that its margins take, each."""

_PATIENCE = 64
"""Steps after which a unit that has not moved is given up."""


@dataclass(frozen=True)
class Steps:
    """How many steps are taken, and how.

    by: "adam", "lbfgs", or "ascent" along the gradient itself. rate: Adam's learning rate; of "ascent" the factor of
    the gradient, of what `scaling` makes of it. scaling: "none"; "mean" divides the gradient of every picture by its
    mean magnitude (DeepDream); "progress" makes the step that would raise the score by `rate`, if it were linear, but
    never by more than `limit` times the gradient (Yosinski et al.). momentum: of "ascent".

    After every step, in the picture's difference from the network's mean (Yosinski et al. 2015, arXiv:1506.06579,
    sec. 3): decay: the share taken away. blur: standard deviation in pixels, every `blur_every` steps. small_norm,
    small_contribution: the percentage of pixels with the smallest norm, or the smallest share in raising the score,
    that are set to the mean.
    """

    count: int = 512
    by: Optimiser = "adam"
    rate: float = 0.05
    scaling: Literal["none", "mean", "progress"] = "none"
    limit: float = 1.0
    momentum: float = 0.0
    decay: float = 0.0
    blur: float = 0.0
    blur_every: int = 4
    small_norm: float = 0.0
    small_contribution: float = 0.0

    def __post_init__(self) -> None:
        if self.count < 1 or self.blur_every < 1:
            raise OptionError(f"steps and blur_every are at least 1, not {self.count} and {self.blur_every}")
        if self.by not in ("adam", "lbfgs", "ascent"):
            raise OptionError(f"the optimiser is adam, lbfgs or ascent, not {self.by!r}")
        if self.scaling not in ("none", "mean", "progress"):
            raise OptionError(f"a gradient's scaling is none, mean or progress, not {self.scaling!r}")
        if not (self.rate > 0 and self.limit > 0):
            raise OptionError(f"the rate is above 0, not {self.rate}, and the limit is above 0, not {self.limit}")
        if not (0 <= self.decay <= 1 and 0 <= self.momentum <= 1):
            raise OptionError(f"decay and momentum are shares, 0 to 1, not {self.decay} and {self.momentum}")
        if not (0 <= self.small_norm <= 100 and 0 <= self.small_contribution <= 100):
            raise OptionError(f"small_* are percentages, 0 to 100, not {self.small_norm} and {self.small_contribution}")
        if not self.blur >= 0:
            raise OptionError(f"blur is in pixels, 0 or more, not {self.blur}")

    @property
    def tidies(self) -> bool:
        """Whether something is done to the pixels themselves after every step."""
        return bool(self.decay or self.blur or self.small_norm or self.small_contribution)


@dataclass(frozen=True, eq=False)
class Made:
    """Pictures (n, c, h, w) with their scores (n,) as seen without shaking, and how the loop ended.

    `history` holds the mean score at every look; `moved` says which pictures the true gradient ever reached.
    """

    pixels: Tensor
    scores: Tensor
    history: list[float]
    steps: int
    moved: list[bool]
    interrupted: bool = False

    def finished(self) -> Made:
        """Return it, or raise KeyboardInterrupt where it was interrupted: what only prepares is no result to keep."""
        if self.interrupted:
            raise KeyboardInterrupt
        return self


@dataclass(frozen=True)
class Watch:
    """What is shown while pictures are being made: a label for the progress, and a preview every so many steps."""

    label: str = "making"
    preview: Path | None = None
    every: int = 50

    def __post_init__(self) -> None:
        if self.every < 1:
            raise OptionError(f"preview_every is at least 1 step, not {self.every}")
        if self.preview is not None:
            if self.preview.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
                raise OptionError(f"a preview is a .png, .jpg or .webp file, not {self.preview}")
            outputs.check_folder(self.preview.parent)

    def show(self, pixels: Tensor) -> None:
        """Write the preview, pictures side by side."""
        if self.preview is not None:
            images = [to_image(one) for one in pixels.detach().float().cpu().numpy()]
            try:
                outputs.write(self.preview, lambda to: side_by_side(images).save(to))
            except OutputError as error:
                # What has been made so far is worth more than a look at it.
                say(f"there is no preview: {error}")


class _Stop(BaseException):
    """Leaves an optimiser that calls back; not an Exception, so that nothing swallows it."""


def ascend(
    net: Net,
    objectives: Sequence[Objective],
    start: Parametrization,
    *,
    transform: Transform | None = None,
    steps: Steps | None = None,
    seeds: Sequence[int] = (0,),
    tile: int | None = None,
    redirect: bool = True,
    watch: Watch | None = None,
) -> Made:
    """Make pictures that score high: of n pictures, n / len(objectives) in a row for every objective.

    Args:
        net: the network; nothing of it is changed.
        objectives: what is asked, for groups of pictures of equal size.
        start: the pictures to begin with.
        transform: how they are changed at random before every look; not at all by default.
        steps: how many steps, and by which optimiser.
        seeds: one for every picture (or one for all, counted up), for the transforms.
        tile: the longest side that the network is shown at once, in pixels; larger pictures are seen in tiles.
        redirect: lead gradient past silent rectifiers in the first steps: pictures that excite nothing can move.
        watch: the progress' label and previews.

    Returns the best pictures seen. An interruption keeps them, and a remark says so. Raises SynthesisError when the
    loss is not a number from the start, OptionError for parts that do not go together.
    """
    loop = _Loop(
        net,
        objectives,
        start,
        transform or Transform(),
        steps or Steps(),
        list(seeds),
        tile,
        redirect,
        watch or Watch(),
    )
    return loop.run()


@dataclass(eq=False)
class _Loop:
    net: Net
    objectives: Sequence[Objective]
    start: Parametrization
    transform: Transform
    steps: Steps
    seeds: list[int]
    tile: int | None
    redirect: bool
    watch: Watch
    done: int = 0
    said: str = ""
    history: list[float] = field(default_factory=list[float])
    recent: list[Tensor] = field(default_factory=list[Tensor])

    def __post_init__(self) -> None:
        with torch.no_grad():
            first = self.start.pixels()
        self.count, self.device = len(first), first.device
        if self.count % len(self.objectives):
            raise OptionError(f"{self.count} pictures cannot be shared among {len(self.objectives)} objectives")
        if self.steps.tidies and not isinstance(self.start, Pixels):
            raise OptionError("decay, blur and small_* work on the pixels themselves: use them with space='pixels'")
        if self.steps.by == "lbfgs" and self.transform != Transform():
            raise OptionError("L-BFGS needs a score that stays the same: use transform='none', or the optimiser adam")
        if self.tile is not None and self.tile < 1:
            raise OptionError(f"a tile's side is at least 1 pixel, not {self.tile}")
        if len(self.seeds) != self.count:
            self.seeds = [self.seeds[0] + i for i in range(self.count)]
        self.asked = [_part(objective, of_pixels=False) for objective in self.objectives]
        self.terms = [_part(objective, of_pixels=True) for objective in self.objectives]
        if not all(objective.terms for objective in self.asked):
            raise OptionError("nothing is asked of the network: add a class, a channel or a layer to the objective")
        if not all(objective.terms for objective in self.terms):
            # What is wished of some pictures is wished, with no weight, of all.
            some = next((objective for objective in self.terms if objective.terms), None)
            self.terms = [q if q.terms else some * 0.0 for q in self.terms] if some else []
        self.layers = list(dict.fromkeys(name for objective in self.asked for name in objective.layers))
        self.drawn = self.transform.draw(self.seeds, self.steps.count)
        self.best = torch.full((self.count,), -torch.inf, dtype=torch.float64)
        self.kept = self.start.snapshot()
        self.moved = torch.zeros(self.count, dtype=torch.bool)
        self.tiled = _Tiles(self.tile) if self.tile else None

    def run(self) -> Made:
        interrupted = False
        ticks = track(range(self.steps.count), lambda: f"{self.watch.label}{self.said}")
        step = {"adam": self._adam, "lbfgs": self._lbfgs, "ascent": self._ascent}[self.steps.by]
        try:
            with self.net.held():
                step(iter(ticks))
                self._look()
        except KeyboardInterrupt:
            if not self.done:
                raise
            interrupted = True
            say(f"interrupted after {self.done} of {self.steps.count} steps: the best so far was kept")
        except _Stop:
            pass
        finally:
            getattr(ticks, "close", lambda: None)()
        return self._finished(interrupted)

    def _finished(self, interrupted: bool) -> Made:
        if self.best.isfinite().any():
            self.start.restore(self.kept)
        with torch.no_grad():
            pixels = self.start.pixels().clone()
        scores = self._plain_scores(pixels)
        return Made(pixels, scores, self.history, self.done, self.moved.tolist(), interrupted)

    def _plain_scores(self, pixels: Tensor) -> Tensor:
        if self.tiled and self.tiled.side < max(pixels.shape[-2:]):
            return torch.full((self.count,), self.history[-1] if self.history else torch.nan)
        if self.redirect and self.done <= _REDIRECTED:
            # So short a run has seen no gradient but those that were led past rectifiers.
            below, scores = self._whole(pixels.clone())
            self.moved |= below.flatten(1).any(1).cpu()
        else:
            with torch.no_grad():
                scores = self._score(self.asked, tap(self.net, pixels, self.layers))
        with torch.no_grad():
            return scores + self._score(self.terms, {PIXELS: pixels}) if self.terms else scores

    # One evaluation -----------------------------------------------------------------------------------------------

    def _gradient(self) -> Tensor:
        """Look at the pictures once; return the gradient of the scores' sum by the free numbers."""
        pixels = self.start.pixels()
        seen = self.transform(pixels, self.drawn[self.done])
        below, scores = self._below(seen.detach())
        outputs, gradients = [seen], [below]
        if self.terms:
            wished = self._score(self.terms, {PIXELS: pixels})
            outputs, gradients = [seen, wished], [below, torch.ones_like(wished)]
            scores = scores + wished.detach()
        (gradient,) = torch.autograd.grad(outputs, [self.start.free], gradients)
        self.recent.append(scores)
        return gradient

    def _below(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's gradient by what it sees, and its scores (n,).

        In the first steps, and for a while longer where the true gradient reaches nothing, it is led past rectifiers.
        """
        if self.done < _REDIRECTED:
            led = self._redirected(seen)
            if led is not None:
                return led
        found = self._differentiate(seen)
        if self._watching:
            self.moved |= found[0].flatten(1).any(1).view(self.count, -1).any(1).cpu()
            return (self._redirected(seen) if self._watching else None) or found
        return found

    def _redirected(self, seen: Tensor) -> tuple[Tensor, Tensor] | None:
        if not self.redirect:
            return None
        try:
            with rules.relu_rule(rules.redirected):
                return self._differentiate(seen)
        except RuleError:
            # Only rectifiers can be redirected, and only they need it.
            self.redirect = False
            return None

    def _differentiate(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        if self.tiled:
            return self.tiled.over(seen, self._whole)
        return self._whole(seen)

    def _whole(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        leaf = seen.requires_grad_()
        scores = self._score(self.asked, tap(self.net, leaf, self.layers), len(seen) // self.count)
        (below,) = torch.autograd.grad(scores.sum(), leaf)
        return below, scores.detach()

    def _score(self, objectives: Sequence[Objective], readings: dict[str, Tensor], views: int = 1) -> Tensor:
        """Return one score per picture from readings of all of them, each in `views` copies."""
        if len(objectives) == 1 and views == 1:
            return objectives[0].score(readings)
        # split's backward is one concatenation: a slice's would write the whole batch anew for every group.
        parts = {name: value.split(len(value) // len(objectives)) for name, value in readings.items()}
        scores = [
            objective.score({name: value[i] for name, value in parts.items()}) for i, objective in enumerate(objectives)
        ]
        return torch.cat(scores).view(-1, views).mean(1)

    @property
    def _watching(self) -> bool:
        """Whether there are pictures that the true gradient may still come to reach."""
        return self.done < _PATIENCE and not bool(self.moved.all())

    # Looking ------------------------------------------------------------------------------------------------------

    def _after(self) -> None:
        """Count a step; every few, look at how far it has come."""
        self.done += 1
        # L-BFGS waits for every loss anyway, and not all that it tries is better.
        if self.steps.by == "lbfgs" or self.done % _LOOK == 0:
            self._look()
        if self.watch.preview and self.done % self.watch.every == 0:
            with torch.no_grad():
                self.watch.show(self.start.pixels())

    def _look(self) -> None:
        """Keep what is better than before; stop where the loss is not a number."""
        if not self.recent:
            return
        scores = torch.stack(self.recent).cpu().double().mean(0)
        self.recent.clear()
        if not scores.isfinite().all():
            self._stop_at_nan()
        self.history.append(float(scores.mean()))
        self.said = f" · {number(self.history[-1])}"
        better = scores > self.best
        if better.any():
            self.best = torch.where(better, scores, self.best)
            mask = better.to(self.device).view(-1, *[1] * (self.kept.ndim - 1))
            self.kept = torch.where(mask, self.start.snapshot(), self.kept)
        if self.done >= _PATIENCE and not self.moved.any():
            raise _Stop

    def _stop_at_nan(self) -> None:
        if not self.best.isfinite().any():
            raise SynthesisError(
                f"the score of {self.watch.label} is not a number within the first {self.done} steps: use a lower "
                f"rate than {self.steps.rate:g}, or another start"
            )
        say(
            f"stopped after {self.done} of {self.steps.count} steps, where the score was not a number any more: the "
            f"best before was kept. A lower rate than {self.steps.rate:g} may go on"
        )
        raise _Stop

    # Stepping -----------------------------------------------------------------------------------------------------

    def _adam(self, ticks: Iterator[int]) -> None:
        free = self.start.free
        # One kernel for all of a step; maximising, so that gradients keep their meaning.
        adam = torch.optim.Adam([free], lr=self.steps.rate, maximize=True, fused=free.device.type in ("cpu", "cuda"))
        for _ in ticks:
            gradient = self._gradient()
            # The fused kernel takes it that both lie in memory alike, and a transform's gradient does not.
            free.grad = gradient.contiguous()
            adam.step()
            self._tidy(gradient)
            self.start.settle()
            self._after()

    def _ascent(self, ticks: Iterator[int]) -> None:
        free, velocity = self.start.free, None
        for _ in ticks:
            gradient = self._gradient()
            step = self._scaled(gradient)
            if self.steps.momentum:
                velocity = step if velocity is None else velocity * self.steps.momentum + step
                step = velocity
            with torch.no_grad():
                free += step
            self._tidy(gradient)
            # Of a large picture each is as much memory as the picture.
            del gradient, step
            self.start.settle()
            self._after()

    def _scaled(self, gradient: Tensor) -> Tensor:
        dims = tuple(range(1, gradient.ndim))
        if self.steps.scaling == "mean":
            return gradient * (self.steps.rate / (gradient.abs().mean(dims, keepdim=True) + 1e-12))
        if self.steps.scaling == "progress":
            share = self.steps.rate / (gradient.square().sum(dims, keepdim=True) + 1e-30)
            return gradient * share.clamp(max=self.steps.limit)
        return gradient * self.steps.rate

    def _lbfgs(self, ticks: Iterator[int]) -> None:
        free = self.start.free
        many = self.steps.count * 2
        lbfgs = torch.optim.LBFGS(
            [free], lr=self.steps.rate, max_iter=many, max_eval=many, history_size=20, tolerance_grad=0,
            tolerance_change=0, line_search_fn="strong_wolfe",
        )  # fmt: skip

        def closure() -> Tensor:
            # An evaluation is a step: what a line search tries is also work.
            if next(ticks, None) is None:
                raise _Stop
            self.start.settle()
            free.grad = -self._gradient()
            loss = -self.recent[-1].sum()
            self._after()
            return loss

        lbfgs.step(closure)

    def _tidy(self, gradient: Tensor) -> None:
        """Apply Yosinski's regularisers to the picture's difference from the mean."""
        if not self.steps.tidies:
            return
        steps, free = self.steps, self.start.free
        with torch.no_grad():
            mean = free.new_tensor(self.net.mean)[:, None, None]
            away = (free - mean) * (1 - steps.decay)
            if steps.blur and (self.done + 1) % steps.blur_every == 0:
                away = blurred(away, steps.blur)
            if steps.small_norm:
                away = away * _above(away.norm(dim=1, keepdim=True), steps.small_norm)
            if steps.small_contribution:
                away = away * _above((away * gradient).sum(1, keepdim=True).abs(), steps.small_contribution)
            free.copy_(mean + away)


def _part(objective: Objective, *, of_pixels: bool) -> Objective:
    """Return the terms about the picture itself, or those about the network."""
    return Objective(tuple((w, term) for w, term in objective.terms if (term.layer == PIXELS) == of_pixels))


def _above(values: Tensor, percent: float) -> Tensor:
    """Return where values (n, 1, h, w) are above a percentile of their picture's own."""
    limit = values.flatten(1).quantile(percent / 100, dim=1)
    return (values > limit[:, None, None, None]).to(values)


class _Tiles:
    """Differentiates a picture too large to be shown at once, tile by tile; halves the tiles when memory ends."""

    def __init__(self, side: int) -> None:
        self.side, self.asked = side, side

    def over(self, seen: Tensor, whole: Callable[[Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return the gradient by what is seen, of the picture's size, and the scores (n,), averaged over its area."""
        while True:
            try:
                return self._attempt(seen, whole)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if self.side <= _SMALLEST:
                    raise OutOfMemory(
                        f"memory ran out with tiles of {self.side} pixels: make a smaller picture, or use another "
                        "device"
                    ) from error
                self.side //= 2
            release_memory()
            say(f"memory ran out with tiles of {self.asked} pixels: went on with smaller ones")

    def _attempt(self, seen: Tensor, whole: Callable[[Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        below, total, shares = torch.zeros_like(seen), torch.zeros(()), 0.0
        height, width = seen.shape[-2:]
        for rows, columns in self.cuts(height, width):
            above, beside = self._around(rows, height), self._around(columns, width)
            tile = seen[..., above, beside].clone()
            # Of a mean over the tile to one over the picture.
            share = tile[0, 0].numel() / (height * width)
            gradient, scores = whole(tile)
            weights = self._fading(rows, above)[:, None] * self._fading(columns, beside)
            below[..., above, beside] += gradient * (share * weights).to(gradient)
            total, shares = total + scores * share, shares + share
        return below, total / shares

    def cuts(self, height: int, width: int) -> Iterator[tuple[slice, slice]]:
        """Cut a picture into tiles of nearly equal sides that, with their margins, are no longer than allowed."""
        most = self.side - 2 * self.margin
        for top, bottom in _parts(height, most if height > self.side else height):
            for left, right in _parts(width, most if width > self.side else width):
                yield slice(top, bottom), slice(left, right)

    @property
    def margin(self) -> int:
        """The pixels seen beyond each border of a tile: there it fades into its neighbour, and leaves no seam."""
        return self.side // _MARGIN

    def _around(self, tile: slice, length: int) -> slice:
        return slice(max(0, tile.start - self.margin), min(length, tile.stop + self.margin))

    def _fading(self, tile: slice, around: slice) -> Tensor:
        """Return how much a tile counts along its length: neighbours' shares add up to 1."""
        positions, width = torch.arange(around.start, around.stop, dtype=torch.float64) + 0.5, 2 * self.margin or 1
        rising = ((positions - tile.start) / width + 0.5) if around.start < tile.start else torch.ones(len(positions))
        falling = ((tile.stop - positions) / width + 0.5) if around.stop > tile.stop else torch.ones(len(positions))
        return rising.clamp(0, 1) * falling.clamp(0, 1)


def _parts(length: int, most: int) -> Iterator[tuple[int, int]]:
    count = -(-length // most)
    for i in range(count):
        yield i * length // count, (i + 1) * length // count
