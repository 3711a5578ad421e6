"""convscope: a microscope for convolutional networks.

Type checkers read `__init__.pyi`, which docs/make_stubs.py writes.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .interruptions import orderly

# Loaded on first use: importing torch takes seconds, and `convscope --help` needs none of this.
_HOMES = {
    "Atlas": "atlas.atlas",
    "Column": "drawing.tables",
    "ConvscopeError": "errors",
    "Curve": "drawing.drawings",
    "Diagnosis": "diagnosis.diagnosis",
    "Drawing": "drawing.drawings",
    "Film": "drawing.films",
    "EvolutionRecorder": "atlas.recorder",
    "Finding": "diagnosis.finding",
    "Fourier": "synthesis.parametrizations",
    "Gallery": "drawing.drawings",
    "Heatmap": "drawing.drawings",
    "Layer": "tracing",
    "Net": "net",
    "Objective": "objectives",
    "Optimizer": "synthesis.optimizers",
    "Phases": "synthesis.parametrizations",
    "Picture": "drawing.drawings",
    "Pixels": "synthesis.parametrizations",
    "Recipe": "recipes",
    "Reproduction": "reproductions.reproduction",
    "Study": "drawing.study",
    "Table": "drawing.tables",
    "Transform": "synthesis.transforms",
    "ablate": "studies.ablate",
    "accentuate": "synthesis.accentuate",
    "activity": "studies.activity",
    "as_objective": "objectives",
    "ascend": "synthesis.ascent",
    "attribute": "running",
    "box_score": "zoo.detections",
    "class_model": "synthesis.class_model",
    "compare": "views.compare",
    "correspondence": "studies.correspondence",
    "diagnose": "diagnosis.diagnosing",
    "dream": "synthesis.dream",
    "effects": "studies.effects",
    "evolution": "atlas.evolution",
    "evolution_study": "studies.evolution",
    "explain": "running",
    "explain_many": "bulk",
    "filters": "views.filters",
    "filters_by_ascent": "synthesis.filters_by_ascent",
    "grid": "views.grid",
    "hidden_gradients": "views.hidden",
    "invariance": "studies.invariance",
    "invert": "synthesis.invert",
    "list_methods": "registry",
    "list_networks": "zoo.catalogue",
    "load": "zoo.loading",
    "maps": "views.maps",
    "maximize": "synthesis.maximize",
    "method": "registry",
    "occlusion_study": "views.occlusion_study",
    "patches": "atlas.patches",
    "predict": "predictions",
    "predict_many": "evaluation.predicting",
    "probe": "studies.probe",
    "project": "views.project",
    "read_recipe": "drawing.files",
    "reconstruct": "views.reconstruct",
    "relu_rule": "rules",
    "remake": "remaking",
    "report": "reports.reporting",
    "reproduce": "reproductions.reproducing",
    "scan": "atlas.scanning",
    "segment": "views.segment",
    "style": "synthesis.style",
    "stylize": "stylizing.painting",
    "tap": "tapping",
    "train_style": "stylizing.training",
    "transfer": "studies.transfer",
    "view": "registry",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605  # pyright: ignore[reportUnsupportedDunderAll]


@orderly
def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    renames = import_module(".renames", __name__)
    if name in renames.NAMES:
        renames.warn(name, renames.NAMES[name])
        name = renames.NAMES[name]
    if name not in _HOMES:
        raise AttributeError(f"module 'convscope' has no attribute {name!r}{_wanted(name)}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def _wanted(name: str) -> str:
    """Say what is meant by a name that is none of ours, nor a module, nor Python's."""
    if name.startswith("_") or find_spec(f".{name}", __name__):
        return ""
    listing, synonyms = (import_module(f".{module}", __name__) for module in ("listing", "synonyms"))
    written = {
        own: text if text.endswith(")") else f"convscope.explain(net, picture, {text})"
        for own, text in listing.in_python().items()
    }
    wanted = synonyms.answer(name, synonyms.THINGS, written, "convscope {} in a shell")
    return f"; {wanted}" if wanted else ""


@cache
def _version() -> str:
    from importlib import metadata
    from pathlib import Path
    from tomllib import loads

    try:
        return metadata.version(__name__)
    except metadata.PackageNotFoundError:  # run from its sources
        return loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
