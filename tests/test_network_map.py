"""The map of a network: which box reads which by hand, laws of any network, and a drawing that holds its text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn import functional as F

import networks
from architectures import architectures
from convscope import Net
from convscope.explorer.network_groups import Group, boxes_in
from convscope.explorer.network_labels import count_words, label
from convscope.explorer.network_layout import layout
from convscope.explorer.network_lines import Panel
from convscope.explorer.network_map import NetworkMap, network_map


def reads(mapped: NetworkMap) -> dict[str, list[str]]:
    """Return what every box reads, without what it is given."""
    keys = {box.number: box.key for box in mapped.boxes}
    return {box.key: [keys[number] for number in box.reads] for box in mapped.boxes if not box.source}


def test_a_chain_folds_what_goes_on_point_by_point() -> None:
    mapped = network_map(networks.tiny("in-place"))
    assert reads(mapped) == {"0": ["(picture)"], "3": ["0"], "5": ["3"], "7.0": ["5"], "7.2": ["7.0"]}
    first, second = mapped.boxes[1:3]
    assert first.layers == ("0", "1", "2") and first.words == ("BatchNorm2d", "ReLU")
    assert second.layers == ("3", "4") and second.detail == "3×3"
    assert mapped.boxes[3].layers == ("5", "6") and mapped.boxes[3].words == ("Dropout",)
    assert mapped.boxes[-1].ends == ("7", "")
    assert first.parameters == 6 * 3 * 9 + 6 + 12


def test_a_residual_block_joins_its_input() -> None:
    """A stride of two, the same rectifier three times, and an addition in place."""
    mapped = network_map(networks.tiny("residual"))
    assert reads(mapped) == {
        "stem": ["(picture)"], "a": ["stem"], "b": ["a"], "relu#3": ["b", "stem"], "head.0": ["relu#3"],
        "head.2": ["head.0"],
    }  # fmt: skip
    assert [len(row) for row in mapped.rows()] == [1] * 7
    join = next(box for box in mapped.boxes if box.key == "relu#3")
    assert (join.kind, join.function, join.words) == ("add", True, ("ReLU",))


def test_a_concatenation_has_both_branches_in_one_row() -> None:
    """Functional rectifiers, one of them in place, and functional pooling, which is a box."""
    mapped = network_map(networks.tiny("concat"))
    assert reads(mapped) == {
        "stem": ["(picture)"], "(avg_pool2d)": ["stem"], "a": ["(avg_pool2d)"], "b": ["(avg_pool2d)"],
        "(cat)": ["a", "b"], "head.0": ["(cat)"], "head.2": ["head.0"],
    }  # fmt: skip
    assert [{item.key for item in row} for row in mapped.rows()][3] == {"a", "b"}
    assert {box.key: box.words for box in mapped.boxes}["a"] == ("relu",)


def test_two_pictures_are_two_sources() -> None:
    net = Net(networks.TwoStreams(), size=20, extra=[torch.zeros(1, 1, 20, 20)])
    mapped = network_map(net)
    assert reads(mapped)["depth.0"] == ["(given)"]
    assert reads(mapped)["rgb.0"] == ["(picture)"]
    assert reads(mapped)["(cat)"] == ["(mean)", "(mean)#2"]
    assert [len(row) for row in mapped.rows()] == [2, 2, 2, 2, 1, 1]


def test_a_module_that_runs_twice_is_two_boxes() -> None:
    mapped = network_map(networks.tiny("shared"))
    assert reads(mapped)["conv#1"] == ["stem"] and reads(mapped)["conv#2"] == ["conv#1"]


class Dense(nn.Module):
    """Each layer reads all before it, whose outputs are concatenated anew each time."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 + 2 * n, 2, 3, padding=1) for n in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)))
        return torch.cat(found, 1)


def test_concatenations_that_grow_are_drawn_as_a_chain() -> None:
    mapped = network_map(Net(Dense(5), size=8))
    last = mapped.boxes[-1]
    assert len(last.reads) == 6
    assert len(last.drawn) == 2
    assert max(len(box.drawn) for box in mapped.boxes) == 2


