"""convscope: a microscope for convolutional networks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .drawings import Curve as Curve
    from .drawings import Drawing as Drawing
    from .drawings import Film as Film
    from .drawings import Gallery as Gallery
    from .drawings import Heatmap as Heatmap
    from .drawings import Picture as Picture
    from .drawings import Recipe as Recipe
    from .drawings import read_recipe as read_recipe
    from .errors import ConvscopeError as ConvscopeError
    from .explaining import explain as explain
    from .explaining import predict as predict
    from .methods.accentuating import accentuate as accentuate
    from .methods.class_models import class_model as class_model
    from .methods.comparing import compare as compare
    from .methods.dreaming import dream as dream
    from .methods.features import filters as filters
    from .methods.features import maps as maps
    from .methods.features import project as project
    from .methods.features import reconstruct as reconstruct
    from .methods.hidden import hidden_gradients as hidden_gradients
    from .methods.inverting import invert as invert
    from .methods.maximizing import filters_by_ascent as filters_by_ascent
    from .methods.maximizing import maximize as maximize
    from .methods.occlusion_study import occlusion_study as occlusion_study
    from .methods.segmentation import segment as segment
    from .methods.styling import style as style
    from .net import Layer as Layer
    from .net import Net as Net
    from .objectives import Objective as Objective
    from .objectives import ask as ask
    from .rules import relu_rule as relu_rule
    from .stylizing.painting import stylize as stylize
    from .stylizing.training import train_style as train_style
    from .synthesis.ascent import Steps as Steps
    from .synthesis.ascent import ascend as ascend
    from .synthesis.shakes import Shake as Shake
    from .tapping import tap as tap
    from .zoo.answers import box_score as box_score
    from .zoo.loading import load as load

# Loaded on first use: importing torch takes seconds, and `convscope --help` needs none of this.
_HOMES = {
    "ConvscopeError": "errors",
    "Curve": "drawings",
    "Drawing": "drawings",
    "Film": "drawings",
    "Gallery": "drawings",
    "Heatmap": "drawings",
    "Layer": "net",
    "Net": "net",
    "Objective": "objectives",
    "Picture": "drawings",
    "Recipe": "drawings",
    "Shake": "synthesis.shakes",
    "Steps": "synthesis.ascent",
    "accentuate": "methods.accentuating",
    "ascend": "synthesis.ascent",
    "ask": "objectives",
    "box_score": "zoo.answers",
    "class_model": "methods.class_models",
    "compare": "methods.comparing",
    "dream": "methods.dreaming",
    "explain": "explaining",
    "filters": "methods.features",
    "filters_by_ascent": "methods.maximizing",
    "hidden_gradients": "methods.hidden",
    "invert": "methods.inverting",
    "load": "zoo.loading",
    "maps": "methods.features",
    "maximize": "methods.maximizing",
    "occlusion_study": "methods.occlusion_study",
    "predict": "explaining",
    "project": "methods.features",
    "read_recipe": "drawings",
    "reconstruct": "methods.features",
    "relu_rule": "rules",
    "segment": "methods.segmentation",
    "style": "methods.styling",
    "stylize": "stylizing.painting",
    "tap": "tapping",
    "train_style": "stylizing.training",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'convscope' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return list(__all__)
