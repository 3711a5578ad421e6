"""Co-adaptation on networks whose units are known to need one another, to replace one another, or neither."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convscope import Net, as_objective
from convscope.incremental.changes import Batch, Changes
from convscope.studies.coadaptation import correlated_pairs, correlations, joint_drops, uses_without
from networks import pictures, tiny


class Known(nn.Module):
    """Three units that see the whole picture's brightness, or its left half's; the score is made of the first two."""

    def __init__(self, made: str) -> None:
        super().__init__()
        self.made, self.units = made, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        bright = x.mean((1, 2, 3)).sign()
        y = self.units(torch.stack([bright, bright, x[..., :2].mean((1, 2, 3))], 1))
        one, other = y[:, 0], y[:, 1]
        score = {"and": (one + other - 1).relu(), "or": 1 - (1 - one - other).relu(), "sum": one + 2 * other}[self.made]
        return torch.stack([score, y[:, 2]], 1)


def batch_of(net: Net, pixels: Tensor, layer: str) -> Batch:
    return Changes(net, pixels, [net.layer(layer)], [""], 2**20).of(pixels)


@pytest.mark.parametrize(("made", "synergy"), [("and", 1), ("or", -1), ("sum", 0)])
def test_synergy_tells_units_that_need_from_units_that_replace_one_another(made: str, synergy: float) -> None:
    net = Net(Known(made).double(), size=8, channels=3, mean=0.0, std=1.0)
    batch = batch_of(net, pictures(3, side=8) + 0.01, "units")
    found = joint_drops(batch, as_objective(net, 0), "units", [(0, 1), (0, 2), (2, 1)])
    assert found.synergy(0).value == pytest.approx(synergy) and found.synergy(0).n == 3
    assert found.synergy(1).value == pytest.approx(0) or made == "or"  # alone, either of "or" is of no use
    uses = uses_without(batch, as_objective(net, 0), "units", [1])
    if made == "sum":
        assert float(uses.remaining[0, 0]) == pytest.approx(1)
    if made == "and":
        assert float(uses.remaining[0, 0]) == pytest.approx(0)
    assert bool(uses.remaining[0, 2].isnan()), "the third is of no use"


@pytest.mark.parametrize("kind", ["residual", "concat"])
def test_drops_and_uses_are_those_of_full_passes(kind: str) -> None:
    net, pixels, layer = tiny(kind), pictures(2), "a"
    objective = as_objective(net, "dog")
    batch, full = batch_of(net, pixels, layer), batch_of(net, pixels, layer)
    full.changes.downstream = {}
    pairs = [(0, 1), (2, 3)]
    found, expected = (joint_drops(each, objective, layer, pairs) for each in (batch, full))
    for name in ("first", "second", "both"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-12)
    uses, others = (uses_without(each, objective, layer, [0, 2]) for each in (batch, full))
    torch.testing.assert_close(uses.without, others.without, rtol=1e-9, atol=1e-12)
    activity = batch.activity(layer).clone().requires_grad_()
    score = objective.score(batch.replace(layer, torch.arange(2), activity))
    by_hand = (activity * torch.autograd.grad(score.sum(), activity)[0]).sum((2, 3))
    torch.testing.assert_close(uses.whole, by_hand)
    assert not uses.without[:, 0, 0].any() and not uses.without[:, 1, 2].any()


def test_correlations_are_numpys_and_zero_with_constant_units() -> None:
    generator = torch.Generator().manual_seed(0)
    activity = torch.rand(50, 4, generator=generator)
    activity[:, 1] = 2 * activity[:, 0] + 0.1 * activity[:, 1]
    activity[:, 3] = 0.7
    found = correlations(activity)
    np.testing.assert_allclose(found[:3, :3], np.corrcoef(activity[:, :3].T.double()), atol=1e-9)
    assert not found[3].any()
    assert correlated_pairs(found, 5, least=0.9) == [(0, 1)]
