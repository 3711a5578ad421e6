"""remake: the drawing that a recipe describes, made again, or what stands in the way."""

from __future__ import annotations

import inspect
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import addresses, registry
from .checks import checked
from .data.hashing import content_hash
from .drawing.base import Drawing
from .drawing.files import read_recipe
from .drawing.paper import PAPER
from .errors import PictureError, RecipeError, told
from .net import Net
from .predictions import ObjectiveLike
from .provenance import network_record, versions
from .recipes import DATA, NetworkSource, PictureRecord, Recipe
from .registry import Entry
from .running import explain, reads_itself, run
from .zoo.configured import code_file
from .zoo.loading import load_source


def remake(
    recipe: Recipe | str | Path,
    *,
    net: Net | None = None,
    pictures: Sequence[Any] | None = None,
    of: ObjectiveLike = None,
) -> Drawing:
    """Make a drawing again from its recipe, or from the file that holds it.

    Args:
        recipe: a Recipe, or the path of a .png, .pdf, .svg, .npz or .safetensors file that convscope wrote.
        net: the network, where it was not loaded by name.
        pictures: the pictures, in the recipe's order, where they are no longer where they were, or lie in a storage.
        of: the objective, where it was a function.

    Returns the same drawing; on the same machine it is written as the same bytes. Raises RecipeError for what differs:
    other weights, a picture that moved or changed, an objective that no file can hold. Warns where versions differ.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    entry = registry.load_all().get(recipe.method)
    if recipe.method in _AGAIN:
        raise RecipeError(f"a figure of {recipe.method} is drawn again by {_AGAIN[recipe.method](recipe)}")
    if entry is None:
        raise RecipeError(
            f"a recipe of {recipe.method!r} cannot be remade: it is no registered method or view; is a plugin missing?"
        )
    if entry.attributes and len(recipe.pictures) != 1:
        raise RecipeError(f"a map by {recipe.method} is of one picture, and the recipe names {len(recipe.pictures)}")
    net = network_of(recipe, net)
    whole = next((each for each in entry.inputs.values() if reads_itself(each)), None)
    inputs = _pictures(recipe.pictures, pictures) if whole is None else []
    _warn_of_versions(recipe)
    written = {name for name, option in entry.options.items() if not option.recorded}
    options = {name: _unrecorded(value) for name, value in recipe.options.items() if name not in written}
    options |= {name: value for name, value in recipe.settled.items() if name in options}
    if whole is not None:
        reader = net if recipe.size is None else net.sized(recipe.size)
        inputs = [_data(recipe, whole.listed(reader, _sources(recipe, pictures), options).read())]
    drawing = _made(entry, net, inputs, _objective(recipe, of), recipe.size, options, recipe.seeds)
    # Options stand in the recipe as they were given, with what was settled beside them.
    drawing = replace(drawing, recipe=replace(drawing.recipe, options=recipe.options))  # type: ignore[type-var]
    if recipe.settled.get("check"):
        drawing = checked(net, drawing)  # type: ignore[arg-type]  # only maps are checked
    # Which paper it is set for is said when it is written.
    shown = {name: value for name, value in recipe.display.items() if name != PAPER}
    return replace(drawing, **shown) if shown else drawing  # type: ignore[type-var]


def _patches_again(recipe: Recipe) -> str:
    """Return the command that draws a figure of patches again."""
    given = dict(recipe.options)
    atlas, units = given.get("atlas"), given.get("units", ())
    place = str(atlas["where"]) if isinstance(atlas, Mapping) else "ATLAS"
    words = {"layer": given.get("layer") or "output", "units": ",".join(map(str, units))}
    words |= {name: str(given.get(name)) for name in ("band", "k", "method")}
    options = " ".join(f"{'-k' if name == 'k' else f'--{name}'} {shlex.quote(word)}" for name, word in words.items())
    return f"its command, from the atlas: convscope patches {shlex.quote(place)} {options}"


def _evolution_again(recipe: Recipe) -> str:
    """Return the command that draws an evolution again."""
    given = dict(recipe.options)
    units, snapshots = given.get("units", {}), ", ".join(given.get("snapshots", {}))
    return (
        f"its command, from the pictures and the snapshots {snapshots}: convscope evolution PICTURES --net "
        f"{shlex.quote(str(recipe.network.get('name')))} --layers {shlex.quote(','.join(units))} --method "
        f"{given.get('method')}, with the units as they were asked for ({units})"
    )


_AGAIN = {"patches": _patches_again, "evolution": _evolution_again}
"""Figures of more than a recipe opens, and how they are made again."""


def _made(
    entry: Entry,
    net: Net,
    inputs: list[Any],
    of: Any,
    size: int | tuple[int, int] | None,
    options: dict[str, Any],
    seeds: int | None,
) -> Drawing:
    if entry.attributes:
        return explain(net, inputs[0], entry.name, of, size=size, seeds=seeds, **options)
    if "of" in entry.options:
        options["of"] = of
    if options.get("of", inspect.Parameter.empty) is None and entry.options["of"].default is not None:
        del options["of"]
    several = entry.takes == "pictures"
    return run(entry, net, *([inputs] if several else inputs[:1] if entry.takes else []), **options)


def network_of(recipe: Recipe, net: Net | None = None) -> Net:
    """Return the network of a recipe, loaded unless it is given. Raises RecipeError where it is another one."""
    if net is None:
        net = _loaded(recipe)
    if net.digest != recipe.weights:
        raise RecipeError(
            f"the weights differ: the drawing was made by {recipe.network.get('name')} with weights {recipe.weights}, "
            f"and {net.name} has {net.digest}"
        )
    old, new = ({**record.get("reads", {})} for record in (recipe.network, network_record(net)))
    differing = [
        f"{name} was {old.get(name)} and is {new[name]}" for name in new if name in old and old[name] != new[name]
    ]
    if recipe.network.get("seed") != net.seed:
        raise RecipeError(
            f"the network drew the random numbers of seed {recipe.network.get('seed')}, and {net.name} has {net.seed}"
        )
    if differing:
        raise RecipeError(f"the network reads pictures otherwise: {'; '.join(differing)}")
    return net


def _loaded(recipe: Recipe) -> Net:
    record = recipe.network.get("source")
    if record is None:
        raise RecipeError(
            f"{recipe.network.get('name')} was not loaded by name: give the network, as remake(..., net=net)"
        )
    try:
        source = NetworkSource(**record)
    except TypeError as error:  # a recipe of somebody else's making
        raise RecipeError(f"the recipe does not say how its network was loaded: {error}") from None
    if code_file(source.name) is not None:
        # A drawing that was sent must not decide what runs here.
        raise RecipeError(
            f"the network is {source.name!r}, which runs code, and a recipe may have come from anybody: look at the "
            f"file, then give the network, as remake(..., net=load({source.name!r}, weights={source.weights!r}))"
        )
    try:
        return load_source(source)
    except (TypeError, AttributeError) as error:
        raise RecipeError(f"the recipe's network cannot be loaded as it says: {told(error)}") from None


def _pictures(records: Sequence[PictureRecord], pictures: Sequence[Any] | None) -> list[Any]:
    if pictures is not None and len(pictures) != len(records):
        raise RecipeError(f"the drawing shows {len(records)} pictures, and {len(pictures)} are given")
    sources = [record.where for record in records] if pictures is None else list(pictures)
    for record, source in zip(records, sources, strict=True):
        _check_picture(record, source, given=pictures is not None)
    return sources


def _sources(recipe: Recipe, pictures: Sequence[Any] | None) -> list[Any]:
    """Return the sources of a data set, as they are given or as the recipe has them. Raises RecipeError."""
    sources = list(recipe.settled.get(DATA, ()) if pictures is None else pictures)
    remote = next((where for where in sources if pictures is None and addresses.is_remote(where)), None)
    if not sources or remote is not None:
        why = "lies in a storage, which is asked in your name" if remote else "was in memory"
        raise RecipeError(
            f"the data set {remote or recipe.pictures[0].where} {why}: name it, as remake(..., pictures=['FOLDER'])"
        )
    return sources


def _data(recipe: Recipe, data: Any) -> Any:
    """Return a data set that was read. Raises RecipeError where it is another one."""
    if data.record.sha256 != recipe.pictures[0].sha256:
        raise RecipeError(
            f"the data are others than those of the drawing, {recipe.pictures[0].where}: here are {data.record.where}, "
            "with other contents or labels"
        )
    return data


def _check_picture(record: PictureRecord, source: Any, *, given: bool = False) -> None:
    """Raise RecipeError when a picture is not there, or is another one; a storage must be named by the user."""
    if not given and addresses.is_remote(record.where):
        raise RecipeError(
            f"the picture {record.where} lies in a storage, which is asked in your name, and a recipe may have come "
            f"from anybody: name it, as remake(..., pictures=[{record.where!r}])"
        )
    try:
        there = content_hash(source)
    except PictureError as error:
        if not record.sha256:  # as it was then
            return
        raise RecipeError(
            f"the picture {record.where} is not found ({error}): say where it is now, as "
            "remake(..., pictures=['elsewhere.jpg'])"
        ) from None
    if there != record.sha256:
        raise RecipeError(
            f"the picture {record.where} has changed since: its content had SHA-256 {record.sha256[:16]}..., and what "
            f"is there now has {there[:16]}..."
        )


def _objective(recipe: Recipe, of: ObjectiveLike) -> Any:
    if of is not None:
        return of
    if isinstance(recipe.of, dict):
        raise RecipeError(
            f"the objective was the function {recipe.of.get('function')!r}, which no file can hold: give it, as "
            "remake(..., of=function)"
        )
    return recipe.of


def _unrecorded(value: Any) -> Any:
    """Return an option as the method takes it: pictures by their address, checked."""
    if isinstance(value, list):
        return [_unrecorded(item) for item in value]
    if isinstance(value, dict) and set(value) == {"where", "sha256"}:
        record = PictureRecord(**value)
        _check_picture(record, record.where)
        return record.where
    return value


def _warn_of_versions(recipe: Recipe) -> None:
    here = versions()
    differing = [f"{name} {recipe.versions[name]} (here {here[name]})" for name in here
                 if recipe.versions.get(name, here[name]) != here[name]]  # fmt: skip
    if differing:
        warnings.warn(f"the drawing was made with {', '.join(differing)}: the last digits may differ", stacklevel=3)
