"""The house: what is public, who imports whom, what is loaded when."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import convscope
from conftest import ROOT
from convscope import listing, registry

SOURCE = Path(convscope.__file__).parent

# Each module may import from those before it only.
ORDER = [
    ["errors", "context", "interruptions", "operations", "calls", "geometry"],
    ["assumptions", "kept", "quiet", "renames", "sharing", "surroundings", "synonyms", "twins"],
    ["addresses", "bodies", "calling", "fields", "fingerprints", "heads", "locks", "parsing", "view_writes"],
    ["outputs", "ranks", "options", "batching", "code_files"],
    ["windows", "trust"],
    ["configuration"],
    ["moves"],
    ["propagation"],
    ["dry_run", "rules", "plugins"],
    ["listing"],
    ["registry"],
    ["recipes"],
    ["data"],
    ["drawing"],
    ["tracing", "behaviour", "wiring"],
    ["net"],
    ["baselines", "tapping", "layers", "layouts"],
    ["terms", "cuts"],
    ["objectives"],
    ["incremental"],
    ["predictions", "provenance"],
    ["averaging"],
    ["running"],
    ["bulk"],
    ["attribution"],
    ["views", "synthesis"],
    ["checks"],
    ["evaluation"],
    ["zoo"],
    ["training", "remaking"],
    ["atlas"],
    ["studies"],
    ["stylizing"],
    ["reports"],
    ["diagnosis"],
    ["reproductions"],
    ["explorer"],
    ["commands"],
    ["demo"],
    ["cli"],
    ["__main__"],
]
RANK = {name: position for position, names in enumerate(ORDER) for name in names}


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path.name != "__init__.py")


def family(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The families that a module imports when it is imported itself, relatively or by absolute name."""
    depth = len(path.relative_to(SOURCE).parts)
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            found |= {(node.module or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "convscope":
            inside = (node.module or "").partition(".")[2]
            found |= {(inside or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("convscope.")}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    own = family(path)
    for other in imported(path) - {own}:
        within = RANK[other] == RANK[own] == 0 and other in ("errors", "context")
        assert RANK[other] < RANK[own] or within, f"{own} must not import {other}"


def test_public_names_are_sorted_and_exist() -> None:
    assert convscope.__all__ == sorted(convscope.__all__)
    assert set(dir(convscope)) == {*convscope.__all__, "__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", convscope.__version__)
    for name in convscope.__all__:
        assert getattr(convscope, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'deconvnets'"):
        convscope.deconvnets  # noqa: B018


def test_the_declarations_for_type_checkers_are_true() -> None:
    """`__init__.pyi` is what docs/make_stubs.py writes: every public name, every method with its options."""
    stubs = runpy.run_path(str(ROOT / "docs" / "make_stubs.py"))
    formatted = subprocess.run(
        [str(Path(sys.executable).with_name("ruff")), "format", "-", "--stdin-filename", "src/convscope/x.pyi"],
        input=stubs["text"](),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    assert (SOURCE / "__init__.pyi").read_text() == formatted, "run: python docs/make_stubs.py, then ruff format"
    assert set(stubs["names"]()) == set(convscope.__all__)


CHECKED = """
import convscope

net = convscope.load("zfnet64")
convscope.explain(net, "cat.jpg", "occlusion", patch=16)
convscope.explain(net, "cat.jpg", "occlusion", patch="16")  # wrong
convscope.explian(net, "cat.jpg", "occlusion")  # wrong
convscope.maps(net, "cat.jpg", layer="conv1").values
convscope.maps(net, "cat.jpg", layers="conv1")  # wrong
"""


def test_type_checkers_see_options_and_wrong_names(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(CHECKED)
    pyright = [str(Path(sys.executable).with_name("pyright")), "--pythonpath", sys.executable, "user.py"]
    printed = subprocess.run(pyright, capture_output=True, text=True, check=False, cwd=tmp_path).stdout
    wrong = [number for number, line in enumerate(CHECKED.splitlines(), 1) if line.endswith("# wrong")]
    assert sorted({int(line) for line in re.findall(r"user\.py:(\d+):", printed)}) == wrong, printed


def test_listing_without_import_equals_the_registry() -> None:
    entries = registry.load_all()
    assert {name: entry.summary for name, entry in entries.items()} == {
        name: entry.summary for name, entry in listing.listing().items()
    }


def test_no_module_outside_methods_names_a_method() -> None:
    """A new method touches one file; demonstration, reports, reproductions, atlas and explorer choose."""
    names = set(registry.load_all())
    chooses = (*listing.ROOMS, "atlas", "demo", "explorer", "reports", "reproductions", "synonyms")
    for path in modules():
        if family(path) in chooses or path.stem in (
            "patches",
            "evolution",
        ):
            continue
        tree = ast.parse(path.read_text())
        words = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not words & (names - {"gradient", "maps", "filters", "evolution"}), path


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["show", "--help"],
        ["train", "--help"],
        ["history", "--help"],
        ["nets"],
        ["layers", "--help"],
        ["nonsense"],
    ],
)
def test_quick_commands_import_neither_torch_nor_torchvision(arguments: list[str]) -> None:
    code = (
        "import sys; from convscope.cli import run; run(sys.argv[1:]); "
        "sys.exit(bool({'torch', 'torchvision', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=False).returncode == 0


def test_importing_convscope_and_drawing_import_neither_torchvision_nor_matplotlib() -> None:
    code = (
        "import sys, convscope; from convscope.data.samples import photographs; "
        "net = convscope.load('zfnet64'); convscope.explain(net, photographs()[1], 'saliency').render(); "
        "print(sorted({'torchvision', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_functions_are_short_and_rooms_have_names() -> None:
    for path in modules():
        assert path.stem not in {"utils", "common", "misc", "helpers"}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path.name}: {node.name}"


def test_public_docstrings_begin_with_a_sentence() -> None:
    for path in modules():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                first = (ast.get_docstring(node) or "").split("\n\n")[0]
                assert first.rstrip().endswith((".", ":")), f"{path.name}: {node.name}"


def test_no_option_has_the_name_of_what_commands_take() -> None:
    for name, entry in registry.load_all().items():
        assert not {"picture", "pictures", "net"} & set(entry.options), name


_PARSERS = re.compile(
    r"\b(json\.loads?|tomllib\.loads?|csv\.(Dict)?[rR]eader|literal_eval|ElementTree\.\w+|yaml\.\w+)\("
)
_OWN_TEXTS = {  # what convscope wrote itself, in this process or where nobody else can, and sources of Python packages
    "parsing.py", "locks.py", "training/recipes.py", "drawing/files.py", "synthesis/zoom_film.py",
    "zoo/published.py", "zoo/sources.py",
}  # fmt: skip


def test_texts_of_others_are_parsed_in_one_place() -> None:
    package = ROOT / "src" / "convscope"
    parsing = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if _PARSERS.search(path.read_text(encoding="utf-8"))
    }
    assert parsing == _OWN_TEXTS
