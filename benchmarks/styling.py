"""Time one step of style transfer against a bare loop, in one run, and name the memory that each takes.

    python benchmarks/styling.py [--rounds 5] [--size 256] [--steps 5] [--networks vgg16]

A step is a forward pass to the deepest layer, the costs of content and style, the gradient by the pixels, and Adam's
step. Contenders take turns, round after round, several steps at a time; a figure is the median over rounds, a ratio the
median of the ratios of the same round. Memory is the most that a process of its own holds, weights and torch included.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from convscope import Net, Objective, tap
from convscope.layers import stage_layers
from convscope.synthesis.ascent import ascend
from convscope.synthesis.likeness import Content, Style, gram
from convscope.synthesis.optimizers import Optimizer
from convscope.synthesis.parametrizations import parametrize

Run = Callable[[int], object]
NETWORKS = ("vgg16", "squeezenet1_0")
CONTENDERS = ("bare", "pixels", "fourier")


class Task:
    """One network with random weights, a picture and a style, and what both are compared by."""

    def __init__(self, name: str, size: int) -> None:
        torch.manual_seed(0)
        body = getattr(torchvision.models, name)(weights=None).eval().requires_grad_(False)
        self.net = Net(body, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), name=name)
        self.picture, style = torch.rand(2, 1, 3, size, size)
        sizes = stage_layers(self.net)
        self.content, self.styles = sizes[-2][1].name, [same[0].name for same in sizes]
        with torch.no_grad():
            self.held = tap(self.net, self.picture, [self.content])[self.content]
            self.grams = {layer: gram(seen) for layer, seen in tap(self.net, style, self.styles).items()}

    def ours(self, space: str) -> Run:
        terms = [(-1.0, Content(self.content, self.held))]
        terms += [(-100.0 / len(self.styles), Style(layer, target)) for layer, target in self.grams.items()]
        objective = Objective(tuple(terms))

        def run(count: int) -> object:
            start = parametrize(space, self.picture, [0], deviation=0.0)  # type: ignore[arg-type]
            return ascend(self.net, [objective], start, optimizer=Optimizer(count, "adam", 0.02), redirect=False)

        return run

    def bare(self) -> Run:
        names = [self.content, *self.styles]
        features: nn.Sequential = self.net.body.features  # type: ignore[assignment]
        deepest = max(int(name.removeprefix("features.")) for name in names)
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.net.mean, self.net.std))

        def cost(x: torch.Tensor) -> torch.Tensor:
            x, total = (x - mean) / std, torch.zeros(())
            for number, layer in enumerate(features[: deepest + 1]):
                x = layer(x)
                if (name := f"features.{number}") == self.content:
                    total = total + F.mse_loss(x, self.held)
                if name in self.grams:
                    total = total + F.mse_loss(gram(x), self.grams[name])
            return total

        def run(count: int) -> object:
            x = self.picture.clone().requires_grad_()
            adam = torch.optim.Adam([x], lr=0.02, fused=True)
            for _ in range(count):
                (x.grad,) = torch.autograd.grad(cost(x), x)
                adam.step()
                with torch.no_grad():
                    x.clamp_(0, 1)
            with torch.no_grad():
                # The last score is part of what is handed out.
                return cost(x)

        return run

    def contender(self, name: str) -> Run:
        return self.bare() if name == "bare" else self.ours(name)


def measure(task: Task, rounds: int, steps: int) -> dict[str, list[float]]:
    """Time every contender once a round, after one round that does not count."""
    runs = {name: task.contender(name) for name in CONTENDERS}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run(steps)
            if turn:
                times[name].append((time.perf_counter() - start) / steps)
    return times


def memory(network: str, contender: str, size: int) -> float:
    """Return the most memory that a contender's steps take, in a process of its own, in MB."""
    words = [sys.executable, __file__, "--only", network, contender, "--size", str(size)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--only", nargs=2, metavar=("NETWORK", "CONTENDER"))
    options = parser.parse_args()
    if options.only:
        Task(options.only[0], options.size).contender(options.only[1])(2)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.size} x {options.size} pixels")
    for network in options.networks:
        times = measure(Task(network, options.size), options.rounds, options.steps)
        for name, values in times.items():
            ratio = statistics.median(a / b for a, b in zip(values, times["bare"], strict=True))
            seconds, most = statistics.median(values), memory(network, name, options.size)
            print(f"{network:14} {name:8} {seconds:7.3f} s a step   {ratio:.2f} of bare   {most:.0f} MB")


if __name__ == "__main__":
    main()
