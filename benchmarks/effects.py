"""Time the exact effect of every channel against a naive loop of full passes, in processor time of one thread.

    python benchmarks/effects.py [--pictures 4]

zfnet64 (64 x 64 pixels) at its six rectifiers; SqueezeNet and ResNet-18 (224 x 224, random weights) at layers spread
over them, 32 channels of each. The naive loop runs whole pictures, one row for each channel, through the network with a
hook that sets the channel to zero, in the batches that are quickest for it; of its channels every eighth is timed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from convscope import Net, load, tap
from convscope.cuts import replaced
from convscope.incremental.changes import Changes
from convscope.incremental.downstream import Pairs
from convscope.tracing import OUTPUT, Layer

MEMORY = 2**25
NETS = {
    "zfnet64": ("zfnet64", 64, [f"relu{number}" for number in range(1, 7)], 0),
    "squeezenet1_0": ("torchvision:squeezenet1_0", 224, ["features.3", "features.7", "features.12"], 32),
    "resnet18": ("torchvision:resnet18", 224, ["layer1.0", "layer2.0", "layer3.0", "layer4.0"], 32),
}


def taken(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def ours(net: Net, pixels: Tensor, layer: Layer, channels: Tensor) -> Callable[[], None]:
    changes = Changes(net, pixels, [layer], [OUTPUT], MEMORY)
    assert changes.how == "computed from the layer on", changes.how

    def run() -> None:
        batch, size = changes.of(pixels), changes.batch_of(layer.name)
        rows = torch.arange(len(pixels)).repeat(len(channels))
        each = channels.repeat_interleave(len(pixels))
        zero = torch.zeros_like(batch.activity(layer.name)[:1, :1])
        for start in range(0, len(rows), size):
            some = Pairs(rows[start : start + size], each[start : start + size])
            batch.change(layer.name, some, zero.expand(len(some.rows), *zero.shape[1:]))

    return run


def naive(net: Net, pixels: Tensor, layer: Layer, channels: Tensor, batch: int) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode():
            for picture in pixels:
                for some in channels.split(batch):
                    activity = taken_at(net, picture, layer).repeat(len(some), 1, 1, 1)
                    activity[torch.arange(len(some)), some] = 0
                    with replaced(net, layer, activity):
                        net(picture.expand(len(some), -1, -1, -1))

    return run


def taken_at(net: Net, picture: Tensor, layer: Layer) -> Tensor:
    return tap(net, picture[None], [layer.name])[layer.name]


def compare(name: str, pictures: int) -> None:
    source, side, layers, most = NETS[name]
    net = load(source) if name == "zfnet64" else load(source, weights=None)
    pixels = torch.rand(pictures, 3, side, side, generator=torch.Generator().manual_seed(0))
    totals = [0.0, 0.0]
    for layer in map(net.layer, layers):
        count = layer.shape[0]
        channels = torch.arange(count)[:most] if most else torch.arange(count)
        fast = taken(ours(net, pixels, layer, channels)) / pictures
        some = channels[::8]
        slow = min(taken(naive(net, pixels[:1], layer, some, batch)) for batch in batches(len(some)))
        slow *= len(channels) / len(some)
        totals = [totals[0] + fast, totals[1] + slow]
        print(row(name, f"`{layer.name}`", f"{len(channels)}", slow, fast))
    print(row(name, "all of these", "", totals[1], totals[0]))


def row(name: str, layer: str, count: str, slow: float, fast: float) -> str:
    return f"| {name} | {layer} | {count} | {1000 * slow:.0f} | {1000 * fast:.0f} | **{slow / fast:.1f}** |"


def batches(count: int) -> Sequence[int]:
    return sorted({min(count, size) for size in (4, 16)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--nets", nargs="*", default=list(NETS), choices=list(NETS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | layer | channels | full passes, ms a picture | ours, ms a picture | times as fast |")
    print("|---|---|--:|--:|--:|--:|")
    for name in options.nets:
        compare(name, options.pictures)


if __name__ == "__main__":
    main()
