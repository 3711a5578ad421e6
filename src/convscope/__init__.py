"""convscope: a microscope for convolutional networks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bulk import explain_many as explain_many
    from .drawing.drawings import Curve as Curve
    from .drawing.drawings import Drawing as Drawing
    from .drawing.drawings import Film as Film
    from .drawing.drawings import Gallery as Gallery
    from .drawing.drawings import Heatmap as Heatmap
    from .drawing.drawings import Picture as Picture
    from .drawing.tables import Column as Column
    from .drawing.tables import Table as Table
    from .errors import ConvscopeError as ConvscopeError
    from .net import Net as Net
    from .objectives import Objective as Objective
    from .objectives import as_objective as as_objective
    from .predictions import predict as predict
    from .recipes import Recipe as Recipe
    from .recipes import read_recipe as read_recipe
    from .registry import list_methods as list_methods
    from .registry import method as method
    from .registry import view as view
    from .remaking import remake as remake
    from .rules import relu_rule as relu_rule
    from .running import attribute as attribute
    from .running import explain as explain
    from .stylizing.painting import stylize as stylize
    from .stylizing.training import train_style as train_style
    from .synthesis.accentuate import accentuate as accentuate
    from .synthesis.ascent import ascend as ascend
    from .synthesis.class_model import class_model as class_model
    from .synthesis.dream import dream as dream
    from .synthesis.filters_by_ascent import filters_by_ascent as filters_by_ascent
    from .synthesis.invert import invert as invert
    from .synthesis.maximize import maximize as maximize
    from .synthesis.optimizers import Optimizer as Optimizer
    from .synthesis.parametrizations import Fourier as Fourier
    from .synthesis.parametrizations import Phases as Phases
    from .synthesis.parametrizations import Pixels as Pixels
    from .synthesis.style import style as style
    from .synthesis.transforms import Transform as Transform
    from .tapping import tap as tap
    from .tracing import Layer as Layer
    from .views.compare import compare as compare
    from .views.filters import filters as filters
    from .views.hidden import hidden_gradients as hidden_gradients
    from .views.maps import maps as maps
    from .views.occlusion_study import occlusion_study as occlusion_study
    from .views.project import project as project
    from .views.reconstruct import reconstruct as reconstruct
    from .views.segment import segment as segment
    from .zoo.catalogue import list_networks as list_networks
    from .zoo.detections import box_score as box_score
    from .zoo.loading import load as load

# Loaded on first use: importing torch takes seconds, and `convscope --help` needs none of this.
_HOMES = {
    "Column": "drawing.tables",
    "ConvscopeError": "errors",
    "Curve": "drawing.drawings",
    "Drawing": "drawing.drawings",
    "Film": "drawing.drawings",
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
    "Table": "drawing.tables",
    "Transform": "synthesis.transforms",
    "accentuate": "synthesis.accentuate",
    "as_objective": "objectives",
    "ascend": "synthesis.ascent",
    "attribute": "running",
    "box_score": "zoo.detections",
    "class_model": "synthesis.class_model",
    "compare": "views.compare",
    "dream": "synthesis.dream",
    "explain": "running",
    "explain_many": "bulk",
    "filters": "views.filters",
    "filters_by_ascent": "synthesis.filters_by_ascent",
    "hidden_gradients": "views.hidden",
    "invert": "synthesis.invert",
    "list_methods": "registry",
    "list_networks": "zoo.catalogue",
    "load": "zoo.loading",
    "maps": "views.maps",
    "maximize": "synthesis.maximize",
    "method": "registry",
    "occlusion_study": "views.occlusion_study",
    "predict": "predictions",
    "project": "views.project",
    "read_recipe": "recipes",
    "reconstruct": "views.reconstruct",
    "relu_rule": "rules",
    "remake": "remaking",
    "segment": "views.segment",
    "style": "synthesis.style",
    "stylize": "stylizing.painting",
    "tap": "tapping",
    "train_style": "stylizing.training",
    "view": "registry",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'convscope' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return list(__all__)
