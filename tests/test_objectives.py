"""Objectives: every form of the grammar, what it means in numbers, and what is said when it means nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision import models

from convscope import Net, Objective, as_objective, explain, load, tap
from convscope.errors import ConvscopeError, LayerError, ObjectiveError
from convscope.objectives import ObjectiveBatch, Output, Unit
from convscope.tracing import OUTPUT
from networks import CLASSES, pictures, tiny

thorough = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


class Plain(nn.Module):
    """Small enough to compute by hand: two channels, x and -2 x + 1, rectified; classes are their sums and 3."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 2, 1).double(), nn.ReLU()
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, -2.0]).view(2, 1, 1, 1))
            self.conv.bias.copy_(torch.tensor([0.0, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        sums = self.relu(self.conv(x)).sum((2, 3))
        return torch.cat([sums, torch.full_like(sums[:, :1], 3)], 1)


def plain(classes: tuple[str, ...] = ()) -> Net:
    return Net(Plain(), size=(2, 3), classes=classes, name="plain")


PIXELS = torch.tensor([[0.0, 0.25, 0.5], [1.0, 0.75, 0.125]], dtype=torch.float64)[None, None]
# The convolution's second channel there: 1, 0.5, 0 / -1, -0.5, 0.75.


def named(*names: str) -> Net:
    body = nn.Sequential(nn.Conv2d(1, len(names), 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Net(body, size=4, classes=names, name="named")


def refused(net: Net, of: Any, error: type[Exception] = ObjectiveError) -> str:
    with pytest.raises(error) as caught:
        as_objective(net, of)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# What objectives mean


@pytest.mark.parametrize(
    ("objective", "value"),
    [
        (0, 2.625),
        ("1", 1 + 0.5 + 0 + 0 + 0 + 0.75),
        (2, 3.0),
        ("conv:0", 2.625 / 6),
        ("conv:1", 0.75 / 6),
        ("conv:1@mean", 0.75 / 6),
        ("conv:1@max", 1.0),
        ("conv:0@max", 1.0),
        ("conv:1@1,0", -1.0),
        ("conv:1@1, 2", 0.75),
        ("relu:1@1,0", 0.0),
        ("relu:1", 2.25 / 6),
        ("1:1@max", 1.0),
        ("conv", (2.625 + 0.75) / 12),
        ("relu", (2.625 + 2.25) / 12),
        (":1", 2.25),
        (":1@max", 2.25),
        ("0 + 1", 4.875),
        ("0 - 1", 0.375),
        ("2*0", 5.25),
        ("-2*0", -5.25),
        ("0.5 * 2 - 0.25*relu:1@0,1", 1.375),
        (".5*2 + 1e1*2 - 2.*2", 1.5 + 30 - 6),
        ("1 - 1 + relu:0@max - conv:1@1,1", 1.5),
        (lambda y: y[:, 0] - y[:, 1], 0.375),
        (lambda y: y.logsumexp(1), None),
    ],
    ids=lambda one: None if callable(one) else str(one),
)
def test_objectives_have_the_values_computed_by_hand(objective: Any, value: float | None) -> None:
    net, batch = plain(), torch.cat([PIXELS, PIXELS.flip(3)])
    value = torch.tensor([2.625, 2.25, 3.0], dtype=torch.float64).logsumexp(0).item() if value is None else value
    score = as_objective(net, objective)(net, batch)
    assert score.shape == (2,)
    assert score[0].item() == pytest.approx(value, abs=1e-12)


def test_positions_count_rows_first() -> None:
    net = plain()
    assert as_objective(net, "conv:0@0,2")(net, PIXELS).item() == 0.5
    assert as_objective(net, "conv:0@1,0")(net, PIXELS).item() == 1.0


def test_sums_and_multiples_of_objectives() -> None:
    net = plain()
    a, b = as_objective(net, 0), as_objective(net, "relu:1@max")
    for objective, value in ((a + b, 3.625), (a - b, 1.625), (2 * a, 5.25), (a * 0.5, 1.3125), (-a, -2.625)):
        assert objective(net, PIXELS).item() == pytest.approx(value, abs=1e-12)
        assert as_objective(net, objective) is objective
    assert (a - 2 * b).layers == (OUTPUT, "relu")
    assert str(a - 2 * b) == "0 - 2.0*relu:1@max" and as_objective(net, str(a - 2 * b)) == a - 2 * b


def test_only_the_layers_needed_are_run() -> None:
    net, runs = plain(), []
    assert len(net.layers) == 3
    handle = net.body.relu.register_forward_hook(lambda *_: runs.append(1))
    as_objective(net, "conv:0")(net, PIXELS)
    assert runs == []
    as_objective(net, "conv:0 + relu:0")(net, PIXELS)
    assert runs == [1]
    handle.remove()


def test_the_gradient_of_a_maximum_goes_to_one_position_when_several_tie() -> None:
    net, pixels = plain(), torch.full((2, 1, 2, 3), 0.25, dtype=torch.float64, requires_grad=True)
    score = as_objective(net, "conv:1@max")(net, pixels)
    assert score.tolist() == [0.5, 0.5]
    (gradient,) = torch.autograd.grad(score.sum(), pixels)
    assert [(one != 0).sum().item() for one in gradient] == [1, 1]
    assert gradient.sum().item() == -4.0


def test_a_position_can_be_set_later_for_channels_only() -> None:
    objective = as_objective(plain(), "0 + conv:1 + conv:0@mean + relu")
    assert str(objective.at((1, 2))) == "0 + conv:1@1,2 + conv:0@mean + relu"
    assert str(objective.at("max")) == "0 + conv:1@max + conv:0@mean + relu"
    assert objective.at(None) == objective


def test_the_class_is_known_when_the_objective_is_one_class() -> None:
    net = plain(("a", "b", "c"))
    assert [as_objective(net, of).class_index for of in (2, "b", "0", ":1")] == [2, 1, 0, 1]
    for of in ("a - b", "2*a", "conv:1", "conv", ":1@max", lambda y: y[:, 0]):
        assert as_objective(net, of).class_index is None


def test_titles_are_plain_words() -> None:
    net = plain(("ant", "bee", "cat"))
    assert as_objective(net, 1).title(net) == "bee"
    assert as_objective(net, "ant - 0.5*conv:1@0,2").title(net) == "ant - 0.5*channel 1 of conv at row 0, column 2"
    assert as_objective(net, "relu").title(net) == "layer relu"
    assert as_objective(plain(), 1).title(plain()) == "class 1"

    def confidence(y: Tensor) -> Tensor:
        return y.softmax(1)[:, 0]

    assert as_objective(net, confidence).title(net) == "confidence" == str(as_objective(net, confidence))


# Reading and writing


def _units(net: Net) -> st.SearchStrategy[Unit]:
    """Every unit that an objective can name. (A whole layer whose name is a number reads as a class.)"""
    choices: list[st.SearchStrategy[Unit]] = []
    for name, layer in net.layers.items():
        if name != OUTPUT and not name.isdigit():
            choices.append(st.just(Unit(name)))
        if len(layer.shape) not in (1, 3):
            continue
        channels = st.integers(0, layer.shape[0] - 1)
        position: st.SearchStrategy[Any] = st.sampled_from([None, "max", "mean"])
        if layer.spatial:
            position |= st.tuples(*(st.integers(0, extent - 1) for extent in layer.shape[1:]))
        choices.append(st.builds(Unit, st.just(name), channels, position))
    return st.one_of(choices)


NETS = {kind: tiny(kind) for kind in ("sequential", "residual", "shared", "concat")} | {"plain": plain()}
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1.0, -1.0, 0.5, 1e16, 1e-7])


@pytest.mark.parametrize("kind", NETS)
def test_every_objective_is_read_as_it_is_written(kind: str) -> None:
    net = NETS[kind]

    @given(st.lists(st.tuples(numbers, _units(net)), min_size=1, max_size=4))
    @thorough
    def check(terms: list[tuple[float, Unit]]) -> None:
        objective = Objective(tuple(terms))
        again = as_objective(net, str(objective))
        assert again == objective
        assert str(again) == str(objective)

    check()


@given(st.text(max_size=30) | st.text("0123456789.:@*+- ,eabcmaxn#", max_size=20))
@thorough
def test_any_text_is_an_objective_or_refused(text: str) -> None:
    for net in (NETS["residual"], NETS["plain"]):
        try:
            objective = as_objective(net, text)
        except (ObjectiveError, LayerError) as error:
            assert str(error)
        else:
            assert as_objective(net, str(objective)) == objective


@pytest.mark.parametrize("names", [("3", "1", "0", "2"), ("10", "20", "30", "2"), ("1", "2", "3", "4")], ids=str)
def test_written_objectives_mean_the_same_class_when_names_are_numbers(names: tuple[str, ...]) -> None:
    net = named(*names)
    for index in range(len(names)):
        assert as_objective(net, str(as_objective(net, index))) == as_objective(net, index)
    for name in names:
        assert as_objective(net, str(as_objective(net, name))) == as_objective(net, name)


# Classes


def test_classes_by_index_name_part_and_case() -> None:
    net = tiny("sequential")
    assert CLASSES == ("ant", "bee", "cat", "tabby cat", "dog")
    for objective, index in {"bee": 1, "BEE": 1, " Bee ": 1, "cat": 2, "Cat": 2, "tabby": 3, "by c": 3, "o": 4}.items():
        assert as_objective(net, objective) == as_objective(net, index) == as_objective(net, str(index)), objective


def test_parts_of_several_names_are_refused_with_their_indices() -> None:
    message = refused(named("red cat", "black cat", "dog"), "cat")
    assert "'cat' is part of 2 class names" in message and "0 red cat, 1 black cat" in message


def test_unknown_classes_get_the_nearest_names() -> None:
    message = refused(tiny("sequential"), "tabby cta")
    assert "no class or layer 'tabby cta'" in message and "'tabby cat'" in message
    assert "'stem'" in refused(tiny("residual"), "stm") or "'stem'" in refused(tiny("residual"), "stemm")
    assert "no class names" in refused(plain(), "dog") and "give an index" in refused(plain(), "dog")


def test_names_that_several_classes_have_need_an_index() -> None:
    with torch.device("meta"):
        net = load("torchvision:alexnet", weights=None)
    names = models.get_model_weights("alexnet").DEFAULT.meta["categories"]
    first, second = (index for index, name in enumerate(names) if name.lower() == "cardigan")
    message = refused(net, "cardigan")
    assert "2 classes named 'cardigan'" in message and f"{first} or {second}" in message
    assert {as_objective(net, index).title(net) for index in (first, second)} == {"cardigan", "Cardigan"}
    assert refused(net, "cardigan - 3").startswith(message.partition(" has ")[0])
    assert as_objective(net, "egyptian cat - 0.5*lynx").title(net) == "Egyptian cat - 0.5*lynx"


ODD = ("salt - and - pepper", "C++", "a + b", "time: 12:30", "7-Eleven", "3*star", "me@home", "-5", "conv", "x: 3")


@pytest.mark.parametrize("index", range(len(ODD)), ids=ODD)
def test_names_with_signs_digits_and_colons(index: int) -> None:
    net = named(*ODD)
    assert as_objective(net, ODD[index]) == as_objective(net, ODD[index].upper()) == as_objective(net, index)
    assert as_objective(net, str(as_objective(net, ODD[index]))) == as_objective(net, index)


def test_odd_names_in_sums() -> None:
    net = named(*ODD)
    assert as_objective(net, "C++ - 0.5*7-Eleven") == as_objective(net, 1) - 0.5 * as_objective(net, 4)
    assert as_objective(net, "time: 12:30 + me@home") == as_objective(net, 3) + as_objective(net, 6)


@pytest.mark.parametrize(
    ("index", "words"), [(5, "0 to 4: there is no class 5"), (-1, "no class -1"), ("99", "99"), ("+7", "7")]
)
def test_indices_out_of_range(index: int | str, words: str) -> None:
    assert words in refused(tiny("sequential"), index)


# Layers and channels


@pytest.mark.parametrize(
    ("kind", "objective", "words"),
    [
        ("residual", "stem:6", "layer 'stem' has channels 0 to 5: there is no 6"),
        ("residual", "stem:0@10,0", "rows 0 to 9 and columns 0 to 9 for a picture of 20x20: there is no position 10,0"),
        ("residual", "stem:0@0,10", "no position 0,10"),
        ("residual", "stem:0@1", "'features.8:42@6,6'"),
        ("residual", "stem:0@1,2,3", "a unit is layer:channel"),
        ("residual", "stem:-1", "a unit is layer:channel"),
        ("residual", "stem:a", "a unit is layer:channel"),
        ("residual", "stem@max", "a unit is layer:channel"),
        ("residual", "stem:0@min", "a unit is layer:channel"),
        ("residual", ":0@1,1", "the output has no spatial positions"),
        ("residual", "head.2:0@1,1", "has no spatial positions: write 'head.2:0'"),
        ("residual", "", "the objective is empty"),
        ("residual", "   ", "the objective is empty"),
        ("residual", "0 - stemm:1@max - 3", "'stem'"),
    ],
)
def test_units_that_do_not_exist(kind: str, objective: str, words: str) -> None:
    with pytest.raises((ObjectiveError, LayerError)) as caught:
        as_objective(tiny(kind), objective)
    assert words in str(caught.value)


def test_layers_by_number_name_and_call() -> None:
    sequential, residual = tiny("sequential"), tiny("residual")
    assert as_objective(residual, "1:3") == as_objective(residual, "stem:3")
    assert as_objective(residual, "3:3") == as_objective(residual, "b:3")
    assert as_objective(sequential, "1:3").layers == ("1",), "a name comes before the number of a convolution"
    assert as_objective(sequential, "2:3").layers == ("2",)
    assert as_objective(residual, "relu#2:1@max").layers == ("relu#2",)
    with pytest.raises(LayerError, match="runs 3 times: ask for 'relu#1' or 'relu#2' or 'relu#3'"):
        as_objective(residual, "relu:1")
    with pytest.raises(LayerError, match="3 convolutions, numbered from 1: there is no 9"):
        as_objective(residual, "9:0")


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.tokens, self.head = nn.Conv2d(3, 4, 5), nn.Flatten(2), nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tokens(self.conv(x)).mean(2, keepdim=True))


def test_layers_without_channels_are_objectives_as_a_whole() -> None:
    net = Net(Tokens(), size=9)
    assert "shape (4, 25), without channels" in refused(net, "tokens:1")
    assert as_objective(net, "tokens")(net, pictures(2, side=9, dtype=torch.float32)).shape == (2,)


def test_networks_with_one_number_or_a_map_as_output() -> None:
    dense = Net(nn.Conv2d(1, 2, 1).double(), size=(2, 3), name="dense")
    assert str(as_objective(dense, 1)) == "1" and str(as_objective(dense, ":1@1,2")) == ":1@1,2"
    assert as_objective(dense, ":1@1,2")(dense, PIXELS).item() == dense(PIXELS)[0, 1, 1, 2].item()
    assert as_objective(dense, 1)(dense, PIXELS).item() == pytest.approx(dense(PIXELS)[0, 1].mean().item())
    single = Net(nn.Sequential(nn.Conv2d(1, 1, (2, 3)).double(), nn.Flatten(0)), size=(2, 3), name="single")
    assert as_objective(single, lambda y: y)(single, PIXELS).shape == (1,)
    assert "single" in refused(single, 0)
    assert "single" in refused(single, ":0")


# Functions


def test_functions_of_the_output() -> None:
    net, batch = tiny("sequential"), pictures(3)
    margin = as_objective(net, lambda y: y[:, 2] - y[:, 4])
    torch.testing.assert_close(margin(net, batch), as_objective(net, "cat - dog")(net, batch))
    assert str(as_objective(net, nn.Flatten(0))) == "Flatten"
    mixed = margin - 2 * as_objective(net, "dog")
    torch.testing.assert_close(mixed(net, batch), net(batch)[:, 2] - 3 * net(batch)[:, 4])


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda y: y, "shape (3, 5) for 3 pictures: expected (3,)"),
        (lambda y: y.sum(), "shape () for 3 pictures"),
        (lambda y: y[:1, 0], "shape (1,) for 3 pictures"),
        (lambda y: y[:, :1], "shape (3, 1)"),
        (lambda y: 3.0, "float"),
        (lambda y: None, "NoneType"),
        (lambda y: y[:, 0].tolist(), "list"),
    ],
)
def test_functions_must_give_one_number_per_picture(function: Callable[[Tensor], Any], words: str) -> None:
    net = tiny("sequential")
    with pytest.raises(ObjectiveError) as caught:
        as_objective(net, function)(net, pictures(3))
    assert words in str(caught.value) and "one number per picture" in str(caught.value)


