"""Networks that answer otherwise than with a score per class, or read more than a picture."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import detection, segmentation
from torchvision.ops import box_iou, nms

from convscope import Net, as_objective, box_score, explain, tap
from convscope.errors import LayerError, NetworkError, ObjectiveError, OptionError

SIDE = 96

# Faster R-CNN's first stage would pick a thousand boxes; a few are enough.
TWO_STAGES = {"box_score_thresh": 0.0, "min_size": SIDE, "max_size": SIDE, "rpn_post_nms_top_n_test": 10}
ONE_STAGE = {"score_thresh": 0.0, "topk_candidates": 20}
DETECTORS: dict[str, dict[str, Any]] = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": TWO_STAGES,
    "fasterrcnn_resnet50_fpn": TWO_STAGES,
    "maskrcnn_resnet50_fpn": TWO_STAGES | {"box_detections_per_img": 3},
    "retinanet_resnet50_fpn": ONE_STAGE | {"min_size": SIDE, "max_size": SIDE},
    "ssdlite320_mobilenet_v3_large": ONE_STAGE,
}
SEGMENTERS = ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")

QUICK: dict[str, dict[str, Any]] = {
    "gradient": {},
    "saliency": {},
    "hires_cam": {},
    "grad_cam": {},
    "activation": {},
    "integrated_gradients": {"steps": 2},
    "occlusion": {"patch": 32, "stride": 32},
    "rise": {"masks": 4},
}


def awake(body: nn.Module) -> nn.Module:
    """Let signals through a network with random weights: each layer's output is scaled to variance 1."""

    def scale(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        spread = output.std() if output.numel() > 1 else output.new_ones(())
        module.weight.data /= spread  # type: ignore[operator,union-attr]
        return output / spread

    convolutions = [module for module in body.modules() if isinstance(module, nn.Conv2d) and module.bias is None]
    handles = [module.register_forward_hook(scale) for module in convolutions]  # type: ignore[arg-type]
    with torch.no_grad():
        body(torch.rand(1, 3, SIDE, SIDE))
    for handle in handles:
        handle.remove()
    return body


def detector(name: str) -> nn.Module:
    torch.manual_seed(0)
    options = {"weights": None, "weights_backbone": None, "num_classes": 4} | DETECTORS[name]
    return awake(getattr(detection, name)(**options).eval())


def segmenter(name: str) -> nn.Module:
    torch.manual_seed(0)
    auxiliary = {"aux_loss": True} if name.startswith("fcn") else {}
    return awake(getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=4, **auxiliary).eval())


def picture() -> Tensor:
    return torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def asked(body: nn.Module) -> tuple[Net, dict[str, Tensor]]:
    """Ask about the best box of a detector."""
    with torch.no_grad():
        found = body(picture()[None])[0]
    objective = box_score(found["boxes"][0].tolist(), int(found["labels"][0]), called="thing")
    return Net(body, size=SIDE, output=objective, note="random weights, seed 0"), found


@pytest.mark.parametrize("name", DETECTORS)
def test_why_this_box(name: str) -> None:
    net, found = asked(detector(name))
    best = found["scores"][found["labels"] == found["labels"][0]][0]
    assert float(net(picture()[None])[0]) == pytest.approx(float(best), rel=1e-4)
    for method, options in QUICK.items():
        drawing = explain(net, picture(), method, **options)
        assert drawing.title.startswith("Thing in the box ("), method
        assert drawing.values.isfinite().all() and drawing.values.any(), method
        assert "random weights, seed 0" in drawing.note and "thing in the box (" in drawing.recipe.network["output"]
        if method == "occlusion":
            assert "computed in full: the network cannot be followed" in drawing.note


@pytest.mark.parametrize("name", SEGMENTERS)
def test_why_this_pixel(name: str) -> None:
    body = segmenter(name)
    net = Net(body, size=SIDE, output="out", classes=("sky", "sea", "sand", "ship"))
    with torch.no_grad():
        expected = float(body(picture()[None])["out"][0, 3, 40, 50])
    assert float(as_objective(net, ":3@40,50")(net, picture()[None])) == pytest.approx(expected, rel=1e-4)
    for method, options in QUICK.items():
        drawing = explain(net, picture(), method, ":3@40,50", **options)
        assert drawing.title.startswith("Ship at row 40, column 50, "), method
        assert drawing.values.isfinite().all(), method
        assert drawing.values.any() or method == "grad_cam", method
    assert explain(net, picture(), "gradient", "ship").title.startswith("Ship, ")
    with pytest.raises(NetworkError, match=re.escape("(1, 4, 96, 96), not (n, classes): use of=':0@48,48'")):
        explain(net, picture(), "gradient")


