"""What the command line reads from sources, what it takes, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.main import get_command

from convscope import cli
from convscope.cli import run
from convscope.commands.arguments import spelled
from convscope.commands.registered import command_line, command_of, from_entry, from_source, help_text
from convscope.commands.signatures import options_in_source
from convscope.data.samples import digits
from convscope.listing import listing
from convscope.registry import load_all

ENTRIES = load_all()
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(signature: object) -> str:
    import typer

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(command_of(signature, lambda *_, **__: None))  # type: ignore[arg-type]
    command = get_command(app)
    return command.get_help(command.make_context("x", [], resilient_parsing=True))


@pytest.mark.parametrize("name", ENTRIES)
def test_the_help_from_the_source_is_that_of_the_registry(name: str) -> None:
    listed, entry = from_source(listing()[name]), from_entry(ENTRIES[name])
    assert shown(listed) == shown(entry)
    assert [listed.takes, listed.films, listed.single] == [entry.takes, entry.films, entry.single]
    for option, other in zip(listed.options.values(), entry.options.values(), strict=True):
        assert (option.name, option.default, option.help, option.range) == (
            (other.name, other.default, other.help, other.range)
        )
        assert (option.kind, option.several, option.choices) == (other.kind, other.several, other.choices)


@pytest.mark.parametrize("name", ENTRIES)
def test_help_is_for_users_of_the_command_line(name: str) -> None:
    text = help_text(from_source(listing()[name]))
    assert text.startswith(ENTRIES[name].title + ": ")
    for word in ("Raises", "Returns", "(n, c", "(n, 1", ">>>", "`"):
        assert word not in text


def test_no_help_imports_torch_or_numpy() -> None:
    code = (
        "import contextlib, io, sys; from convscope.cli import _OWN, run; from convscope.listing import listing\n"
        "from convscope.commands.registered import command_line\n"
        "for name in (*_OWN, *(command_line(each.name, each.kind) for each in listing().values())):\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out: assert run([*name.split(), '--help']) == 0\n"
        "    assert '--help' in out.getvalue() and not {'torch', 'numpy'} & set(sys.modules), name"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_annotations_are_read_through_aliases_modules_and_expressions(tmp_path: Path) -> None:
    import ast

    (tmp_path / "other.py").write_text("MOST = 2 * 8\nHELP = 'how ' + 'many'\nSort = Literal['a', 'b']\n")
    (tmp_path / "own.py").write_text(
        "from typing import Annotated, Any, Literal\nfrom pathlib import Path\nfrom PIL import Image\n"
        "from . import other\nfrom .other import Sort as Kind\nfrom ..options import Range\n"
        "Count = Annotated[int | None, other.HELP, Range(1, other.MOST)]\n"
        "def f(net, *, n: Count = None, kind: Kind = 'a', x: Annotated[list[float], f'up to {other.MOST}'],\n"
        "      p: Path | Image.Image | Any = -1.5): ...\n"
    )
    node = ast.parse((tmp_path / "own.py").read_text()).body[-1]
    assert isinstance(node, ast.FunctionDef)
    options = options_in_source(tmp_path / "own.py", node)
    assert options["n"].help == "how many" and str(options["n"].range) == "1 to 16" and options["n"].type == int | None
    assert options["x"].several and options["x"].help == "up to 16"
    assert options["p"].default == -1.5 and options["p"].is_picture


def test_dashes_and_underscores_are_the_same() -> None:
    line = ["grad_cam", "my_cat.jpg", "--save_values", "a_b.npz", "--of=x_y", "--", "--a_b"]
    assert spelled(line) == ["grad-cam", "my_cat.jpg", "--save-values", "a_b.npz", "--of=x_y", "--", "--a_b"]
    assert spelled(["--a_b=c_d", "x_y"]) == ["--a-b=c_d", "x-y"]


def test_lists_add_up_over_commas_and_repetitions(capsys: Capture) -> None:
    digit, asked = str(digits()[3]), ["--net", "lenet5", "-o", "x.png"]
    for options in (["--layers", "conv1,conv2"], ["--layers", "conv1", "--layers", "conv2"]):
        assert run(["reconstruct", digit, *asked, *options]) == 0
        capsys.readouterr()
        assert run(["show", "x.png"]) == 0
        assert json.loads(capsys.readouterr().out)["options"]["layers"] == ["conv1", "conv2"]


def test_json_lists_what_was_written(capsys: Capture) -> None:
    digit = str(digits()[3])
    assert run(["saliency", digit, "--net", "lenet5", "-o", "x.png", "--save-values", "y.npy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ["x.png", "y.npy"]
    assert run(["saliency", digit, str(digits()[4]), "--net", "lenet5", "-o", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ["out/3.png", "out/4.png"]


def test_layers_as_json_and_as_files(capsys: Capture) -> None:
    assert run(["layers", "lenet5", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["layer"] == "conv1" and rows[0]["field"] == [5, 5] and rows[0]["parameters"] == 156
    assert run(["layers", "lenet5", "-o", "layers.csv"]) == 0
    assert capsys.readouterr().out.strip() == "layers.csv"
    assert Path("layers.csv").read_text().splitlines()[1].startswith("1,conv1,Conv2d,6x28x28,5x5")
    assert run(["layers", "lenet5", "-o", "layers.xls"]) == 2
    assert "endings of a table are .csv" in capsys.readouterr().err


def test_history_and_nets_as_json_and_as_files(capsys: Capture) -> None:
    assert run(["history", "zfnet64", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["epoch"] == 1 and rows[0]["snapshot"] == "epoch-001.safetensors" and 0 < rows[-1]["accuracy"] < 1
    assert run(["history", "zfnet64", "-o", "h.md"]) == run(["nets", "lenet*", "-o", "n.csv"]) == 0
    assert "held-out accuracy" in Path("h.md").read_text()
    assert Path("n.csv").read_text().splitlines()[0] == "name,source,weights,path,megabytes,side,classes"
    assert any(line.startswith("lenet5,") for line in Path("n.csv").read_text().splitlines())


def test_show_reads_every_file_with_a_recipe(capsys: Capture) -> None:
    digit = str(digits()[3])
    for values in ("x.npz", "x.safetensors"):
        assert run(["saliency", digit, "--net", "lenet5", "-o", "x.png", "--save-values", values]) == 0
        capsys.readouterr()
        for name in ("x.png", values):
            assert run(["show", name, "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["method"] == "saliency"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("convscope grad-cam --align ", {"field", "stretch"}),
        ("convscope layers zfn", {"zfnet", "zfnet64"}),
        ("convscope grad-cam --net lenet5", {"lenet5"}),
        ("convscope saliency --cmap f", {"fire"}),
        ("convscope hires", {"hires-cam"}),
    ],
)
def test_shells_complete_choices_networks_and_commands(line: str, words: set[str]) -> None:
    count = len(line.split(" ")) - 1
    environment = {**os.environ, "_CONVSCOPE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(count)}
    done = subprocess.run(
        [sys.executable, "-m", "convscope"], env=environment, capture_output=True, text=True, check=False
    )
    assert words <= set(done.stdout.split()), done.stderr


def test_every_own_command_has_a_group_and_dashes() -> None:
    assert all("_" not in name for name in cli._OWN)
    assert all(command_line(name, each.kind) in cli._listed() for name, each in ENTRIES.items())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no TERM")
def test_term_keeps_the_best_and_says_143() -> None:
    command = [sys.executable, "-m", "convscope", "maximize", "--of", "espresso", "--steps", "100000"]
    command += ["--preview", "so-far.png", "--preview-every", "10", "-o", "best.png"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        for _ in range(3000):
            if Path("so-far.png").exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    assert out.split() == ["best.png"] and "Traceback" not in err, err
    assert process.returncode == 143 and Path("best.png").stat().st_size > 1000
