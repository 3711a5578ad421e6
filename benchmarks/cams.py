"""Time the class activation maps against a peer, in one run.

    python benchmarks/cams.py [--rounds 5] [--batch 8] [--perturbed resnet18]

The gradient methods run on ResNet-50, Score-CAM and Ablation-CAM, with one picture, on a smaller network. Both sides
run in turn, round after round, so that a machine that speeds up or slows down does so for both; a figure is the median
over rounds, a ratio the median of the ratios of the same round. The peer is pytorch-grad-cam, called as its README
says; how far its map is from ours, each scaled to its peak, is printed too (`align="stretch"`, as it lays its maps).
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import pytorch_grad_cam
import torch
import torchvision
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from convscope import Net, as_objective
from convscope.registry import find

Run = Callable[[], object]

CLASS = 281
GRADIENT = {
    "grad_cam": "GradCAM",
    "grad_cam_plus_plus": "GradCAMPlusPlus",
    "hires_cam": "HiResCAM",
    "layer_cam": "LayerCAM",
    "xgrad_cam": "XGradCAM",
    "eigen_cam": "EigenCAM",
}
PERTURBED = {"score_cam": "ScoreCAM", "ablation_cam": "AblationCAM"}


def network(name: str) -> Net:
    """Build a network with random weights, whose parameters the peer needs to be trainable."""
    torch.manual_seed(0)
    body = torchvision.models.get_model(name, weights=None).eval()
    return Net(body, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), name=name)


def ours(net: Net, pixels: torch.Tensor, method: str) -> Run:
    function, objective = find(method).function, as_objective(net, CLASS)
    return lambda: function(net, pixels, objective, layer="layer4", align="stretch")


def theirs(body: nn.Module, inputs: torch.Tensor, name: str) -> Run:
    """Build the peer's method; it reads what has been normalised already."""
    targets = [ClassifierOutputTarget(CLASS)] * len(inputs)

    def run() -> object:
        with getattr(pytorch_grad_cam, name)(model=body, target_layers=[body.layer4]) as cam:
            if hasattr(cam, "batch_size"):
                cam.batch_size = 32
            result = cam(input_tensor=inputs, targets=targets)
        body.zero_grad(set_to_none=True)
        return result

    return run


def compare(net: Net, batch: int, methods: dict[str, str], rounds: int) -> None:
    """Print a line per method: both medians, how many times as fast, how alike the maps are."""
    pixels = torch.rand(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    inputs = net.normalise(pixels)
    for method, peer in methods.items():
        sides = (ours(net, pixels, method), theirs(net.body, inputs, peer))
        maps = [torch.as_tensor(side()).reshape(batch, -1).clamp(min=0) for side in sides]
        alike = float(torch.nn.functional.cosine_similarity(*maps).mean())
        times = [[_timed(side) for side in sides] for _ in range(rounds)]
        mine, other = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(b / a for a, b in times)
        print(f"{method:20} {mine:8.3f} s   {peer:16} {other:8.3f} s   {ratio:6.2f} times as fast   alike {alike:.3f}")


def _timed(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--perturbed", default="resnet18", help="a ResNet of torchvision for the perturbed methods")
    options = parser.parse_args()
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {torch.get_num_threads()} threads")
    print(f"Python {platform.python_version()}, torch {torch.__version__}")
    print(f"resnet50, 224x224, batch {options.batch}")
    compare(network("resnet50"), options.batch, GRADIENT, options.rounds)
    print(f"{options.perturbed}, 224x224, one picture")
    compare(network(options.perturbed), 1, PERTURBED, options.rounds)


if __name__ == "__main__":
    main()