def test_functions_of_another_layer() -> None:
    net, batch = tiny("residual"), pictures(2)
    objective = Objective(((1.0, Output(lambda a: a.amax((1, 2, 3)), "stem")),))
    torch.testing.assert_close(objective(net, batch), tap(net, batch, ["stem"])["stem"].amax((1, 2, 3)))


# Integers of other libraries


@pytest.mark.parametrize(
    "of",
    [
        torch.tensor(3), torch.tensor([3]), torch.tensor([[3]], dtype=torch.uint8),
        np.int64(3), np.uint8(3), np.array(3), np.array([3]), np.array([[3]], dtype=np.int16),
    ],
    ids=repr,
)  # fmt: skip
def test_class_indices_of_torch_and_numpy(of: Any) -> None:
    assert as_objective(tiny("sequential"), of) == as_objective(tiny("sequential"), 3)


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (torch.tensor([1, 2]), r"shape (2,) is no class index: give one integer"),
        (np.array([[1, 2]]), r"shape (1, 2) is no class index"),
        (torch.tensor([]), r"shape (0,)"),
        (torch.tensor(3.0), "3 is a floating point number: a class index is an integer"),
        (np.float32(3.5), "3.5 is a floating point number"),
        (2.0, "2 is a floating point number"),
        (torch.tensor(5), "there is no class 5"),
        (np.array([-1]), "there is no class -1"),
        ([1, 2], "attribute(net, pixels, method, of=[...])"),
        (None, "a NoneType is no objective"),
    ],
    ids=str,
)
def test_what_is_no_class_index(of: Any, words: str) -> None:
    assert words in refused(tiny("sequential"), of)


