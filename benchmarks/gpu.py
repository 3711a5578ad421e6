"""Try everything on a GPU: laws, oracles, differences from the CPU, memory that runs out, speed. Below 8 minutes.

    make gpu        or        PYTHONPATH=src python benchmarks/gpu.py [--device cuda] [--small] [--only PART ...]

It needs Python, torch and what convscope imports, no data and no installation of convscope itself; what is missing is
said before anything runs. `--device cpu` runs the same parts in small. The exit status is 1 where a law, an oracle or a
comparison fails.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
NEEDS = {
    "torch": "torch", "torchvision": "torchvision", "numpy": "numpy", "PIL": "pillow", "safetensors": "safetensors",
    "typer": "typer", "rich": "rich", "matplotlib": "matplotlib", "skimage": "scikit-image",
}  # fmt: skip
MISSING = [package for module, package in NEEDS.items() if find_spec(module) is None]
if MISSING:
    sys.exit(f"benchmarks/gpu.py needs {', '.join(MISSING)}: python -m pip install {' '.join(MISSING)}")
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import convscope as cs  # noqa: E402
from convscope import Net, as_objective  # noqa: E402
from convscope.context import listen  # noqa: E402
from convscope.registry import METHODS, Entry, load_all  # noqa: E402
from networks import CLASSES, SIZE, TINY, pictures, tiny_body  # noqa: E402
from oracles.deconvnet import walk_gradient  # noqa: E402
from oracles.occlusion import occlusion_by_loops  # noqa: E402

QUICK: dict[str, dict[str, Any]] = {
    "rise": {"masks": 32},
    "extremal": {"steps": 8},
    "score_cam": {"channels": 4},
    "ablation_cam": {"channels": 4},
    "integrated_gradients": {"steps": 8},
    "smooth_grad": {"samples": 4},
}
OBJECTIVE = 2
FORMATS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "channels-last": {"memory_format": torch.channels_last},
    "tf32": {},
    "bf16": {"dtype": torch.bfloat16},
}
COARSE = {"tf32": 2**-11, "bf16": 2**-8}
# Of the map's largest value: rounding only, and what eight bits leave after a few layers. A maximum or a
# threshold may turn on one digit, so that maps in coarse numbers are held to their correlation; a map of differences
# between scores may instead be off by a few of the score's digits.
CLOSE, CORRELATED, DIGITS = 2e-3, 0.9, 4
ASCENTS = {"extremal": 0.7}  # one sign that turns, and the steps after it go elsewhere

failures: list[str] = []


def check(holds: bool, what: str) -> None:
    if not holds:
        failures.append(what)
        print(f"  FAILS: {what}")


def net_of(kind: str, device: str, **form: Any) -> Net:
    body = tiny_body(kind, dtype=torch.float32).to(device, **form)
    return Net(body, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25), size=SIZE, classes=CLASSES, name=kind)


def run(entry: Entry, net: Net, pixels: Tensor, of: Any = OBJECTIVE) -> Tensor:
    known = {option: value for option, value in QUICK.get(entry.name, {}).items() if option in entry.options}
    return entry.function(net, pixels.to(net.device), as_objective(net, of), **known).float()


def off(one: Tensor, other: Tensor) -> float:
    """The largest difference of two maps, of the largest value."""
    one, other = one.cpu().float(), other.cpu().float()
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-12))


def alike(one: Tensor, other: Tensor) -> float:
    pair = torch.stack([one.cpu().flatten(), other.cpu().flatten()])
    return float(torch.corrcoef(pair)[0, 1]) if (pair.std(1) > 0).all() else float(off(one, other) < CLOSE)


# Laws, and the CPU against the device -----------------------------------------------------------------------------


def laws(device: str, small: bool) -> None:
    """Every method on every tiny network: finite, alone as in a batch, linear where it is, and as on the CPU."""
    kinds = ["residual"] if small else list(TINY)
    pixels = pictures(3, dtype=torch.float32)
    print(f"| method | {' | '.join(f'{form}: off the CPU' for form in FORMATS)} |")
    print(f"|---|{'---|' * len(FORMATS)}")
    for entry in METHODS.values():
        worst = dict.fromkeys(FORMATS, 0.0)
        for kind in kinds:
            on_cpu = net_of(kind, "cpu")
            reference, score = run(entry, on_cpu, pixels), float(on_cpu(pixels)[:, OBJECTIVE].abs().max())
            for form, changes in FORMATS.items():
                torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = form == "tf32"
                net, what = net_of(kind, device, **changes), f"{entry.name} on {kind} in {form}"
                together = run(entry, net, pixels)
                check(bool(together.isfinite().all()) and together.shape == reference.shape, f"{what} is finite")
                worst[form] = max(worst[form], off(together, reference))
                if form in COARSE:
                    correlation = alike(together, reference)
                    digits = float((together.cpu() - reference).abs().max()) / (score * COARSE[form])
                    kept = correlation > ASCENTS.get(entry.name, CORRELATED) or digits < DIGITS
                    check(kept, f"{what} is like the CPU's: correlation {correlation:.3f}, {digits:.1f} digits off")
                    continue
                check(off(together, reference) < CLOSE, f"{what} is the CPU's")
                alone = torch.cat([run(entry, net, one[None]) for one in pixels])
                check(off(together, alone) < CLOSE, f"{what} is alone as in a batch")
                if entry.linear:
                    twice = run(entry, net, pixels, 2 * as_objective(net, OBJECTIVE))
                    check(off(twice, 2 * together) < CLOSE, f"{what} doubles with the objective")
        print(f"| {entry.name} | {' | '.join(f'{value:.1e}' for value in worst.values())} |")


def oracles(device: str, small: bool) -> None:
    """A tenth of the suite's oracles: gradients by autograd, rules by a walk, occlusion by loops."""
    for kind in ["residual"] if small else list(TINY):
        net, pixels = net_of(kind, device), pictures(1, dtype=torch.float32).to(device)

        def score(x: Tensor, net: Net = net) -> Tensor:
            return net.body(net.normalise(x))[:, OBJECTIVE]

        leaf = pixels.clone().requires_grad_()
        (true,) = torch.autograd.grad(score(leaf).sum(), leaf)
        check(off(run(METHODS["gradient"], net, pixels), true) < CLOSE, f"the gradient of {kind} is autograd's")
        # The walk goes through local response normalisation, which the deconvnet itself skips.
        rules: dict[Literal["deconvnet", "guided"], bool] = {"deconvnet": False, "guided": True}
        for rule, mask in rules.items():
            walked, _ = walk_gradient(net, pixels, lambda scores: scores[:, OBJECTIVE], rule)
            found = METHODS["backward"].function(net, pixels, as_objective(net, OBJECTIVE), mask=mask, rectify=True)
            check(off(found, walked) < CLOSE, f"{rule} of {kind} is the walk's")
        options = {"patch": 6, "stride": 5}
        found = METHODS["occlusion"].function(net, pixels, as_objective(net, OBJECTIVE), **options)
        with torch.no_grad():
            loops = occlusion_by_loops(lambda x: score(x)[0], pixels[0], colour=net.mean, **options)
        check(off(found[0, 0], loops) < CLOSE, f"occlusion of {kind} is that of the loops")
    print(
        "gradient, deconvnet, guided backpropagation and occlusion: as their oracles" if not failures else "see above"
    )


