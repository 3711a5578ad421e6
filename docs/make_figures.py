"""Draw the figures of the README: python docs/make_figures.py SQUEEZENET_WEIGHTS.safetensors"""

from __future__ import annotations

import sys
from pathlib import Path

from skimage.data import chelsea

import convscope

IMAGES = Path(__file__).parent / "images"


def main() -> None:
    net = convscope.load("torchvision:squeezenet1_0", weights=sys.argv[1] if len(sys.argv) > 1 else "default")
    picture = chelsea()  # by Stéfan van der Walt, CC0
    convscope.explain(net, picture, "grad_cam", "Egyptian cat").save(IMAGES / "chelsea-grad_cam.png")
    convscope.project(net, picture, layer="features.7", top=6).save(IMAGES / "chelsea-project.png")


if __name__ == "__main__":
    main()
