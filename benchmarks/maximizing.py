"""Time a step of `ascend` against a bare forward and backward pass to the same layer, and against lucent.

    python benchmarks/maximizing.py [--net resnet18] [--rounds 7] [--steps 40] [--lucent FOLDER]

A network with random weights, 224 x 224 pixels, one channel asked for, as `maximize` does by default: Fourier, the
standard transform, Adam. Contenders run in turn, round after round; a contender's figure is its quickest step of
all rounds (what else the machine does can only make a step slower), a ratio that of two figures. The first sixteen
steps, in which gradient is led past silent rectifiers, are counted apart. "bare" runs nothing but the modules up to
the layer, on a picture as `ascend` shows it (noise: max pooling is twice as quick on a flat one).

lucent's last release, 0.1.8, needs kornia <= 0.4.1 and, to be imported, IPython (a notebook's display, stood in for
here):

    pip install --no-deps --target FOLDER torch-lucent==0.1.8 kornia==0.4.1 tqdm decorator future

It is called as its README does, in its default transforms: they pad by 12 pixels, so that its network sees 1.23 times
as many. With kornia 0.9 it does not run: there is no kornia.get_rotation_matrix2d any more.

Found on an AMD EPYC (a virtual machine of 4 cores), 2 threads, torch 2.15, milliseconds a step:

    layer          bare   convscope   of bare (wanted 1.15)   lucent   lucent / convscope (wanted)
    features.5     23.3   28.2        1.21                    61.4     2.17 (3)
    features.12    39.7   44.7        1.12                    83.8     1.87
    classifier.1   48.8   54.3        1.11                    91.2     1.68 (1.5)

    per picture     1 at once   4 at once   16 at once
    features.5      28.3        25.6        35.7
    features.12     44.5        39.3        56.5

The overhead is about 5 ms at every layer: one inverse Fourier transform, one resampling and ten passes over the pixels,
forward and back, 3.4 ms, of which the resampling's backward pass is a third; 1.1 ms to freeze the network and hook the
layer, less since the network is looked through once per run; Adam 0.25 ms. features.5 is a third of the layers and half
of the work, so that 1.15 leaves 3.4 ms there, and a bare step would be 2.6 times as quick as lucent's. Colours were
turned by einsum at first, which left channels last in memory: a plain product takes 0.5 ms less per picture of a batch,
and gives the same bits. A grid summed from rows and columns takes 0.2 ms less than affine_grid. Four pictures at once
are quicker than sixteen, maybe because of the caches.
"""

from __future__ import annotations

import argparse
import copy
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from convscope import Net, as_objective, load
from convscope.context import tracked_by
from convscope.synthesis.ascent import ascend
from convscope.synthesis.optimizers import Optimizer
from convscope.synthesis.parametrizations import parametrize
from convscope.synthesis.transforms import transform_for

SIDE = 224
LAYERS = {"squeezenet1_0": ("features.5", "features.12", "classifier.1"), "resnet18": ("layer1", "layer3", "layer4")}
CHANNEL = 10
BEGINNING = 16
BATCHES = (1, 4, 16)

Times = list[float]
Run = Callable[[], Times]


def network(name: str) -> Net:
    """Build a network with random weights that let the signal through."""
    net = load(f"torchvision:{name}", weights=None)
    torch.manual_seed(0)
    for module in net.body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return net


def between(stamps: Times) -> Times:
    return [later - earlier for earlier, later in pairwise(stamps)]


def ours(net: Net, layer: str, steps: int, pictures: int = 1) -> Times:
    """Time every step of making pictures, each for a channel of its own."""
    stamps: Times = []

    def tracker(items: Any, _: Any) -> Iterator[Any]:
        for item in items:
            stamps.append(time.perf_counter())
            yield item
        stamps.append(time.perf_counter())

    objectives = [as_objective(net, f"{layer}:{CHANNEL + i}") for i in range(pictures)]
    start = parametrize("fourier", torch.full((pictures, 3, SIDE, SIDE), 0.5), list(range(pictures)))
    with tracked_by(tracker):
        ascend(net, objectives, start, transform=transform_for("standard", SIDE), optimizer=Optimizer(steps))
    return between(stamps)


def modules_to(body: Any, layer: str) -> nn.Sequential:
    """Return the modules up to a layer of a network of sequences, without trainable parameters."""
    parts: list[nn.Module] = []
    for name, module in body.named_children():
        if layer.startswith(f"{name}."):
            parts.append(modules_to(module, layer.removeprefix(f"{name}.")))
            break
        parts.append(module)
        if name == layer:
            break
    return nn.Sequential(*parts).eval().requires_grad_(False)