# What only a GPU does ---------------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    """A convolution whose rows a recurrent layer reads; cuDNN's has no backward pass in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.rows, self.head = nn.LSTM(8 * SIZE // 2, 6, num_layers=2, dropout=0.5, batch_first=True), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rows(self.front(x).transpose(1, 2).flatten(2))[0][:, -1])


def recurrent(device: str, small: bool) -> None:
    torch.manual_seed(0)
    body = Recurrent().eval()
    pixels = pictures(2, dtype=torch.float32)
    for name in ("gradient", "grad_cam", "integrated_gradients", "occlusion"):
        options = (
            {"layer": "front.1"} if name == "grad_cam" else {"patch": 6, "stride": 5} if name == "occlusion" else {}
        )
        maps = [
            cs.attribute(Net(body.to(place), size=SIZE), pixels.to(place), name, of=1, **options).cpu()
            for place in ("cpu", device)
        ]
        check(off(maps[1], maps[0]) < CLOSE, f"{name} through a recurrent layer is the CPU's")
        print(f"{name} through an LSTM in eval mode: {off(maps[1], maps[0]):.1e} off the CPU")


def out_of_memory(device: str, small: bool) -> None:
    """Fill the memory with ballast, so that a batch fails for real and is halved."""
    if device == "cpu":
        print("only on a GPU: a CPU swaps, or ends the process")
        return
    from torchvision.models import resnet50

    torch.manual_seed(0)
    net = Net(resnet50().eval().to(device), name="resnet50")
    pixels = torch.rand(1, 3, 224, 224).to(device)
    options: dict[str, dict[str, Any]] = {
        "rise": {"masks": 1024, "batch": 1024},
        "integrated_gradients": {"steps": 512, "batch": 512},
        "occlusion": {"patch": 32, "stride": 8, "memory": "60 GiB"},
    }
    for name, chosen in options.items():
        free = cs.attribute(net, pixels, name, of=1, **chosen | ({"batch": 64} if "batch" in chosen else {}))
        torch.cuda.empty_cache()
        ballast = torch.empty(max(0, torch.cuda.mem_get_info()[0] - 3 * 2**30), dtype=torch.uint8, device=device)
        with listen() as remarks:
            full = cs.attribute(net, pixels, name, of=1, **chosen)
        del ballast
        torch.cuda.empty_cache()
        said = next((str(remark) for remark in remarks if "out of memory" in str(remark)), "")
        check(bool(said) or name == "occlusion", f"{name} says that memory ran out")
        check(off(full, free) < 0.02, f"{name} after halving is what it is in batches that fit")
        print(f"{name}: {said or 'its batches fitted, as estimated'}; {off(full, free):.1e} off")


