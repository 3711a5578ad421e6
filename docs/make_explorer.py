"""Make the copy of the explorer's pages in docs/explorer, of which docs/explorer.md tells.

    python docs/make_explorer.py

A minute. The pictures are pieces of photographs in the public domain that scikit-image comes with, as in
make_figures.py.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

from PIL import Image
from skimage import data

import convscope
from convscope import Atlas
from convscope.atlas.patches import units_asked
from convscope.explorer.exporting import Copy

PLACE = Path(__file__).parent / "explorer"
PHOTOS = ("astronaut", "camera", "chelsea", "coffee", "coins", "moon", "rocket", "text")
LAYERS = ("conv1", "conv2", "conv3", "conv5")


def cut(folder: Path) -> None:
    """Write pieces of the photographs, each photograph's in a folder of its own."""
    for name in PHOTOS:
        image = Image.fromarray(getattr(data, name)()).convert("RGB")
        (folder / name).mkdir()
        for side in (64, 100, 160):
            places = itertools.product(range(0, image.width - side + 1, side), range(0, image.height - side + 1, side))
            for x, y in places:
                image.crop((x, y, x + side, y + side)).save(folder / name / f"{side}-{x}-{y}.png")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pieces = Path(folder) / "pieces"
        pieces.mkdir()
        cut(pieces)
        atlas = Atlas(convscope.scan(convscope.load("zfnet64"), str(pieces), Path(folder) / "atlas", layers=LAYERS))
        units = {name: sorted(units_asked(atlas, atlas.net.layers[name], "random:12")) for name in LAYERS}
        copy = Copy(atlas, units, bands=["strongest", "middle", "random"])
        copy.write(PLACE)
        copy.close()


if __name__ == "__main__":
    main()
