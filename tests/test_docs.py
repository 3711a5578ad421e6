"""What the documents say is run and compared with the code."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image
from pyarrow import parquet
from safetensors.torch import load_file, save_file
from torchvision.models import resnet18

import convscope
from conftest import ROOT
from convscope import configuration, plugins
from convscope.cli import run
from convscope.data.samples import digits
from convscope.diagnosis.diagnosis import SCHEMA
from convscope.diagnosis.registration import all_kinds
from convscope.registry import METHODS, VIEWS, load_all
from test_structure import ORDER

load_all()


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


@pytest.fixture
def newcomer(data: Callable[[str], Path], chelsea: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the README's pictures, and torch's cache as it is after torchvision's download."""
    Image.fromarray(chelsea).save(tmp_path / "cat.jpg")
    Image.open(digits()[3]).save(tmp_path / "digit.png")
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(load_file(data("weights/squeezenet1_0.safetensors")), cache / "squeezenet1_0-b66bff10.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)
    for pet, colour in (("cats", "orange"), ("dogs", "brown")):
        for number in range(10):
            (tmp_path / "pets" / pet).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (80, 70 + number), colour).save(tmp_path / "pets" / pet / f"{number}.jpg")
    return tmp_path


def test_the_commands_of_the_readme_run(newcomer: Path) -> None:
    commands = [line for block in blocks("README.md", "bash") for line in block.splitlines()]
    assert len(commands) >= 8
    assert any("--epochs 20" in command for command in commands)
    for command in commands:
        words = shlex.split(command.replace("--epochs 20", "--epochs 2"))  # two epochs of twenty will do
        assert words[0] == "convscope" and run(words[1:]) == 0, command
        for written in [words[i + 1] for i, word in enumerate(words) if word == "-o" and words[i + 1].endswith(".png")]:
            assert Image.open(written).width > 300


def test_the_python_of_the_readme_runs(newcomer: Path) -> None:
    for block in blocks("README.md", "python"):
        exec(compile(block, "README.md", "exec"), {})
    assert Image.open("why.png").info["convscope"]


def test_the_page_of_figures_is_true(newcomer: Path) -> None:
    for command in [line for block in blocks("docs/figures.md", "bash") for line in block.splitlines()]:
        assert run(shlex.split(command)[1:]) == 0, command
    for block in blocks("docs/figures.md", "python"):
        exec(compile(block, "docs/figures.md", "exec"), {})
    assert all(Path(name).stat().st_size > 9000 for name in ("column.pdf", "column.svg", "grid.pdf"))


def test_the_page_of_reports_is_true(newcomer: Path) -> None:
    for command in [line for block in blocks("docs/report.md", "bash") for line in block.splitlines()]:
        assert run(shlex.split(command)[1:]) == 0, command
    names: dict[str, Any] = {}
    for block in blocks("docs/report.md", "python"):
        exec(compile(block, "docs/report.md", "exec"), names)
    assert Path("cat.pdf").stat().st_size > 10_000 and "First filters" in Path("filters.html").read_text()


@pytest.mark.nightly
def test_the_page_of_evolutions_is_true(newcomer: Path) -> None:
    for command in [line for block in blocks("docs/evolution.md", "bash") for line in block.splitlines()]:
        assert run(shlex.split(command)[1:]) == 0, command
    for block in blocks("docs/evolution.md", "python"):
        exec(compile(block, "docs/evolution.md", "exec"), {})
    assert all(Path(name).stat().st_size > 2000 for name in ("evolution.png", "two.png", "evolution/evolution.png"))