class Written(nn.Module):
    """Writes a branch into a part of a tensor, reads a shape only, and catches an error on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.small = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 99)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        z = self.b(x)
        y[:, :2] = z
        with suppress(RuntimeError):
            self.small(x)
        return y * y.new_ones(x.shape[-1])


def test_assignments_join_and_shapes_alone_do_not() -> None:
    mapped = network_map(Net(Written(), size=8))
    assert reads(mapped) == {"a": ["(picture)"], "b": ["(picture)"], "(setitem)": ["a", "b"]}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + x)


class Blocks(nn.Module):
    """A list of blocks that the body itself runs, blocks inside a Sequential, and one alone."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(6))
        self.layer3 = nn.Sequential(Block(), Block(), Block())
        self.alone = Block()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.alone(self.layer3(x)).mean((2, 3))


def test_repeated_blocks_are_one_box_that_opens() -> None:
    mapped = network_map(Net(Blocks(), size=8))
    assert [item.key for item in mapped.items] == ["(picture)", "blocks", "layer3", "alone", "(mean)"]
    blocks, layer3, alone = mapped.items[1:4]
    assert isinstance(blocks, Group) and isinstance(layer3, Group) and isinstance(alone, Group)
    assert (blocks.words, layer3.words, alone.words) == ("6 blocks", "3 blocks", "Block")
    assert (blocks.layer, layer3.layer) == ("blocks.5", "layer3")
    opened = [item.key for item in mapped.visible({"layer3", "layer3.1"})]
    assert opened == [
        "(picture)", "blocks", "layer3.0", "layer3.1.conv1", "layer3.1.conv2", "layer3.1(add)", "layer3.2", "alone",
        "(mean)",
    ]  # fmt: skip
    assert mapped.groups_around("layer3.1.conv2") == ("layer3", "layer3.1")
    assert mapped.visible({"layer3.1", "nothing"}) == mapped.items  # what is inside a folded group stays inside


# Laws -------------------------------------------------------------------------------------------------------------


def check(net: Net, mapped: NetworkMap) -> None:
    """Hold that every layer is in one box, that rows and numbers go down, and that the drawing has no overlaps."""
    held = [name for box in mapped.boxes for name in (*box.layers, *box.ends)]
    assert len(held) == len(set(held))
    assert set(net.layers) <= set(held)
    inside = [box.number for item in mapped.items for box in boxes_in(item)]
    assert inside == list(range(len(mapped.boxes)))
    for box in mapped.boxes:
        assert all(number < box.number for number in (*box.reads, *box.drawn))
    every = frozenset(group.key for group in mapped.groups)
    for open_ in (frozenset[str](), every):
        row = {item.key: number for number, items in enumerate(mapped.rows(open_)) for item in items}
        owner = {box.number: item.key for item in mapped.visible(open_) for box in boxes_in(item)}
        assert sorted(row) == sorted(set(owner.values()))
        for box in mapped.boxes:
            for number in box.reads:
                same = owner[number] == owner[box.number]
                assert same or row[owner[number]] < row[owner[box.number]]
        panel = layout(
            mapped.items, open_, lambda item, within, width, opener: label(item, within, width, {}, opener=opener)
        )
        apart(panel)
        ElementTree.fromstring(mapped.svg(open_))


def apart(panel: Panel) -> None:
    """Hold that no two boxes of a panel overlap, and that all lie inside."""
    for number, one in enumerate(panel.placed):
        assert one.x >= -1e-9 and one.right <= 1 + 1e-9 and one.bottom <= panel.height + 1e-6
        for other in panel.placed[number + 1 :]:
            beside = one.right <= other.x + 1e-9 or other.right <= one.x + 1e-9
            assert beside or one.bottom <= other.y or other.bottom <= one.y, (one.item.key, other.item.key)
        if one.panel is not None:
            apart(one.panel)


@settings(max_examples=4)
@given(architectures())
def test_laws_hold_for_any_architecture(drawn: tuple[nn.Module, tuple[int, int]]) -> None:
    body, size = drawn
    net = Net(body, size=size)
    check(net, network_map(net))


@pytest.mark.parametrize("kind", [*networks.TINY, *networks.DEPENDENT, *networks.RANDOM, *networks.MOVED])
def test_laws_hold_for_every_way_of_writing(kind: str) -> None:
    net = networks.tiny(kind)
    check(net, network_map(net))


