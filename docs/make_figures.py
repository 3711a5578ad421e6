"""Draw the figures of the README: python docs/make_figures.py SQUEEZENET_WEIGHTS.safetensors"""

from __future__ import annotations

import sys
from pathlib import Path

from skimage.data import chelsea, coffee

import convscope
from convscope.checks import cascades

IMAGES = Path(__file__).parent / "images"


def main() -> None:
    net = convscope.load("torchvision:squeezenet1_0", weights=sys.argv[1] if len(sys.argv) > 1 else "default")
    # coffee: Rachel Michetti, CC0; chelsea: Stéfan van der Walt, CC0
    convscope.explain(net, coffee(), "grad_cam").save(IMAGES / "coffee-grad_cam.png")
    methods = ["grad_cam", "occlusion", "integrated_gradients", "guided_backprop"]
    convscope.compare(net, chelsea(), methods=methods, of="Egyptian cat", check=True).save(
        IMAGES / "chelsea-compare.png"
    )
    maps = [convscope.explain(net, chelsea(), name, "Egyptian cat") for name in ("gradient", *methods)]
    cascades(net, maps, stages=4).save(IMAGES / "chelsea-cascade.png")
    convscope.filters(convscope.load("zfnet64"), own_scale=True).save(IMAGES / "zfnet64-filters.png")
    convscope.project(net, chelsea(), layer="features.7", top=6).save(IMAGES / "chelsea-project.png")


if __name__ == "__main__":
    main()
