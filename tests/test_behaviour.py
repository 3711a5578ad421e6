"""Networks whose answer depends on the batch or on chance: right one at a time, refused, or repeatable by a seed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope
from convscope import Net, attribute, explain, explain_many, tap
from convscope.errors import NetworkError
from convscope.registry import METHODS, Entry, load_all
from networks import DEPENDENT, SIZE, TINY, Concat, Noisy, pictures, tiny, tiny_body

load_all()
each_method = pytest.mark.parametrize("entry", METHODS.values(), ids=METHODS)
each_dependent = pytest.mark.parametrize("kind", DEPENDENT)

# Seconds rather than minutes: what is tested does not depend on how many passes there are.
QUICK = {
    "occlusion": {"patch": 8, "stride": 6},
    "extremal": {"steps": 3},
    "rise": {"masks": 20},
    "integrated_gradients": {"steps": 8},
    "smooth_grad": {"samples": 4},
}


def run(entry: Entry, net: Net, pixels: Tensor) -> Tensor:
    known = {name: value for name, value in QUICK.get(entry.name, {}).items() if name in entry.options}
    return attribute(net, pixels, entry.name, of=2, **known)


class OneByOne(nn.Module):
    """A body that is given its pictures one at a time, whatever the batch."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.body(one[None]) for one in x])


# Pictures of a batch


@pytest.mark.parametrize("kind", TINY)
def test_pictures_of_most_networks_go_together(kind: str) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        behaviour = tiny(kind, dtype=dtype).behaviour(pictures(1))
        assert not behaviour.alone and not behaviour.remark and not behaviour.random


@each_dependent
def test_a_batch_is_computed_as_one_picture_at_a_time(kind: str) -> None:
    net, pixels = tiny(kind), pictures(3)
    expected = torch.cat([net(one[None]) for one in pixels])
    assert torch.equal(net(pixels), expected)
    assert ("influence each other" in net.behaviour(pixels).remark) == (kind != "one picture")


@each_dependent
@each_method
def test_every_map_of_a_batch_is_that_of_the_picture_alone(kind: str, entry: Entry) -> None:
    net, pixels = tiny(kind), pictures(2)
    maps = run(entry, net, pixels)
    alone = torch.cat([run(entry, net, one[None]) for one in pixels])
    torch.testing.assert_close(maps, alone, rtol=1e-6, atol=1e-9)


@each_dependent
@pytest.mark.parametrize("method", ["occlusion", "rise", "integrated_gradients", "smooth_grad", "extremal", "saliency"])
def test_the_batches_that_a_method_makes_are_of_one_picture_each(kind: str, method: str) -> None:
    """The oracle is a body that never sees more than one picture."""
    net, pixels = tiny(kind), pictures(1)
    apart = Net(OneByOne(tiny_body(kind)), mean=net.mean, std=net.std, size=SIZE)
    assert not apart.behaviour(pixels).alone
    expected = run(METHODS[method], apart, pixels)
    torch.testing.assert_close(run(METHODS[method], net, pixels), expected, rtol=1e-6, atol=1e-9)


def test_ablation_is_that_of_channels_one_at_a_time() -> None:
    net, pixels = tiny("batch statistics"), pictures(1)
    one_by_one = attribute(net, pixels, "ablation_cam", of=2, batch=1, layer="b")
    torch.testing.assert_close(attribute(net, pixels, "ablation_cam", of=2, layer="b"), one_by_one)


def test_pictures_are_made_as_one_at_a_time() -> None:
    net = tiny("batch statistics", dtype=torch.float32)
    make = partial(convscope.maximize, net, steps=3)
    both = make(of=["b:1", "b:2"])
    for row, unit in enumerate(("b:1", "b:2")):
        torch.testing.assert_close(
            both.values["pictures"][row], make(of=[unit]).values["pictures"][0], rtol=1e-3, atol=1e-3
        )


def test_a_leaf_of_pictures_apart_carries_all_gradients() -> None:
    """The lower of two leaves, on which the upper depends, gets its gradient through it."""
    net, pixels = tiny("batch statistics"), pictures(3)

    def gradients(some: Tensor) -> tuple[Tensor, ...]:
        read = tap(net, some, ["relu#1", "b", ""], leaf=["relu#1", "b"])
        return torch.autograd.grad(read[""].pow(2).sum(), [read["relu#1"], read["b"]])

    expected = [gradients(one[None]) for one in pixels]
    for number, gradient in enumerate(gradients(pixels)):
        assert torch.equal(gradient, torch.cat([each[number] for each in expected]))
    read = tap(net, pixels, ["relu#1", "b"], leaf=["b"])
    assert torch.equal(read["b"], torch.cat([tap(net, one[None], ["b"])["b"] for one in pixels]))


