"""Why this pixel's label? A segmenter made of a classifier: its last layer scores every place instead of their mean.

python examples/why_this_pixel.py PICTURE OUT_FOLDER

The segmenters of torchvision answer in the same form: Net(fcn_resnet50(...), output="out", ...).
"""

from __future__ import annotations

import sys
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

import convscope


class Segmenter(nn.Module):
    """Score every class at every pixel; return it as {"out": (n, classes, height, width)}."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        layers = dict(classifier.named_children())
        head = layers.pop("fc")
        self.features = nn.Sequential(*(layer for name, layer in layers.items() if name not in ("average", "flatten")))
        self.score = nn.Conv2d(head.in_features, head.out_features, 1)
        self.score.load_state_dict({"weight": head.weight[:, :, None, None], "bias": head.bias})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scores = self.score(self.features(x))
        return {"out": F.interpolate(scores, size=x.shape[-2:], mode="bilinear", align_corners=False)}


def main(picture: str, folder: str) -> None:
    shipped = convscope.load("zfnet64")
    body = Segmenter(shipped.body)
    net = convscope.Net(
        body, output="out", size=128, mean=shipped.mean, std=shipped.std, classes=shipped.classes, name="dense zfnet64"
    )
    scores = net(net.read(picture))[0]
    label = int(scores.mean((1, 2)).argmax())
    row, column = divmod(int(scores[label].argmax()), scores.shape[2])
    # Grad-CAM weighs channels over the whole picture; HiResCAM weighs every place by itself, and an objective about one
    # place needs that. The last layer knows only this place: an earlier one shows what it was made of.
    methods = {"saliency": {}, "hires_cam": {"layer": "features.7"}, "occlusion": {"patch": 24, "stride": 8}}
    for method, options in methods.items():
        drawing = convscope.explain(net, picture, method, of=f":{label}@{row},{column}", **options)
        print(drawing.save(Path(folder) / f"pixel-{method}.png"), drawing.title)

    region = scores.argmax(0) == label

    def its_region(out: Tensor) -> Tensor:
        return out[:, label, region].mean(1)

    drawing = convscope.explain(net, picture, "occlusion", of=its_region, patch=24, stride=8)
    print(drawing.save(Path(folder) / "region-occlusion.png"), drawing.title)


if __name__ == "__main__":
    main(*sys.argv[1:3])