def test_a_layer_that_the_answer_does_not_read_is_not_chosen() -> None:
    """FCN's auxiliary head runs after the one that answers; Faster R-CNN's boxes after its scores."""
    fcn = Net(segmenter("fcn_resnet50"), size=SIDE, output="out")
    remarks = explain(fcn, picture(), "layer_cam", ":3@40,50").recipe.remarks
    assert "layer classifier.4, 12 x 12 positions" in remarks
    assert "the objective depends on 4 of 144 positions of this layer: an earlier layer shows more" in remarks
    with pytest.raises(LayerError, match=r"does not depend on layer 'aux_classifier\.4': name a layer"):
        explain(fcn, picture(), "layer_cam", ":3@40,50", layer="aux_classifier.4")
    net, _ = asked(detector("fasterrcnn_resnet50_fpn"))
    chosen = explain(net, picture(), "eigen_cam").note
    assert re.search(r"layer backbone\.fpn\.layer_blocks\.\d\.0, ", chosen)


def test_a_detector_is_left_as_it_was() -> None:
    """The layers are found by a run without data; what torchvision caches in it (anchors) must not stay."""
    body = detector("fasterrcnn_mobilenet_v3_large_320_fpn")
    with torch.no_grad():
        before = body(picture()[None])[0]
    net, _ = asked(body)
    assert net.layers["backbone.body.0.0"].shape == (16, SIDE // 2, SIDE // 2)
    with torch.no_grad():
        after = body(picture()[None])[0]
    assert all(torch.equal(before[key], after[key]) for key in before)


class Caching(nn.Module):
    """Keeps a table from its first run, and a record of every run."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale = nn.Conv2d(3, 4, 3), nn.Parameter(torch.ones(4))
        self.tables: dict[str, Tensor] = {}
        self.shapes: list[torch.Size] = []

    def forward(self, x: Tensor) -> Tensor:
        if "table" not in self.tables:
            self.tables["table"] = self.scale.exp()[:, None, None]
            self.first = x
        self.shapes.append(x.shape)
        return (self.conv(x) * self.tables["table"]).relu().mean((2, 3))


def test_what_a_network_caches_serves_the_backward_pass() -> None:
    """Made without data or in inference mode it would not."""
    body = Caching()
    net = Net(body, size=16)
    assert len(net.layers) == 2 and body.tables == {} and body.shapes == [] and not hasattr(body, "first")
    assert explain(net, torch.rand(3, 16, 16), "gradient").values.any()
    assert not body.tables["table"].is_inference() and not body.tables["table"].is_meta


@pytest.mark.parametrize(("size", "own"), [(90, 90), (60, 90)])
def test_layers_of_a_detector_lie_where_it_scales_and_pads_the_picture_to(size: int, own: int) -> None:
    """The oracle is the gradient of one unit: it reaches exactly the pixels of the field."""
    torch.manual_seed(0)
    body = detection.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=own, max_size=own, rpn_post_nms_top_n_test=5
    ).eval()
    net = Net(body, size=size, output=box_score((5, 5, 40, 40), 1))
    layer = net.layers["backbone.body.layer1.0.conv2"]
    pixels = torch.rand(1, 3, size, size, requires_grad=True)
    unit = tap(net, pixels, [layer.name])[layer.name][0, :, 9, 12].pow(2).sum()
    (grad,) = torch.autograd.grad(unit, pixels)
    rows, columns = (grad.abs().sum((0, 1)).sum(axis).nonzero()[:, 0] for axis in (1, 0))
    top, left, bottom, right = layer.field.box((9, 12), (size, size))
    assert top <= rows.min() and rows.max() < bottom and left <= columns.min() and columns.max() < right
    assert rows.min() - top <= 1 and bottom - rows.max() <= 2 and bottom - top < size / 2
    assert layer.lies is not None
    assert layer.lies.y.step == pytest.approx(4 * size / own)
    centre = layer.lies.y.centre + 9 * layer.lies.y.step
    assert centre == pytest.approx(float(rows.min() + rows.max()) / 2, abs=1)


def test_the_score_of_a_box() -> None:
    objective = box_score((0, 0, 10, 10), 2)
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 10], [50, 50, 60, 60]], requires_grad=True)
    scores = torch.tensor([0.9, 0.8, 0.3, 0.7], requires_grad=True)
    labels = torch.tensor([1, 2, 2, 2])
    one = {"boxes": boxes, "labels": labels, "scores": scores}
    none = {key: value[:0] for key, value in one.items()}
    gone = {"boxes": boxes[3:], "labels": labels[3:], "scores": scores[3:]}
    answers = objective([one, none, gone])
    assert answers.tolist() == pytest.approx([0.4, 0, 0])
    overlaps = box_iou(torch.tensor([[0.0, 0, 10, 10]]), boxes)[0]
    assert answers[0].item() == pytest.approx((overlaps * scores * (labels == 2)).max().item())
    grad, moved = torch.autograd.grad(answers.sum(), (scores, boxes), allow_unused=True)
    assert grad.tolist() == pytest.approx([0, 0.5, 0, 0]) and moved is None
    (flat,) = torch.autograd.grad(objective([none]).sum(), scores)
    assert not flat.any()
    assert str(objective) == "label 2 in the box (0, 0, 10, 10)"


@pytest.mark.parametrize("threshold", [0.0, 2.0], ids=["other boxes", "no boxes"])
def test_a_box_that_vanishes_scores_nothing_and_has_no_gradient(threshold: float) -> None:
    body: Any = detector("ssdlite320_mobilenet_v3_large")
    body.score_thresh = threshold
    net = Net(body, size=SIDE, output=box_score((1e4, 1e4, 2e4, 2e4), 1))
    drawing = explain(net, picture(), "gradient")
    assert drawing.title.startswith("Label 1 in the box") and ", 0: " in drawing.title
    assert "the gradient is zero everywhere" in drawing.note


def test_mistakes_with_detectors() -> None:
    body = detector("ssdlite320_mobilenet_v3_large")
    with pytest.raises(NetworkError, match="SSD returns list, not a tensor: say what to look at by a function"):
        explain(Net(body, size=SIDE), picture(), "gradient")
    with pytest.raises(OptionError, match=re.escape("a box is (left, top, right, bottom), not (10.0, 0.0, 5.0, 9.0)")):
        box_score((10, 0, 5, 9), 1)
    with pytest.raises(NetworkError, match=r"box_score reads a list of dicts .* not Tensor"):
        Net(nn.Conv2d(3, 2, 3), size=8, output=box_score((0, 0, 5, 9), 1))(torch.rand(1, 3, 8, 8))
    net, _ = asked(body)
    with pytest.raises(
        ObjectiveError, match="gives one number per picture, not classes: its objective is 'output', the default"
    ):
        explain(net, picture(), "gradient", 3)
    assert str(as_objective(net, "output")) == "output" and as_objective(
        net, str(as_objective(net, "output"))
    ) == as_objective(net, "output")


CHOICES: dict[str, Callable[[Tensor], Tensor]] = {
    "mask": lambda y: y[y > 0.1].sum() / 100,
    "nonzero": lambda y: (y > 0).nonzero().float().mean() + y.mean(),
    "masked_select": lambda y: y.masked_select(y > 0).mean(),
    "where": lambda y: y[torch.where(y > 0)].mean(),
    "nms": lambda y: y[3].flatten()[_boxes_kept(y)].mean(),
}


def _boxes_kept(y: Tensor) -> Tensor:
    corners = y[:2].flatten(1).T * 8
    return nms(torch.cat([corners, corners + 4 + y[2].flatten()[:, None].abs()], 1), y[3].flatten(), 0.3)


class Choosing(nn.Module):
    def __init__(self, choose: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.features = nn.Sequential(*(nn.Conv2d(3 if i == 0 else 6, 6, 3, padding=1) for i in range(4)))
        self.choose = choose

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.choose(y) for y in self.features(x)])


@pytest.mark.parametrize("choice", CHOICES)
def test_occlusion_where_how_much_is_kept_depends_on_the_picture(choice: str) -> None:
    torch.manual_seed(0)
    net = Net(Choosing(CHOICES[choice]), size=48)
    seen = torch.rand(3, 48, 48)
    drawing = explain(net, seen, "occlusion", patch=8, stride=8)
    assert "cannot be followed, the size of a result depends on values" in drawing.note
    covered = seen.clone()
    covered[:, 8:16, 16:24] = 0
    expected = float(net(seen[None]) - net(covered[None]))
    assert float(drawing.values[0, 12, 20]) == pytest.approx(expected, abs=1e-5)


class Dense(nn.Module):
    """SqueezeNet's scores of some classes at every place, without the pooling."""

    def __init__(self, body: Any, classes: list[int]) -> None:
        super().__init__()
        self.features, whole = body.features, body.classifier[1]
        self.score = nn.Conv2d(whole.in_channels, len(classes), 1)
        self.score.load_state_dict({"weight": whole.weight[classes], "bias": whole.bias[classes]})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scores = self.score(self.features(x))
        return {"out": F.interpolate(scores, size=x.shape[-2:], mode="bilinear", align_corners=False)}


def test_the_label_of_a_pixel_is_due_to_the_animal_at_that_pixel(squeezenet: Net, data: Callable[[str], Path]) -> None:
    """A dog sits behind a cat."""
    names = ("boxer", "tiger cat")
    body = Dense(squeezenet.body, [squeezenet.classes.index(name) for name in names])
    given = {"mean": squeezenet.mean, "std": squeezenet.std, "resize": (224, 224)}
    net = Net(body, output="out", classes=names, **given)
    path = data("pictures/cat_dog.png")
    scores = net(net.read(path))[0]
    for index, name in enumerate(names):
        row, column = divmod(int(scores[index].argmax()), 224)
        assert (row < 112) == (name == "boxer")
        for method in ("saliency", "occlusion", "hires_cam"):
            options = {"occlusion": {"patch": 32, "stride": 16}, "hires_cam": {"layer": "features.7"}}.get(method, {})
            drawing = explain(net, path, method, f":{index}@{row},{column}", **options)
            weight = drawing.values.clamp(min=0).sum(0)
            near = weight[max(0, row - 70) : row + 70, max(0, column - 70) : column + 70].sum() / weight.sum()
            assert near > 0.8, (name, method, float(near))
        assert drawing.title.startswith(f"{name.capitalize()} at row {row}, column {column}, ")


class Siamese(nn.Module):
    """How alike two pictures are."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU())

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        a, b = (self.features(x).mean((2, 3)) for x in (first, second))
        return F.cosine_similarity(a, b)


@pytest.mark.parametrize("method", [m for m in QUICK if m != "rise"])
def test_a_network_that_compares_with_a_fixed_picture(method: str) -> None:
    torch.manual_seed(0)
    body, other = Siamese(), torch.rand(1, 3, 24, 24)
    net = Net(body, size=24, extra=[other])
    assert net.output.shape == () and "features.0#2" in net.layers
    seen = torch.rand(3, 24, 24)
    options = {"occlusion": {"patch": 8, "stride": 8}, "integrated_gradients": {"steps": 4}}.get(method, {})
    options |= {"layer": "features.3#1"} if method in ("hires_cam", "grad_cam", "activation") else {}
    drawing = explain(net, seen, method, **options)
    assert drawing.values.isfinite().all() and drawing.title.startswith("The output, ")
    if method == "gradient":
        leaf = seen[None].clone().requires_grad_()
        (grad,) = torch.autograd.grad(body(leaf, other).sum(), leaf)
        torch.testing.assert_close(drawing.values[None], grad)
    if method == "occlusion":
        covered = seen.clone()
        covered[:, 8:16, 8:16] = 0
        drop = float(body(seen[None], other) - body(covered[None], other))
        assert float(drawing.values[0, 12, 12]) == pytest.approx(drop, abs=1e-6)


class Answer(dict[str, Any]):
    """A dict whose entries are attributes too, as Hugging Face's models return them."""

    __getattr__ = dict.__getitem__


@dataclass
class Plain:
    logits: Tensor


class WithMetadata(nn.Module):
    """Reads a picture and a vector about it."""

    def __init__(self, form: type) -> None:
        super().__init__()
        self.conv, self.head, self.form = nn.Conv2d(3, 6, 3), nn.Linear(8, 3), form

    def forward(self, pixel_values: Tensor, *, metadata: Tensor) -> Any:
        return self.form(logits=self.head(torch.cat([self.conv(pixel_values).relu().mean((2, 3)), metadata], 1)))


@pytest.mark.parametrize(
    ("form", "output"), [(Answer, "logits"), (Answer, lambda a: a.logits), (Plain, lambda a: a.logits)],
    ids=["by key", "by attribute", "a dataclass"],
)  # fmt: skip
def test_a_picture_with_metadata_and_an_answer_in_a_dict(form: type, output: Any) -> None:
    torch.manual_seed(0)
    body, metadata = WithMetadata(form), torch.tensor([[0.5, -1.0]])
    net = Net(body, size=16, extra={"metadata": metadata}, output=output, classes=("a", "b", "c"))
    assert net.output.shape == (3,)
    seen = torch.rand(3, 16, 16)
    for method in ("gradient", "grad_cam", "occlusion", "guided_backprop"):
        options = {"patch": 4, "stride": 4} if method == "occlusion" else {}
        assert explain(net, seen, method, "b", **options).title.startswith("b, ")
    leaf = seen[None].clone().requires_grad_()
    (grad,) = torch.autograd.grad(body(leaf, metadata=metadata).logits[0, 1], leaf)
    torch.testing.assert_close(explain(net, seen, "gradient", "b").values[None], grad)
    with pytest.raises(NetworkError, match=r"returns (Answer|Plain)"):
        Net(body, size=16, extra={"metadata": metadata})(seen[None])
