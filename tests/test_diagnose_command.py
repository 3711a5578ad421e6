"""`convscope diagnose`: exit codes, files for scripts and services, baselines, and the report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import convscope
from convscope import Diagnosis
from convscope.cli import run
from convscope.context import Cancelled, running
from convscope.data.samples import digits
from convscope.diagnosis import baseline, conditions, services
from convscope.diagnosis.diagnosis import SCHEMA
from convscope.diagnosis.finding import Finding, Healthy, Unseen
from convscope.errors import DataError, OptionError, OutputError


def finding(
    kind: str = "dead", layer: str = "conv4", units: tuple[int, ...] = (3, 17), severity: float = 0.5
) -> Finding:
    return Finding(
        kind, layer, units, severity, 100, "2 of 5 units are off, 100% of them: yes", helps="h", disproof="d"
    )


def diagnosis(*findings: Finding) -> Diagnosis:
    healthy, unseen = (Healthy("constant", 100, "all change"),), (Unseen("calibration", "it needs labels"),)
    return Diagnosis("net", "val", 100, findings, healthy, unseen)


# Conditions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("dead=0.5", True),
        ("dead=50%", True),
        ("dead", True),
        ("dead=0.51", False),
        ("any=0.5", True),
        ("any=0.6", False),
        ("constant", False),
        ("constant, dead=0.3", True),
        ("DEAD=.5", True),
    ],
)
def test_conditions(text: str, fails: bool) -> None:
    said = diagnosis(finding())
    assert any(each.told(said) for each in conditions.parse(text)) is fails


def test_what_was_not_looked_at_fails_a_condition_about_it() -> None:
    [condition] = conditions.parse("aliasing")
    assert condition.told(diagnosis(finding())) == ""
    [condition] = conditions.parse("calibration")
    unseen = Diagnosis("net", "val", 100, (), (), (Unseen("calibration", "no labels"),))
    assert condition.told(unseen) == "calibration=0.2: calibration was not looked at: no labels"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--fail-on is empty: conditions are KIND=SEVERITY"),
        ("daed=0.2", "has 'daed', which is no kind of finding; nearest: 'dead'"),
        ("dead=much", "has 'dead=much', and a severity goes from 0 to 1"),
        ("dead=2", "a severity goes from 0 to 1"),
        ("dead>0.2", "no kind of finding; nearest: 'dead'"),
    ],
)
def test_conditions_that_are_none(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        conditions.parse(text)
    with pytest.raises(OptionError, match="'dead', which --kinds outlier does not look for"):
        conditions.parse("dead", ["outlier"])


# Baselines, services -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "known"),
    [
        (finding(), True),
        (finding(units=(3,), severity=0.2), True),
        (finding(severity=0.54), True),
        (finding(severity=0.6), False),
        (finding(units=(3, 17, 20)), False),
        (finding(layer="conv5"), False),
        (finding(kind="outlier"), False),
    ],
)
def test_a_baseline_accepts_what_it_holds(now: Finding, known: bool, tmp_path: Path) -> None:
    before = diagnosis(finding()).save(tmp_path / "before.json")
    said = baseline.accepted(diagnosis(now), baseline.read_baseline(before))
    assert said.findings[0].known is known
    assert bool(conditions.parse("any")[0].told(said)) is not known


def test_files_that_are_no_baseline(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no baseline .*--json .*writes one"):
        baseline.read_baseline(tmp_path / "nowhere.json")
    (tmp_path / "other.json").write_text('{"schema": "x/1", "network": "n", "findings": []}')
    with pytest.raises(DataError, match=re.escape(f"'x/1', not {SCHEMA!r}")):
        baseline.read_baseline(tmp_path / "other.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match=r"list\.json"):
        baseline.read_baseline(tmp_path / "list.json")


def test_junit_and_lines_for_github() -> None:
    said = diagnosis(finding(), finding("outlier", "conv1", (5,), 0.3))
    chosen = conditions.parse("dead=0.4, calibration")
    suite = ElementTree.fromstring(services.junit(said, chosen).encode())
    assert suite.attrib["tests"] == "4"
    assert suite.attrib["failures"] == "2"
    outcomes = {case.attrib["name"]: [child.tag for child in case] for case in suite.iter("testcase")}
    assert outcomes == {
        "dead conv4": ["failure"],
        "outlier conv1": ["system-out"],
        "constant": ["system-out"],
        "calibration": ["failure"],
    }
    without = ElementTree.fromstring(services.junit(said, ()).encode())
    assert without.attrib["skipped"] == "1"
    assert services.github(said, chosen) == [
        "::error title=dead conv4::severity 0.50: 2 of 5 units are off, 100%25 of them: yes",
        "::warning title=outlier conv1::severity 0.30: 2 of 5 units are off, 100%25 of them: yes",
        "::error title=calibration::not looked at: it needs labels",
    ]
    known = baseline.accepted(said, baseline.Baseline(SCHEMA, "net", [baseline.Known("dead", "conv4", [3, 17], 0.5)]))
    assert services.github(known, conditions.parse("dead"))[0].startswith("::notice title=dead conv4")


# The command ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with thirty digits by class, and lenet5 with two dead units."""
    at = tmp_path_factory.mktemp("diagnose")
    paths = digits()
    for number in range(30):
        truth = number % 10
        (at / "val" / str(truth)).mkdir(parents=True, exist_ok=True)
        Image.open(paths[truth]).save(at / "val" / str(truth) / f"{number}.png")
    weights = convscope.load("lenet5").body.state_dict()
    weights = {name: value.clone() for name, value in weights.items()}
    weights["conv2.bias"][[3, 11]] = -1000
    save_file(weights, at / "damaged.safetensors")
    return at


