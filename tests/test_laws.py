"""Laws that every registered method obeys on every way of writing a network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope import Net, Objective, as_objective
from convscope.errors import ConvscopeError
from convscope.objectives import ObjectiveBatch
from convscope.registry import METHODS, Entry, load_all
from networks import MOVED, SIZE, TINY, pictures, tiny, tiny_body

load_all()
OBJECTIVE = 2

OF_NO_PLACE = ("score_cam", "ablation_cam", "eigen_cam")
"""Methods that do not weigh positions by the objective, and refuse one about a single place (tests/test_local.py)."""

LINEAR = {name: entry for name, entry in METHODS.items() if entry.linear}

each_linear_method = pytest.mark.parametrize("entry", LINEAR.values(), ids=LINEAR)
each_method = pytest.mark.parametrize("entry", METHODS.values(), ids=METHODS)
each_network = pytest.mark.parametrize("kind", (*TINY, *MOVED))


def run(entry: Entry, net: Net, pixels: Tensor, of: Any = OBJECTIVE) -> Tensor:
    return entry.function(net, pixels, of if isinstance(of, Objective) else as_objective(net, of))


def state_of(module: nn.Module) -> dict[str, Any]:
    """Everything about a module that a method might leave changed."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "training": [part.training for part in module.modules()],
        "requires_grad": [p.requires_grad for p in module.parameters()],
        "grad": [None if p.grad is None else p.grad.clone() for p in module.parameters()],
        "values": {name: value.clone() for name, value in module.state_dict().items()},
        "identity": [id(part) for part in module.modules()] + [id(p) for p in module.parameters()],
        "inplace": [getattr(part, "inplace", None) for part in module.modules()],
        "hooks": [len(getattr(part, name)) for part in module.modules() for name in hooks],
    }


def assert_same(before: Any, after: Any) -> None:
    if isinstance(before, dict):
        for key in before:
            assert_same(before[key], after[key])
    elif isinstance(before, list):
        assert len(before) == len(after)
        for one, other in zip(before, after, strict=True):
            assert_same(one, other)
    elif isinstance(before, Tensor):
        assert torch.equal(before, after)
    else:
        assert before == after


@each_method
@each_network
def test_finite_right_shape_and_not_empty(entry: Entry, kind: str) -> None:
    net, pixels = tiny(kind), pictures(3)
    maps = torch.stack([run(entry, net, pixels, of) for of in range(5)])
    assert maps.shape[1:] in ((3, 3, SIZE, SIZE), (3, 1, SIZE, SIZE))
    assert torch.isfinite(maps).all()
    assert maps.abs().sum() > 0
    assert not maps.requires_grad
    if not entry.signed:
        assert maps.min() >= 0


@each_method
@each_network
def test_one_by_one_as_in_a_batch(entry: Entry, kind: str) -> None:
    net, pixels = tiny(kind), pictures(3)
    together = run(entry, net, pixels)
    alone = torch.cat([run(entry, net, one[None]) for one in pixels])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-12)


def assert_as_one_by_one(entry: Entry, net: Net, objectives: list[Objective]) -> None:
    pixels = pictures(len(objectives))
    together = run(entry, net, pixels, ObjectiveBatch(tuple(objectives)))
    alone = torch.cat([run(entry, net, pixels[i : i + 1], one) for i, one in enumerate(objectives)])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-12)


@each_method
@each_network
def test_every_picture_of_a_batch_has_its_own_objective(entry: Entry, kind: str) -> None:
    """The unit is above the layer that class activation maps take; a probability is not linear in that layer."""
    net = tiny(kind)
    unit = f"{list(net.layers)[-5]}:1@{'mean' if entry.name in OF_NO_PLACE else 'max'}"
    kinds = (OBJECTIVE, unit, f"{unit} - 0.5*bee" if entry.name == "cam" else f"p({OBJECTIVE})", OBJECTIVE)
    assert_as_one_by_one(entry, net, [as_objective(net, of) for of in kinds])


@each_method
def test_every_picture_of_a_batch_has_its_own_class(entry: Entry) -> None:
    net = tiny("residual")
    assert_as_one_by_one(entry, net, [as_objective(net, index) for index in (OBJECTIVE, 0, OBJECTIVE, 4)])


@each_method
@each_network
def test_nothing_is_left_behind(entry: Entry, kind: str) -> None:
    body = tiny_body(kind)
    next(body.parameters()).grad = torch.ones_like(next(body.parameters()))
    list(body.parameters())[1].requires_grad_(False)
    list(body.modules())[1].train()
    net, pixels = Net(body, size=SIZE), pictures()
    before, picture_before, seed = state_of(body), pixels.clone(), torch.get_rng_state()
    run(entry, net, pixels)
    assert_same(before, state_of(body))
    assert torch.equal(pixels, picture_before) and not pixels.requires_grad and pixels.grad is None
    assert torch.equal(seed, torch.get_rng_state())


