"""No code comes from a folder that one happens to stand in: a canary in every place from which it could come."""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from convscope import configuration, load, plugins, trust
from convscope.cli import run
from convscope.configuration import read
from convscope.errors import ConfigurationError

CANARY = """
from pathlib import Path
from torch import nn

Path(__file__).with_suffix(".ran").touch()

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A downloaded folder with Python files in it, which is the working directory."""
    for name in (".hidden.py", "helper.py"):
        (tmp_path / name).write_text(CANARY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.ran"))


SALIENCY = ["saliency", "sample:digits/3", "-o", "out.png"]


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ('net = "file:.hidden.py:build"', SALIENCY),
        ('net = "mine"\n[networks.mine]\nload = "file:.hidden.py"', SALIENCY),
        ('[networks.squeezenet]\nload = "file:.hidden.py:build"', [*SALIENCY, "--net", "squeezenet"]),
        ('[networks.a]\nload = "b"\n[networks.b]\nload = "file:.hidden.py"', [*SALIENCY, "--net", "a"]),
        ('[networks.a]\nload = "file:.hidden.py"\nweights = "none"', ["layers", "a"]),
        ('[defaults]\nnet = "file:.hidden.py:build"', SALIENCY),
        ('[defaults.saliency]\nnet = "file:.hidden.py:build"', SALIENCY),
        ('net = "file:.hidden.py"', ["check", "sample:digits/3"]),
        ('net = "file:.hidden.py"', ["train-style", "sample:chelsea", "--data", ".", "-o", "s.safetensors"]),
    ],
)
def test_a_configuration_runs_no_code_before_it_is_trusted(
    text: str, command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "convscope.toml").write_text(text)
    (folder / "x.png").write_bytes(b"")
    assert run(command) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"convscope trust {folder / 'convscope.toml'} shows what it runs, and asks" in said
    assert "--net file:" in said and ran(folder) == []
    assert not (folder / "out.png").exists()


def test_code_that_is_named_runs_as_before(folder: Path) -> None:
    (folder / "convscope.toml").write_text('net = "file:helper.py:build"')
    assert run([*SALIENCY, "--net", "file:.hidden.py:build"]) == 0
    assert ran(folder) == [".hidden.ran"]


def test_plugins_run_after_they_are_trusted_and_are_named_before(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "convscope.toml").write_text('plugins = [".hidden.py"]')
    assert run(["nets"]) == 0 and run(["--help"]) == 0 and run(["hidden-thing"]) == 2
    said = capsys.readouterr().err
    assert said.count(f"the plugins of {folder / 'convscope.toml'} are not used. You have not trusted") == 2
    assert ran(folder) == [] and list(plugins.sources()) == []
    assert run(["trust", "--yes"]) == 0 and ran(folder) == []
    assert run(["nets"]) == 0 and ran(folder) == [".hidden.ran"]
    assert f"using {folder / 'convscope.toml'}" in capsys.readouterr().err