# Speed ------------------------------------------------------------------------------------------------------------


@contextmanager
def timed(device: str, label: str, count: int = 1) -> Iterator[None]:
    """Print the time of a block per picture, and the peak of memory on a GPU."""
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    yield
    if device != "cpu":
        torch.cuda.synchronize()
    elapsed = (time.perf_counter() - start) / count
    peak = f"{torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB" if device != "cpu" else "not measured"
    print(f"| {label} | {elapsed * 1e3:,.1f} ms | {peak} |", flush=True)


def speed(device: str, small: bool) -> None:
    """ResNet-50 at 224 pixels, with random weights; in small zfnet64 as it ships, at 64."""
    from torchvision.models import resnet50

    torch.manual_seed(0)
    net = cs.load("zfnet64", device=device) if small else Net(resnet50().eval().to(device), name="resnet50")
    count, steps = (2, 4) if small else (32, 128)
    pixels = torch.rand(count, 3, *net.size).to(device)
    print(f"{net.name}, {net.size[0]} pixels, batches of {count}\n\n| what | time per picture | peak |\n|---|---|---|")
    for entry in METHODS.values():
        options = QUICK.get(entry.name, {}) if small else {}
        options = {option: value for option, value in options.items() if option in entry.options}
        one = pixels[:1] if small or entry.name in ("rise", "extremal", "score_cam", "ablation_cam") else pixels
        if entry.name == "occlusion":
            one = pixels[:1]
        work = lambda entry=entry, one=one, options=options: entry.function(  # noqa: E731
            net, one, as_objective(net, OBJECTIVE), **options
        )
        if not small:
            work()  # kernels are chosen at the first call
        with timed(device, entry.name, len(one)):
            work()
    with timed(device, f"maximize, {steps} steps"):
        cs.maximize(net, of=OBJECTIVE, steps=steps)
    picture = torch.rand(3, *net.size)
    with timed(device, f"style, {steps} steps of Adam"):
        cs.style(net, picture, style=[torch.rand(3, *net.size)], optimizer="adam", steps=steps)
    _stylize(device, small)
    data = list(torch.rand(4 if small else 256, 3, *net.size))
    with timed(device, f"explain_many, grad_cam of {len(data)} pictures", len(data)):
        for _ in cs.explain_many(net, data, "grad_cam"):
            pass


def _stylize(device: str, small: bool) -> None:
    import numpy as np
    from safetensors.torch import save_file

    from convscope.stylizing.network import KIND, StyleNet
    from convscope.zoo.runs import metadata

    width = 4 if small else 32
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3) if small else (2160, 3840, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.safetensors"
        told = {"network": KIND, "width": width, "blocks": 5}
        save_file(StyleNet(width).state_dict(), path, metadata=metadata(told))
        with timed(device, f"stylize, {picture.shape[1]} x {picture.shape[0]} pixels"):
            cs.stylize(picture, path, device=device)


PARTS: dict[str, Callable[[str, bool], None]] = {
    "laws": laws, "oracles": oracles, "recurrent": recurrent, "memory": out_of_memory, "speed": speed,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="fewer networks and smaller pictures; always on a CPU")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=" ".join(PARTS))
    arguments = parser.parse_args()
    small = arguments.small or arguments.device == "cpu"
    load_all()
    card = torch.cuda.get_device_name() if arguments.device != "cpu" else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, {arguments.device} ({card})")
    start = time.perf_counter()
    for name in arguments.only:
        print(f"\n## {name}\n", flush=True)
        before = time.perf_counter()
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = name == "speed"  # as torch has it; elsewhere it would hide faults
        try:
            PARTS[name](arguments.device, small)
        except Exception as error:  # the other parts are still worth their time
            check(False, f"{name} ended in {type(error).__name__}: {error}")
        print(f"\n{name}: {time.perf_counter() - before:.1f} s", flush=True)
    print(f"\nin all {time.perf_counter() - start:.0f} s; {len(failures)} failures")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
