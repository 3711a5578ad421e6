"""Time the gradient methods against bare loops and a peer, in one run.

    make bench        or        python benchmarks/gradients.py [--rounds 5] [--batch 8]

Every contender runs in turn, round after round, so that a machine that speeds up or slows down does so for all; a
figure is the median over rounds, a ratio the median of the ratios of the same round.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torchvision
from torch import nn

from convscope import Net, as_objective
from convscope.attribution.cam import grad_cam
from convscope.attribution.deconvnet import deconvnet, guided_backprop
from convscope.attribution.gradient import gradient

Run = Callable[[], object]


def contenders(batch: int) -> dict[str, Run]:
    """Build what is timed: ResNet-50 with random weights and one class as the objective."""
    torch.manual_seed(0)
    body = torchvision.models.resnet50(weights=None).eval()
    net = Net(body, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), name="resnet50")
    pixels = torch.rand(batch, 3, 224, 224)
    objective = as_objective(net, 281)

    def bare() -> torch.Tensor:
        x = pixels.clone().requires_grad_()
        return torch.autograd.grad(body(x)[:, 281].sum(), x)[0]

    body.requires_grad_(False)
    return {
        "bare forward and input gradient": bare,
        "gradient": lambda: gradient(net, pixels, objective),
        "deconvnet": lambda: deconvnet(net, pixels, objective),
        "guided_backprop": lambda: guided_backprop(net, pixels, objective),
        "grad_cam": lambda: grad_cam(net, pixels, objective, layer="layer4"),
        "pytorch-grad-cam": peer(body, pixels),
    }


def peer(body: nn.Module, pixels: torch.Tensor) -> Run:
    """Build pytorch-grad-cam's GradCAM as its README does; it needs trainable parameters."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(281)] * len(pixels)

    def run() -> object:
        body.requires_grad_(True)
        with GradCAM(model=body, target_layers=[body.layer4]) as cam:
            result = cam(input_tensor=pixels, targets=targets)
        body.requires_grad_(False)
        body.zero_grad(set_to_none=True)
        return result

    return run


def measure(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Time every contender once a round, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def ratio(times: dict[str, list[float]], one: str, other: str) -> float:
    """Return the median over rounds of one contender's time divided by another's."""
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))


def help_time(rounds: int) -> float:
    """Return the median time of `convscope --help` as a whole process."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "convscope", "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {torch.get_num_threads()} threads, Python {platform.python_version()}")
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}; ResNet-50, 224x224, batch {options.batch}"
    )
    times = measure(contenders(options.batch), options.rounds)
    bare, cam = "bare forward and input gradient", "pytorch-grad-cam"
    for name, values in times.items():
        against = f"{ratio(times, name, bare):.2f} of bare"
        print(f"{name:34} {statistics.median(values):7.3f} s   {against}")
    print(f"grad_cam is {ratio(times, cam, 'grad_cam'):.2f} times as fast as {cam}")
    print(f"convscope --help: {help_time(options.rounds):.2f} s")


if __name__ == "__main__":
    main()
