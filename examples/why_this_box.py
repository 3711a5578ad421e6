"""Why this box? A detector made of a classifier: it scores boxes of its features, and keeps the best of each place.

python examples/why_this_box.py PICTURE OUT_FOLDER

The detectors of torchvision answer in the same form: Net(fasterrcnn_resnet50_fpn(...), output=box_score(box, label)).
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, roi_align

import convscope

SIZE, STRIDE = 128, 8


class Detector(nn.Module):
    """Return boxes, labels and scores for every picture, as a list of dicts."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        layers = dict(classifier.named_children())
        self.head = layers.pop("fc")
        self.features = nn.Sequential(*(layer for name, layer in layers.items() if name not in ("average", "flatten")))
        corners = product((48, 64, 80, 96), range(0, SIZE, 16), range(0, SIZE, 16))
        boxes = [(x, y, x + side, y + side) for side, y, x in corners if max(x, y) + side <= SIZE]
        self.register_buffer("boxes", torch.tensor(boxes, dtype=torch.float32))

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        return [self.found(features[None]) for features in self.features(x)]

    def found(self, features: Tensor) -> dict[str, Tensor]:
        inside = roi_align(features, [self.boxes], 8, 1 / STRIDE, aligned=True).mean((2, 3))
        scores, labels = self.head(inside).softmax(1).max(1)
        kept = batched_nms(self.boxes, scores, labels, 0.3)
        return {"boxes": self.boxes[kept], "labels": labels[kept], "scores": scores[kept]}


def main(picture: str, folder: str) -> None:
    shipped = convscope.load("zfnet64")
    detector = Detector(shipped.body)
    seen = {"size": SIZE, "mean": shipped.mean, "std": shipped.std, "name": "boxes of zfnet64"}
    # What a detector finds is read with the network's own preprocessing.
    plain = convscope.Net(detector, **seen, output=lambda result: result[0]["scores"])
    with torch.no_grad():
        found = detector(plain.normalise(plain.read(picture)))[0]
    box, label = found["boxes"][0].tolist(), int(found["labels"][0])
    print(f"{shipped.class_name(label)}, {float(found['scores'][0]):.2f}, in {box}")

    objective = convscope.box_score(box, label, called=shipped.class_name(label))
    net = convscope.Net(detector, **seen, output=objective)
    methods = {"saliency": {}, "smooth_grad": {"samples": 10}, "hires_cam": {"layer": "features.7"}}
    for method, options in (methods | {"occlusion": {"patch": 24, "stride": 8}}).items():
        drawing = convscope.explain(net, picture, method, **options)
        print(drawing.save(Path(folder) / f"box-{method}.png"), drawing.title)


if __name__ == "__main__":
    main(*sys.argv[1:3])