KINDS = ["--kinds", "dead,outlier,class-only"]


def test_the_command_finds_fails_and_accepts(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    damaged = ["diagnose", "lenet5", "--weights", "damaged.safetensors", "--data", "val", *KINDS]
    assert run([*damaged, "--json", "now.json", "-o", "report.html", "--junit", "j.xml", "--fail-on", "dead=0.2"]) == 1
    printed = capsys.readouterr()
    assert "2 of 16 units of conv2 (3, 11)" in printed.out
    assert "failed by --fail-on: dead=0.2: dead 0." in printed.err
    said = json.loads(Path("now.json").read_text())
    [dead] = [each for each in said["findings"] if (each["kind"], each["layer"]) == ("dead", "conv2")]
    assert (dead["units"], dead["n"]) == ([3, 11], 30)
    page = Path("report.html").read_text()
    assert "Dead units" in page
    assert "What is in order" in page
    assert ElementTree.parse("j.xml").getroot().attrib["failures"] in ("1", "2")  # what is below the dead units may be
    assert run([*damaged, "--fail-on", "dead=0.2", "--baseline", "now.json", "--annotations"]) == 0
    assert "::notice title=dead conv2::" in capsys.readouterr().out
    assert run(["diagnose", "--net", "lenet5", "--data", "val", *KINDS, "--fail-on", "dead=0.25,outlier"]) == 0


def test_misuse_ends_in_code_2_before_anything_is_computed(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    for words, message in [
        (["diagnose", "lenet5"], "--data"),
        (["diagnose", "lenet5", "--data", "nowhere"], "nowhere"),
        (["diagnose", "lenet5", "--data", "val", "-o", "r.xlsx"], "endings are"),
        (["diagnose", "lenet5", "--data", "val", "--json", "r.csv"], "r.json"),
        (["diagnose", "lenet5", "--data", "val", "--fail-on", "daed"], "nearest: 'dead'"),
        (["diagnose", "lenet5", "--data", "val", "--kinds", "daed"], "nearest: 'dead'"),
        (["diagnose", "lenet5", "--data", "val", "--baseline", "b.json"], "there is no baseline"),
        (["diagnose", "lenet5", "--net", "zfnet64", "--data", "val"], "two networks"),
    ]:
        assert run(words) == 2, words
        assert message in capsys.readouterr().err


def test_a_broken_picture_is_named_and_ends_in_code_3(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "val").mkdir()
    for number, path in enumerate(sorted((place / "val").glob("*/*.png"))[:4]):
        (tmp_path / "val" / f"{number}.png").write_bytes(path.read_bytes())
    (tmp_path / "val" / "broken.png").write_bytes(b"\x89PNG")
    report = tmp_path / "r.html"
    assert run(["diagnose", "lenet5", "--data", str(tmp_path / "val"), "--kinds", "outlier", "-o", str(report)]) == 3
    assert "broken.png" in capsys.readouterr().err
    assert "broken.png" in report.read_text()


def test_other_files_and_cancelling(place: Path, tmp_path: Path) -> None:
    said = diagnosis(finding(), finding("outlier", severity=0.9))
    assert said.save(tmp_path / "t.csv").read_text().startswith("kind,layer,units,severity,n,sentence\n")
    assert said.save(tmp_path / "r.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(OutputError):
        said.save(tmp_path / "t.xlsx")

    class Set:
        def is_set(self) -> bool:
            return True

    with running(cancel=Set()), pytest.raises(Cancelled):  # type: ignore[arg-type]
        convscope.diagnose(convscope.load("lenet5"), place / "val")
    assert torch.is_grad_enabled()
