"""The command line, run as a user runs it: real files in, real files out, one line for a mistake."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from adversary.watching import HANG, ended_when_it_hangs
from convscope.cli import _main, run  # pyright: ignore[reportPrivateUsage]
from convscope.commands.registered import command_line
from convscope.data.naming import distinct_names
from convscope.data.samples import digits
from convscope.registry import METHODS, VIEWS, load_all

load_all()
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def digit() -> str:
    return str(digits()[3])


def fails(capsys: Capture, *arguments: str) -> str:
    """Run a command that must fail with one line on stderr, nothing on stdout, and exit code 2."""
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    # A bar of progress, shown where a machine takes more than two seconds, leaves an empty line.
    lines = [line for line in err.splitlines() if line and "using the default" not in line]
    assert len(lines) == 1 and lines[0].startswith("convscope: "), err
    assert "Traceback" not in err and out == ""
    return lines[0]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_writes_a_picture_and_its_numbers(
    method: str, digit: str, tmp_path: Path, capsys: Capture
) -> None:
    net, side = ("zfnet64", 64) if method == "cam" else ("lenet5", 28)  # LeNet's head is not linear
    assert run([method, digit, "--net", net, "-o", "out.png", "--save-values", "out.npy"]) == 0
    assert capsys.readouterr().out.split() == ["out.png", "out.npy"]
    image = Image.open("out.png")
    assert image.width > 600 and json.loads(image.info["convscope"])["method"] == method
    values = np.load("out.npy")
    assert values.shape[-2:] == (side, side) and np.isfinite(values).all() and np.abs(values).max() > 0


@pytest.mark.parametrize("view", [name for name, entry in VIEWS.items() if entry.kind != "study"])
def test_every_view_writes_a_picture(view: str, digit: str, capsys: Capture) -> None:
    options = {
        "maps": ["--layer", "conv2"],
        "project": ["--layer", "conv2", "--top", "4"],
        "maximize": ["--of", "conv2:0-3", "--steps", "9"],
        "filters_by_ascent": ["--layer", "conv2", "--channels", "0-3", "--steps", "9"],
        "class_model": ["--of", "3; 8", "--steps", "9"],
        "dream": ["--steps", "2", "--size", "360", "--tile", "128"],
        "accentuate": ["--steps", "9"],
        "invert": ["--steps", "9"],
        "style": ["--style", digit, "--steps", "3", "--size", "360"],
    }.get(view, [])
    pictures = [] if VIEWS[view].takes == "" else [digit]
    assert run([view, *pictures, "--net", "lenet5", *options, "-o", "v.png", "--save-values", "v.npz"]) == 0
    assert Image.open("v.png").width >= 360
    assert all(np.isfinite(array).all() for array in np.load("v.npz").values())


@pytest.mark.parametrize("name", [*METHODS, *VIEWS])
def test_every_help_lists_every_option_once(name: str, capsys: Capture) -> None:
    entry = {**METHODS, **VIEWS}[name]
    assert run([*command_line(name, entry.kind).split(), "--help"]) == 0
    text = capsys.readouterr().out
    for option in entry.options:
        assert text.count(f"--{option.replace('_', '-')} ") >= 1
    assert entry.paper.split(",")[0] in text
    assert not entry.caveat or entry.caveat.split()[0] in text


def test_help_lists_every_command(capsys: Capture) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert run(arguments) == 0
        text = capsys.readouterr().out
        views = [name for name, entry in VIEWS.items() if entry.kind != "study"]
        assert all(name.replace("_", "-") in text for name in (*METHODS, *views, "demo", "layers", "show", "study"))
        assert all(f"{group}:" in text for group in ("Explain a picture", "Make pictures", "Networks", "Check"))
        assert not re.findall(r"(\S+): \1[: ]", text), "no title is said twice"


def test_a_folder_of_pictures_gives_a_folder(tmp_path: Path, capsys: Capture) -> None:
    folder = digits()[0].parent
    assert run(["saliency", str(folder), "--net", "lenet5", "-o", "out", "--save-values", "n.npy"]) == 0
    names = sorted(path.name for path in Path("out").iterdir())
    assert names == sorted(f"{i}{ending}" for i in range(10) for ending in (".npy", ".png"))
    assert not list(tmp_path.glob("*.npy")), "numbers lie beside the drawings"


def test_pictures_of_the_same_name_do_not_overwrite_each_other(digit: str) -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "x.png").write_bytes(Path(digit).read_bytes())
    assert run(["saliency", "a", "b", "--net", "lenet5", "-o", "out"]) == 0
    assert sorted(map(str, Path("out").rglob("*.png"))) == ["out/a/x.png", "out/b/x.png"]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["p/0.png", "p/1.jpg"], ["0", "1"]),
        (["p/a/0.png", "p/b/0.png", "p/b/c/1.png"], ["a/0", "b/0", "b/c/1"]),
        (["p/cat.png", "p/cat.jpg", "p/dog.jpg"], ["cat.png", "cat.jpg", "dog"]),
        (["p/0.png", "p/0.png"], ["0", "0-2"]),
        (["p/0.png", "p/0.png", "p/0-2.png", "p/0.png"], ["0", "0-3", "0-2", "0-4"]),
        (["p/Cat.png", "p/cat.png"], ["Cat", "cat-2"]),
        (["a/../../x.png", "/etc/x.png"], ["a/x", "etc/x"]),
        (["/data/cat.jpg"], ["cat"]),
        (["p/x.jpg", "p/x.png/y.jpg"], ["x-2", "x.png/y"]),  # a folder of that name is in the way
        (["/data/cat.jpg", "here/cat.jpg"], ["data/cat", "here/cat"]),
        (["s/a-0.tar#000123.jpg", "s/b.parquet#17"], ["a-0.tar-000123", "b.parquet-17"]),
        (["sample:digits/3", "sample:chelsea"], ["3", "chelsea"]),
    ],
)
def test_outputs_are_named_from_the_common_folder(paths: list[str], names: list[str]) -> None:
    assert distinct_names(paths) == names


def test_samples_and_tar_files_are_pictures_of_commands(tmp_path: Path) -> None:
    with tarfile.open("digits.tar", "w") as tar:
        for path in digits()[:2]:
            tar.add(path, path.name)
    assert run(["saliency", "sample:digits/3", "-o", "one.png"]) == 0
    assert run(["saliency", "digits.tar", "-o", "out"]) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["0.png", "1.png"]


def test_one_bad_picture_among_many_is_named_and_the_others_are_drawn(digit: str, capsys: Capture) -> None:
    Path("bad.png").write_bytes(Path(digit).read_bytes()[:60])
    assert run(["saliency", digit, "bad.png", str(digits()[5]), "--net", "lenet5", "-o", "out"]) == 3
    assert sorted(path.name for path in Path("out").iterdir()) == ["3.png", "5.png"]
    assert "1 of 3 pictures failed" in (error := capsys.readouterr().err) and "bad.png" in error


def test_views_of_many_pictures_make_one_sheet_or_a_folder() -> None:
    names = [str(path) for path in digits()]
    assert run(["maps", *names, "--net", "lenet5", "--layer", "conv1", "-o", "sheet.png"]) == 0
    assert run(["maps", *names, "--net", "lenet5", "--layer", "conv1", "-o", "each"]) == 0
    assert run(["project", *names[:2], "--net", "lenet5", "--layer", "conv2", "-o", "units"]) == 0
    assert Image.open("sheet.png").height > 600
    assert len(list(Path("each").iterdir())) == 10 and len(list(Path("units").iterdir())) == 2


def test_shared_scale(capsys: Capture) -> None:
    names = [str(path) for path in digits()[:3]]
    assert run(["occlusion", *names, "--net", "lenet5", "-o", "own"]) == 0
    assert run(["occlusion", *names, "--net", "lenet5", "-o", "shared", "--shared-scale"]) == 0
    strips = [{Image.open(Path(folder, f"{i}.png")).tobytes() for i in range(3)} for folder in ("own", "shared")]
    assert strips[0] != strips[1]


def test_overlay_has_the_resolution_of_the_original(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 140), np.uint8)).save("wide.png")
    assert run(["grad_cam", "wide.png", "--net", "lenet5", "--overlay", "-o", "o.png"]) == 0
    assert Image.open("o.png").size == (140, 90)


def test_values_as_safetensors_hold_the_recipe(digit: str) -> None:
    assert run(["deconvnet", digit, "--net", "lenet5", "--of", "conv2:3@4,5", "--save-values", "v.safetensors"]) == 0
    assert load_file("v.safetensors")["map"].shape == (1, 28, 28)
    assert b"conv2:3@4,5" in Path("v.safetensors").read_bytes()


def test_show_prints_the_recipe(digit: str, capsys: Capture) -> None:
    run(["occlusion", digit, "--net", "lenet5", "--of", "8", "--patch", "6", "-o", "x.png"])
    capsys.readouterr()
    assert run(["show", "x.png"]) == 0
    recipe = json.loads(capsys.readouterr().out)
    assert recipe["objective"] == "8" and recipe["options"]["patch"] == 6 and recipe["network"]["name"] == "lenet5"
    assert recipe["pictures"][0]["where"] == digit and len(recipe["weights"]) == 16


def test_layers_prints_a_table(capsys: Capture) -> None:
    assert run(["layers", "torchvision:alexnet"]) == 0
    text = capsys.readouterr().out
    assert "features.10" in text and "163 × 163" in text and "16 × 16" in text and "884,992" in text


def test_layers_takes_weights_and_what_the_network_reads(data: Callable[[str], Path], capsys: Capture) -> None:
    weights = str(data("weights/squeezenet1_0.safetensors"))
    assert run(["layers", "torchvision:squeezenet1_0", "--weights", weights, "--mean", "0.5", "--std", "0.5"]) == 0
    assert "features.12.expand3x3" in capsys.readouterr().out
    assert run(["layers", "torchvision:squeezenet1_1", "--weights", weights]) == 2
    assert "does not fit torchvision:squeezenet1_1" in capsys.readouterr().err
    assert run(["layers", "zfnet64", "--classes", "none.txt"]) == 2
    assert "cannot read none.txt" in capsys.readouterr().err


def test_mean_std_and_classes(digit: str, elsewhere: Path, capsys: Capture) -> None:
    (elsewhere / "names.txt").write_text("\n".join(f"the digit {number}" for number in range(10)))
    asked = ["gradient", digit, "--net", "lenet5", "--save-values", "v.npy"]
    assert run([*asked, "--of", "the digit 3", "--mean", "0.1307", "--std", "0.3081", "--classes", "names.txt"]) == 0
    same = np.load("v.npy")
    assert run([*asked, "--of", "3"]) == 0
    assert np.array_equal(np.load("v.npy"), same)
    assert run([*asked, "--of", "3", "--std", "0.6162"]) == 0
    assert not np.array_equal(np.load("v.npy"), same)
    Image.new("RGB", (80, 60), "orange").save("colour.png")
    assert run(["gradient", "colour.png", "--net", "zfnet64", "--mean", "imagenet", "--save-values", "v.npy"]) == 0
    same = np.load("v.npy")
    numbers = ["--mean", "0.485,0.456,0.406", "--std=0.229,0.224,0.225"]
    assert run(["gradient", "colour.png", "--net", "zfnet64", *numbers, "--save-values", "v.npy"]) == 0
    assert np.array_equal(np.load("v.npy"), same)


def test_help_has_the_options_of_the_network_together(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for command in ("saliency", "class-model", "check", "train-style"):
        assert run([command, "--help"]) == 0
        panel = capsys.readouterr().out.partition(" Network ")[2].partition("╰")[0]
        panel = re.sub("\x1b\\[[0-9;]*m", "", panel)
        for option in ("net", "weights", "epoch", "device", "mean", "std", "classes"):
            assert f"--{option} " in panel, command


def test_a_range_of_layers(digit: str, capsys: Capture) -> None:
    asked = ["hidden-gradients", digit, "--net", "lenet5", "-o", "h.png"]
    assert run([*asked, "--layers", "conv2..relu3,fc5"]) == 0
    recipe = json.loads(Image.open("h.png").info["convscope"])
    assert recipe["settled"]["layers"] == ["fc5", "relu3", "conv3", "pool2", "relu2", "conv2"]
    assert run([*asked, "--layers", "relu3..conv2"]) == 0, "in either order"
    assert json.loads(Image.open("h.png").info["convscope"])["settled"]["layers"] == recipe["settled"]["layers"][1:]
    assert run([*asked, "--layers", "relu4.."]) == 0, "up to the output, which is a block"
    assert json.loads(Image.open("h.png").info["convscope"])["settled"]["layers"] == ["", "fc5", "relu4"]
    capsys.readouterr()
    Path("h.png").unlink()
    assert "no layer 'fc9'; nearest: 'fc5'" in fails(capsys, *asked, "--layers", "conv1..fc9")


def test_hyphens_and_random_weights_are_said(digit: str, capsys: Capture) -> None:
    assert run(["gradient", digit, "--net", "lenet5", "--weights", "none", "-o", "r.png"]) == 0
    assert "random weights, seed 0" in json.loads(Image.open("r.png").info["convscope"])["network"]["note"]


def test_the_default_network_is_named(digit: str, capsys: Capture) -> None:
    assert run(["gradient", digit, "-o", "r.png"]) == 0
    assert (
        "using the default lenet5 (10 classes: 0, 1, 2, 3, ...); choose another with --net" in capsys.readouterr().err
    )
    Image.new("RGB", (80, 60), "orange").save("colour.png")
    assert run(["gradient", "colour.png", "-o", "c.png"]) == 0
    assert "using the default zfnet64 (100 classes: goldfish" in capsys.readouterr().err


def test_an_epoch_of_the_training_can_be_asked_for(capsys: Capture) -> None:
    assert run(["filters", "--epoch", "1", "-o", "f.png", "--save-values", "early.npz"]) == 0
    assert run(["filters", "-o", "l.png", "--save-values", "late.npz"]) == 0
    assert np.abs(np.load("early.npz")["filters"] - np.load("late.npz")["filters"]).max() > 0.01
    assert "epoch 1 of its training" in json.loads(Image.open("f.png").info["convscope"])["network"]["note"]
    assert run(["filters", "--epoch", "4", "-o", "f.png"]) == 2
    assert "zfnet64 has no snapshot of epoch 4; there are 1, 2, 5, 10, 20" in capsys.readouterr().err


def test_views_take_larger_pictures(capsys: Capture) -> None:
    Image.new("RGB", (80, 60), "orange").save("colour.png")
    assert run(["maps", "colour.png", "--layer", "conv1", "--size", "96", "-o", "m.png", "--save-values", "m.npz"]) == 0
    assert np.load("m.npz")["maps"].shape == (1, 48, 48, 48)
    assert "input 96 × 96 pixels" in json.loads(Image.open("m.png").info["convscope"])["network"]["note"]


def test_history_lists_epochs_and_accuracies(capsys: Capture) -> None:
    assert run(["history", "zfnet64"]) == 0
    text = capsys.readouterr().out
    assert "epoch-001.safetensors" in text and "%" in text and "100 classes" in text
    assert run(["history", "resnet18"]) == 2
    assert "lenet5, lenet5-1998, zfnet64 have one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gradcam", "DIGIT"], ["no command 'gradcam'", "use convscope grad-cam"]),
        (["grad_cam"], ["Missing argument", "convscope grad-cam PICTURE", "convscope grad-cam --help"]),
        (["maps", "DIGIT"], ["Missing option --layer", "the layer to show", "convscope maps PICTURE --layer TEXT"]),
        (["predict", "DIGIT", "-o", "t.csv"], ["no option -o", "use --csv"]),
        (["predict", "DIGIT", "-k", "3"], ["no option -k", "use --top"]),
        (["scan", "DIGIT", "--top", "3"], ["no option --top", "use -k"]),
        (["predict", "DIGIT", "--csv", "t.xlsx"], ["t.xlsx is written as .csv", "give t.csv"]),
        (["predict", "DIGIT", "--parquet", "t.csv"], ["t.csv is written as .parquet", "give t.parquet"]),
        (["maps", "DIGIT", "--layer", "conv1", "--font", "7in"], ["size of captions in points", "'7in'"]),
        (["grad_cam", "DIGIT", "--layr", "x"], ["no option --layr", "'--layer'"]),
        (["grad_cam", "DIGIT", "--of", "3", "--of", "4"], ["--of takes one value", "--of 3 and --of 4"]),
        (["maps", "DIGIT", "--layer", "conv1", "--save-values", "v.npy"], ["v.npy", "several", ".npz"]),
        (["grad_cam", "none.png"], ["there is no picture none.png"]),
        (["grad_cam", "DIGIT", "--net", "alexnet"], ["'torchvision:alexnet'"]),
        (["grad_cam", "DIGIT", "--net", "torchvision:alexnot"], ["'torchvision:alexnet'"]),
        (["grad_cam", "DIGIT", "--layer", "conv9"], ["no layer 'conv9'", "'conv1'"]),
        (["grad_cam", "DIGIT", "--layer", "fc5"], ["'fc5'", "without spatial positions"]),
        (["grad_cam", "DIGIT", "--of", "10"], ["10 classes, 0 to 9"]),
        (["grad_cam", "DIGIT", "--of", "tabby"], ["no class or layer 'tabby'"]),
        (["grad_cam", "DIGIT", "--of", "conv2:16"], ["channels 0 to 15"]),
        (["grad_cam", "DIGIT", "--align", "left"], ["--align", "'field', 'stretch'", "not 'left'"]),
        (["grad_cam", "DIGIT", "--weights", "w.pt"], ["no weights file w.pt"]),
        (["grad_cam", "DIGIT", "--device", "tpu9"], ["no device 'tpu9'", "use cpu"]),
        (["grad_cam", "DIGIT", "--size", "4"], ["4x4", "needs at least 28x28"]),
        (["grad_cam", "DIGIT", "--cmap", "viridis"], ["no colour map 'viridis'", "'fire'"]),
        (["grad_cam", "DIGIT", "-o", "x.bmp"], ["x.bmp", ".png"]),
        (["grad_cam", "DIGIT", "-o", "DIGIT/x.png"], ["not a folder"]),
        (["grad_cam", "DIGIT", "--save-values", "x.csv"], ["x.csv", ".npy"]),
        (["grad_cam", "DIGIT", "DIGIT", "-o", "x.png"], ["folder"]),
        (["grad_cam", "EMPTY"], ["no picture in"]),
        (["occlusion", "DIGIT", "--patch", "29"], ["29 px", "28x28", "1 to 28"]),
        (["occlusion", "DIGIT", "--stride", "0"], ["at least 1"]),
        (["occlusion", "DIGIT", "--baseline", "pink"], ["'mean', 'grey'"]),
        (["occlusion", "DIGIT", "--patch", "big"], ["--patch"]),
        (["maps", "DIGIT", "--layer", "conv9"], ["'conv1'"]),
        (["maps", "DIGIT"], ["--layer"]),
        (["project", "DIGIT", "--layer", "conv2", "--top", "0"], ["at least 1"]),
        (["project", "DIGIT", "--layer", "fc4"], ["without spatial positions", "conv1"]),
        (["reconstruct", "DIGIT", "--layers", "conv1,conv7"], ["'conv7'"]),
        (["filters", "--net", "lenet5", "--layer", "conv2"], ["does not read pixels"]),
        (["layers", "lenet"], ["'lenet5'"]),
        (["layers", "file:none.py:build"], ["there is no file none.py"]),
        (["grad_cam", "DIGIT", "--std", "wide"], ["one number per channel", "'wide'"]),
        (["grad_cam", "DIGIT", "--mean", "x.npy"], ["'imagenet'", "'x.npy'"]),
        (["nets", "lenot5"], ["'lenet5'"]),
        (["show", "DIGIT"], ["holds no recipe"]),
        (["show", "none.png"], ["there is no picture"]),
        (["demo", "-o", "DIGIT"], ["cannot write"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    arguments: list[str], words: list[str], digit: str, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "EMPTY").mkdir()
    message = fails(capsys, *(argument.replace("DIGIT", digit) for argument in arguments))
    for word in words:
        assert word in message
    assert not list(tmp_path.glob("*.png")) and not list(tmp_path.glob(".*"))


def test_rule_that_is_not_defined_is_refused(digit: str, capsys: Capture) -> None:
    message = fails(capsys, "deconvnet", digit, "--net", "torchvision:efficientnet_b0", "--weights", "none")
    assert "SiLU" in message and "saliency" in message


def terminal() -> dict[str, str]:
    """Return surroundings in which rich takes stderr for a terminal, on which progress is shown."""
    return {**os.environ, "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1", "COLUMNS": "100"}


def test_progress_appears_after_two_seconds(data: Callable[[str], Path], tmp_path: Path) -> None:
    """A real terminal is not at hand: rich is told that stderr is one."""
    weights = data("weights/squeezenet1_0.safetensors")
    command = [sys.executable, "-m", "convscope", "occlusion", str(data("pictures/cat.jpg")), "-o", "o.png"]
    command += ["--net", "torchvision:squeezenet1_0", "--weights", str(weights), "--stride", "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=terminal())
    assert "occlusion" in done.stderr and done.stdout.strip() == "o.png"


def test_interrupting_leaves_no_half_written_file(data: Callable[[str], Path], tmp_path: Path) -> None:
    weights = data("weights/squeezenet1_0.safetensors")
    command = [sys.executable, "-m", "convscope", "occlusion", str(data("pictures/cat.jpg")), "-o", "o.png"]
    command += ["--net", "torchvision:squeezenet1_0", "--weights", str(weights), "--stride", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=terminal()) as process, ended_when_it_hangs():
        assert process.stderr is not None
        shown = ""
        while "occlusion" not in shown and process.poll() is None:
            shown += process.stderr.read(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130 and "Traceback" not in errors and "interrupted" in errors
    assert list(tmp_path.iterdir()) == []


def test_what_was_made_is_kept_elsewhere_when_its_place_is_gone(
    elsewhere: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preview takes the name of the folder that the result was to go to."""
    (elsewhere / "other").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere / "other"))
    asked = ["maximize", "--of", "3", "--net", "lenet5", "--steps", "8", "--preview", "made.png"]
    message = fails(capsys, *asked, "--preview-every", "4", "-o", "made.png/3.png")
    assert "kept instead as" in message
    (kept,) = (elsewhere / "other").glob("convscope-*/3.png")
    assert Image.open(kept).info["convscope"]
    assert Image.open("made.png").size == (28, 28)


