"""Draw the figures of the README: python docs/make_figures.py SQUEEZENET_WEIGHTS.safetensors"""

from __future__ import annotations

import sys
from pathlib import Path

from skimage.data import chelsea, coffee

import convscope

IMAGES = Path(__file__).parent / "images"


def main() -> None:
    net = convscope.load("torchvision:squeezenet1_0", weights=sys.argv[1] if len(sys.argv) > 1 else "default")
    # coffee: Rachel Michetti, CC0; chelsea: Stéfan van der Walt, CC0
    convscope.explain(net, coffee(), "grad_cam").save(IMAGES / "coffee-grad_cam.png")
    convscope.filters(convscope.load("zfnet64"), own_scale=True).save(IMAGES / "zfnet64-filters.png")
    convscope.project(net, chelsea(), layer="features.7", top=6).save(IMAGES / "chelsea-project.png")


if __name__ == "__main__":
    main()