def bare(net: Net, layer: str, steps: int) -> Times:
    """Time forward and backward passes to a layer, and nothing else."""
    modules, transform = modules_to(copy.deepcopy(net.body), layer), transform_for("standard", SIDE)
    mean, std = (torch.tensor(values)[:, None, None] for values in (net.mean, net.std))
    picture = parametrize("fourier", torch.full((1, 3, SIDE, SIDE), 0.5), [0]).pixels().detach()
    pixels = transform(picture, transform.draw([0], 1)[0]).requires_grad_()
    stamps = [time.perf_counter()]
    for _ in range(steps):
        score = modules((pixels - mean) / std)[:, CHANNEL].mean()
        torch.autograd.grad(score, pixels)
        stamps.append(time.perf_counter())
    return between(stamps)


def lucents(net: Net, layer: str, steps: int) -> Times:
    """Time lucent's steps, from one use of its transforms to the next, on a network of its own: its hooks stay."""
    from lucent.optvis import param, render, transform  # type: ignore[import-not-found]

    stamps: Times = []

    def stamp(pixels: torch.Tensor) -> torch.Tensor:
        stamps.append(time.perf_counter())
        return pixels

    render.render_vis(
        copy.deepcopy(net.body).requires_grad_(True).eval(),
        f"{layer.replace('.', '_')}:{CHANNEL}",
        lambda: param.image(SIDE),
        transforms=[stamp, *transform.standard_transforms],
        thresholds=(steps,),
        progress=False,
        show_image=False,
    )
    return between(stamps)


def measure(runs: dict[str, Run], rounds: int) -> dict[str, Times]:
    """Return all steps of every contender, round after round."""
    times: dict[str, Times] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name] += run()
    return times


def ratio(times: dict[str, Times], one: str, other: str) -> float:
    return min(times[one]) / min(times[other])


def milliseconds(times: Times) -> str:
    return f"{min(times) * 1e3:.1f}"


def layers(net: Net, rounds: int, steps: int, lucent: bool) -> None:
    """Print a step at every layer against a bare one, and against lucent's."""
    print("| layer | bare, ms | convscope, ms | of bare | first 16, of bare | lucent, ms | lucent / convscope |")
    print(f"|{'---|' * 7}")
    for layer in LAYERS[net.name]:
        runs: dict[str, Run] = {
            "bare": lambda layer=layer: bare(net, layer, steps),
            "ours": lambda layer=layer: ours(net, layer, BEGINNING + steps)[BEGINNING:],
            "beginning": lambda layer=layer: ours(net, layer, BEGINNING),
        }
        if lucent:
            runs["lucent"] = lambda layer=layer: lucents(net, layer, steps)
        times = measure(runs, rounds)
        theirs, faster = ("", "")
        if lucent:
            theirs, faster = milliseconds(times["lucent"]), f"{ratio(times, 'lucent', 'ours'):.2f}"
        print(
            f"| {layer} | {milliseconds(times['bare'])} | {milliseconds(times['ours'])} "
            f"| {ratio(times, 'ours', 'bare'):.2f} | {ratio(times, 'beginning', 'bare'):.2f} | {theirs} | {faster} |",
            flush=True,
        )


def batches(net: Net, rounds: int, steps: int) -> None:
    """Print what a step takes per picture when several are made at once."""
    print(
        f"\n| layer | {' | '.join(f'{count} at once, ms each' for count in BATCHES)} |\n|{'---|' * (len(BATCHES) + 1)}"
    )
    for layer in LAYERS[net.name]:
        runs: dict[str, Run] = {
            str(count): lambda layer=layer, count=count: [
                step / count for step in ours(net, layer, BEGINNING + max(4, steps // count), count)[BEGINNING:]
            ]
            for count in BATCHES
        }
        times = measure(runs, rounds)
        print(f"| {layer} | {' | '.join(milliseconds(times[str(count)]) for count in BATCHES)} |", flush=True)


def find_lucent(folder: Path) -> None:
    """Make lucent importable, with a stand-in for IPython, which it imports and does not use here."""
    sys.path.append(str(folder))
    shown = ModuleType("IPython.display")
    notebook = ModuleType("IPython")
    notebook.display = shown  # type: ignore[attr-defined]
    sys.modules |= {"IPython": notebook, "IPython.display": shown}
    # Its kornia scripts functions as they were scripted then.
    warnings.filterwarnings("ignore", category=FutureWarning)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--net", choices=LAYERS, default="squeezenet1_0")
    parser.add_argument("--lucent", type=Path, help="the folder that lucent was installed to")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.lucent:
        find_lucent(given.lucent)
    print(f"{platform.processor() or platform.machine()}, {given.threads} threads, torch {torch.__version__}")
    net = network(given.net)
    layers(net, given.rounds, given.steps, bool(given.lucent))
    batches(net, given.rounds, given.steps)


if __name__ == "__main__":
    main()