# One objective per picture

UNITS = ("bee", "stem:1", "p(cat)", "stem:2@1,2 - 0.5*dog", "bee", "a:0@max", "p(cat)")


def batch_of(net: Net, *objectives: Any) -> ObjectiveBatch:
    return ObjectiveBatch(tuple(as_objective(net, of) for of in objectives))


@pytest.mark.parametrize(
    "objectives",
    [
        UNITS,
        UNITS[::-1],
        (3, 0, 0, 4),
        (3, 3, 3),
        ("bee",),
        ("stem:1", "stem:1"),
        (0, "relu#3:1"),
        (1, "p(1)", ":1@max"),
    ],
    ids=str,
)
def test_every_picture_is_scored_by_its_own_objective(objectives: tuple[Any, ...]) -> None:
    net, pixels = tiny("residual"), pictures(len(objectives)).requires_grad_()
    batch = batch_of(net, *objectives)
    alone = torch.cat([as_objective(net, of)(net, pixels[i : i + 1]) for i, of in enumerate(objectives)])
    together = batch(net, pixels)
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    grads = [torch.autograd.grad(score.sum(), pixels)[0] for score in (together, alone)]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-10, atol=1e-12)


def test_equal_objectives_are_computed_once_for_all_their_pictures() -> None:
    net, sizes = tiny("residual"), []

    def margin(output: Tensor) -> Tensor:
        sizes.append(len(output))
        return output[:, 0] - output[:, 1]

    batch_of(net, margin, 2, margin, margin)(net, pictures(4))
    assert sizes == [3]


