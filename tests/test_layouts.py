"""Pictures lie in memory where a pass is quickest, and where the network's own code takes them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from convscope import Atlas, Net, attribute, scan, tap
from convscope.layouts import laid_out, layout_of
from networks import tiny


class Viewing(nn.Module):
    """A network as they were written before `flatten`: its code takes one layout only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4 * 8 * 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).view(-1, 4 * 8 * 8))


def test_channels_last_is_taken_where_the_network_takes_it() -> None:
    torch.manual_seed(0)
    pixels = torch.rand(3, 3, 10, 10)
    for net, layout in ((tiny("sequential"), torch.channels_last), (Net(Viewing(), size=10), torch.contiguous_format)):
        assert layout_of(net) is layout
        assert laid_out(net, pixels).is_contiguous(memory_format=layout)
        assert torch.equal(laid_out(net, pixels), pixels)


def test_a_network_that_takes_one_layout_only_is_scanned_projected_and_explained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, pixels = Net(Viewing(), size=10), torch.rand(5, 3, 10, 10)
    atlas = Atlas(scan(net, list(pixels), tmp_path / "atlas"), net=net)
    values = tap(net, pixels, ["conv"])["conv"].amax((2, 3))
    for unit in range(4):
        assert [example.picture for example in atlas.top("conv", unit)] == values[:, unit].argsort(
            descending=True
        ).tolist()
    assert attribute(net, pixels[:1], "score_cam").isfinite().all()
