"""The public names of convscope, written by docs/make_stubs.py."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from torch import Tensor

from .atlas.atlas import Atlas as Atlas
from .atlas.evolution import evolution as evolution
from .atlas.patches import patches as patches
from .atlas.recorder import EvolutionRecorder as EvolutionRecorder
from .atlas.scanning import scan as scan
from .bulk import Explanations
from .diagnosis.diagnosing import diagnose as diagnose
from .diagnosis.diagnosis import Diagnosis as Diagnosis
from .diagnosis.finding import Finding as Finding
from .drawing.drawings import Curve as Curve
from .drawing.drawings import Drawing as Drawing
from .drawing.drawings import Gallery as Gallery
from .drawing.drawings import Heatmap as Heatmap
from .drawing.drawings import Picture as Picture
from .drawing.files import read_recipe as read_recipe
from .drawing.films import Film as Film
from .drawing.study import Study as Study
from .drawing.tables import Column as Column
from .drawing.tables import Table as Table
from .errors import ConvscopeError as ConvscopeError
from .evaluation.predicting import predict_many as predict_many
from .net import Net as Net
from .objectives import Objective as Objective
from .objectives import as_objective as as_objective
from .predictions import predict as predict
from .recipes import Recipe as Recipe
from .registry import list_methods as list_methods
from .registry import method as method
from .registry import view as view
from .remaking import remake as remake
from .reports.reporting import report as report
from .reproductions.reproducing import reproduce as reproduce
from .reproductions.reproduction import Reproduction as Reproduction
from .rules import relu_rule as relu_rule
from .stylizing.painting import stylize as stylize
from .stylizing.training import train_style as train_style
from .synthesis.ascent import ascend as ascend
from .synthesis.optimizers import Optimizer as Optimizer
from .synthesis.parametrizations import Fourier as Fourier
from .synthesis.parametrizations import Phases as Phases
from .synthesis.parametrizations import Pixels as Pixels
from .synthesis.transforms import Transform as Transform
from .tapping import tap as tap
from .tracing import Layer as Layer
from .zoo.catalogue import list_networks as list_networks
from .zoo.detections import box_score as box_score
from .zoo.loading import load as load

_Objective = str | int | Objective | Callable[[Tensor], Tensor] | None

__version__: str

@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["ablation_cam", "ablation-cam"],
    of: _Objective = None,
    *,
    size: int | None = None,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
    batch: int = ...,
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["activation"],
    of: _Objective = None,
    *,
    size: int | None = None,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["backward"],
    of: _Objective = None,
    *,
    size: int | None = None,
    mask: bool = ...,
    switches: bool = ...,
    rectify: bool = ...,
    lrn: bool = ...,
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["cam"],
    of: _Objective = None,
    *,
    size: int | None = None,
    layer: str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Heatmap: ...
@overload
def explain(
    net: Net, picture: Any, method: Literal["deconvnet"], of: _Objective = None, *, size: int | None = None
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["eigen_cam", "eigen-cam"],
    of: _Objective = None,
    *,
    size: int | None = None,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["extremal"],
    of: _Objective = None,
    *,
    size: int | None = None,
    area: float = ...,
    game: Literal["preserve", "delete"] = ...,
    steps: int = ...,
    step: int | None = ...,
    baseline: str = ...,
    seed: int = ...,
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["grad_cam", "grad-cam"],
    of: _Objective = None,
    *,
    size: int | None = None,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["grad_cam_plus_plus", "grad-cam-plus-plus"],
    of: _Objective = None,
    *,
    size: int | None = None,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Heatmap: ...
@overload
def explain(
    net: Net, picture: Any, method: Literal["gradient"], of: _Objective = None, *, size: int | None = None
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["gradient_x_input", "gradient-x-input"],
    of: _Objective = None,
    *,
    size: int | None = None,
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["guided_backprop", "guided-backprop"],
    of: _Objective = None,
    *,
    size: int | None = None,
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["guided_grad_cam", "guided-grad-cam"],
    of: _Objective = None,
    *,
    size: int | None = None,
    layer: str | None = ...,
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["hires_cam", "hires-cam"],
    of: _Objective = None,
    *,
    size: int | None = None,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["integrated_gradients", "integrated-gradients"],
    of: _Objective = None,
    *,
    size: int | None = None,
    baseline: str = ...,
    steps: int = ...,
    rule: Literal["gauss-legendre", "midpoint", "left", "right", "trapezoid"] = ...,
    seed: int = ...,
    batch: int = ...,
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["layer_cam", "layer-cam"],
    of: _Objective = None,
    *,
    size: int | None = None,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["occlusion"],
    of: _Objective = None,
    *,
    size: int | None = None,
    patch: int | None = ...,
    stride: int | None = ...,
    baseline: str = ...,
    approximate: bool = ...,
    memory: str | None = ...,
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["rise"],
    of: _Objective = None,
    *,
    size: int | None = None,
    masks: int = ...,
    cells: int = ...,
    keep: float = ...,
    centred: bool = ...,
    baseline: str = ...,
    seed: int = ...,
    batch: int = ...,
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["saliency"],
    of: _Objective = None,
    *,
    size: int | None = None,
    crops: int = ...,
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["score_cam", "score-cam"],
    of: _Objective = None,
    *,
    size: int | None = None,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
    softmax: bool = ...,
    channels: int | None = ...,
    baseline: str = ...,
    seed: int = ...,
    batch: int = ...,
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["smooth_grad", "smooth-grad"],
    of: _Objective = None,
    *,
    size: int | None = None,
    noise: float = ...,
    samples: int = ...,
    squared: bool = ...,
    seed: int = ...,
    batch: int = ...,
) -> Heatmap: ...
@overload
def explain(
    net: Net,
    picture: Any,
    method: Literal["xgrad_cam", "xgrad-cam"],
    of: _Objective = None,
    *,
    size: int | None = None,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Heatmap: ...
@overload
def explain(net: Net, picture: Any, method: str, of: _Objective = None, *, size: int | None = None) -> Heatmap: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["ablation_cam", "ablation-cam"],
    of: _Objective | Sequence[_Objective] = None,
    *,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
    batch: int = ...,
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["activation"],
    of: _Objective | Sequence[_Objective] = None,
    *,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["backward"],
    of: _Objective | Sequence[_Objective] = None,
    *,
    mask: bool = ...,
    switches: bool = ...,
    rectify: bool = ...,
    lrn: bool = ...,
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["cam"],
    of: _Objective | Sequence[_Objective] = None,
    *,
    layer: str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Tensor: ...
@overload
def attribute(
    net: Net, pixels: Tensor, method: Literal["deconvnet"], of: _Objective | Sequence[_Objective] = None
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["eigen_cam", "eigen-cam"],
    of: _Objective | Sequence[_Objective] = None,
    *,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["extremal"],
    of: _Objective | Sequence[_Objective] = None,
    *,
    area: float = ...,
    game: Literal["preserve", "delete"] = ...,
    steps: int = ...,
    step: int | None = ...,
    baseline: str = ...,
    seed: int = ...,
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["grad_cam", "grad-cam"],
    of: _Objective | Sequence[_Objective] = None,
    *,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["grad_cam_plus_plus", "grad-cam-plus-plus"],
    of: _Objective | Sequence[_Objective] = None,
    *,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Tensor: ...
@overload
def attribute(
    net: Net, pixels: Tensor, method: Literal["gradient"], of: _Objective | Sequence[_Objective] = None
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["gradient_x_input", "gradient-x-input"],
    of: _Objective | Sequence[_Objective] = None,
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["guided_backprop", "guided-backprop"],
    of: _Objective | Sequence[_Objective] = None,
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["guided_grad_cam", "guided-grad-cam"],
    of: _Objective | Sequence[_Objective] = None,
    *,
    layer: str | None = ...,
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["hires_cam", "hires-cam"],
    of: _Objective | Sequence[_Objective] = None,
    *,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["integrated_gradients", "integrated-gradients"],
    of: _Objective | Sequence[_Objective] = None,
    *,
    baseline: str = ...,
    steps: int = ...,
    rule: Literal["gauss-legendre", "midpoint", "left", "right", "trapezoid"] = ...,
    seed: int = ...,
    batch: int = ...,
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["layer_cam", "layer-cam"],
    of: _Objective | Sequence[_Objective] = None,
    *,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["occlusion"],
    of: _Objective | Sequence[_Objective] = None,
    *,
    patch: int | None = ...,
    stride: int | None = ...,
    baseline: str = ...,
    approximate: bool = ...,
    memory: str | None = ...,
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["rise"],
    of: _Objective | Sequence[_Objective] = None,
    *,
    masks: int = ...,
    cells: int = ...,
    keep: float = ...,
    centred: bool = ...,
    baseline: str = ...,
    seed: int = ...,
    batch: int = ...,
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["saliency"],
    of: _Objective | Sequence[_Objective] = None,
    *,
    crops: int = ...,
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["score_cam", "score-cam"],
    of: _Objective | Sequence[_Objective] = None,
    *,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
    softmax: bool = ...,
    channels: int | None = ...,
    baseline: str = ...,
    seed: int = ...,
    batch: int = ...,
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["smooth_grad", "smooth-grad"],
    of: _Objective | Sequence[_Objective] = None,
    *,
    noise: float = ...,
    samples: int = ...,
    squared: bool = ...,
    seed: int = ...,
    batch: int = ...,
) -> Tensor: ...
@overload
def attribute(
    net: Net,
    pixels: Tensor,
    method: Literal["xgrad_cam", "xgrad-cam"],
    of: _Objective | Sequence[_Objective] = None,
    *,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Tensor: ...
@overload
def attribute(net: Net, pixels: Tensor, method: str, of: _Objective | Sequence[_Objective] = None) -> Tensor: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["ablation_cam", "ablation-cam"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
    batch: int = ...,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["activation"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["backward"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    mask: bool = ...,
    switches: bool = ...,
    rectify: bool = ...,
    lrn: bool = ...,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["cam"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    layer: str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["deconvnet"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["eigen_cam", "eigen-cam"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["extremal"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    area: float = ...,
    game: Literal["preserve", "delete"] = ...,
    steps: int = ...,
    step: int | None = ...,
    baseline: str = ...,
    seed: int = ...,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["grad_cam", "grad-cam"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["grad_cam_plus_plus", "grad-cam-plus-plus"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["gradient"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["gradient_x_input", "gradient-x-input"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["guided_backprop", "guided-backprop"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["guided_grad_cam", "guided-grad-cam"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    layer: str | None = ...,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["hires_cam", "hires-cam"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["integrated_gradients", "integrated-gradients"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    baseline: str = ...,
    steps: int = ...,
    rule: Literal["gauss-legendre", "midpoint", "left", "right", "trapezoid"] = ...,
    seed: int = ...,
    batch: int = ...,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["layer_cam", "layer-cam"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["occlusion"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    patch: int | None = ...,
    stride: int | None = ...,
    baseline: str = ...,
    approximate: bool = ...,
    memory: str | None = ...,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["rise"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    masks: int = ...,
    cells: int = ...,
    keep: float = ...,
    centred: bool = ...,
    baseline: str = ...,
    seed: int = ...,
    batch: int = ...,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["saliency"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    crops: int = ...,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["score_cam", "score-cam"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
    softmax: bool = ...,
    channels: int | None = ...,
    baseline: str = ...,
    seed: int = ...,
    batch: int = ...,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["smooth_grad", "smooth-grad"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    noise: float = ...,
    samples: int = ...,
    squared: bool = ...,
    seed: int = ...,
    batch: int = ...,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: Literal["xgrad_cam", "xgrad-cam"],
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    layer: list[str] | str | None = ...,
    align: Literal["field", "stretch"] = ...,
) -> Explanations: ...
@overload
def explain_many(
    net: Net,
    data: Any,
    method: str,
    of: _Objective = None,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
) -> Explanations: ...
def ablate(
    net: Net,
    data: Any,
    variants: list[str] | None = ...,
    train: int | None = ...,
    test: int = ...,
    repeats: int = ...,
    recipe: Literal["short", "default", "paper"] = ...,
    epochs: int | None = ...,
    rate: float | None = ...,
    labels: str | Path | None = ...,
    per_class: int = ...,
    seed: int = ...,
    keep: Path | None = ...,
) -> Study: ...
def accentuate(
    net: Net,
    picture: Any,
    of: _Objective = ...,
    strength: float = ...,
    keep: str | None = ...,
    steps: int = ...,
    rate: float = ...,
    transform: str | None = ...,
    seed: int = ...,
    preview: Path | None = ...,
    preview_every: int = ...,
) -> Gallery: ...
def activity(
    net: Net,
    data: Any,
    layers: list[str] | None = ...,
    labels: str | Path | None = ...,
    per_class: int = ...,
    limit: int = ...,
    seed: int = ...,
) -> Study: ...
def class_model(
    net: Net,
    of: _Objective,
    l2: float | None = ...,
    preset: Literal["clear", "paper"] = ...,
    parametrization: Literal["fourier", "pixels", "maco"] | None = ...,
    transform: str | None = ...,
    steps: int | None = ...,
    rate: float | None = ...,
    optimizer: Literal["adam", "lbfgs", "ascent"] | None = ...,
    batch: int | None = ...,
    seed: int = ...,
    preview: Path | None = ...,
    preview_every: int = ...,
) -> Gallery: ...
def compare(
    net: Net,
    picture: Any,
    methods: list[str] | None = ...,
    layers: list[str] | None = ...,
    of: _Objective = ...,
    size: int | None = ...,
    shared_scale: bool = ...,
    check: bool = ...,
) -> Gallery: ...
def correspondence(
    net: Net,
    data: Any,
    boxes: str | Path | None = ...,
    layers: list[str] | None = ...,
    align: bool = ...,
    patch: int | None = ...,
    draws: int = ...,
    baseline: str = ...,
    untrained: bool = ...,
    limit: int = ...,
    seed: int = ...,
    keep: Path | None = ...,
) -> Study: ...
def dream(
    net: Net,
    picture: Any,
    of: _Objective = ...,
    layer: str | None = ...,
    guide: Any = ...,
    size: int | None = ...,
    octaves: int | None = ...,
    octave_scale: float = ...,
    steps: int = ...,
    rate: float = ...,
    jitter: int = ...,
    tile: int = ...,
    zoom: int | None = ...,
    zoom_by: float = ...,
    frames: Path | str | None = ...,
    fps: float = ...,
    seed: int = ...,
    preview: Path | None = ...,
    preview_every: int = ...,
) -> Picture | Film: ...
def effects(
    net: Net,
    data: Any,
    of: _Objective = ...,
    layers: list[str] | None = ...,
    references: list[Literal["zero", "mean", "resample"]] | None = ...,
    limit: int = ...,
    per_class: int = ...,
    labels: str | Path | None = ...,
    seed: int = ...,
    memory: str | None = ...,
    keep: Path | None = ...,
) -> Study: ...
def evolution_study(
    net: Net,
    data: Any,
    snapshots: Any = ...,
    epochs: list[int] | None = ...,
    layers: list[str] | None = ...,
    units: int = ...,
    limit: int = ...,
    seed: int = ...,
    keep: Path | None = ...,
) -> Study: ...
def filters(net: Net, layer: str | None = ..., own_scale: bool = ...) -> Gallery: ...
def filters_by_ascent(
    net: Net,
    layer: str,
    channels: list[str] | None = ...,
    size: int | None = ...,
    preset: Literal["lucid", "maco", "simonyan", "yosinski1", "yosinski2", "yosinski3", "yosinski4"] = ...,
    steps: int | None = ...,
    rate: float | None = ...,
    transform: str | None = ...,
    batch: int | None = ...,
    seed: int = ...,
    preview: Path | None = ...,
    preview_every: int = ...,
) -> Gallery: ...
def grid(
    net: Net,
    pictures: Any,
    methods: list[str] | None = ...,
    of: _Objective = ...,
    wrong: bool = ...,
    true_class: bool = ...,
    labels: str | None = ...,
    names: str | None = ...,
    rows: int = ...,
    over_picture: bool = ...,
) -> Gallery: ...
def hidden_gradients(
    net: Net, picture: Any, of: _Objective = ..., layers: list[str] | None = ..., top: int = ...
) -> Gallery: ...
def invariance(
    net: Net,
    data: Any,
    of: _Objective = ...,
    layers: list[str] | None = ...,
    steps: int = ...,
    baseline: str = ...,
    border: Literal["baseline", "edge", "reflect", "wrap"] = ...,
    vertical: list[float] | None = ...,
    horizontal: list[float] | None = ...,
    scale: list[float] | None = ...,
    rotation: list[float] | None = ...,
    pooling: bool = ...,
    shift: int = ...,
    labels: str | Path | None = ...,
    per_class: int = ...,
    limit: int = ...,
    seed: int = ...,
    keep: Path | None = ...,
) -> Study: ...
def invert(
    net: Net,
    picture: Any,
    layers: list[str] | None = ...,
    repeats: int = ...,
    steps: int = ...,
    strength: float = ...,
    beta: float = ...,
    parametrization: Literal["fourier", "pixels"] = ...,
    optimizer: Literal["lbfgs", "adam"] = ...,
    rate: float | None = ...,
    seed: int = ...,
    preview: Path | None = ...,
    preview_every: int = ...,
) -> Gallery: ...
def maps(net: Net, pictures: Any, layer: str, top: int | None = ..., side_by_side: bool = ...) -> Gallery: ...
def maximize(
    net: Net,
    of: _Objective,
    variants: int = ...,
    diversity: float = ...,
    between: int | None = ...,
    preset: Literal["lucid", "maco", "simonyan", "yosinski1", "yosinski2", "yosinski3", "yosinski4"] = ...,
    parametrization: Literal["fourier", "pixels", "maco"] | None = ...,
    init: Any = ...,
    transform: str | None = ...,
    steps: int | None = ...,
    rate: float | None = ...,
    optimizer: Literal["adam", "lbfgs", "ascent"] | None = ...,
    batch: int | None = ...,
    seed: int = ...,
    preview: Path | None = ...,
    preview_every: int = ...,
) -> Gallery: ...
def occlusion_study(
    net: Net,
    picture: Any,
    of: _Objective = ...,
    unit: str | None = ...,
    patch: int | None = ...,
    stride: int | None = ...,
    baseline: str = ...,
    memory: str | None = ...,
) -> Gallery: ...
def probe(
    net: Net,
    data: Any,
    layers: list[str] | None = ...,
    classifier: Literal["both", "softmax", "svm"] = ...,
    train: int | None = ...,
    test: int = ...,
    folds: int = ...,
    untrained: bool = ...,
    features: int = ...,
    c: float = ...,
    iterations: int = ...,
    labels: str | Path | None = ...,
    per_class: int = ...,
    seed: int = ...,
    keep: Path | None = ...,
) -> Study: ...
def project(net: Net, picture: Any, layer: str, top: int = ..., grey: bool = ...) -> Gallery: ...
def reconstruct(net: Net, pictures: Any, layers: list[str] | None = ..., grey: bool = ...) -> Gallery: ...
def segment(
    net: Net,
    picture: Any,
    of: _Objective = ...,
    method: str = ...,
    layer: str | None = ...,
    foreground: float = ...,
    background: float = ...,
    rounds: int = ...,
    smooth: float = ...,
    size: int | None = ...,
    seed: int = ...,
    cutout: Path | None = ...,
    cartoon: Path | None = ...,
) -> Any: ...
def style(
    net: Net,
    picture: Any,
    style: list[Any],
    style_mix: list[float] | None = ...,
    map: bool = ...,
    content_layers: list[str] | None = ...,
    style_layers: list[str] | None = ...,
    content_weight: float = ...,
    style_weight: float = ...,
    tv_weight: float = ...,
    init: Literal["content", "noise", "zero"] = ...,
    optimizer: Literal["lbfgs", "adam"] = ...,
    parametrization: Literal["fourier", "pixels"] = ...,
    steps: int | None = ...,
    size: int | None = ...,
    scales: int = ...,
    style_scale: float = ...,
    keep_colour: bool = ...,
    pooling: Literal["max", "average"] = ...,
    seed: int = ...,
    preview: Path | None = ...,
    preview_every: int = ...,
) -> Picture | Gallery: ...
def transfer(
    net: Net,
    data: Any,
    train: list[int] | None = ...,
    test: int = ...,
    repeats: int = ...,
    layer: str | None = ...,
    scratch: bool = ...,
    epochs: int | None = ...,
    rate: float | None = ...,
    c: float = ...,
    labels: str | Path | None = ...,
    per_class: int = ...,
    seed: int = ...,
    keep: Path | None = ...,
) -> Study: ...
