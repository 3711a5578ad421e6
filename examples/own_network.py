"""Look into a network of your own: here one that hides its rectifiers from module hooks.

From Python:            python examples/own_network.py PICTURE OUT_FOLDER
From the command line:  convscope saliency PICTURE --net file:examples/own_network.py:build
With trained weights:   ... --weights my_weights.safetensors
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convscope


class Mine(nn.Module):
    """A small residual network with functional ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 7, stride=2, padding=3)
        self.inner = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
        x = F.relu(x + self.inner(x))
        return self.head(x.mean((2, 3)))


def build() -> convscope.Net:
    """Build the network, and say how it reads pictures; a plain module would do where --mean and --std say so."""
    torch.manual_seed(0)
    return convscope.Net(
        Mine(),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        size=96,
        classes=("this", "that", "other"),
        name="mine",
        note="random weights, seed 0",
    )


def main(picture: str, folder: str) -> None:
    net = build()
    for layer in net.layers.values():
        print(f"{layer.name or '(output)':10} {layer.kind:10} {layer.shape}  sees {layer.field.size}")
    for method in ("saliency", "deconvnet", "grad_cam", "occlusion"):
        drawing = convscope.explain(net, picture, method, of="that - this")
        print(drawing.save(Path(folder) / f"{method}.png"), drawing.recipe.remarks)


if __name__ == "__main__":
    main(*sys.argv[1:3])
