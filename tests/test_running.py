"""The runner: options are checked once, a list of pictures is refused, a batch has an objective each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch

import convscope as cs
from convscope import registry, running
from convscope.data.images import InputPicture
from convscope.drawing.drawings import Gallery, Picture
from convscope.drawing.layout import Sheet
from convscope.errors import (
    NetworkError,
    ObjectiveError,
    OptionError,
    OutputError,
    PictureError,
    PluginError,
    RecipeError,
)
from convscope.options import Option, Range, check_options, options_of
from networks import CLASSES, SIZE, pictures, tiny


@pytest.fixture
def net() -> cs.Net:
    return tiny("sequential", dtype=torch.float32)


def array(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


# Options


def example(
    *,
    count: Annotated[int, "how many", Range(1, 9)] = 3,
    share: Annotated[float, "a share", Range(0, 1, open=True)] = 0.5,
    mode: Annotated[Literal["fast", "exact"], "how"] = "fast",
    layers: Annotated[list[str] | None, "the layers"] = None,
    flag: Annotated[bool, "whether"] = False,
    folder: Annotated[Path | None, "where"] = None,
    pictures: Annotated[list[Path | Any] | None, "pictures"] = None,
) -> None:
    """Take one option of each kind."""


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("count", 9, 9),
        ("count", np.int64(4), 4),
        ("share", 1, 1.0),
        ("mode", "exact", "exact"),
        ("layers", ["a", "b"], ["a", "b"]),
        ("layers", ("a", 3), ["a", "3"]),
        ("layers", "a", ["a"]),
        ("layers", None, None),
        ("flag", True, True),
        ("folder", "x/y", Path("x/y")),
        ("pictures", [b"a picture"], [b"a picture"]),
        ("pictures", b"a picture", [b"a picture"]),
    ],
)
def test_options_are_converted(name: str, value: Any, expected: Any) -> None:
    converted = options_of(example)[name].check(value)
    assert converted == expected and type(converted) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("count", "3", "count is a whole number, 1 to 9, not '3': count=3"),
        ("count", 0, "count is a whole number, 1 to 9, not 0"),
        ("count", 2.5, "a whole number"),
        ("count", True, "a whole number"),
        ("count", None, "not None"),
        ("share", 0.0, "share is a number, above 0 to 1, not 0.0"),
        ("share", float("nan"), "not nan"),
        ("mode", "exakt", "one of 'fast', 'exact', not 'exakt'; nearest: 'exact'"),
        ("layers", [1.5j], "layers is a list, each text"),
        ("flag", "yes", "flag is True or False, not 'yes': flag=True"),
        ("folder", 3, "folder is a path, not 3"),
    ],
)
def test_options_of_a_wrong_type_or_range_are_refused(name: str, value: Any, words: str) -> None:
    with pytest.raises(OptionError) as caught:
        options_of(example)[name].check(value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [("count", "4", 4), ("share", "1e-1", 0.1), ("layers", "a, b", ["a", "b"]), ("flag", "no", False)],
)
def test_options_are_read_from_text(name: str, text: str, expected: Any) -> None:
    assert options_of(example)[name].parse(text) == expected


@pytest.mark.parametrize(("name", "text"), [("count", "four"), ("count", "12"), ("flag", "maybe"), ("mode", "x")])
def test_texts_that_are_no_value_are_refused(name: str, text: str) -> None:
    with pytest.raises(OptionError, match=name):
        options_of(example)[name].parse(text)


def test_unknown_options_are_named_with_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"example has no option 'cuont'; it has: 'count'"):
        check_options("example", options_of(example), {"cuont": 3})


def test_defaults_are_filled_in() -> None:
    values = check_options("example", options_of(example), {"count": 2})
    expected = {"count": 2, "share": 0.5, "mode": "fast", "flag": False}
    assert values == expected | {"layers": None, "folder": None, "pictures": None}


def test_an_option_without_a_default_is_asked_for(net: cs.Net) -> None:
    with pytest.raises(OptionError, match="maps needs layer, text"):
        cs.maps(net, array())


@pytest.mark.parametrize("call", ["explain", "attribute", "explain_many", "view"])
def test_the_four_entrances_refuse_alike(net: cs.Net, call: str) -> None:
    entrances: dict[str, Any] = {
        "explain": lambda **options: cs.explain(net, array(), "occlusion", **options),
        "attribute": lambda **options: cs.attribute(net, pictures(1, dtype=torch.float32), "occlusion", **options),
        "explain_many": lambda **options: cs.explain_many(net, [array()], "occlusion", **options),
        "view": lambda **options: cs.maps(net, array(), layer="0", **options),
    }
    option = "top" if call == "view" else "patch"
    with pytest.raises(OptionError, match=rf"{option} is a whole number.*, not '16': {option}=16"):
        entrances[call](**{option: "16"})
    with pytest.raises(OptionError, match="has no option 'ptach'"):
        entrances[call](ptach=16)


# What is explained


def test_a_list_of_pictures_is_for_explain_many(net: cs.Net) -> None:
    with pytest.raises(PictureError, match=r"explain_many\(net, pictures, method\)"):
        cs.explain(net, [array(), array(1)], "gradient")


def test_a_view_is_no_method(net: cs.Net) -> None:
    with pytest.raises(OptionError, match=r"maps is a view, not a method: call convscope.maps\(net, pictures, ...\)"):
        cs.explain(net, array(), "maps")


def test_predict_reads_pixels(net: cs.Net) -> None:
    with pytest.raises(PictureError, match=r"predict\(net, net.read\('cat.jpg'\)\)"):
        cs.predict(net, "cat.jpg")  # type: ignore[arg-type]


def test_no_net_is_refused_by_every_entrance() -> None:
    for call in (
        lambda: cs.explain(torch.nn.ReLU(), array(), "gradient"),  # type: ignore[arg-type]
        lambda: cs.attribute(torch.nn.ReLU(), pictures(1), "gradient"),  # type: ignore[arg-type]
        lambda: cs.explain_many(torch.nn.ReLU(), [array()], "gradient"),  # type: ignore[arg-type]
        lambda: cs.maps(torch.nn.ReLU(), array(), layer="0"),
    ):
        with pytest.raises(NetworkError, match="needs a Net, not ReLU"):
            call()


def test_inputs_by_name_and_too_many(net: cs.Net) -> None:
    by_name = cs.maps(net=net, pictures=array(), layer="0")
    assert torch.equal(by_name.values["maps"], cs.maps(net, array(), layer="0").values["maps"])
    with pytest.raises(OptionError, match="1 values too many: after net, pictures it takes layer, top, side_by_side"):
        cs.maps(net, array(), "0", None, True, 7)
    for twice in (lambda: cs.maps(net, array(), "0", layer="0"), lambda: cs.maps(net, array(), net=net)):
        with pytest.raises(OptionError, match=r"was given (layer|net) twice"):
            twice()
    with pytest.raises(OptionError, match=r"maps needs pictures: convscope.maps\(net, pictures, ...\)"):
        cs.maps(net, layer="0")


registry.load_all()


@pytest.mark.parametrize("name", registry.VIEWS)
def test_options_of_a_view_are_taken_by_position_as_by_name(net: cs.Net, name: str, monkeypatch: Any) -> None:
    """A law over the registry: what reaches the function is the same."""
    entry = registry.VIEWS[name]
    monkeypatch.setattr(type(entry), "check_options", lambda self, values: given.append(values) or stop())
    given: list[Any] = []

    def stop() -> None:
        raise InterruptedError

    inputs, values = [net, *[array()] * len(entry.inputs)], {option: object() for option in entry.options}
    for positional in range(len(values) + 1):
        by_name = dict(list(values.items())[positional:])
        with pytest.raises(InterruptedError):
            running.run(entry, *inputs, *list(values.values())[:positional], **by_name)
        assert given.pop() == values


def test_the_signature_in_the_documentation_may_be_followed_by_position(net: cs.Net) -> None:
    expected = cs.maps(net, [array(), array()], layer="0", top=2)
    assert torch.equal(cs.maps(net, [array(), array()], "0", 2).values["maps"], expected.values["maps"])


# attribute


def test_every_picture_of_a_batch_has_its_objective(net: cs.Net) -> None:
    pixels = pictures(3, dtype=torch.float32)
    of = [3, CLASSES[1], "0:2"]
    maps = cs.attribute(net, pixels, "gradient", of=of)
    for row, objective in enumerate(of):
        expected = cs.explain(net, pixels[row], "gradient", objective).values
        torch.testing.assert_close(maps[row], expected, rtol=1e-5, atol=1e-7)


def test_without_an_objective_each_has_its_top_class(net: cs.Net) -> None:
    pixels = pictures(3, dtype=torch.float32)
    top = cs.predict(net, pixels).argmax(1).tolist()
    torch.testing.assert_close(cs.attribute(net, pixels, "gradient"), cs.attribute(net, pixels, "gradient", of=top))


def test_as_many_objectives_as_pictures(net: cs.Net) -> None:
    with pytest.raises(ObjectiveError, match="2 objectives for 3 pictures"):
        cs.attribute(net, pictures(3, dtype=torch.float32), "gradient", of=[0, 1])
    with pytest.raises(PictureError, match="attribute reads pixels"):
        cs.attribute(net, "cat.jpg", "gradient")  # type: ignore[arg-type]


# Registration


def registered(name: str, module: str = __name__) -> Any:
    def function(net: cs.Net, pixels: Any, objective: Any) -> Any:
        """Return the pixels."""
        return pixels

    function.__name__, function.__module__ = name, module
    return function


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.load_all()
    monkeypatch.setattr(registry, "METHODS", dict(registry.METHODS))
    monkeypatch.setattr(registry, "VIEWS", dict(registry.VIEWS))


def test_a_second_entry_of_a_name_is_refused() -> None:
    ours = registry.METHODS["grad_cam"]
    for decorate in (cs.method("Mine", paper="", signed=True), cs.view("Mine")):
        with pytest.raises(PluginError, match=r"there is a method 'grad_cam' already, in convscope.attribution.cam"):
            decorate(registered("grad_cam"))
    assert registry.METHODS["grad_cam"] is ours


def test_a_cell_of_a_notebook_may_run_twice() -> None:
    first, second = registered("powered"), registered("powered")
    cs.method("Powered", paper="", signed=True)(first)
    cs.method("Powered", paper="", signed=True)(second)
    assert registry.find("powered").function is second


def test_methods_are_listed_and_found_with_dashes() -> None:
    assert "grad_cam" in cs.list_methods() and "maps" not in cs.list_methods()
    assert "maps" in cs.list_methods("view") and "maps" in cs.list_methods(None)
    assert registry.find("grad-cam") is registry.find("grad_cam")


def test_a_view_gets_prepared_pictures_and_its_recipe(net: cs.Net, tmp_path: Path) -> None:
    seen: list[Any] = []

    def sizes(net: cs.Net, picture: InputPicture, *, count: Annotated[int, "how many", Range(1)] = 2) -> Gallery:
        """Show nothing."""
        seen.append(picture)
        return Gallery(Sheet("sizes", ((),), note="own"), {"count": torch.tensor(count)})

    drawing = cs.view("Sizes", paper="", caveat="beware")(sizes)(net, array(), count=5)
    assert isinstance(seen[0], InputPicture)
    assert drawing.recipe.method == "sizes" and drawing.recipe.options == {"count": 5}
    assert drawing.recipe.pictures[0].sha256 == seen[0].sha256
    assert drawing.content.note == "Sizes: beware.\nown"


# Recipes and remaking


def test_the_key_covers_what_decides_the_numbers(net: cs.Net, tmp_path: Path) -> None:
    from PIL import Image

    first, second = tmp_path / "a.png", tmp_path / "deep" / "b.png"
    second.parent.mkdir()
    for path in (first, second):
        Image.fromarray(array()).save(path)
    recipe = cs.explain(net, first, "occlusion", 1, patch=8).recipe
    assert recipe.key == cs.explain(net, second, "occlusion", 1, patch=8, baseline="mean").recipe.key
    others = [
        cs.explain(net, first, "occlusion", 2, patch=8),
        cs.explain(net, first, "occlusion", 1, patch=9),
        cs.explain(net, first, "gradient", 1),
        cs.explain(net.changed(mean=0.5), first, "occlusion", 1, patch=8),
        cs.explain(net, array(1), "occlusion", 1, patch=8),
    ]
    assert len({recipe.key, *(other.recipe.key for other in others)}) == 1 + len(others)
    assert cs.Recipe.from_json(recipe.to_json()).key == recipe.key


def test_a_drawing_is_remade_to_the_byte(tmp_path: Path) -> None:
    net = cs.load("lenet5")
    path = cs.explain(net, "sample:digits/3", "occlusion", patch=6).save(tmp_path / "x.png")
    again = cs.remake(path).save(tmp_path / "again.png")
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("method", "options"),
    [
        *(("grad_cam", {}), ("smooth_grad", {}), ("integrated_gradients", {})),
        *(("rise", {"masks": 40}), ("extremal", {"steps": 3})),
    ],
)
def test_methods_with_seeds_and_choices_are_remade(method: str, options: dict[str, int]) -> None:
    net = cs.load("lenet5", mean=0.1).changed(name="mine")
    drawing = cs.explain(net, "sample:digits/5", method, "p(5)", **options)
    again = cs.remake(drawing.recipe)
    assert again.recipe == drawing.recipe and again._repr_png_() == drawing._repr_png_()


def test_what_stands_in_the_way_of_remaking_is_said(net: cs.Net, tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "a.png"
    Image.fromarray(array()).save(path)
    drawing = cs.explain(net, path, "gradient", 1)
    with pytest.raises(RecipeError, match=r"was not loaded by name: give the network, as remake\(..., net=net\)"):
        cs.remake(drawing.recipe)
    assert torch.equal(cs.remake(drawing.recipe, net=net).values, drawing.values)  # type: ignore[attr-defined]
    other = tiny("residual", dtype=torch.float32)
    with pytest.raises(RecipeError, match="the weights differ"):
        cs.remake(drawing.recipe, net=other)
    moved = path.rename(tmp_path / "b.png")
    with pytest.raises(RecipeError, match=r"a.png is not found .*pictures=\['elsewhere.jpg'\]"):
        cs.remake(drawing.recipe, net=net)
    again = cs.remake(drawing.recipe, net=net, pictures=[moved])
    assert torch.equal(again.values, drawing.values)  # type: ignore[attr-defined]
    Image.fromarray(array(1)).save(path)
    with pytest.raises(RecipeError, match="has changed since"):
        cs.remake(drawing.recipe, net=net)
    function = cs.explain(net, moved, "gradient", lambda output: output[:, 0] * 2)
    with pytest.raises(RecipeError, match="the objective was the function"):
        cs.remake(function.recipe, net=net)


def test_a_newer_recipe_and_an_unknown_method_are_refused(net: cs.Net) -> None:
    text = cs.explain(net, array(), "gradient", 1).recipe.to_json()
    with pytest.raises(RecipeError, match=r"schema 99.*pip install --upgrade convscope"):
        cs.Recipe.from_json(text.replace('"schema": 1', '"schema": 99'))
    with pytest.raises(RecipeError, match="no registered method or view"):
        cs.remake(cs.Recipe(method="nothing"))
    with pytest.raises(RecipeError, match="a map by saliency is of one picture, and the recipe names 0"):
        cs.remake(cs.Recipe(method="saliency"))
    Picture(torch.zeros(3, 4, 4), cs.Recipe())
    with pytest.raises(OutputError):
        Picture(torch.zeros(3, 4, 4), cs.Recipe()).save("x.xyz")


def test_options_are_read_once_from_annotations() -> None:
    option = registry.find("occlusion").options["patch"]
    assert isinstance(option, Option) and option.help