@pytest.mark.parametrize("kind", ["one piece", "one layer", "wide", "blocks", "dense", "long"])
def test_laws_hold_at_the_ends(kind: str) -> None:
    """TorchScript, a single layer, 32 branches beside each other, and 400 layers in a row."""
    body: Mapping[str, nn.Module] = {
        "one piece": torch.jit.trace(networks.tiny_body("concat").float(), torch.zeros(1, 3, 20, 20)),
        "one layer": nn.Conv2d(3, 1, 1),
        "wide": Wide(32),
        "blocks": Blocks(),
        "dense": Dense(4),
        "long": nn.Sequential(*(nn.Conv2d(3, 3, 1) if n % 3 else nn.MaxPool2d(3, 1, 1) for n in range(400))),
    }
    net = Net(body[kind], size=20)
    mapped = network_map(net)
    check(net, mapped)
    assert len(mapped.items) <= 150


class Wide(nn.Module):
    def __init__(self, branches: int) -> None:
        super().__init__()
        self.paths = nn.ModuleList(nn.Conv2d(3, 2, 3) for _ in range(branches))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([path(x) for path in self.paths], 1)


# The drawing ------------------------------------------------------------------------------------------------------

_EVIL = ['<script>alert("1")</script>', "a&b'\"<b>", "\u2028层" * 9, "x" * 150, "..", "\x07 bell"]


class Evil(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name in _EVIL:
            if "." not in name:
                self.add_module(name, nn.Conv2d(3, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        for part in self.children():
            x = part(x)
        return x


def test_names_are_text_wherever_they_stand() -> None:
    net = Net(Evil(), size=8, name='"><script>alert(2)</script>')
    first = next(iter(net.layers))
    drawn = network_map(net).svg(
        link=lambda layer: f'/layer/"{layer}', fold=str, marks={first: ["<img src=x onerror=alert(3)>"]}, current=first
    )
    root = ElementTree.fromstring(drawn)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "g", "a", "rect", "text", "path", "title", "tspan"}
    attributes = {name for element in root.iter() for name in element.attrib}
    assert not {name for name in attributes if name.startswith("on") or name == "style"}
    text = "".join("".join(element.itertext()) for element in texts(root))
    assert '<script>alert("1")</script>' in text.replace(" ", "")
    assert "x" * 150 in text


def texts(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    return (element for element in root.iter() if element.tag.endswith("}text"))


def test_links_lead_to_layers_and_to_the_map_with_a_group_opened() -> None:
    mapped = network_map(Net(Blocks(), size=8))
    drawn = mapped.svg(
        {"layer3"}, link=lambda layer: f"/layer/{layer}", fold=lambda key: f"?open={key}", current="alone"
    )
    root = ElementTree.fromstring(drawn)
    linked = {element.get("href"): element for element in root.iter() if element.tag.endswith("}a")}
    assert {"/layer/blocks.5", "?open=blocks", "/layer/layer3.0", "?open=layer3.0", "?open=layer3"} <= set(linked)
    assert "/layer/layer3" not in linked  # it is open
    assert (linked["?open=layer3"].get("aria-label") or "").startswith("Fold layer3")
    assert all(element.get("aria-label") for element in linked.values())
    assert drawn.count('aria-current="true"') == 1
    assert len(set(re.findall(r'id="([^"]+)"', drawn))) == drawn.count(" id=")
    assert "<a " not in mapped.svg()  # without addresses there are no links


def test_findings_are_said_on_the_box_and_on_the_group_that_holds_it() -> None:
    mapped = network_map(Net(Blocks(), size=8))
    marks = {"layer3.1.conv2": ["dead units"], "layer3.2.conv1": ["dead units"], "output": ["saturated"]}
    assert "▲ dead units (2)" in mapped.svg(marks=marks)
    boxes = {box["key"]: box for box in mapped.to_json(marks=marks)["boxes"]}
    assert boxes["layer3"]["findings"] == ["dead units (2)"]
    assert boxes["(mean)"]["findings"] == ["saturated"]
    assert boxes["layer3"]["reads"] == ["blocks"]
    assert (boxes["layer3"]["folded"], boxes["layer3"]["row"], boxes["(mean)"]["folded"]) == (3, 2, 0)


def test_the_same_network_has_the_same_map() -> None:
    first, second = (network_map(Net(Blocks(), size=8, name="n")) for _ in range(2))
    assert first == second
    assert first.svg({"blocks"}) == second.svg({"blocks"})


@pytest.mark.parametrize(
    ("parameters", "said"), [(0, ""), (999, "999"), (9_408, "9.41 k"), (25_557_032, "25.6 M"), (1_000_000_000, "1 G")]
)
def test_numbers_of_parameters_are_short(parameters: int, said: str) -> None:
    assert count_words(parameters) == said