def test_python_refuses_as_the_command_line_does(folder: Path) -> None:
    (folder / "convscope.toml").write_text('[networks.mine]\nload = "file:.hidden.py:build"')
    with pytest.raises(ConfigurationError, match=r"which runs code\. You have not trusted this configuration yet"):
        load("mine")
    assert ran(folder) == []
    assert run(["trust", "convscope.toml", "--yes"]) == 0
    assert load("mine").output.shape == (3,)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("convscope.toml", 'net = "mine"\n[networks.mine]\nload = "file:mine.py"\nsize = 8'),
        ("mine.py", CANARY + "# changed"),
        ("beside.py", "# changed"),
        ("numpy.py", "# Python would take it for the library"),
        ("package/inner.py", "# changed"),
    ],
)
def test_what_changed_is_asked_for_again(
    name: str, text: str, folder: Path, trust: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text("from . import inner")
    (folder / "package" / "inner.py").write_text("")
    (folder / "beside.py").write_text("import package")
    (folder / "mine.py").write_text("import beside\n" + CANARY)
    (folder / "convscope.toml").write_text('net = "mine"\n[networks.mine]\nload = "file:mine.py"')
    trust(folder)
    assert run(SALIENCY) == 0
    (folder / name).write_text(text)
    assert run(SALIENCY) == 2
    assert f"{Path(name).name} changed since you trusted it: convscope trust" in capsys.readouterr().err
    trust(folder)
    assert run(["trust", str(folder), "--remove"]) == 0 and run(SALIENCY) == 2


def test_trust_shows_what_would_run_and_asks(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "convscope.toml").write_text(
        'plugins = ["helper.py"]\n[networks."a\\u001b[2K"]\nload = "file:.hidden.py"'
    )
    assert run(["trust"]) == 2, "nobody is there to answer"
    shown, said = capsys.readouterr()
    assert f"plugins of {folder / 'convscope.toml'}: {folder / 'helper.py'}" in shown
    lines = len(CANARY.splitlines())
    digest = trust.fingerprint(folder / ".hidden.py") or ""
    assert f"{folder / '.hidden.py'}: {lines} lines, SHA-256 {digest[:16]}" in shown
    assert "\x1b" not in shown, "what a terminal would obey is written as an escape"
    assert f"convscope trust {folder / 'convscope.toml'} --yes" in said and ran(folder) == []
    assert run(["trust", "--yes"]) == 0
    assert run(["trust", "--list"]) == 0
    assert f"trusted: {folder / 'convscope.toml'}, 2 files" in capsys.readouterr().out
    assert stat.S_IMODE(trust.store().stat().st_mode) == 0o600
    (folder / "convscope.toml").unlink()
    run(["trust", "--list"])
    assert f"no longer there: {folder / 'convscope.toml'}" in capsys.readouterr().out
    assert run(["trust", "--remove", "convscope.toml"]) == 0
    assert str(folder) not in trust.store().read_text()
    capsys.readouterr()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "another"))
    assert run(["trust", "--list"]) == 0 and capsys.readouterr() == ("", "convscope: nothing is trusted yet\n")
    (folder / "notes.txt").write_text("[notes]")
    assert run(["trust", "notes.txt"]) == 2
    assert (
        "notes.txt is no configuration of convscope: name convscope.toml, or a pyproject.toml"
        in capsys.readouterr().err
    )


def test_a_path_with_spaces_is_quoted_in_the_advice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inside = folder / "a b; c"
    inside.mkdir()
    (inside / "convscope.toml").write_text('net = "file:../helper.py"')
    os.chdir(inside)
    assert run(SALIENCY) == 2
    advice = capsys.readouterr().err.partition("convscope trust ")[2].partition(" shows")[0]
    assert shlex.split(advice) == [str(inside / "convscope.toml")]
    assert run(["trust"]) == 2
    asked = capsys.readouterr().err.partition("convscope trust ")[2].partition(" trusts it")[0]
    assert shlex.split(asked) == [str(inside / "convscope.toml"), "--yes"]
    assert run(["trust", *shlex.split(advice), "--yes"]) == 0 and run(SALIENCY) == 0


@pytest.mark.parametrize("where", ["convscope.toml", "."])
def test_machines_trust_by_a_variable(where: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "convscope.toml").write_text('net = "file:.hidden.py"')
    monkeypatch.setenv("CONVSCOPE_TRUST", f"{folder / 'elsewhere'}{os.pathsep}{(folder / where).resolve()}")
    assert run(SALIENCY) == 0 and ran(folder) == [".hidden.ran"]
    monkeypatch.setenv("CONVSCOPE_TRUST", where)
    with pytest.raises(ConfigurationError, match="write the whole path"):
        _ = read().is_trusted


def test_a_store_that_others_can_write_or_that_is_damaged_trusts_nothing(
    folder: Path, trust: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from convscope.trust import store

    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "settings"))
    (folder / "convscope.toml").write_text('net = "file:.hidden.py"')
    trust(folder)
    for content in ("[]", "{", '{"/x/convscope.toml": 3}', "[" * 100_000, '{"/x": {"sha256": 1}}'):
        store().write_text(content)
        assert run(SALIENCY) == 2
    store().write_text("{}")
    store().chmod(0o666)
    with pytest.raises(ConfigurationError, match="can be written by others"):
        _ = read().is_trusted