class Fails(nn.Module):
    """Fails in the middle of the forward pass, once armed."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.armed = body, False

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        if self.armed:
            raise KeyError("a failure of the user's own")
        return x


@each_method
@each_network
def test_nothing_is_left_behind_after_an_exception(entry: Entry, kind: str) -> None:
    body = Fails(tiny_body(kind)).train()
    net, pixels = Net(body, size=SIZE), pictures()
    expected, before = run(entry, net, pixels), state_of(body)
    body.armed = True
    with pytest.raises(KeyError, match="of the user's own"):
        run(entry, net, pixels, Objective(as_objective(net, OBJECTIVE).terms))
    assert_same(before, state_of(body))
    body.armed = False
    torch.testing.assert_close(run(entry, net, pixels), expected, rtol=0, atol=0)


@each_method
@each_network
@pytest.mark.parametrize("surroundings", ["frozen", "no_grad", "inference_mode", "train mode"])
def test_surroundings_do_not_matter(entry: Entry, kind: str, surroundings: str) -> None:
    pixels = pictures()
    expected = run(entry, tiny(kind), pixels)
    net = tiny(kind)
    if surroundings == "frozen":
        net.body.requires_grad_(False)
    if surroundings == "train mode":
        net.body.train()
    modes: dict[str, Callable[[], Any]] = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
    with modes.get(surroundings, torch.enable_grad)():
        found = run(entry, net, pixels)
    torch.testing.assert_close(found.clone(), expected, rtol=0, atol=0)
    assert all(part.training == (surroundings == "train mode") for part in net.body.modules())


@each_method
@each_network
def test_works_in_bfloat16(entry: Entry, kind: str) -> None:
    single, half = tiny(kind, dtype=torch.float32), tiny(kind, dtype=torch.bfloat16)
    for net in (single, half):
        for position, module in enumerate(net.body.children()):
            if isinstance(module, nn.LocalResponseNorm):  # torch itself has none in bfloat16 on a CPU
                net.body[position] = nn.Identity()
    pixels = pictures(dtype=torch.float32)
    found, expected = run(entry, half, pixels).float(), run(entry, single, pixels)
    assert found.shape == expected.shape and torch.isfinite(found).all()
    if entry.name != "occlusion":  # differences of nearly equal scores drown in eight bits
        likeness = torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), 0)
        assert expected.abs().max() == 0 or likeness > 0.6


@each_linear_method
@each_network
def test_does_not_change_with_a_constant_added_to_all_scores(entry: Entry, kind: str) -> None:
    """I13, I23: a map is about how the score changes, not how high it is."""
    body = tiny_body(kind)
    shifted = nn.Sequential(copy.deepcopy(body), Plus(3.0))
    pixels = pictures()
    net, other = Net(body, size=SIZE), Net(shifted, size=SIZE)
    torch.testing.assert_close(run(entry, net, pixels), run(entry, other, pixels), rtol=1e-9, atol=1e-12)


class Plus(nn.Module):
    def __init__(self, constant: float) -> None:
        super().__init__()
        self.constant = constant

    def forward(self, x: Tensor) -> Tensor:
        return x + self.constant


@each_linear_method
@each_network
def test_doubles_with_the_objective(entry: Entry, kind: str) -> None:
    net, pixels = tiny(kind), pictures()
    doubled = run(entry, net, pixels, 2 * as_objective(net, OBJECTIVE))
    torch.testing.assert_close(doubled, 2 * run(entry, net, pixels), rtol=1e-9, atol=1e-12)


@each_method
def test_does_not_depend_on_the_other_pictures_of_the_batch(entry: Entry) -> None:
    net, pixels = tiny("residual"), pictures(3)
    changed = pixels.clone()
    changed[2] = 1 - changed[2]
    torch.testing.assert_close(run(entry, net, pixels)[:2], run(entry, net, changed)[:2], rtol=1e-9, atol=1e-12)


@each_method
def test_options_do_not_hide_those_of_every_command(entry: Entry) -> None:
    from convscope.commands.registered import COMMON, ONLY_METHODS

    assert not set(entry.options) & {*COMMON, *ONLY_METHODS}


@each_method
def test_docstring_says_shapes_and_source(entry: Entry) -> None:
    text = entry.function.__doc__ or ""
    assert entry.summary.endswith((".", ":")) or entry.summary
    assert "(n, c, h, w)" in text and "[0, 1]" in text
    assert "arXiv" in entry.paper or "doi:" in entry.paper
    assert all(option.help for option in entry.options.values())


@pytest.mark.parametrize(("head", "inside"), [("sigmoid", nn.Sigmoid()), ("softmax", nn.Softmax(1))])
@each_method
def test_a_probability_is_that_of_the_network_with_its_last_operation_inside(
    entry: Entry, head: Any, inside: nn.Module
) -> None:
    """p(class) of logits is the output of the same network that ends in a sigmoid (one logit) or softmax."""
    body, pixels, of = tiny_body("sequential"), pictures(1), OBJECTIVE
    if head == "sigmoid":
        last, of = body[-1][-1], 0  # type: ignore[index]
        last.weight.data, last.bias.data = last.weight.data[:1], last.bias.data[:1]
    logits, shares = Net(body, size=SIZE, head=head), Net(nn.Sequential(body, inside), size=SIZE)
    layer = {"layer": "3"} if "layer" in entry.options else {}
    within = {"layer": "0.3"} if "layer" in entry.options else {}
    maps = [
        outcome(entry, net, pixels, as_objective(net, text), options)
        for net, text, options in ((logits, f"p({of})", layer), (shares, str(of), within))
    ]
    assert shares.head.kind == "probability" and type(maps[0]) is type(maps[1])
    if isinstance(maps[0], Tensor):
        torch.testing.assert_close(maps[0], maps[1], rtol=1e-7, atol=1e-10)


def outcome(entry: Entry, net: Net, pixels: Tensor, of: Objective, options: dict[str, Any]) -> Tensor | type:
    """Return a method's maps, or the kind of its refusal."""
    try:
        return entry.function(net, pixels, of, **options)
    except ConvscopeError as error:
        return type(error)
