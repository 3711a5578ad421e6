"""What it costs that a network comes from a file: to load it, and a gradient of it beside that of its original.

python benchmarks/networks.py [DATA]

DATA is the folder with the Caffe SqueezeNet; without it that row is left out.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision

from convscope import Net, as_objective, load
from convscope.attribution.gradient import gradient

ROUNDS, BATCH = 9, 4


def exported(name: str, folder: Path) -> dict[str, Callable[[], Net]]:
    """Export a network of torchvision with random weights in both formats, with batch norm kept."""
    body = torchvision.models.get_model(name, weights=None).eval()
    picture = torch.rand(1, 3, 224, 224)
    onnx, program = folder / f"{name}.onnx", folder / f"{name}.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
        torch.onnx.export(body, (picture,), str(onnx), dynamo=False, **kept)
        torch.export.save(torch.export.export(body, (picture,)), program)
    return {
        "the original": lambda: Net(body),
        "onnx": lambda: load(f"onnx:{onnx}"),
        "pt2": lambda: load(f"pt2:{program}"),
    }


def caffe(data: Path) -> dict[str, Callable[[], Net]]:
    """Return SqueezeNet in torchvision's own code, and Caffe's, which has one row and column more before its end."""
    files = data / "caffe" / "squeezenet_v1.0"
    twin = data / "weights" / "squeezenet1_0.safetensors"
    definition, weights = f"caffe:{files}_deploy.prototxt", f"{files}.caffemodel"
    return {
        "the original": lambda: load("torchvision:squeezenet1_0", weights=twin, size=227),
        "caffe": lambda: load(definition, weights=weights),
    }


def main() -> None:
    print("| | loading, seconds | gradient, seconds | of the original |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        sources = {name: exported(name, Path(folder)) for name in ("resnet18", "mobilenet_v2")}
        if len(sys.argv) > 1:
            sources["squeezenet1_0"] = caffe(Path(sys.argv[1]))
        for name, contenders in sources.items():
            rows(name, contenders)


def rows(name: str, contenders: dict[str, Callable[[], Net]]) -> None:
    nets, loading = dict[str, Net](), dict[str, float]()
    for kind, make in contenders.items():
        began = time.perf_counter()
        nets[kind] = make()
        loading[kind] = time.perf_counter() - began
    seconds: dict[str, list[float]] = {kind: [] for kind in nets}
    for round_ in range(ROUNDS + 1):
        for kind, net in nets.items():
            pixels = torch.rand(BATCH, 3, *net.size)
            began = time.perf_counter()
            gradient(net, pixels, as_objective(net, 7))
            if round_:
                seconds[kind].append(time.perf_counter() - began)
    for kind, times in seconds.items():
        ratio = statistics.median(t / own for t, own in zip(times, seconds["the original"], strict=True))
        print(f"| {name}, {kind} | {loading[kind]:.2f} | {statistics.median(times):.3f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