def test_what_cannot_be_kept_elsewhere_either_leaves_nothing_there(
    elsewhere: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file may be larger than some bytes, or the disk is full: also where temporary files are."""
    (elsewhere / "other").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere / "other"))

    def full(*_: Any) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(Path, "write_bytes", full)
    message = fails(capsys, "filters", "--net", "lenet5", "--layer", "conv1", "-o", "made.png")
    assert message == "convscope: cannot write made.png: File too large"
    assert not list(elsewhere.rglob("*convscope-*"))


def test_names_may_be_written_with_dashes(capsys: Capture) -> None:
    assert run(["class-model", "--of", "3", "--net", "lenet5", "--steps", "4", "-o", "m.png"]) == 0
    capsys.readouterr()
    assert "there is no command 'class-modell'" in fails(capsys, "class-modell", "--of", "3")


def test_a_film_needs_an_option_and_moves(digit: str, capsys: Capture) -> None:
    asked = ["dream", digit, "--net", "lenet5", "--size", "40", "--steps", "1", "--octaves", "1"]
    assert "a film is made with --zoom" in fails(capsys, *asked, "-o", "film.gif")
    assert run([*asked, "--zoom", "3", "--frames", "frames", "-o", "film.gif"]) == 0
    assert Image.open("film.gif").n_frames == 3
    assert run([*asked, "--zoom", "3", "--frames", "frames", "-o", "film.mp4"]) == 0
    assert Path("film.mp4").stat().st_size > 500


def test_an_interruption_on_the_command_line_keeps_the_best(elsewhere: Path) -> None:
    command = [sys.executable, "-m", "convscope", "maximize", "--of", "espresso", "--steps", "100000"]
    command += ["--preview", "so-far.png", "--preview-every", "10", "-o", "best.png"]
    # One thread: several that wait for each other on a busy machine take minutes to the first preview.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        for _ in range(2000):
            if Path("so-far.png").exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=HANG)
    assert out.split() == ["best.png"] and "kept the best so far" in err and "Traceback" not in err, err
    recipe = json.loads(Image.open("best.png").info["convscope"])
    assert recipe["options"]["seed"] == 0 and recipe["options"]["steps"] == 100000


def test_a_fault_of_our_own_is_one_line_and_70(tmp_path: Path) -> None:
    """A plugin stands for the fault: what its import registers raises when its command runs."""
    (tmp_path / "faulty.py").write_text(
        "from convscope import Net, view\n"
        "@view('Faulty', group='layers')\n"
        "def faulty(net: Net) -> None:\n    'Raise what nobody foresaw.'\n    raise ZeroDivisionError('by zero')\n"
    )
    (tmp_path / "convscope.toml").write_text("plugins = ['faulty.py']\n")
    environment = os.environ | {"CONVSCOPE_TRUST": str(tmp_path.resolve())}
    command = [sys.executable, "-m", "convscope", "faulty", "--net", "lenet5", "-o", "x.png"]
    for more, lines in ({}, 1), ({"CONVSCOPE_TRACEBACK": "1"}, 10):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment | more, capture_output=True, text=True, timeout=HANG, check=False
        )
        said = [line for line in done.stderr.splitlines() if not line.startswith("convscope: using ")]
        assert done.returncode == 70 and len(said) >= lines and ("Traceback" in done.stderr) == bool(more), done.stderr
        assert "a fault of convscope" in said[-1] and "ZeroDivisionError: by zero" in said[-1], said


def test_a_network_that_fails_on_numbers_alone_is_no_fault_of_ours(
    digit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The pass without data shows neither of the two."""
    (tmp_path / "own.py").write_text(
        "import torch, convscope\n"
        "class Own(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.layer = torch.nn.Conv2d(1, 2, 3)\n"
        "        self.more = torch.nn.Linear(2, 2)\n"
        "    def forward(self, x, more):\n        return self.layer(x).mean((2, 3)) + self.more(more)\n"
        "def numbers(): return convscope.Net(Own(), size=28, extra=[torch.tensor([[1, 2]])])\n"
        "def output(): return convscope.Net(torch.nn.Conv2d(1, 2, 3), size=28, output=lambda y: {True: y}[y.is_meta])\n"
    )
    for network, reason in ("numbers", "same dtype.*in line 8 of own.py"), ("output", "KeyError: False, in line 1"):
        words = ["gradient", digit, "--net", f"file:own.py:{network}", "--of", "0"]
        monkeypatch.setattr(sys, "argv", ["convscope", *words])
        assert _main() == 2
        said = capsys.readouterr().err
        assert re.search(f"^convscope: the network fails in its forward pass: .*{reason}", said, re.MULTILINE), said
        assert "Traceback" not in said and "fault of convscope" not in said


@pytest.mark.parametrize("line", [["saliency", "/x.png"], ["layers", "lenet5"], ["train", "lenet5", "--data", "/x"]])
def test_a_working_directory_that_was_removed_is_said(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert run(line) == 2
    assert capsys.readouterr().err == "convscope: the working directory was removed: change to one that is there\n"