@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_the_caption_says_that_pictures_influence_each_other(method: str) -> None:
    net, pixels = tiny("batch statistics", dtype=torch.float32), pictures(3, dtype=torch.float32)
    said = "pictures of a batch influence each other in this network (first in layer 'bn'): computed one at a time"
    notes = [explain(net, one, method, of=2).note for one in pixels]
    assert all(note.count(said) == 1 for note in notes)
    assert [map_.note for map_ in explain_many(net, list(pixels), method, of=2, workers=1)] == notes
    assert said in convscope.maps(net, [pixels[0]], layer="b").content.note


class Beside(Concat):
    """Another input for every picture, and statistics of the batch."""

    def forward(self, x: Tensor, more: Tensor) -> Tensor:
        return super().forward((x + more) / x.max())


def test_what_is_read_besides_goes_with_its_picture() -> None:
    body, pixels, more = Beside().double(), pictures(3), pictures(3, seed=1)
    expected = torch.cat([Net(body, size=SIZE, extra=[more[i : i + 1]])(pixels[i : i + 1]) for i in range(3)])
    assert torch.equal(Net(body, size=SIZE, extra=[more])(pixels), expected)


class Picked(nn.Module):
    """Returns what only `output` makes a tensor of, of the type it says."""

    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.make = tiny_body("brightest"), make

    def forward(self, x: Tensor) -> dict[str, object]:
        return {"found": [self.make(self.body(x))]}


@pytest.mark.parametrize(
    "make",
    [
        lambda y: y,
        lambda y: y.argmax(1),
        lambda y: (1000 * y).to(torch.int32),
        lambda y: torch.complex(y, y),
        lambda y: y * torch.nan,
        lambda y: y.argmax(1) > 1,
    ],
    ids=["scores", "argmax", "integers", "complex", "nan", "truth values"],
)
def test_whatever_a_body_returns_its_behaviour_is_known(make: Callable[[Tensor], Tensor]) -> None:
    net = Net(Picked(make), size=SIZE, output=lambda result: result["found"][0])
    assert "influence each other" in net.behaviour(pictures(1)).remark


def test_a_body_that_fails_fails_where_it_is_used() -> None:
    net = Net(nn.Sequential(nn.Conv2d(3, 2, 30)), size=SIZE)
    assert not net.behaviour(pictures(1, dtype=torch.float32)).alone
    with pytest.raises(RuntimeError):
        net(pictures(2, dtype=torch.float32))


# Random networks


def noisy(kind: str = "noisy", **options: object) -> Net:
    return Net(tiny_body(kind), size=SIZE, name=kind, **options)  # type: ignore[arg-type]


@each_method
def test_a_random_network_is_refused_by_every_method(entry: Entry) -> None:
    line = Noisy.forward.__code__.co_firstlineno + 1
    words = f"noisy is random.*dropout, in line {line} of networks.py.*training=self.training.*seed=0.*seeds=8"
    with pytest.raises(NetworkError, match=words):
        attribute(noisy(), pictures(1), entry.name, of=2)
    with pytest.raises(NetworkError, match=words):
        explain(noisy(), pictures(1)[0], entry.name, of=2)
    with pytest.raises(NetworkError, match=words):
        explain_many(noisy(), [pictures(1)[0]], entry.name, of=2)


def test_a_random_network_is_refused_by_views() -> None:
    net = noisy()
    for view in (
        partial(convscope.maximize, net, of=["a:1"]),
        partial(convscope.maps, net, [pictures(1)[0]], layer="a"),
        partial(convscope.compare, net, pictures(1)[0]),
        partial(convscope.reconstruct, net, pictures(1)[0], layers=["a"]),
    ):
        with pytest.raises(NetworkError, match="noisy is random"):
            view()


@each_method
def test_with_a_seed_a_random_network_gives_the_same_map_twice(entry: Entry) -> None:
    pixels = pictures(2)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    first, again = (run(entry, noisy("jittered", seed=3), pixels) for _ in range(2))
    assert torch.equal(first, again)
    alone = torch.cat([run(entry, noisy("jittered", seed=3), one[None]) for one in pixels])
    torch.testing.assert_close(first, alone, rtol=1e-6, atol=1e-9)
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()


def test_the_seed_decides_and_is_said() -> None:
    maps = [explain(noisy(seed=seed), pictures(1)[0], "gradient", of=2) for seed in (0, 1)]
    assert not torch.equal(maps[0].values, maps[1].values)
    assert "this network draws random numbers: those of seed 1" in maps[1].note
    assert maps[0].recipe.key != maps[1].recipe.key


class Draws(Concat):
    draw: Callable[[], object] = staticmethod(lambda: 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 + self.draw())


def drawn(draw: Callable[[], object]) -> nn.Module:
    body = Draws().double()
    body.draw = draw  # type: ignore[method-assign]
    return body


