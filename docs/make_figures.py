"""Draw the figures of the README and the gallery.

    python docs/make_figures.py SQUEEZENET_WEIGHTS.safetensors [--pictures FOLDER] [--sets FOLDER] [--only NAME ...]

The folder of pictures holds cat.jpg, of which one figure is made; that of sets `val`, the validation pictures of
zfnet64's classes, and `test`, those of CIFAR-10, each with a folder for each class. What is missing is left out.
"""

from __future__ import annotations

import argparse
import itertools
import re
import runpy
import tempfile
from pathlib import Path
from typing import Any

import pypdfium2
from PIL import Image
from skimage import data
from torch import Tensor, nn

import convscope
from convscope import Net
from convscope.checks import cascades

IMAGES = Path(__file__).parent / "images"


def explained(net: Net) -> None:
    """The README's figures of methods. coffee: Rachel Michetti, CC0; chelsea: Stéfan van der Walt, CC0."""
    convscope.explain(net, data.coffee(), "grad_cam").save(IMAGES / "coffee-grad_cam.png")
    methods = ["grad_cam", "occlusion", "integrated_gradients", "guided_backprop"]
    convscope.compare(net, data.chelsea(), methods=methods, of="Egyptian cat", check=True).save(
        IMAGES / "chelsea-compare.png"
    )
    maps = [convscope.explain(net, data.chelsea(), name, "Egyptian cat") for name in ("gradient", *methods)]
    cascades(net, maps, stages=4).save(IMAGES / "chelsea-cascade.png")
    convscope.filters(convscope.load("zfnet64"), own_scale=True).save(IMAGES / "zfnet64-filters.png")
    convscope.project(net, data.chelsea(), layer="features.7", top=6).save(IMAGES / "chelsea-project.png")


def units(net: Net) -> None:
    """Mosaics of three layers of two networks, and the figure of the README."""
    for name, layers in ((net, ("features.1", "features.5", "features.12")),
                         (convscope.load("zfnet64"), ("relu1", "relu3", "relu6"))):  # fmt: skip
        for layer in layers:
            mosaic = convscope.filters_by_ascent(name, layer=layer, channels="0-20")
            mosaic.save(IMAGES / f"{name.name.removesuffix('1_0')}-{layer}.png")
    chosen = "features.5:20; features.7:33; features.9:7; features.10:12; features.12:100; lemon"
    convscope.maximize(net, of=chosen).save(IMAGES / "squeezenet-units.png")


def variety(net: Net) -> None:
    """Several pictures for one unit, and the way from one to another."""
    convscope.maximize(net.sized(160), of="features.10:12", variants=4).save(IMAGES / "squeezenet-diversity.png")
    convscope.maximize(net.sized(160), of="features.9:7; features.9:33", between=5).save(
        IMAGES / "squeezenet-between.png"
    )


def classes(net: Net) -> None:
    """Class models of both networks."""
    convscope.class_model(net, of="lemon; dalmatian; goose; bell pepper", seed=1).save(
        IMAGES / "squeezenet-classes.png"
    )
    own = convscope.load("zfnet64").sized(96)
    convscope.class_model(own, of="espresso; tabby; goldfish; school bus").save(IMAGES / "zfnet64-classes.png")


def dream(net: Net) -> None:
    """A dream of a sky. rocket: SpaceX, CC0."""
    convscope.dream(net, data.rocket()[:300, 100:]).save(IMAGES / "rocket-dream.png")


def kept(net: Net) -> None:
    """What layers keep of a photograph, and what would excite a class in it."""
    convscope.invert(net, data.chelsea()).save(IMAGES / "chelsea-invert.png")
    convscope.accentuate(net, data.chelsea(), of="tiger cat").save(IMAGES / "chelsea-accentuate.png")


def styled(net: Net, pictures: Path | None) -> None:
    """A style transfer, and what every layer carries. Tissue: scikit-image's immunohistochemistry(), CC0."""
    with tempfile.TemporaryDirectory() as folder:
        texture = Path(folder) / "tissue.png"
        Image.fromarray(data.immunohistochemistry()).save(texture)
        arguments: dict[str, Any] = {"style": [str(texture)]}
        convscope.style(net, data.chelsea(), map=True, **arguments).save(IMAGES / "chelsea-style-map.png")
        if pictures is not None:
            drawing = convscope.style(net, pictures / "cat.jpg", size=448, **arguments)
            drawing.save(IMAGES / "cat-style.png")