def test_the_page_of_the_atlas_is_true(newcomer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in [line for block in blocks("docs/atlas.md", "bash") for line in block.splitlines()]:
        assert run(shlex.split(command)[1:]) == 0, command
    for block in blocks("docs/atlas.md", "python"):
        exec(compile(block, "docs/atlas.md", "exec"), {})
    assert all(Path(name).stat().st_size > 2000 for name in ("units.png", "detectors.png", "column.pdf"))
    tables = {Path(name).stem: parquet.read_schema(name).names for name in Path("pets-atlas").glob("*.parquet")}
    page = (ROOT / "docs/atlas.md").read_text()
    assert all(f"| `{table}` |" in page for table in tables)
    told = set(re.findall(r"\w+", page))
    usual = re.compile(
        r"maximum_q\d+|seen_\w+|field_\w+|step_\w|height|width|number|rows|columns|kind|units|whole_picture"
    )
    assert {name for names in tables.values() for name in names if not usual.fullmatch(name)} <= told


def test_the_page_of_networks_is_true(newcomer: Path) -> None:
    (mine,) = [block for block in blocks("docs/networks.md", "python") if "def build" in block]
    (newcomer / "my_model.py").write_text(mine)
    (newcomer / "names.txt").write_text("ant\nbee\ncat\n")
    tuned = {f"module.{key}": value for key, value in resnet18(num_classes=3).state_dict().items()}
    torch.save({"state_dict": tuned, "epoch": 7}, "tuned.pth")
    changed = runpy.run_path("my_model.py")["build"]().body.state_dict()
    torch.save({f"model.{key}": value for key, value in changed.items()}, "changed.pth")
    for command in [line for block in blocks("docs/networks.md", "bash") for line in block.splitlines()]:
        words = shlex.split(command)
        assert words[0] == "convscope" and run(words[1:]) == 0, command
    for block in blocks("docs/networks.md", "python"):
        exec(compile(block, "docs/networks.md", "exec"), {})
    written = ("saliency", "why", "box", "pixel", "region", "alike")
    assert all(Image.open(f"{name}.png").info["convscope"] for name in written)
    (told,) = blocks("docs/networks.md", "toml")
    (newcomer / "pictures" / "pets").mkdir(parents=True)
    (newcomer / "convscope.toml").write_text(told)
    read = configuration.read()
    assert read.net == "mine" and read.networks["mine"].weights == str(newcomer / "x.caffemodel")
    assert read.data["pets"] == str(newcomer / "pictures" / "pets")


def test_the_page_of_data_is_true(newcomer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (newcomer / "pets" / "cats" / "broken.jpg").write_bytes(b"no picture")
    block, _ = blocks("docs/data.md", "python")  # the other one is about storages: test_storage.py
    exec(compile(block, "docs/data.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.startswith("22 pets/cats/0.jpg") and "sample:chelsea (451, 300)" in printed
    assert printed.count("skipped:") == 1 and "broken.jpg is not a picture" in printed


@pytest.fixture
def registering() -> Iterator[None]:
    """Whatever is registered in the test is gone after it."""
    before = [(entries, dict(entries)) for entries in (METHODS, VIEWS)]
    yield
    for entries, kept in before:
        entries.clear()
        entries.update(kept)


def contributing(first_words: str) -> str:
    """Return the example of CONTRIBUTING.md that begins with these words."""
    (block,) = [block for block in blocks("CONTRIBUTING.md", "python") if block.startswith(f'"""{first_words}')]
    return block


def module(name: str, block: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a block as the module that its file would be."""
    made = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, made)
    exec(compile(block, "CONTRIBUTING.md", "exec"), vars(made))
    return made


def in_a_process(folder: Path, *arguments: str) -> str:
    """Run Python in a folder, and return what it prints."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_of_contributing_are_five() -> None:
    assert len(blocks("CONTRIBUTING.md", "python")) == 5


@pytest.mark.parametrize("number", range(5))
def test_the_examples_of_contributing_pass_ruff(number: int) -> None:
    block, ruff = blocks("CONTRIBUTING.md", "python")[number], str(Path(sys.executable).with_name("ruff"))
    as_file = ["-", "--stdin-filename", "src/convscope/attribution/example.py"]
    for command in (["check", *as_file], ["format", "--check", *as_file]):
        done = subprocess.run([ruff, *command], input=block, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("registering")
def test_the_method_of_contributing_is_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    import test_laws

    made = module("convscope.attribution.powered_saliency", contributing("Powered saliency: "), monkeypatch)
    assert made.powered_saliency is METHODS["powered_saliency"].function
    drawing = convscope.explain(convscope.load("lenet5"), digits()[3], "powered_saliency", power=3.0)
    assert drawing.values.max() > 0 and "exaggerates" in drawing.note
    for law in (
        test_laws.test_finite_right_shape_and_not_empty,
        test_laws.test_one_by_one_as_in_a_batch,
        test_laws.test_every_picture_of_a_batch_has_its_own_objective,
        test_laws.test_nothing_is_left_behind,
    ):
        law(METHODS["powered_saliency"], "sequential")
    tests = module("test_powered_saliency", contributing("Powered saliency against"), monkeypatch)
    tests.test_powered_saliency_is_a_power_of_the_gradient()


@pytest.mark.usefixtures("registering")
def test_the_view_of_contributing_is_a_view(newcomer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = module("convscope.views.mean_activity", contributing("Mean activity"), monkeypatch)
    drawing = made.mean_activity(convscope.load("zfnet64"), "cat.jpg", layers=["conv3", "conv5"])
    assert [values.ndim for values in drawing.values.values()] == [2, 2]
    drawing.save("drawn.png")
    convscope.remake("drawn.png").save("remade.png")
    assert Path("drawn.png").read_bytes() == Path("remade.png").read_bytes()


def test_the_source_of_contributing_is_a_source(tmp_path: Path) -> None:
    package = Path(convscope.__file__).parent
    shutil.copytree(package, tmp_path / "convscope", ignore=shutil.ignore_patterns("__pycache__", "trained"))
    (tmp_path / "convscope" / "zoo" / "random_models.py").write_text(contributing("Small random"))
    code = "from convscope import load; print(load('random:8', size=16), 'random:CHANNELS' in load.__doc__)"
    printed = in_a_process(tmp_path, "-c", code)
    assert printed.startswith("<Net random:8: 3 x 16 x 16 pixels, random weights>") and printed.endswith("True\n")
    assert "ReLU" in in_a_process(tmp_path, "-m", "convscope", "layers", "random:8")


def test_the_plugin_of_contributing_is_a_plugin(newcomer: Path, trust: Callable[[Path], None]) -> None:
    (newcomer / "red.py").write_text(contributing("Red"))
    (newcomer / "convscope.toml").write_text(blocks("CONTRIBUTING.md", "toml")[0])
    trust(newcomer)
    assert "The red channel" in in_a_process(newcomer, "-m", "convscope", "red", "--help")
    in_a_process(newcomer, "-m", "convscope", "red", "cat.jpg", "-o", "red.png")
    assert Image.open(newcomer / "red.png").info["convscope"]
    assert tomllib.loads(blocks("CONTRIBUTING.md", "toml")[1])["project"]["entry-points"].keys() == {plugins.GROUP}


def test_the_picture_of_the_layers_is_up_to_date() -> None:
    drawn = Image.open(ROOT / "docs" / "images" / "layers.png").info["Order"]
    assert json.loads(drawn) == ORDER, "run: python docs/make_layers.py"


def test_the_examples_run(chelsea: Any, tmp_path: Path) -> None:
    Image.fromarray(chelsea).save(tmp_path / "cat.png")
    for example in sorted((ROOT / "examples").glob("*.py")):
        runpy.run_path(str(example))["main"](str(tmp_path / "cat.png"), str(tmp_path / example.stem))
        assert len(list((tmp_path / example.stem).glob("*.png"))) >= 4


def test_the_tables_of_the_readme_are_complete() -> None:
    rows = {row.split("`")[1]: row for row in (ROOT / "README.md").read_text().splitlines() if row.startswith("| `")}
    for name, entry in METHODS.items():
        assert entry.paper in rows[name], name
        assert "sanity" not in rows[name] or entry.caveat
    assert {"deconvnet", "guided_backprop"} == {name for name in METHODS if "fails sanity checks" in rows[name]}
    assert set(VIEWS) <= set(rows)


@pytest.mark.parametrize(
    "document",
    [
        *("README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/checks.md", "docs/gallery.md"),
        *("docs/networks.md", "docs/data.md", "docs/figures.md", "docs/atlas.md", "docs/scale.md", "docs/evolution.md"),
        "docs/diagnosis.md",
        *("benchmarks/README.md", "training/README.md"),
    ],
)
def test_links_and_files_exist(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target
    for name in re.findall(r"`((?:src|tests|docs|benchmarks)/[\w./]+)`", path.read_text()):
        assert (ROOT / name).exists(), name


def test_no_document_points_at_this_machine() -> None:
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("training/*.md"),
        *ROOT.glob("src/**/*.md"),
        *ROOT.glob("src/**/history.json"),
        ROOT / "pyproject.toml",
        ROOT / "constraints.txt",
        ROOT / "Makefile",
    ]:
        text = path.read_text()
        assert str(ROOT.parent) not in text and not re.search(r"\.whl|index-url", text), path


def test_the_page_of_predictions_is_true(newcomer: Path) -> None:
    for number in (3, 5, 7):
        (newcomer / "val" / str(number)).mkdir(parents=True)
        shutil.copy(digits()[number], newcomer / "val" / str(number) / "a.png")
    for command in [line for block in blocks("docs/predict.md", "bash") for line in block.splitlines()]:
        words = shlex.split(command)
        assert words[0] == "convscope" and run(words[1:]) == 0, command
    for block in blocks("docs/predict.md", "python"):
        exec(compile(block, "docs/predict.md", "exec"), {})
    header = [*Path("predictions.csv").read_text().splitlines()[0].split(",")]
    header += Path("explained/table.csv").read_text().splitlines()[0].split(",")
    assert Path("occluded/table.parquet").is_file() and Path("junit.xml").is_file()
    told = re.findall(
        r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", (ROOT / "docs/predict.md").read_text(), re.MULTILINE))
    )
    assert set(told) >= {name for name in header if not re.search(r"[2-9]$", name)}, "every column is documented"


@pytest.fixture
def digits_in_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with thirty digits in `val`, a folder for each class."""
    for number in range(30):
        (tmp_path / "val" / str(number % 10)).mkdir(parents=True, exist_ok=True)
        shutil.copy(digits()[number % 10], tmp_path / "val" / str(number % 10) / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_of_diagnoses_is_true(digits_in_folders: Path) -> None:
    for command in [line for block in blocks("docs/diagnosis.md", "bash") for line in block.splitlines()]:
        assert run(shlex.split(command)[1:]) == 0, command
    for block in blocks("docs/diagnosis.md", "python"):
        exec(compile(block, "docs/diagnosis.md", "exec"), {})
    page, said = (ROOT / "docs/diagnosis.md").read_text(), json.loads(Path("diagnosis.json").read_text())
    keys = {*said, *(key for part in ("findings", "healthy", "unseen") for each in said[part] for key in each)}
    assert keys - {"schema"} <= set(re.findall(r"`(\w+)`", page))
    for kind in all_kinds():
        assert f"`{kind}`" in page, kind


@pytest.mark.nightly
def test_the_page_of_studies_is_true(digits_in_folders: Path) -> None:
    for command in [line for block in blocks("docs/studies.md", "bash") for line in block.splitlines()]:
        assert run(shlex.split(command)[1:]) == 0, command
    for block in blocks("docs/studies.md", "python"):
        exec(compile(block, "docs/studies.md", "exec"), {})


@pytest.mark.nightly
def test_the_page_of_lenet5_is_true(digits_in_folders: Path) -> None:
    shutil.copytree("val", "train")
    for command in [line for block in blocks("docs/lenet.md", "bash") for line in block.splitlines()]:
        assert run(shlex.split(command)[1:]) == 0, command
    assert Path("diagnosis.html").stat().st_size > 2000


@pytest.mark.nightly
def test_the_script_of_diagnoses_for_continuous_integration(digits_in_folders: Path) -> None:
    """The script runs under sh: it writes a baseline, passes, and fails by what is new in damaged weights."""
    (script,) = blocks("docs/diagnosis.md", "sh")
    program = digits_in_folders / "bin" / "convscope"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m convscope "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}

    def code(text: str) -> int:
        Path("diagnose.sh").write_text(text)
        return subprocess.run(["sh", "diagnose.sh"], env=environment, check=False, capture_output=True).returncode

    assert code(script) == 0
    assert json.loads(Path("baseline.json").read_text())["schema"] == SCHEMA
    assert code(script) == 0
    weights = {name: value.clone() for name, value in convscope.load("lenet5").body.state_dict().items()}
    weights["conv2.weight"][3] *= 40
    save_file(weights, "damaged.safetensors")
    assert code(script.replace("lenet5", "lenet5 --weights damaged.safetensors")) == 1
    failures = [
        each.attrib["name"]
        for each in ElementTree.parse("diagnosis.xml").iter("testcase")
        if len(each) and each[0].tag == "failure"
    ]
    assert "outlier conv2" in failures
    assert Path("diagnosis.html").is_file()