def test_defaults_do_not_write_outside_of_their_folder(
    folder: Path, trust: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "project").mkdir()
    (folder / "wedding.png").write_bytes(b"irreplaceable")
    (folder / "project" / "away").symlink_to(folder)
    os.chdir(folder / "project")
    for out in (str(folder / "wedding.png"), "../wedding.png", "away/wedding.png"):
        Path("convscope.toml").write_text(f'[defaults]\nnet = "lenet5"\nout = "{out}"')
        assert run(SALIENCY[:2]) == 2
        assert "leads out of the configuration's folder" in capsys.readouterr().err
        assert run(["trust"]) == 2 and out in capsys.readouterr().out
    assert (folder / "wedding.png").read_bytes() == b"irreplaceable"
    trust(folder / "project")
    assert run(SALIENCY[:2]) == 0


@pytest.mark.parametrize("name", ["sample:chelsea", "a/b", "torchvision:MNIST:x"])
def test_names_of_data_do_not_hide_what_has_a_name(name: str, folder: Path) -> None:
    (folder / "convscope.toml").write_text(f'[data]\n"{name}" = "x"')
    with pytest.raises(ConfigurationError, match="a name has no colon and no slash"):
        read()


def test_the_search_ends_at_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "convscope.toml").write_text('net = "lenet5"')
    (folder / "home" / "work").mkdir(parents=True)
    os.chdir(folder / "home" / "work")
    assert read().path == folder / "convscope.toml"
    monkeypatch.setenv("HOME", str(folder / "home"))
    assert read().path is None
    (folder / "home" / "convscope.toml").write_text('net = "lenet5"')
    assert read().path == folder / "home" / "convscope.toml", "the home folder's own counts"


def test_the_search_ends_at_the_border_of_the_file_system(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "convscope.toml").write_text('net = "lenet5"')
    (folder / "mounted" / "work").mkdir(parents=True)
    real = Path.stat

    def elsewhere(path: Path, **how: bool) -> os.stat_result:
        found = list(real(path, **how))
        found[stat.ST_DEV] += "mounted" in path.parts
        return os.stat_result(found)

    assert read(folder / "mounted" / "work").path == folder / "convscope.toml"
    monkeypatch.setattr(Path, "stat", elsewhere)
    assert read(folder / "mounted" / "work").path is None and read(folder).path is not None


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("what", ["the file", "its folder", "everybody's", "a link to it"])
def test_what_others_can_change_is_not_used_and_told(
    what: str, folder: Path, trust: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
) -> None:
    inside = folder / "shared"
    inside.mkdir()
    toml = inside / "convscope.toml"
    toml.write_text('net = "file:../.hidden.py"')
    if what == "a link to it":
        toml.rename(folder / "real.toml")
        toml.symlink_to(folder / "real.toml")
        os.chown(toml, 12345, 12345, follow_symlinks=False)
    elif what == "everybody's":
        toml.chmod(0o666)
    else:
        os.chown(toml if what == "the file" else inside, 12345, 12345)
    (folder / "convscope.toml").write_text('net = "lenet5"')
    os.chdir(inside)
    assert run(SALIENCY) == 0
    said = capfd.readouterr().err
    assert f"{toml} is not used, because others than you can change it; to use it: convscope trust {toml}" in said
    assert f"using {folder / 'convscope.toml'}" in said and ran(folder) == []
    trust(toml)
    assert run(SALIENCY) == 0 and ran(folder) == [".hidden.ran"], "trusted as it is, whoever it belongs to"
    toml.write_text('net = "zfnet64"')
    assert read().net == "lenet5", "and not as another makes it afterwards"


def test_a_configuration_is_named_once_and_not_beside_data_for_programs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "convscope.toml").write_text('net = "lenet5"\n[networks.mine]\nload = "lenet5"\n[defaults]\nsize = 28')
    assert run([*SALIENCY, "--net", "mine"]) == 0
    assert capsys.readouterr().err.splitlines() == [f"convscope: using {folder / 'convscope.toml'}"]
    assert run(["layers", "mine", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) and printed.err == ""
    assert run(["history", "lenet5"]) == 0 and capsys.readouterr().err == "", "nothing of it is used"


def test_python_logs_it_once(folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    log = logging.getLogger(configuration.__name__)
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level(logging.INFO, log.name)
    (folder / "convscope.toml").write_text('[networks.mine]\nload = "lenet5"')
    load("mine"), load("mine")
    assert [record.getMessage() for record in caplog.records] == [f"using {folder / 'convscope.toml'}"]
