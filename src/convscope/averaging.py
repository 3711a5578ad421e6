"""Averages: a network that draws random numbers is explained by the mean over several draws."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .context import listen, say, whole
from .errors import OptionError
from .net import Net
from .objectives import Objective
from .predictions import ObjectiveLike, answers, settle


def over_seeds(
    net: Net, pixels: Tensor, of: ObjectiveLike, seeds: int, run: Callable[[Net, Objective], Tensor]
) -> tuple[Tensor, Objective, str]:
    """Return the mean of `run` over a network's draws with the seeds 0, 1, ..., and the objective with its title.

    When no objective is given, it is the top-1 class of the mean answer to pixels (1, c, h, w). Raises OptionError for
    fewer than two seeds, or a network that a seed does not change.
    """
    if type(seeds) is not int or seeds < 2:
        raise OptionError(f"seeds is how many draws are averaged, a whole number from 2 on, not {seeds!r}")
    if not net.behaviour(pixels).seedable:
        raise OptionError(f"seeds is for networks that draw random numbers, and {net.name} draws none: leave it out")
    nets = [net.seeded(seed) for seed in range(seeds)]
    if of is None and len(net.output.shape) == 1 and net.output.shape[0] > 1:
        of = int(torch.stack([answers(one, pixels)[1] for one in nets]).mean(0).argmax())
    objective, title = settle(nets[0], pixels, of)
    with whole():
        maps = [run(nets[0], objective)]
        for one in nets[1:]:
            with listen():  # the first has said it all
                maps.append(run(one, objective))
    values = torch.stack(maps)
    mean, spread = values.mean(0), values.std(0)
    peak = mean.abs().amax().clamp(min=torch.finfo(mean.dtype).tiny)
    say(
        f"mean over {seeds} draws of the network's random numbers; standard deviation of one draw "
        f"{float(spread.mean() / peak):.0%} of the peak on average, {float(spread.amax() / peak):.0%} at most; "
        "the title's number is of the first draw"
    )
    return mean, objective, title
