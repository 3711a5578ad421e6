"""Time the projections of Figure 2, 64 units of a layer at 9 places each, beside captum's unit by unit, in one run.

    python benchmarks/patches.py [--networks zfnet64 squeezenet1_0] [--pictures 100] [--rounds 3] [--sample 24]

Of every network an early, a middle and the last convolution. The places are where each unit is strongest in random
pictures. captum's NeuronDeconvolution takes the same time for every unit, so that it is asked for a sample of them.
Both read pixels that are in memory. Times are CPU time, and include whatever is found out of a network beforehand. The
projections of the sample are then compared with those of whole pictures, one by one.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from captum.attr import NeuronDeconvolution
from torch import Tensor

from convscope import Net, attribute, load, tap
from convscope.atlas.crops import Spot, project_spots
from convscope.tracing import Layer

UNITS, PLACES = 64, 9


def network(name: str) -> Net:
    """Load the network that ships, or build one with random weights and the usual normalisation."""
    if name == "zfnet64":
        return load(name)
    torch.manual_seed(0)
    return load(f"torchvision:{name}", weights=None)


def pictures(net: Net, count: int) -> Tensor:
    """Random pictures with coarse and fine structure."""
    torch.manual_seed(1)
    coarse = torch.nn.functional.interpolate(torch.rand(count, net.channels, 6, 6), size=net.size, mode="bicubic")
    return (coarse + 0.3 * torch.rand(count, net.channels, *net.size)).clamp(0, 1)


def layers(net: Net) -> list[Layer]:
    """The second, the middle and the last convolution."""
    found = [layer for layer in net.layers.values() if layer.number is not None]
    return [found[1], found[len(found) // 2], found[-1]]


def spots(net: Net, layer: Layer, images: Tensor) -> list[Spot]:
    """Each unit's strongest place in each of its strongest pictures."""
    with torch.inference_mode():
        activity = torch.cat([tap(net, image[None], [layer.name])[layer.name] for image in images])
    strongest, places = activity.flatten(2).max(2)
    units = random.Random(0).sample(range(layer.shape[0]), min(UNITS, layer.shape[0]))
    return [
        Spot(picture, unit, *divmod(int(places[picture, unit]), layer.grid[1]))
        for unit in units
        for picture in strongest[:, unit].topk(min(PLACES, len(images))).indices.tolist()
    ]


def captum(net: Net, layer: Layer, images: Tensor, wanted: list[Spot]) -> Callable[[], None]:
    """One projection after another; captum's rules need rectifiers that are not in place."""
    body = copy.deepcopy(net.body).eval()
    for module in body.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    projector = NeuronDeconvolution(body, body.get_submodule(layer.name))

    def run() -> None:
        for spot in wanted:
            pixels = net.normalise(images[spot.picture : spot.picture + 1]).requires_grad_()
            projector.attribute(pixels, (spot.unit, spot.y, spot.x))

    return run


def convscope(net: Net, layer: Layer, images: Tensor, wanted: list[Spot]) -> Callable[[], object]:
    """All projections, by a network of which nothing is known yet."""
    fresh = net.changed()
    return lambda: project_spots(fresh, layer.name, wanted, lambda number: images[number : number + 1])


def seconds(run: Callable[[], object]) -> float:
    """CPU time of all threads, which other work on the machine does not lengthen."""
    start = time.process_time()
    run()
    return time.process_time() - start


def compared(net: Net, layer: Layer, images: Tensor, wanted: list[Spot]) -> tuple[float, int]:
    """The largest distance from the projection of a whole picture, of its maximum, and how many are beyond 1e-5."""
    found = project_spots(net, layer.name, wanted, lambda number: images[number : number + 1])
    away = []
    for spot, projected in zip(wanted, found, strict=True):
        of = f"{layer.name}:{spot.unit}@{spot.y},{spot.x}"
        full = attribute(net, images[spot.picture : spot.picture + 1], "deconvnet", of=of)[0]
        top, left, bottom, right = projected.box
        size = full.abs().max().clamp(min=1e-30)
        away.append(float((full[:, top:bottom, left:right] - projected.projection).abs().max() / size))
    return max(away), sum(distance > 1e-5 for distance in away)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["zfnet64", "squeezenet1_0"], help="zfnet64, or torchvision's")
    parser.add_argument("--layers", nargs="+", help="instead of an early, a middle and the last convolution")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=24, help="projections by captum per round, and compared")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", module="captum")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in given.networks:
        net = network(name)
        images = pictures(net, given.pictures)
        for layer in [net.layer(one) for one in given.layers] if given.layers else layers(net):
            wanted = spots(net, layer, images)
            few = random.Random(1).sample(wanted, min(given.sample, len(wanted)))
            peer, ours, ratios = captum(net, layer, images, few), [], []
            for _ in range(given.rounds):
                theirs = seconds(peer) * len(wanted) / len(few)
                ours.append(seconds(convscope(net, layer, images, wanted)))
                ratios.append(theirs / ours[-1])
            worst, beyond = compared(net, layer, images, few)
            print(
                f"{name:16} {layer.name:24} {len(wanted)} projections: {statistics.median(ours):6.2f} s, "
                f"{statistics.median(ratios):5.1f} times as fast as captum; {beyond} of {len(few)} beyond 1e-5, "
                f"at most {worst:.1g}",
                flush=True,
            )


if __name__ == "__main__":
    main()
