"""How quick the explorer answers: a click on a feature map until its projection is there, live frames, and pages.

    python benchmarks/explorer.py [--net zfnet64] [--weights FILE] [--layers conv1,relu5] [--rounds 30]
    python benchmarks/explorer.py --pages [--net torchvision:resnet18] [--layers layer4.1.conv2]

The server is a process of its own, as `convscope serve` starts it; one client asks, over loopback. Times are medians
of clicks that were not made before: another unit and place each time.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from PIL import Image
from websockets.sync.client import connect

from convscope import load

PITCH, CELL, ACROSS, SHEET = (104, 122), 96, 8, 64


@contextmanager
def serving(arguments: list[str]) -> Generator[str]:
    """Start the explorer, and return where it answers."""
    command = [sys.executable, "-m", "convscope", "serve", "--pictures", "sample:chelsea", "--port", "0", *arguments]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    assert server.stdout is not None
    try:
        yield re.findall(r"http://([\w.:]+)/", server.stdout.readline())[0]
    finally:
        server.terminate()
        server.wait(20)


def got(connection: http.client.HTTPConnection, path: str) -> tuple[int, dict[str, str], bytes]:
    """Ask for a path."""
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def asked(connection: http.client.HTTPConnection, path: str) -> Any:
    """Ask for JSON."""
    return json.loads(got(connection, path)[2])


def medians(work: Callable[[], float], rounds: int) -> str:
    """Write the median of so many times in milliseconds, and the slowest of nine in ten."""
    times = sorted(work() for _ in range(rounds))
    return f"{statistics.median(times):.0f} | {times[int(0.9 * (len(times) - 1))]:.0f}"


def click(connection: http.client.HTTPConnection, base: str, layer: dict[str, Any]) -> float:
    """Click somewhere on a sheet of maps, and wait for the numbers, the patch and the projection."""
    sheet = random.randrange(-(-layer["units"] // SHEET))
    cell = random.randrange(min(SHEET, layer["units"] - sheet * SHEET))
    x = cell % ACROSS * PITCH[0] + random.randrange(CELL)
    y = cell // ACROSS * PITCH[1] + random.randrange(CELL)
    start = time.perf_counter()
    status, headers, _ = got(connection, f"{base}/layer/{layer['id']}/pick/number-{sheet}.json?{x},{y}")
    assert status == 303
    spot = headers["location"].removesuffix(".json")
    found = asked(connection, f"{spot}.json")
    for kind in ("patch", "projection"):
        assert got(connection, f"{spot}/{kind}-{found['method']}.webp")[0] == 200
    return 1000 * (time.perf_counter() - start)


def pages(options: argparse.Namespace, arguments: list[str]) -> None:
    """Print how long the first page takes from the command's start, and other pages when they were seen before."""
    start = time.perf_counter()
    with serving(arguments) as host:
        print(f"address after {time.perf_counter() - start:.2f} s, ", end="")
        connection = http.client.HTTPConnection(host, timeout=120)
        got(connection, "/")
        print(f"first page after {time.perf_counter() - start:.2f} s")
        print("\n| page | median, ms | 9 of 10, ms |\n|---|--:|--:|")
        network = f"/net/{asked(connection, '/index.json')['networks'][0]['id']}"
        for layer in options.layers.split(","):
            for path in (network, f"{network}/layer/{layer}", f"{network}/layer/{layer}/unit/0"):
                got(connection, path)

                def seen(path: str = path) -> float:
                    start = time.perf_counter()
                    assert got(connection, path)[0] == 200
                    return 1000 * (time.perf_counter() - start)

                print(f"| `{path}` | {medians(seen, options.rounds)} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--net", default="zfnet64")
    parser.add_argument("--weights")
    parser.add_argument("--layers", default="")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--pages", action="store_true")
    options = parser.parse_args()
    random.seed(0)
    arguments = ["--net", options.net, *(["--weights", options.weights] if options.weights else [])]
    if options.pages:
        pages(options, arguments)
        return
    with serving(arguments) as host:
        connection = http.client.HTTPConnection(host, timeout=120)
        home = asked(connection, "/index.json")
        network = f"/net/{home['networks'][0]['id']}"
        live = asked(connection, f"{network}/live.json")
        base = f"{network}/picture/{home['pictures'][0]['id']}"
        named = options.layers.split(",") if options.layers else []
        layers = [each for each in live["layers"] if each["id"] in named or (not named and len(each["shape"]) == 3)]
        buffer = io.BytesIO()
        frame = load("zfnet64").prepare("sample:chelsea").original
        scale = live["side"] / min(frame.size)
        frame.convert("RGB").resize(
            (round(frame.width * scale), round(frame.height * scale)), Image.Resampling.BILINEAR
        ).save(buffer, "JPEG", quality=90)
        print("| | median, ms | 9 of 10, ms |\n|---|--:|--:|")
        with connect(f"ws://{host}{network}/live/frames", origin=f"http://{host}", max_size=None) as socket:  # type: ignore[arg-type]

            def frames() -> float:
                start = time.perf_counter()
                socket.send(buffer.getvalue())
                for _ in json.loads(socket.recv())["images"]:
                    socket.recv()
                return 1000 * (time.perf_counter() - start)

            for layer in layers:
                got(connection, f"{base}?layer={layer['id']}")  # who clicks has seen the maps
                got(connection, f"{base}/layer/{layer['id']}/maps/number-0.webp")
                told = medians(lambda layer=layer: click(connection, base, layer), options.rounds)
                print(f"| {options.net}, `{layer['id']}`: a click | {told} |", flush=True)
                socket.send(json.dumps({"layer": layer["id"], "of": layer["id"], "unit": 3}))
                frames()
                print(
                    f"| {options.net}, `{layer['id']}`: a live frame | {medians(frames, options.rounds)} |", flush=True
                )


if __name__ == "__main__":
    main()
