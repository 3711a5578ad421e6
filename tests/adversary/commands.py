"""Random command lines: a third plausible, the others with anything in any place; run as `convscope` runs them.

The words come from the command line itself: its commands, their options, what these say of their values.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from functools import cache
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from numpy.random import Generator as Random
from numpy.random import default_rng

from . import sandbox
from .files import harmless
from .mutations import one_of
from .pool import FINE
from .report import Part
from .watch import origin

Case = tuple[str, int, int]

CODES = (0, 1, 2, 3, 130, 143)
"""Exit codes that the documents name: 70 is the last guard's, and a fault."""

PICTURES = ("digit.png", "cat.jpg", "sample:digits/3", "film.gif[1]", "shard.tar#0001.png", "table.parquet#1",
            "[red]x.png", "ü é.png", "./-x.png")  # fmt: skip
SEVERAL = ("two", "pets", "film.gif", "shard.tar", "table.parquet")
NETWORKS = (("--net", "lenet5"), ("--net", "lenet5", "--epoch", "1"), ("--net", "lenet5", "--weights",
"weights.safetensors"),
            ("--net", "lenet5", "--weights", "weights.pth"), ("--net", "onnx:net.onnx", "--mean", "0.5"),
            ("--net", "caffe:net.prototxt", "--weights", "net.caffemodel"))  # fmt: skip
SETTLED = ("net", "weights", "epoch", "mean", "out")
"""Options that a plausible line has together or not at all."""
SMALL = {"": ("steps", "samples", "epochs"), "train-style": ("steps", "size", "width"), "reproduce": ("limit", "quick")}
"""Options that are always given, since what a command does without them takes long."""
VALUES: dict[str, Sequence[str]] = {
    "net": ("lenet5", "onnx:net.onnx", "caffe:net.prototxt"), "weights": ("none", "weights.safetensors",
    "weights.pth"),
    "mean": ("0.5", "0.5,0.5,0.5"), "std": ("1", "0.25"), "classes": ("names.txt", "names.json"), "head": ("softmax",
    "value"),
    "epoch": ("1",), "device": ("cpu",), "fit": ("cover", "contain", "stretch"), "value_range": ("0,255",),
    "show": ("0", "0,0,0"),
    "net_seed": ("3",), "out": ("o.png", "o.jpg", "o.pdf", "o.svg", "new", "new/o.png", "o.gif"), "size": ("28",),
    "save_values": ("v.npy", "v.npz", "v.safetensors"), "of": ("3", "p(3)", "three", "conv1:2", "conv2:1@2,3",
    "3 - 8", "0.5*conv1:1"),
    "cmap": ("fire", "polar", "grey", "jet"), "layer": ("conv1", "conv2"), "layers": ("conv1", "conv1,conv2"),
    "channels": ("0-2", "1"),
    "methods": ("saliency", "grad-cam,saliency"), "boxes": ("boxes.csv",), "names": ("names.txt",),
    "data": ("pets", "two"), "transfer": ("pets",),
    "style": ("photo.jpg", "style.safetensors"),
    "guide": ("cat.jpg",), "recipe": ("default", "paper"), "snapshots": ("1", "1,2"), "precision": ("fp32", "auto"),
    "workers": ("0", "1"),
    "preview": ("p.png",), "about": ("x",), "epochs": ("1",), "batch": ("2", "8"), "tile": ("64",),
    "held_out": ("0.3",), "limit": ("1",), "width": ("8",),
    "table": ("t.csv", "t.json"), "keep": ("kept",), "kinds": ("dead", "dead,outlier"), "json": ("f.json",),
    "train": ("1", "pets"), "junit": ("f.xml",), "fail_on": ("dead=0.2", "any"), "per_class": ("1", "2"),
    "stages": ("2",), "seed": ("0", "7"), "threshold": ("0.2",), "fade": ("1",), "preview_of": ("cat.jpg",),
}  # fmt: skip
"""Plausible values of options by their name; an option that is not here takes a small number or one of its choices."""

WILD = (
    "", " ", "-1", "0", "nan", "inf", "-inf", "1e400", "0.5", "3,", ",", "1;2", "a", "café", "[red]x[/red]", "[/]",
    "\x1b[31mx", "\n", "x" * 300,
    "x" * 5000, "9" * 5000, "-", "--", "..", "/", "/dev/null", "/proc/self/mem", "/proc/x/y.png", "nowhere/x.png",
    "no.png", "broken.png", "empty.png", "text.png",
    "two", "pets", "run", "net.onnx", "drawing.npz", "caffe:", "onnx:", "pt2:no.pt2", "file:no.py:f", "hf:a/b",
    "torchvision:", "timm:", "onnx:digit.png", "pt2:cat.jpg",
    "weights.safetensors", "style.safetensors", "conv9", "conv1:99", "conv1:0@99,99", "p()", "3 +", "((((3))))",
    "(" * 300, "none", "default", "imagenet", "true", "cuda",
    "mps", "meta", "o.xyz", "o.PNG", ".png", "o.png/x.png", "o.mp4", "o.webp", "28,28", "99999", "0x10", "1_000", "٣",
    "\udcff.png", "sample:nothing", "sample:digits/99",
    "torchvision:MNIST:x", "shard.tar#nothing", "table.parquet#99", "table.parquet#-1", "film.gif[99]",
    "film.gif[2:1]", "film.gif[::0]", "*.png", "{a,b}.png", "~nobody/x",
    "~", "$HOME", "@x", "a=b", "'", '"', "\\", "%s", "{0}", "; ls", "`id`", "|",
)  # fmt: skip


