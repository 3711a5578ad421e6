"""convscope: a microscope for convolutional networks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .drawings import Curve as Curve
    from .drawings import Drawing as Drawing
    from .drawings import Gallery as Gallery
    from .drawings import Heatmap as Heatmap
    from .drawings import Picture as Picture
    from .drawings import Recipe as Recipe
    from .drawings import read_recipe as read_recipe
    from .errors import ConvscopeError as ConvscopeError
    from .explaining import explain as explain
    from .explaining import predict as predict
    from .methods.comparing import compare as compare
    from .methods.features import filters as filters
    from .methods.features import maps as maps
    from .methods.features import project as project
    from .methods.features import reconstruct as reconstruct
    from .methods.hidden import hidden_gradients as hidden_gradients
    from .methods.occlusion_study import occlusion_study as occlusion_study
    from .methods.segmentation import segment as segment
    from .net import Layer as Layer
    from .net import Net as Net
    from .objectives import Objective as Objective
    from .objectives import ask as ask
    from .rules import relu_rule as relu_rule
    from .tapping import tap as tap
    from .zoo.loading import load as load

# Loaded on first use: importing torch takes seconds, and `convscope --help` needs none of this.
_HOMES = {
    "ConvscopeError": "errors",
    "Curve": "drawings",
    "Drawing": "drawings",
    "Gallery": "drawings",
    "Heatmap": "drawings",
    "Layer": "net",
    "Net": "net",
    "Objective": "objectives",
    "Picture": "drawings",
    "Recipe": "drawings",
    "ask": "objectives",
    "compare": "methods.comparing",
    "explain": "explaining",
    "filters": "methods.features",
    "hidden_gradients": "methods.hidden",
    "load": "zoo.loading",
    "maps": "methods.features",
    "occlusion_study": "methods.occlusion_study",
    "predict": "explaining",
    "project": "methods.features",
    "read_recipe": "drawings",
    "reconstruct": "methods.features",
    "relu_rule": "rules",
    "segment": "methods.segmentation",
    "tap": "tapping",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'convscope' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return list(__all__)