def test_the_rows_of_a_pass_have_their_pictures_objectives() -> None:
    net, pixels = tiny("residual"), pictures(4)
    batch = batch_of(net, 0, "stem:1", 2, 0)
    scores = batch(net, pixels)
    for index in ([1, 1, 3, 0, 2, 1], slice(1, 3), slice(None, None, 2), [2]):
        torch.testing.assert_close(batch.rows(index)(net, pixels[index]), scores[index])
    assert batch.rows(1) == as_objective(net, "stem:1") and batch.rows(-1) == as_objective(net, 0)
    plain = as_objective(net, 0)
    assert plain.rows(1) is plain.rows([0, 0]) is plain.rows(slice(2)) is plain


def test_a_pass_with_another_number_of_pictures_is_refused() -> None:
    net = tiny("residual")
    for objectives in ((0, 1), (0, "stem:1"), (0, 0)):
        with pytest.raises(ObjectiveError, match=r"2 objectives for a pass of 3 pictures: .*objective.rows\(...\)"):
            batch_of(net, *objectives)(net, pictures(3))
    with pytest.raises(ObjectiveError, match="the list of objectives is empty"):
        ObjectiveBatch(())


def test_batches_of_objectives_are_written_added_and_multiplied() -> None:
    net, pixels = tiny("residual"), pictures(3)
    batch, plain = batch_of(net, "bee", "stem:1", 4), as_objective(net, "ant")
    assert str(batch) == "1; stem:1; 4" and batch.title(net) == "bee; channel 1 of stem; dog"
    assert batch.layers == (OUTPUT, "stem") and len(batch.terms) == 3
    assert batch.at("max") == batch_of(net, "bee", "stem:1@max", 4)
    assert (
        batch.class_index is None and batch_of(net, 3, 3).class_index == 3 and batch_of(net, 3, 2).class_index is None
    )
    scores, ant = batch(net, pixels), plain(net, pixels)
    for objective, expected in (
        (2 * batch, 2 * scores), (batch * 0.5, scores / 2), (-batch, -scores), (batch + plain, scores + ant),
        (plain + batch, scores + ant), (plain - 2 * batch, ant - 2 * scores), (batch - batch, 0 * scores),
    ):  # fmt: skip
        torch.testing.assert_close(objective(net, pixels), expected)


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion", "rise", "guided_backprop"])
@pytest.mark.parametrize(
    ("output", "words"),
    [
        (lambda y: torch.fft.fft(y.mean((2, 3))), "complex numbers.*abs"),
        (lambda y: y.mean((2, 3)).argsort(1), "int64, such as the index of a class.*output="),
        (lambda y: y.argmax(1), "int64"),
        (lambda y: (y * 255).to(torch.uint8), "uint8"),
        (lambda y: y.mean((2, 3)) > 0, "bool"),
    ],
    ids=["complex", "order", "classes by pixel", "bytes", "answers"],
)
def test_an_output_that_is_no_real_number_is_refused(output: Any, words: str, method: str) -> None:
    net = Net(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), size=12, output=output)
    for of in (None, "1"):
        with pytest.raises(ConvscopeError, match=words):
            explain(net, torch.rand(1, 3, 12, 12), method, of=of)