@cache
def words() -> tuple[str, ...]:
    """Return all commands as they are called; the demonstration, which takes minutes, is none of them."""
    from convscope.cli import _OWN, _listed

    return tuple(sorted({*_listed(), *_OWN} - {"demo", "serve"}))


@cache
def parameters(word: str) -> tuple[Any, ...]:
    """Return a command's parameters."""
    import typer

    from convscope.cli import _app

    command: Any = typer.main.get_command(_app(word.split()))
    for name in word.split():
        command = command.commands[name]
    return tuple(command.params)


def arguments(kind: str, rng: Random) -> list[str]:
    """Draw a command line: `plausible` or `wild`."""
    word = one_of(words(), rng)
    positional, line = _pictures(word, rng), list[str]()
    names = {parameter.name: parameter for parameter in parameters(word)}
    if {"net", "nets"} & {*names} and names.get("net", names.get("nets")).opts[0].startswith("--"):
        line += one_of(NETWORKS, rng)
    if "out" in names:
        line += [one_of(("-o", "--out"), rng), one_of(_outputs(word, positional), rng)]
    for name, parameter in names.items():
        drawn = parameter.opts[0].startswith("-") and name not in SETTLED
        if drawn and (parameter.required or name in SMALL.get(word, SMALL[""]) or rng.random() < 0.1):
            line += _option(parameter, rng)
    line = [*positional, *line] if rng.random() < 0.8 else [*line, *positional]
    if kind == "plausible":
        return [*word.split(), *line]
    strange = ("", "salience", "--version", "--help", "-h", "SALIENCY", "grad_cam", "[red]")
    first = word.split() if rng.random() < 0.95 else [one_of(strange, rng)]
    return [*first, *_damaged(line, word, rng)]


def _pictures(word: str, rng: Random) -> list[str]:
    """Draw what stands without an option."""
    plain = {
        "show": ("drawing.png", "drawing.npz"), "history": ("lenet5", "run"), "layers": ("lenet5", "onnx:net.onnx"),
        "diagnose": ("lenet5", "onnx:net.onnx"), "reproduce": ("zeiler-fergus",), "export": ("atlas",),
        "train": ("lenet5",), "train-style": ("photo.jpg",), "trust": ("convscope.toml",), "nets": ("lenet*",
        "resnet18"),
    }  # fmt: skip
    if word in plain:
        return [one_of(plain[word], rng)]
    names = [parameter.name for parameter in parameters(word)]
    if "picture" not in names and "pictures" not in names:
        return []
    several = "pictures" in names and rng.random() < 0.3
    return [one_of(SEVERAL, rng)] if several else [one_of(PICTURES, rng)]


def _outputs(word: str, positional: Sequence[str]) -> Sequence[str]:
    """Return where a command with these pictures may write."""
    if word in ("layers", "nets", "history"):
        return ("t.csv", "t.json", "t.md", "t.png")
    if word in ("train", "train-style"):
        return ("new",) if word == "train" else ("new.safetensors",)
    return (
        ("new", "deep/new", "o.gif")
        if positional[:1] and positional[0] in SEVERAL
        else ("o.png", "o.jpg", "o.pdf", "o.svg", "new/o.png")
    )


def _option(parameter: Any, rng: Random) -> list[str]:
    if parameter.is_flag:
        return [one_of(parameter.opts, rng)]
    return [one_of(parameter.opts, rng), _value(parameter, rng)]


def _value(parameter: Any, rng: Random) -> str:
    if parameter.name in VALUES:
        return one_of(VALUES[parameter.name], rng)
    choices = re.findall(r"[\w+-]+", parameter.metavar or "") if "|" in (parameter.metavar or "") else []
    return one_of(choices or ("1", "2", "3"), rng)


def _damaged(line: list[str], word: str, rng: Random) -> list[str]:
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(line) + 1))
        match int(rng.integers(6)):
            case 0 if line:
                del line[at % len(line)]
            case 1 if line:
                line.insert(at, one_of(line, rng))
            case 2:
                line.insert(
                    at, one_of(("--nothing", "--ne", "-z", "--help", "--json", "--", "--out=", "--of", "-o"), rng)
                )
            case 3:
                line[at:at] = _option(one_of([p for p in parameters(word) if p.opts[0].startswith("-")], rng), rng)
            case _ if line:
                line[at % len(line)] = one_of(WILD, rng)
            case _:
                line.append(one_of(WILD, rng))
    return line