def answers(net: Net) -> None:
    """Why this box, why this pixel: what the examples draw, of a small picture. And what two pictures share."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "chelsea.png"
        Image.fromarray(data.chelsea()[:, 60:360]).resize((150, 150), Image.Resampling.LANCZOS).save(picture)
        for objective in ("pixel", "box"):
            example = IMAGES.parent.parent / "examples" / f"why_this_{objective}.py"
            runpy.run_path(str(example))["main"](str(picture), folder)
            (Path(folder) / f"{objective}-occlusion.png").replace(IMAGES / f"chelsea-{objective}.png")
        (block,) = (b for b in _blocks() if "class Alike" in b)
        exec(block.replace("cat.jpg", str(picture)).replace("alike.png", str(IMAGES / "chelsea-alike.png")), {})


class Mirrored(nn.Module):
    """Looks at the mirror image of every picture."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.flip(3))


def anyones(_: Net) -> None:
    """A deep network whose weights are a package, and one that moves pixels."""
    deep = convscope.load("efficientnet-lite0")
    methods = ["grad_cam", "occlusion", "integrated_gradients", "guided_backprop"]
    convscope.compare(deep, data.coffee(), methods=methods, check=True).save(IMAGES / "coffee-efficientnet.png")
    own = convscope.load("zfnet64").sized(128)
    mirrored = Net(Mirrored(own.body), mean=own.mean, std=own.std, size=128, classes=own.classes, head="softmax")
    convscope.explain(mirrored, data.chelsea(), "grad_cam").save(IMAGES / "chelsea-mirrored.png")


def handed_on(_: Net) -> None:
    """A grid, Zeiler & Fergus' Fig. 5, and pages of reports as they are printed."""
    net, samples = convscope.load("zfnet64"), ["sample:coffee", "sample:chelsea", "sample:rocket"]
    convscope.grid(net.sized(128), samples, methods=["grad_cam", "occlusion", "saliency"]).save(IMAGES / "grid.png")
    convscope.invariance(net, samples).save(IMAGES / "invariance.png")
    with tempfile.TemporaryDirectory() as folder:
        for name, preset, page in (("report", "why", 0), ("lesson", "lesson", 0)):
            options: dict[str, Any] = {"size": 128} if preset == "why" else {}
            done = convscope.report(net, samples, Path(folder) / f"{name}.pdf", preset=preset, **options)
            image = pypdfium2.PdfDocument(done.path)[page].render(scale=1.25).to_pil().convert("RGB")
            image.quantize(128).save(IMAGES / f"{name}-page.png", optimize=True)


def scanned(_: Net) -> None:
    """Figures 2 and 4, over pieces of photographs in the public domain that scikit-image comes with."""
    photos = [
        getattr(data, name)()
        for name in ("astronaut", "camera", "chelsea", "coffee", "coins", "moon", "rocket", "text")
    ]
    with tempfile.TemporaryDirectory() as folder:
        for number, photo in enumerate(photos):
            image = Image.fromarray(photo).convert("RGB")
            for side in (64, 100, 160):
                for x, y in itertools.product(
                    range(0, image.width - side + 1, side), range(0, image.height - side + 1, side)
                ):
                    image.crop((x, y, x + side, y + side)).save(Path(folder) / f"{number}-{side}-{x}-{y}.png")
        net = convscope.load("zfnet64")
        drawing = convscope.evolution(net, folder, layers=["conv3", "conv5"], units="random:4")
        drawing.save(IMAGES / "zfnet64-evolution.png")
        found = convscope.scan(net, folder, Path(folder) / "atlas", layers=["relu2", "relu3"])
        convscope.patches(convscope.Atlas(found), "relu3", "random:12").save(IMAGES / "zfnet64-patches.png")


def studied(_: Net, sets: Path | None) -> None:
    """Figures of studies; half an hour."""
    if sets is not None:
        net = convscope.load("zfnet64")
        convscope.effects(net, sets / "val", limit=24).save(IMAGES / "zfnet64-effects.png")
        convscope.probe(net, sets / "val").save(IMAGES / "zfnet64-probe.png")
        convscope.transfer(net, sets / "test", per_class=100).save(IMAGES / "zfnet64-transfer.png")


def _blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (IMAGES.parent / "networks.md").read_text(), re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="?", default="default")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--sets", type=Path)
    parser.add_argument("--only", nargs="*", choices=sorted(PARTS), default=list(PARTS))
    given = parser.parse_args()
    net = convscope.load("torchvision:squeezenet1_0", weights=given.weights)
    for name in given.only:
        further = {"styled": given.pictures, "studied": given.sets}
        PARTS[name](net, *([further[name]] if name in further else []))


PARTS: dict[str, Any] = {
    "studied": studied,
    "explained": explained,
    "units": units,
    "variety": variety,
    "classes": classes,
    "dream": dream,
    "kept": kept,
    "styled": styled,
    "answers": answers,
    "anyones": anyones,
    "handed_on": handed_on,
    "scanned": scanned,
}


if __name__ == "__main__":
    main()
