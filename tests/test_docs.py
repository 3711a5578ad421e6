"""What the documents say is run and compared with the code."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.models import resnet18

from conftest import ROOT
from convscope import configuration
from convscope.cli import run
from convscope.data.samples import digits
from convscope.registry import METHODS, VIEWS, load_all

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
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "convscope" and run(words[1:]) == 0, command
        for written in [words[i + 1] for i, word in enumerate(words) if word == "-o" and words[i + 1].endswith(".png")]:
            assert Image.open(written).width > 300


def test_the_python_of_the_readme_runs(newcomer: Path) -> None:
    for block in blocks("README.md", "python"):
        exec(compile(block, "README.md", "exec"), {})
    assert Image.open("why.png").info["convscope"]


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
    (block,) = blocks("docs/data.md", "python")
    exec(compile(block, "docs/data.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.startswith("22 pets/cats/0.jpg") and "sample:chelsea (451, 300)" in printed
    assert printed.count("skipped:") == 1 and "broken.jpg is not a picture" in printed


def test_the_example_of_contributing_is_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    from convscope import explain, load

    monkeypatch.setattr("convscope.registry.METHODS", METHODS)
    (block,) = blocks("CONTRIBUTING.md", "python")
    try:
        exec(compile(block, "CONTRIBUTING.md", "exec"), {})
        drawing = explain(load("lenet5"), digits()[3], "powered_saliency", power=3.0)
    finally:
        del METHODS["powered_saliency"]
    assert drawing.values.max() > 0 and "exaggerates" in drawing.note


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
        *("docs/networks.md", "docs/data.md"),
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