def cases(count: int, seed: int = 0, only: Sequence[str] = ()) -> Iterator[Case]:
    """Return `count` command lines, every third of them plausible."""
    for number in range(count):
        kind = "wild" if number % 3 else "plausible"
        if not only or kind in only:
            yield kind, seed, number


def line_of(case: Case) -> list[str]:
    """Return the command line that (kind, seed, number) stands for."""
    return arguments(case[0], default_rng([5, case[1], case[2]]))


def attempt(case: Case, folder: Path) -> tuple[str, str]:
    """Run a command line in a folder with one of everything."""
    sandbox.fill(folder)
    before, line = sandbox.files(folder), line_of(case)
    shown = " ".join(word if len(word) < 60 else word[:60] + "..." for word in line)
    with _errors(folder) as said:
        try:
            code = run(line)
        except BaseException as error:
            return "traceback", f"{type(error).__name__}: {str(error)[:200]} ({shown}){origin(error)}"
    ending, what = judged(code, "".join(said))
    if ending in FINE:
        ending, what = _left(folder, before, line, ending, what)
    return ending, f"{what} ({shown})"


def run(line: Sequence[str]) -> int:
    """Run a command line through the real entry, and return its exit code."""
    from convscope.cli import main

    sys.argv = ["convscope", *line]
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    return 0


WRITTEN = ("-o", "--out", "--save-values", "--preview", "--cutout", "--cartoon")


def judged(code: int, said: str) -> tuple[str, str]:
    """Return what an exit code and what was said on stderr mean."""
    lines = [line for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if "Traceback" in said or code not in CODES:
        return "traceback", f"exit code {code}: {' / '.join(lines[-4:])[-400:]}"
    if code in (2, 3) and not last.startswith("convscope: "):
        return "said", f"exit code {code}, the last line is {last[:200]!r}"
    if code in (1, 130, 143):
        return "said", f"exit code {code} without a reason: {last[:200]}"
    odd = next((line for line in lines if "Warning" in line or "warn(" in line or not harmless(line)), None)
    if odd is not None:
        return "said", f"{odd[:200]!r} beside: exit code {code}"
    return ("worked" if code == 0 else "refused"), last[:200]


def _left(folder: Path, before: dict[str, str], line: Sequence[str], ending: str, what: str) -> tuple[str, str]:
    """Return what was written in the wrong place, changed or left over."""
    after = sandbox.files(folder)
    line = line[: [*line, "--"].index("--")]  # what comes after it is no option
    named = [line[at + 1] for at, word in enumerate(line[:-1]) if word in WRITTEN]
    named += [word.partition("=")[2] for word in line if word.startswith("--out=")]
    changed = [name for name in before if after.get(name) != before[name] and not _within(name, named)]
    if changed:
        return "harmed", f"{changed[:3]} changed"
    hidden = [
        name for name in after if Path(name).name.startswith(".") and name not in before and not _within(name, named)
    ]
    if hidden:
        return "left", f"files {hidden[:3]}"
    elsewhere = [
        name
        for name in set(after) - set(before)
        if any(word in line for word in ("-o", "--out")) and not _within(name, named)
    ]
    if elsewhere:
        return "wrote", f"{elsewhere[:3]} beside {named}"
    return ending, what


def _within(name: str, named: Sequence[str]) -> bool:
    places = [os.path.normpath(place) for place in named]
    return any(
        name == place or name.startswith((place + "/", place.removesuffix(Path(place).suffix))) for place in places
    )


@contextlib.contextmanager
def _errors(folder: Path) -> Generator[list[str]]:
    """Catch what the block writes on stderr, also from C."""
    path, said = folder.parent / "stderr", list[str]()
    kept = os.dup(2)
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.dup2(file, 2)
    try:
        yield said
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(file)
        said.append(path.read_text(encoding="utf-8", errors="replace"))
        path.unlink()


def prepare(only: Sequence[str]) -> None:
    """Import what commands import, and make the folder's files, before there are workers."""
    from convscope.registry import load_all

    load_all()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        sandbox.fill(Path(folder))
        with get_context("fork").Pool(1) as elsewhere:
            for name in elsewhere.apply(_imports):
                with contextlib.suppress(Exception):
                    import_module(name)


def _imports() -> list[str]:
    """Return what some commands import as they run."""
    lines = (
        "saliency digit.png --net lenet5 -o o.pdf",
        "layers onnx:net.onnx",
        "train lenet5 --data pets --epochs 1 --workers 0 -o new",
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for line in lines:
            run(line.split())
    return [name for name in sys.modules if not name.startswith("__")]


PART = Part("commands", 2000, 45, cases, attempt, prepare, batch=1)
