"""Objectives about one place: what class activation maps make of them, and positions at another size of picture.

The networks have windows that are small beside the picture, which shows the same thing twice: a map that weighs
channels alike at all positions lights up at both, and the objective's receptive field holds one.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convscope
from convscope import Net, as_objective
from convscope.checks.randomisation import checked
from convscope.context import listen
from convscope.errors import LayerError, ObjectiveError
from convscope.registry import METHODS, load_all
from networks import tiny

load_all()
SIDE = 48
HERE, THERE = (12, 14), (36, 34)
OF = ":0@12,14"

# The mean activation is no class activation map, and says that it is the same whatever the objective.
WITH_LAYERS = {name: entry for name, entry in METHODS.items() if "layer" in entry.options and name != "activation"}
REFUSING = ("score_cam", "ablation_cam", "eigen_cam")
each_with_layers = pytest.mark.parametrize("method", WITH_LAYERS)


class Gate(nn.Module):
    """Squeeze and excitation: channels scaled by what all positions have in common."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.excite = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(x.mean((2, 3), keepdim=True)).sigmoid()


class Segmenter(nn.Module):
    """A U-Net of one stage, whose units see 14 x 14 pixels."""

    def __init__(self, norm: Any = nn.Identity, outputs: int = 1) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.down = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), norm(6), nn.ReLU())
        self.up = nn.ConvTranspose2d(6, 4, 2, 2)
        self.joined = nn.Sequential(nn.Conv2d(8, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(4, outputs, 1)
        for parameter in self.parameters():
            if parameter.ndim == 4:
                nn.init.uniform_(parameter, 0.05, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        return self.head(self.joined(torch.cat([skip, self.up(self.deep(skip))], 1)))


def segmenter(norm: Any = nn.Identity, **options: Any) -> Net:
    return Net(Segmenter(norm), **{"size": SIDE, "name": "segmenter"} | options)


def lesions(side: int = SIDE) -> Tensor:
    """Two equal squares, at HERE and THERE."""
    pixels = torch.full((1, 1, side, side), 0.2)
    for row, column in (HERE, THERE):
        pixels[..., row - 3 : row + 3, column - 3 : column + 3] = 0.9
    return pixels


def share_near(map_: Tensor, place: tuple[int, int] = HERE, reach: int = 14) -> float:
    """Return the share of a map's magnitude that lies within so many pixels of a place."""
    magnitude = map_.abs().sum((0, 1))
    rows, columns = (slice(max(0, at - reach), at + reach + 1) for at in place)
    return float(magnitude[rows, columns].sum() / magnitude.sum())


def region(output: Tensor) -> Tensor:
    """The mean of the output on one of the squares."""
    return output[:, 0, HERE[0] - 3 : HERE[0] + 3, HERE[1] - 3 : HERE[1] + 3].mean((1, 2))


NET = segmenter(head="sigmoid")
PLACED = [OF, ":0@max", "joined.0:2@12,14", "2*:0@12,14 - :0@13,14", f"p({OF})", region]


@each_with_layers
@pytest.mark.parametrize("of", PLACED, ids=lambda of: getattr(of, "__name__", of))
def test_a_map_of_one_place_lies_there_or_is_refused(method: str, of: Any) -> None:
    """A law: nothing lies outside the receptive field, and of a refusal the call that it names works."""
    pixels = lesions() - 0.01 * torch.arange(SIDE).div(SIDE).view(-1, 1)  # the upper square is the brighter
    for layer in ("deep.3", "deep.1", "down.1"):
        try:
            map_ = convscope.attribute(NET, pixels, method, of=of, layer=layer)
        except ObjectiveError as error:
            assert method in REFUSING
            call = re.search(r"explain\(net, picture, '(\w+)', of='(.+?)'\)", str(error))
            assert call, error
            map_ = convscope.attribute(NET, pixels, call[1], of=region if of is region else call[2], layer=layer)
        except LayerError as error:
            assert method == "cam" and "linear head" in str(error)
            continue
        else:
            assert method not in REFUSING
        assert of == f"p({OF})" or map_.any()
        assert not map_.any() or share_near(map_) > 0.999


@each_with_layers
def test_all_of_the_output_is_no_place(method: str) -> None:
    """The mean of a channel, a layer, and a region of most of the picture are for every method."""
    if method == "cam":
        return
    for of in (":0", "joined.0", lambda output: output[:, 0, 4:, 4:].mean((1, 2))):
        with listen() as remarks:
            map_ = convscope.attribute(NET, lesions(), method, of=of, layer="deep.3")
        assert share_near(map_) < 0.6 and not any("one place" in remark for remark in remarks)


@pytest.mark.parametrize(
    "norm", [lambda c: nn.GroupNorm(2, c), nn.InstanceNorm2d, Gate], ids=["group", "instance", "gate"]
)
@pytest.mark.parametrize("method", ["grad_cam", "xgrad_cam"])
def test_where_statistics_of_the_whole_picture_are_read_it_is_the_gradient_by_position(method: str, norm: Any) -> None:
    """Behind a normalisation every position has some gradient, so that it cannot be counted what is read."""
    net = segmenter(norm)
    map_ = convscope.attribute(net, lesions(), method, of=OF, layer="down.1")
    torch.testing.assert_close(
        map_, convscope.attribute(net, lesions(), "hires_cam", of=OF, layer="down.1").clamp(min=0)
    )
    assert share_near(map_, HERE, 7) > 4 * share_near(map_, THERE, 7)


def test_the_caption_says_what_grad_cam_does_for_one_place() -> None:
    note = convscope.explain(NET, lesions()[0], "grad_cam", of=OF, layer="deep.3").note
    assert "weighed by the gradient there, as in HiResCAM" in note
    assert "HiResCAM" not in convscope.explain(NET, lesions()[0], "grad_cam", of=":0", layer="deep.3").note


def test_by_default_a_place_is_explained_at_a_layer_of_which_it_reads_more_than_one_position() -> None:
    """The last layer has the output's grid: one position reads one there, and the map would be a dot."""
    with listen() as remarks:
        map_ = convscope.attribute(NET, lesions(), "grad_cam", of=OF)
    assert "layer down.1, 48 x 48 positions" in remarks and not any("on 1 of" in remark for remark in remarks)
    assert share_near(map_) > 0.999 and int((map_ > 0).sum()) > 20


def test_in_a_batch_each_objective_gets_the_map_that_it_has_alone() -> None:
    batch = [OF, ":0", ":0@36,34", region, ":0"]
    pixels = lesions().repeat(len(batch), 1, 1, 1)
    together = convscope.attribute(NET, pixels, "grad_cam", of=batch)
    alone = [convscope.attribute(NET, pixels[:1], "grad_cam", of=of) for of in batch]
    torch.testing.assert_close(together, torch.cat(alone))
    with pytest.raises(ObjectiveError, match=r":0@36,34 is about one place, and score_cam .* of=':0@mean'"):
        convscope.attribute(NET, pixels[:2], "score_cam", of=[":0", ":0@36,34"])


def test_a_probability_that_has_no_gradient_left_is_refused_as_any_place_is() -> None:
    net = segmenter(head="sigmoid")
    nn.init.constant_(net.body.head.bias, 200)
    with pytest.raises(ObjectiveError, match="about one place"):
        convscope.attribute(net, lesions(), "eigen_cam", of=f"p({OF})")


# Positions at another size of picture


@pytest.mark.parametrize("method", ["grad_cam", "saliency"])
def test_positions_are_those_of_the_picture_that_is_read(method: str) -> None:
    """As of a network of that size, in the map and in what is said."""
    small, picture = segmenter(size=24), (lesions(96)[0, 0].numpy() * 255).astype("uint8")
    own = convscope.explain(segmenter(size=96), picture, method, of=":0@70,34")
    other = convscope.explain(small, picture, method, of=":0@70,34", size=96)
    assert torch.equal(own.values, other.values) and own.note == other.note and own.title == other.title
    for of in (":0@24,3", as_objective(segmenter(size=96), ":0@24,3")):
        with pytest.raises(ObjectiveError, match="rows 0 to 23 and columns 0 to 23"):
            convscope.explain(segmenter(size=96), picture, method, of=of, size=24)


def test_a_check_computes_a_map_of_another_size_again() -> None:
    picture = (lesions(96)[0, 0].numpy() * 255).astype("uint8")
    heatmap = convscope.explain(segmenter(size=24), picture, "saliency", of=":0@70,34", size=96)
    assert checked(segmenter(size=24), heatmap, stages=1).note


def test_what_the_output_lacks_is_said_of_the_output() -> None:
    for of, words in ((":1", "the output has one channel, number 0"), (":0@48,0", "the output has rows 0 to 47")):
        with pytest.raises(ObjectiveError, match=words):
            as_objective(NET, of)
    with pytest.raises(ObjectiveError, match="the output has channels 0 to 4"):
        as_objective(tiny("sequential"), ":5")


def test_the_map_of_a_position_is_of_a_layer_that_no_skip_connection_leads_past() -> None:
    """Of 8 x 8 positions of the narrowest layer it reads more than a few, but only a part of the score goes there."""
    net, pixels = segmenter(size=16), lesions()[..., :16, :16]
    with listen() as remarks:
        map_ = convscope.attribute(net, pixels, "hires_cam", of=OF)
    assert "layer down.1, 16 x 16 positions" in remarks
    score, without = (float(net(each)[0, 0, 12, 14]) for each in (pixels, torch.zeros_like(pixels)))
    # With positive weights every rectifier is open: what goes through a layer is the score less the biases above it.
    assert float(map_.sum()) == pytest.approx(score - without, rel=0.2)
