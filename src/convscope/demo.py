"""The demonstration: every method and view on sample pictures, on one page that needs no network."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

from . import outputs, registry, sheets
from .drawings import Drawing, Gallery, Heatmap
from .explaining import explain, predict
from .methods.features import filters, maps, project, reconstruct
from .net import Net
from .pages import article, bars, contents, page, section
from .reporting import track
from .zoo import DEFAULT, load
from .zoo.samples import digits

_SHOWN = (3, 5, 8)


def write_demo(folder: Path) -> Path:
    """Draw everything into `folder` and return the page, `folder`/index.html.

    Beside the page lie every figure as PNG, with its recipe inside, and its numbers as .npz.
    """
    net, pictures = load(DEFAULT), digits()
    steps = [
        lambda: _introduction(net),
        lambda: _predictions(net, pictures),
        *(lambda entry=entry: _method(folder, net, entry, pictures) for entry in _methods()),
        *(lambda layer=layer: _maps(folder, net, pictures, layer) for layer in ("conv1", "conv2", "conv3")),
        lambda: _views(folder, net, pictures),
    ]
    introduction, *parts = [step() for step in track(steps, "demo")]
    titles = re.findall(r"<h2>(.*?)</h2>", "".join(parts))
    text = page("convscope: a look into LeNet-5", introduction + contents(titles) + "".join(parts))
    return outputs.write(folder / "index.html", lambda to: to.write_text(text, encoding="utf-8"))


def _methods() -> list[registry.Entry]:
    registry.load_all()
    order = ("gradient", "saliency", "gradient_x_input", "deconvnet", "guided_backprop", "grad_cam", "occlusion")
    rank = {name: place for place, name in enumerate(order)}
    return sorted(registry.METHODS.values(), key=lambda entry: rank.get(entry.name, len(order)))


def _introduction(net: Net) -> str:
    parameters = sum(p.numel() for p in net.body.parameters())
    text = (
        f"This page looks into <b>{html.escape(net.name)}</b>, a network of {parameters:,} parameters that reads "
        "handwritten digits. It was trained by the project and ships with the package, so nothing was downloaded. "
        "Every figure lies beside this page as a PNG that knows how it was made "
        "(<code>convscope show FIGURE.png</code>), with its numbers. The same commands work on any torchvision network "
        "and on your own: <code>convscope grad_cam cat.jpg --net torchvision:resnet50</code>."
    )
    return f"<h1>A look into LeNet-5</h1><p class='lead'>{text}</p>"


def _predictions(net: Net, pictures: Sequence[Path]) -> str:
    cards = []
    for path in pictures:
        view = net.view(path)
        probabilities = predict(net, net.pixels(view))[0]
        best = probabilities.topk(3)
        rows = [(net.class_name(int(i)), float(p)) for p, i in zip(best.values, best.indices, strict=True)]
        image = sheets.data_uri(sheets.enlarged(view.original, 84))
        cards.append(f"<div class='card'><img src='{image}' alt='handwritten digit' width='84'>{bars(rows)}</div>")
    return section(
        "What it says",
        "The three most probable digits for each picture, with their probabilities.",
        f"<div class='cards'>{''.join(cards)}</div>",
    )


def _method(folder: Path, net: Net, entry: registry.Entry, pictures: Sequence[Path]) -> str:
    drawings: list[Heatmap] = [explain(net, pictures[digit], entry.name) for digit in _SHOWN]
    body = "".join(
        _figure(folder, drawing, f"{entry.name}-{digit}") for drawing, digit in zip(drawings, _SHOWN, strict=True)
    )
    caveat = f"<p class='caveat'>{html.escape(entry.title)}: {html.escape(entry.caveat)}.</p>" if entry.caveat else ""
    return section(entry.title, entry.summary, caveat + body, source=entry.paper)


def _maps(folder: Path, net: Net, pictures: Sequence[Path], layer: str) -> str:
    drawing = maps(net, pictures, layer=layer, top=None if layer != "conv3" else 24)
    return section(
        f"Feature maps of {layer}",
        "Every digit as a row, every channel as a column.",
        _figure(folder, drawing, f"maps-{layer}"),
    )


def _views(folder: Path, net: Net, pictures: Sequence[Path]) -> str:
    drawings: dict[str, tuple[str, Gallery]] = {
        "project-conv2": ("What single units saw", project(net, pictures[3], layer="relu2", top=9)),
        "reconstruct": ("What each layer keeps", reconstruct(net, pictures[:5])),
        "filters": ("First-layer filters", filters(net)),
    }
    return "".join(section(title, "", _figure(folder, drawing, name)) for name, (title, drawing) in drawings.items())


def _figure(folder: Path, drawing: Drawing, name: str) -> str:
    drawing.save(folder / f"{name}.png")
    drawing.save_values(folder / f"{name}.npz")
    return article(
        sheets.to_html(drawing.sheet()), drawing.recipe.to_json(), {f"{name}.png": "picture", f"{name}.npz": "numbers"}
    )