@pytest.mark.parametrize(
    ("draw", "cause"),
    [
        (lambda: torch.rand(()), "rand, in line"),
        (lambda: torch.zeros(5).normal_(), "normal, in line"),
        (lambda: torch.bernoulli(torch.full((5,), 0.5)), "bernoulli, in line"),
        (lambda: float(np.random.rand()), "its code draws from NumPy"),
        (random.random, "its code draws from Python's random"),
    ],
    ids=["rand", "normal_", "bernoulli", "numpy", "python"],
)
def test_whatever_draws_is_named_and_obeys_the_seed(draw: Callable[[], object], cause: str) -> None:
    pixels = pictures(1)
    with pytest.raises(NetworkError, match=cause):
        attribute(Net(drawn(draw), size=SIZE), pixels, "gradient", of=1)
    net = Net(drawn(draw), size=SIZE, seed=0)
    assert torch.equal(net(pixels), net(pixels))
    assert torch.equal(attribute(net, pixels, "gradient", of=1), attribute(net, pixels, "gradient", of=1))


def test_what_no_seed_reaches_is_refused_with_one_too() -> None:
    own, passes = torch.Generator(), iter(range(10_000))
    for draw, cause in (
        (lambda: torch.rand((), generator=own), "from a generator of its own"),
        (lambda: next(passes), "keeps something from one pass to the next"),
    ):
        with pytest.raises(NetworkError, match=f"{cause}.*take that out") as caught:
            attribute(Net(drawn(draw), size=SIZE, seed=0), pictures(1), "gradient", of=1)
        assert "seeds=" not in str(caught.value)


def test_threads_draw_their_own_numbers() -> None:
    net, pixels, maps = noisy(seed=0), pictures(1), list[Tensor]()
    expected = attribute(net, pixels, "gradient", of=1)
    threads = [threading.Thread(target=lambda: maps.append(attribute(net, pixels, "gradient", of=1))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(maps) == 4 and all(torch.equal(map_, expected) for map_ in maps)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True])
def test_a_seed_is_a_whole_number(seed: object) -> None:
    with pytest.raises(NetworkError, match="seed is a whole number"):
        noisy(seed=seed)


def test_a_network_is_loaded_with_a_seed(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "from torch import nn\nfrom torch.nn import functional as F\n"
        "class M(nn.Conv2d):\n    def __init__(self): super().__init__(3, 2, 3)\n"
        "    def forward(self, x): return F.dropout(super().forward(x)).mean((2, 3))\n"
    )
    net = convscope.load(f"file:{tmp_path / 'm.py'}:M", size=SIZE, seed=3)
    drawn = explain(net, pictures(1, dtype=torch.float32)[0], "gradient", of=1)
    assert net.seed == 3 and drawn.recipe.network["source"]["options"]["seed"] == 3
    with pytest.raises(NetworkError, match=r"dropout, in line 5 of m.py.*--net-seed 0"):
        explain(net.seeded(None), pictures(1, dtype=torch.float32)[0], "gradient", of=1)


# Averages over seeds


def test_a_mean_over_seeds_is_that_of_maps_with_one_seed_each() -> None:
    picture = pictures(1, dtype=torch.float32)[0]
    mean = explain(noisy(), picture, "gradient", of=2, seeds=3)
    singles = torch.stack([explain(noisy(seed=seed), picture, "gradient", of=2).values for seed in range(3)])
    torch.testing.assert_close(mean.values, singles.mean(0))
    peak = singles.mean(0).abs().max()
    said = f"standard deviation of one draw {singles.std(0).mean() / peak:.0%} of the peak on average"
    assert "mean over 3 draws" in mean.note and said in mean.note
    assert mean.recipe.seeds == 3 and mean.recipe.key != explain(noisy(seed=0), picture, "gradient", of=2).recipe.key
    again = convscope.remake(mean.recipe, net=noisy(), pictures=[picture[None]])
    assert torch.equal(again.values, mean.values)


def test_the_objective_of_a_mean_is_the_top_class_of_the_mean_answer() -> None:
    pixels = pictures(1, dtype=torch.float32)
    found = explain(noisy(), pixels[0], "gradient", seeds=4)
    answers = torch.stack([noisy(seed=seed)(pixels).softmax(1) for seed in range(4)])
    assert found.recipe.objective == str(int(answers.mean(0).argmax()))


@pytest.mark.parametrize(("seeds", "words"), [(1, "from 2 on"), (True, "from 2 on"), (2, "tiny draws none")])
def test_what_cannot_be_averaged_is_refused(seeds: int, words: str) -> None:
    net = noisy() if seeds == 1 else Net(tiny_body("concat"), size=SIZE, name="tiny")
    with pytest.raises(convscope.errors.OptionError, match=words):
        explain(net, pictures(1)[0], "gradient", of=1, seeds=seeds)


def test_another_seed_is_another_drawing_that_can_be_remade() -> None:
    picture = pictures(1, dtype=torch.float32)[0]
    drawn = explain(noisy(seed=1), picture, "gradient", of=2)
    assert torch.equal(convscope.remake(drawn.recipe, net=noisy(seed=1), pictures=[picture[None]]).values, drawn.values)
    with pytest.raises(convscope.errors.RecipeError, match="random numbers of seed 1, and noisy has 2"):
        convscope.remake(drawn.recipe, net=noisy().seeded(2), pictures=[picture[None]])
