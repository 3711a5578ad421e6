"""Damaged and hostile files: each ends in one sentence or a network; none crashes, hangs, fills memory or runs code."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as to_safetensors

from convscope import load
from convscope.errors import ConvscopeError

KINDS = ("onnx", "pt2", "safetensors", "pth")
COUNT, AT_ONCE = 400, 100
SECONDS, GIGABYTE = 10, 2**20  # ru_maxrss is in KiB
HUGE = (2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1)


def original(kind: str) -> bytes:
    """A small real file: a network of this kind, or its weights."""
    torch.manual_seed(0)
    if kind in ("safetensors", "pth"):
        state = {key: value.contiguous() for key, value in load("lenet5").body.state_dict().items()}
        return to_safetensors(state) if kind == "safetensors" else written(lambda file: torch.save(state, file))
    # fmt: off
    body = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(36, 5),
    ).eval()
    # fmt: on
    picture = (torch.zeros(1, 3, 8, 8),)
    if kind == "pt2":
        return written(lambda file: torch.export.save(torch.export.export(body, picture), file))
    return written(lambda file: torch.onnx.export(body, picture, file, dynamo=False))


def written(write: Callable[[Any], Any]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(buffer)
    return buffer.getvalue()


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one to three ways, more often where its structure is than in its numbers."""
    for _ in range(rng.integers(1, 4)):
        data = MUTATIONS[rng.integers(len(MUTATIONS))](data, rng)
    return data


def place(data: bytes, rng: np.random.Generator) -> int:
    """Somewhere: near the beginning, near the end, or anywhere."""
    span = min(len(data), 3000)
    start = (0, len(data) - span, int(rng.integers(len(data) - span + 1)))[rng.integers(3)]
    return start + int(rng.integers(max(span, 1)))


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: place(data, rng)]


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.integers(1, 17)):
        if changed:
            changed[place(data, rng) % len(changed)] ^= 1 << rng.integers(8)
    return bytes(changed)


def overwritten(data: bytes, rng: np.random.Generator) -> bytes:
    """A huge number, as little-endian bytes or as protobuf writes it."""
    at, number = place(data, rng), HUGE[rng.integers(len(HUGE))]
    varint = b"\xff" * 8 + b"\x7f"
    new = varint if rng.random() < 0.5 else number.to_bytes(8, "little")
    return data[:at] + new + data[at + (len(new) if rng.random() < 0.7 else 1) :]


def spliced(data: bytes, rng: np.random.Generator) -> bytes:
    a, b, length = place(data, rng), place(data, rng), int(rng.integers(1, 400))
    return data[:a] + data[b : b + length] + data[a + (length if rng.random() < 0.5 else 0) :]


def renumbered(data: bytes, rng: np.random.Generator) -> bytes:
    """Another number where one is written in text: sizes and places in headers."""
    found = list(re.finditer(rb"(?<=[\[,: ])\d+(?=[\],}])", data))
    if not found:
        return spliced(data, rng)
    match = found[rng.integers(len(found))]
    new = [b"-1", b"0", b"7", b"1e9", b"null", *(str(n).encode() for n in HUGE)][rng.integers(10)]
    return data[: match.start()] + new + data[match.end() :]


MUTATIONS = (truncated, flipped, overwritten, spliced, renumbered, renumbered)


class Runs:
    """What a pickle calls when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def hostile(kind: str, canary: Path) -> list[bytes]:
    """Files made on purpose: code, bombs, lies about sizes, and nesting without end."""
    bomb, deep = bytes(3 * 10**9 // 2), "[" * 200_000 + "]" * 200_000
    if kind == "safetensors":
        header = json.dumps({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 2**62]}}).encode()
        lies = [(2**63 - 1).to_bytes(8, "little") + b"{}", len(header).to_bytes(8, "little") + header]
        return [*lies, len(deep).to_bytes(8, "little") + deep.encode()]
    if kind == "pth":
        evil = pickle.dumps({"a": Runs(canary)})
        nested: Any = ()
        for _ in range(900):
            nested = (nested,)
        plain = {"archive/version": b"3", "archive/byteorder": b"little"}
        pickles = [evil, b"\x80\x02" + b"]" * 10**6 + b".", b"\x80\x02" + b"(" * 10**7, pickle.dumps(nested)]
        stored = [archive(plain | {"archive/data.pkl": content}, zipfile.ZIP_STORED) for content in pickles]
        own = written(lambda file: torch.save({"a": Runs(canary)}, file))
        return [evil, own, *stored, archive(plain | {"archive/data.pkl": bomb})]
    if kind == "pt2":
        return [archive({"m/models/m.json": bomb}), archive({"m/models/m.json": deep.encode()}, zipfile.ZIP_STORED),
                written(lambda file: torch.save(Runs(canary), file))]  # fmt: skip
    # Protobuf: a graph within a graph within a graph, and one tensor that says it is enormous.
    nest = b""
    for _ in range(5000):
        nest = b"\x3a" + varint(len(nest)) + nest
    return [nest, b"\x3a" + varint(2**62) + b"\x00" * 100]


def varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def attempt(kind: str, path: Path) -> str:
    """Load a file and run it once; return what went wrong, or nothing."""
    try:
        net = load(f"{kind}:{path}", mean=0.5) if kind in ("onnx", "pt2") else load("lenet5", weights=path)
        net(torch.zeros(2, net.channels, *net.size))
    except ConvscopeError as error:
        sentence = str(error)
        return "" if "\n" not in sentence and sentence else f"not one sentence: {sentence!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    return ""


def work(kind: str, folder: Path, first: int) -> None:
    """Go through one part of the mutations of a file, and print what went wrong; killed by a watchdog when it hangs."""
    torch.set_num_threads(1)
    data = (folder / "original").read_bytes()
    path = folder / f"{first}.{kind}"
    path.write_bytes(data)
    problem = attempt(kind, path)
    assert not problem, problem
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = sorted(folder.glob("hostile-*"))
    for i in range(len(made) or AT_ONCE):
        seed = [KINDS.index(kind), first + i]
        path.write_bytes(made[i].read_bytes() if made else mutated(data, np.random.default_rng(seed)))
        print(f"at {seed}", flush=True)
        signal.alarm(SECONDS)
        problem = attempt(kind, path)
        signal.alarm(0)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if problem or grown > GIGABYTE:
            print(f"PROBLEM {seed} {problem or f'memory grew by {grown >> 10} MiB'}", flush=True)
            before += grown


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, COUNT, AT_ONCE))
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_end_in_a_sentence_or_a_network(kind: str, first: int, tmp_path: Path) -> None:
    examine(kind, first, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_files_end_in_a_sentence(kind: str, tmp_path: Path) -> None:
    # Made here: what making them takes is not what reading them takes.
    for i, content in enumerate(hostile(kind, tmp_path / "canary")):
        (tmp_path / f"hostile-{i}").write_bytes(content)
    examine(kind, 0, tmp_path)


def examine(kind: str, first: int, tmp_path: Path) -> None:
    """Go through mutations in a process of their own, so that a crash is seen."""
    if kind == "onnx":
        pytest.importorskip("onnx2torch")
    (tmp_path / "original").write_bytes(original(kind))
    command = [sys.executable, str(Path(__file__)), kind, str(tmp_path), str(first)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    last = (done.stdout.splitlines() or [""])[-1]
    assert done.returncode == 0, f"ended by {done.returncode} {last}: {done.stderr[-2000:]}"
    assert "PROBLEM" not in done.stdout, "\n".join(line for line in done.stdout.splitlines() if "PROBLEM" in line)
    assert not (tmp_path / "canary").exists()


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
