"""Runs that are cancelled from another thread, watched by a listener, or made again from their recipe."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import convscope
from convscope import Net, load, registry
from convscope.context import Cancelled, Part, in_context, running, whole
from convscope.data.samples import digits
from convscope.recipes import Recipe
from networks import tiny


def photo(width: int = 37, height: int = 29, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


MAKERS: dict[str, Callable[[Net], Any]] = {
    "maximize": lambda net: convscope.maximize(net, of="4:1; 4:2", steps=5000, batch=2, preview_every=1),
    "filters_by_ascent": lambda net: convscope.filters_by_ascent(
        net, layer="4", channels="0-3", steps=5000, batch=2, preview_every=1
    ),
    "class_model": lambda net: convscope.class_model(net, of="1", l2=0.1, steps=5000, preview_every=1),
    "dream": lambda net: convscope.dream(net, photo(), octaves=2, steps=5000, preview_every=1),
    "accentuate": lambda net: convscope.accentuate(net, photo(), of="1", steps=5000, preview_every=1),
    "invert": lambda net: convscope.invert(
        net, photo(), layers=["1", "4"], optimizer="adam", steps=5000, preview_every=1
    ),
    "style": lambda net: convscope.style(net, photo(), style=[photo(seed=1)], steps=5000, preview_every=1),
    "style-map": lambda net: convscope.style(
        net, photo(), style=[photo(seed=1)], map=True, steps=5000, optimizer="adam", preview_every=1
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_run_that_is_cancelled_from_another_thread_keeps_the_best_and_says_so(name: str) -> None:
    net, cancel, steps = tiny("sequential", dtype=torch.float32), threading.Event(), threading.Semaphore(0)
    with ThreadPoolExecutor(1) as pool, running(cancel=cancel, viewer=lambda _: steps.release()):
        run = pool.submit(in_context(lambda: MAKERS[name](net)))
        for _ in range(3):
            assert steps.acquire(timeout=60), run.exception(timeout=1)
        cancel.set()
        drawing = run.result(timeout=60)
    remarks = " ".join(drawing.recipe.remarks)
    assert "interrupted after" in remarks and "kept the best so far" in remarks
    assert all(np.isfinite(values).all() for values in drawing.numbers().values())
    assert drawing.render().width > 20


def interrupting(after: int) -> Callable[[Any, Any], Any]:
    """Return a tracker with which ctrl-C falls after so many steps of any loop."""

    def tracked(steps: Any, _: object) -> Any:
        for number, step in enumerate(steps):
            if number == after:
                raise KeyboardInterrupt
            yield step

    return tracked


ITERATIVE = MAKERS | {"extremal": lambda net: convscope.explain(net, photo(), "extremal", of=1, step=4)}


def test_all_that_climbs_is_in_the_law() -> None:
    climbing = {entry.name for entry in registry.load_all().values() if {"preview", "game"} & set(entry.options)}
    assert climbing == set(ITERATIVE) - {"style-map"}


def test_a_mask_that_is_interrupted_is_kept_and_says_so() -> None:
    net = tiny("sequential", dtype=torch.float32)
    with running(tracker=interrupting(3)):
        kept = ITERATIVE["extremal"](net)
    remark = next(each for each in kept.recipe.remarks if isinstance(each, Part))
    assert "interrupted after 3 of 100 steps; kept the mask so far" in remark
    assert np.ptp(kept.numbers()["map"]) > 0
    whole_key = replace(kept.recipe, settled={}).key
    assert kept.recipe.key != whole_key, "a run over a folder would take it as finished"
    assert Recipe.from_json(kept.recipe.to_json()).key == kept.recipe.key
    with running(tracker=interrupting(0)), pytest.raises(KeyboardInterrupt):
        ITERATIVE["extremal"](net)


@pytest.mark.parametrize("name", ITERATIVE)
def test_nothing_is_kept_where_only_whole_results_count(name: str) -> None:
    net = tiny("sequential", dtype=torch.float32)
    with running(tracker=interrupting(2)), whole(), pytest.raises(KeyboardInterrupt):
        ITERATIVE[name](net)


@pytest.mark.parametrize(
    "several",
    [
        lambda net: list(convscope.explain_many(net, [photo(), photo(seed=1)], "extremal", of=1, step=4)),
        lambda net: convscope.compare(net, photo(), methods=["extremal"], of="1"),
        lambda net: convscope.attribute(net, net.read(photo()), "extremal", of=1, step=4),
    ],
)
def test_an_interruption_ends_all_of_several_runs(several: Callable[[Net], Any]) -> None:
    """A part that were kept of one would pass for the whole, and the others would follow."""

    def tracker(steps: Any, label: Any) -> Any:
        return interrupting(2)(steps, label) if "extremal perturbation" in str(label) else steps

    with running(tracker=tracker), pytest.raises(KeyboardInterrupt):
        several(tiny("sequential", dtype=torch.float32))


def test_a_run_that_is_cancelled_before_its_first_step_is_cancelled() -> None:
    cancel = threading.Event()
    cancel.set()
    with running(cancel=cancel), pytest.raises(Cancelled):
        convscope.maximize(tiny("sequential"), of="4:1", steps=5)


def test_previews_reach_whoever_listens() -> None:
    images: list[Image.Image] = []
    with running(viewer=lambda make: images.append(make())):
        convscope.maximize(tiny("sequential"), of="4:1; 4:2", steps=9, batch=2, preview_every=4)
    assert len(images) == 2 and all(image.width >= 40 and image.height >= 20 for image in images)


def test_previews_are_no_part_of_a_recipe(tmp_path: Any) -> None:
    plain, shown = (
        convscope.dream(tiny("sequential", dtype=torch.float32), photo(), octaves=1, steps=2, **options).recipe
        for options in ({}, {"preview": tmp_path / "p.png", "preview_every": 1})
    )
    assert (tmp_path / "p.png").exists()
    assert "preview" not in plain.options and plain.key == shown.key


@pytest.mark.parametrize("name", ["units", "variants", "batch", "filters", "classes", "accentuate", "invert", "style"])
def test_what_the_run_decides_is_settled(name: str, tmp_path: Any) -> None:
    drawing = FEW_STEPS[name](load("lenet5"), saved(tmp_path))
    assert drawing.recipe.settled
    options = {**drawing.recipe.options, **drawing.recipe.settled}
    if name in ("units", "variants", "batch", "filters", "classes"):
        assert isinstance(options["batch"], int) and options["parametrization"] == (
            "maco" if name == "batch" else "fourier"
        )


def saved(folder: Any) -> dict[str, str]:
    paths = {"a": folder / "a.png", "b": folder / "b.png"}
    for seed, path in enumerate(paths.values()):
        photo(seed=seed).save(path)
    return {name: str(path) for name, path in paths.items()}


FEW_STEPS: dict[str, Callable[[Net, dict[str, str]], Any]] = {
    "units": lambda net, at: convscope.maximize(net, of=["relu1:0-4", "3"], steps=3),
    "init": lambda net, at: convscope.maximize(net, of="3", init=at["a"], transform="none", steps=3),
    "variants": lambda net, at: convscope.maximize(net, of="relu1:0; relu2:1", variants=2, steps=3, seed=7),
    "between": lambda net, at: convscope.maximize(net, of="relu1:0; relu1:1", between=3, steps=3),
    "batch": lambda net, at: convscope.maximize(net, of="relu1:0-4", steps=3, batch=3, preset="maco"),
    "filters": lambda net, at: convscope.filters_by_ascent(net, layer="relu2", steps=2),
    "classes": lambda net, at: convscope.class_model(net, of="3; 8", steps=3),
    "dream": lambda net, at: convscope.dream(net, at["a"], octaves=2, steps=2, seed=3),
    "guided": lambda net, at: convscope.dream(net, at["a"], guide=at["b"], layer="relu1", octaves=1, steps=2),
    "accentuate": lambda net, at: convscope.accentuate(net, digits()[3], of="8", steps=3, seed=2),
    "invert": lambda net, at: convscope.invert(net, digits()[3], layers=["relu1", "fc5"], steps=4, repeats=2),
    "style": lambda net, at: convscope.style(
        net, at["a"], style=[at["b"], at["a"]], style_mix=[3, 1], steps=3, size=40
    ),
    "style-map": lambda net, at: convscope.style(net, at["a"], style=[at["b"]], map=True, steps=2, size=40),
}


@pytest.mark.parametrize("name", FEW_STEPS)
def test_a_recipe_makes_the_same_bytes_again(name: str, tmp_path: Any) -> None:
    first = FEW_STEPS[name](load("lenet5"), saved(tmp_path)).save(tmp_path / "first.png")
    again = convscope.remake(first).save(tmp_path / "again.png")
    assert again.read_bytes() == first.read_bytes()
