"""Modules of another make: the eager module's values, or a refusal in words with a way out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convscope
from convscope import Net, attribute, bodies, explain
from convscope.errors import ConvscopeError, LayerError, NetworkError, RuleError, WeightsError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SIDE = 16
OPTIONS: dict[str, dict[str, Any]] = {
    "gradient": {},
    "integrated_gradients": {"steps": 4},
    "occlusion": {"patch": 8, "stride": 4},
    "rise": {"masks": 8},
}


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    ).eval()


class Backbone(nn.Module):
    """A model of which only the backbone is of another make."""

    def __init__(self, make: Callable[[nn.Module], nn.Module] = lambda module: module) -> None:
        super().__init__()
        body = plain()
        self.front, self.rest = make(nn.Sequential(*body[:4]).eval()), nn.Sequential(*body[4:])

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.front(x))


def picture() -> Tensor:
    return torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def traced(module: nn.Module) -> nn.Module:
    return torch.jit.trace(module, torch.rand(1, 3, SIDE, SIDE))


def frozen(module: nn.Module) -> nn.Module:
    return torch.jit.freeze(torch.jit.script(module))


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")


def compiled_in_place(module: nn.Module) -> nn.Module:
    module.compile(backend="eager")
    return module


SCRIPTS = [torch.jit.script, traced, frozen]
MAKES = [*SCRIPTS, torch.fx.symbolic_trace, compiled, compiled_in_place, nn.DataParallel]


def same(net: Net, reference: Net, method: str, **options: Any) -> None:
    expected, found = (explain(each, picture(), method, of=1, **options) for each in (reference, net))
    torch.testing.assert_close(found.values, expected.values, rtol=1e-5, atol=1e-7, msg=method)


@pytest.mark.parametrize("make", MAKES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "part"])
def test_values_are_those_of_the_eager_module(make: Any, whole: bool) -> None:
    body = make(plain()) if whole else Backbone(make)
    net, reference = Net(body, size=SIDE), Net(plain(), size=SIDE)
    assert net.channels == 3
    for method, options in OPTIONS.items():
        same(net, reference, method, **options)


@pytest.mark.parametrize("make", MAKES, ids=lambda make: make.__name__)
def test_a_part_that_runs_as_one_piece_is_a_layer(make: Any) -> None:
    net = Net(Backbone(make), size=SIDE)
    assert net.layer("front").shape == (6, 8, 8)
    # Where its units lie cannot be told from outside, so that the grids alone are compared.
    same(net, Net(Backbone(), size=SIDE), "grad_cam", layer="front", align="stretch")


@pytest.mark.parametrize("make", SCRIPTS, ids=lambda make: make.__name__)
def test_what_is_inside_torchscript_is_refused_in_words(make: Any) -> None:
    net = Net(make(plain()), size=SIDE)
    assert (list(net.layers), net.name) == ([""], "Sequential")
    with pytest.raises(LayerError, match=r"TorchScript, which runs as one piece: give Net the module"):
        explain(net, picture(), "grad_cam", of=1)
    for method in ("guided_backprop", "deconvnet"):
        with pytest.raises(RuleError, match=r"0 of 2 rectifiers.*scripted.*Use the plain eager module"):
            explain(net, picture(), method, of=1)
    if make is not frozen:
        with pytest.raises(LayerError, match="layer '3' of Sequential cannot be read: it is TorchScript"):
            explain(net, picture(), "grad_cam", of=1, layer="3")


def test_flags_of_a_scripted_module_are_restored() -> None:
    body = torch.jit.script(plain().train())
    explain(Net(body, size=SIDE), picture(), "gradient", of=1)
    assert body.training
    assert all(parameter.requires_grad for parameter in body.parameters())


def test_digests_tell_frozen_modules_apart() -> None:
    other = plain()
    with torch.no_grad():
        other[0].bias += 1  # type: ignore[operator]
    first, again, changed = (Net(frozen(body), size=SIDE).digest for body in (plain(), plain(), other))
    assert first == again != changed
    assert Net(torch.jit.script(plain()), size=SIDE).digest == Net(plain(), size=SIDE).digest


def test_a_frozen_module_is_read_in_its_own_precision() -> None:
    net = Net(frozen(plain().double()), size=SIDE)
    assert net(picture()[None]).dtype == torch.float64


# Compiled


def test_wrappers_are_taken_off() -> None:
    body = plain()
    for wrapped in (compiled(body), nn.DataParallel(body), nn.DataParallel(compiled(body))):
        net = Net(wrapped, size=SIDE)
        assert net.body is body
        assert net.name == "Sequential"
        assert net.digest == Net(body, size=SIDE).digest


@pytest.mark.parametrize("make", [compiled, compiled_in_place])
def test_rules_and_layers_reach_into_compiled_parts(make: Any) -> None:
    net, reference = Net(Backbone(make), size=SIDE), Net(Backbone(), size=SIDE)
    same(net, reference, "guided_backprop")
    inner = next(name for name in net.layers if name.endswith("2") and name.startswith("front"))
    same(net, reference, "grad_cam", layer=inner) if inner == "front.2" else None
    assert net.layer(inner).field == reference.layer("front.2").field
    ran = list[int]()

    def backend(graph: Any, inputs: Any) -> Any:
        ran.append(1)
        return graph.forward

    with torch.no_grad():  # afterwards it is compiled as before
        torch._dynamo.reset()
        torch.compile(plain(), backend=backend)(picture()[None])
    assert ran


# Quantised


def quantised(*, static: bool) -> nn.Module:
    from torch.ao import quantization as q

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not static:
            return q.quantize_dynamic(plain(), {nn.Linear}, dtype=torch.qint8)
        body = nn.Sequential(q.QuantStub(), *plain(), q.DeQuantStub()).eval()
        body.qconfig = q.get_default_qconfig(torch.backends.quantized.engine)  # type: ignore[assignment]
        prepared = q.prepare(body)
        prepared(torch.rand(8, 3, SIDE, SIDE))
        return q.convert(prepared)


@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
def test_int8_goes_forward(static: bool) -> None:
    """Occlusion as its definition says, pass by pass: dynamic int8 takes its scale from all pictures of a batch."""
    body = quantised(static=static)
    net = Net(body, size=SIDE)
    pixels = picture()[None]
    heat = explain(net, picture(), "occlusion", of=1, patch=8, stride=8, baseline="0")
    for row in range(2):
        for column in range(2):
            covered = pixels.clone()
            covered[..., 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 0
            lost = body(pixels)[0, 1] - body(covered)[0, 1]
            torch.testing.assert_close(heat.values[0, 8 * row + 4, 8 * column + 4], lost, atol=1e-6, rtol=0)
    assert explain(net, picture(), "rise", of=1, masks=8).values.abs().max() > 0


@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "grad_cam", "guided_backprop"])
@pytest.mark.filterwarnings("ignore:.*an autograd kernel was not registered")
def test_int8_has_no_gradient(static: bool, method: str) -> None:
    with pytest.raises(ConvscopeError, match=r"int8|whole numbers|WarnNotImplemented"):
        explain(Net(quantised(static=static), size=SIDE), picture(), method, of=1)


def test_digests_see_packed_weights() -> None:
    body = quantised(static=False)
    other = plain()
    with torch.no_grad():
        other[6].weight[0, 0] += 1  # type: ignore[index]
    changed = torch.ao.quantization.quantize_dynamic(other, {nn.Linear}, dtype=torch.qint8)
    assert Net(body, size=SIDE).digest == Net(quantised(static=False), size=SIDE).digest
    assert Net(body, size=SIDE).digest != Net(changed, size=SIDE).digest


@pytest.mark.parametrize(
    "make",
    [
        lambda net: convscope.maximize(net, of=1, steps=2),
        lambda net: convscope.class_model(net, of=[1], steps=2),
        lambda net: convscope.dream(net, picture(), size=24, steps=1, octaves=1),
        lambda net: convscope.invert(net, picture(), steps=2),
        lambda net: convscope.style(net, picture(), style=[picture()], steps=2),
        lambda net: explain(net, picture(), "extremal", of=1, steps=2),
    ],
)
def test_nothing_is_made_from_int8(make: Any) -> None:
    with pytest.raises(ConvscopeError, match=r"no gradient of .* reaches the picture: its layer '0' computes in int8"):
        make(Net(quantised(static=True), size=SIDE))


def test_views_of_a_scripted_module() -> None:
    net = Net(torch.jit.script(plain()), size=SIDE)
    assert len(convscope.invert(net, picture(), steps=2).values["inversions"]) == 1
    for body in (torch.jit.script(plain()), Backbone(torch.jit.script), Backbone(traced)):
        checked = convscope.compare(Net(body, size=SIDE), picture(), of=1, methods=["gradient"], check=True)
        assert "randomised" in str(checked.sheet())


# Other ways of calling


class TakesDict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = plain()

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"logits": self.inner(batch["image"])}


class TakesList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = plain()

    def forward(self, pictures: list[Tensor]) -> Tensor:
        if not isinstance(pictures, list):
            raise ValueError("a list of pictures, please")
        return self.inner(torch.stack(pictures))


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (TakesDict(), {"call": lambda body, pixels: body({"image": pixels}), "output": "logits"}),
        (TakesList(), {"call": lambda body, pixels: body(list(pixels))}),
        (TakesDict(), {"call": lambda body, pixels: body({"image": pixels})["logits"]}),
    ],
)
def test_a_body_that_takes_a_dict_or_a_list(body: nn.Module, options: Any) -> None:
    net, reference = Net(body, size=SIDE, **options), Net(plain(), size=SIDE)
    for method in ("gradient", "grad_cam", "guided_backprop", "occlusion", "score_cam"):
        same(net, reference, method)
    pixels = torch.rand(2, 3, SIDE, SIDE)
    torch.testing.assert_close(attribute(net, pixels, "gradient", of=1), attribute(reference, pixels, "gradient", of=1))
    assert net.changed(note="x").layers.keys() == net.layers.keys()


def test_without_call_the_error_names_it() -> None:
    with pytest.raises(NetworkError, match=r"call=lambda body, pixels"):
        explain(Net(TakesDict(), size=SIDE, output="logits"), picture(), "gradient", of=1)
    with pytest.raises(NetworkError, match="give call or extra, not both"):
        Net(TakesDict(), call=lambda body, pixels: body(pixels), extra=[1])


# Volumes and signals


def volumes() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)
    )


def test_volumes_and_signals_are_refused_in_words() -> None:
    for given in (torch.rand(1, 8, SIDE, SIDE), torch.rand(1, 1, 8, SIDE, SIDE), torch.rand(3, SIDE, SIDE)):
        with pytest.raises(ConvscopeError, match=r"reads volumes: .*channels=16, call="):
            explain(Net(volumes(), size=SIDE), given, "gradient", of=1)
    body = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    with pytest.raises(ConvscopeError, match=r"reads signals: .*size=\(1, 400\)"):
        explain(Net(body, size=SIDE), torch.rand(2, 40), "gradient", of=1)


class Same(nn.Conv2d):
    """As libraries derive their own, padded or normalised in another way."""


class Up(nn.ConvTranspose2d):
    pass


def test_a_convolution_of_ones_own_class_tells_the_channels() -> None:
    assert Net(nn.Sequential(Same(3, 8, 3), nn.Conv2d(8, 4, 3)), size=SIDE).channels == 3
    assert Net(nn.Sequential(Same(1, 8, 3), nn.Conv2d(8, 4, 3)), size=SIDE).channels == 1
    assert Net(nn.Sequential(Up(8, 2, 2), Same(5, 4, 3)), size=SIDE).channels == 5


def test_slices_of_a_volume_are_the_channels_of_a_picture() -> None:
    body = volumes()
    net = Net(body, size=SIDE, channels=8, call=lambda body, pixels: body(pixels[:, None]))
    volume = torch.rand(8, SIDE, SIDE)
    heat = explain(net, volume, "gradient", of=1)
    voxels = volume[None, None].clone().requires_grad_()
    (true,) = torch.autograd.grad(body(voxels)[0, 1], voxels)
    torch.testing.assert_close(heat.values, true[0, 0])
    assert explain(net, volume, "guided_backprop", of=1).values.shape == (8, SIDE, SIDE)
    for options in ({}, {"layer": "1"}):
        with pytest.raises(LayerError, match=r"volumes \(c, d, h, w\): gradients, guided"):
            explain(net, volume, "grad_cam", of=1, **options)
    assert explain(net, volume, "occlusion", of=1, patch=8, stride=8).values.shape == (1, SIDE, SIDE)


def test_a_signal_is_a_picture_of_one_row() -> None:
    body = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    net = Net(body, size=(1, 40), channels=2, call=lambda body, pixels: body(pixels[:, :, 0]))
    signal = torch.rand(2, 1, 40)
    x = signal[None, :, 0].clone().requires_grad_()
    (true,) = torch.autograd.grad(body(x)[0, 1], x)
    torch.testing.assert_close(explain(net, signal, "gradient", of=1).values[:, 0], true[0])


# Weights that are not there


def test_a_layer_of_unknown_size_is_refused_until_it_has_run() -> None:
    body = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(WeightsError, match=r"size is not known .*'0', LazyConv2d.*run it once"):
        Net(body, size=SIDE)
    body(torch.zeros(1, 3, SIDE, SIDE))
    assert explain(Net(body, size=SIDE), picture(), "gradient", of=1).values.shape == (3, SIDE, SIDE)


def test_a_body_without_data_has_layers_and_does_not_run() -> None:
    with torch.device("meta"):
        net = Net(plain(), size=SIDE)
    assert net.layer("0").shape == (4, SIDE, SIDE)
    with pytest.raises(WeightsError, match=r"without data, '0.weight' among them .*to_empty"):
        explain(net, picture(), "gradient", of=1)


def test_what_is_no_module() -> None:
    program = torch.export.export(plain(), (picture()[None],))
    with pytest.raises(NetworkError, match=r"torch.export.save.*load\('pt2:model.pt2'\)"):
        Net(program)  # type: ignore[arg-type]
    with pytest.raises(NetworkError, match="not function"):
        Net(plain)  # type: ignore[arg-type]
    net = Net(program.module(), size=SIDE)
    same(net, Net(plain(), size=SIDE), "gradient")
    assert net.channels == 3
    with pytest.raises(LayerError, match="graph of calls without modules"):
        explain(net, picture(), "grad_cam", of=1)


# Whatever is done to a plain module


def weight_normed(body: nn.Sequential) -> None:
    nn.utils.parametrizations.weight_norm(body[0])
    nn.utils.parametrizations.spectral_norm(body[2])


def pruned(body: nn.Sequential) -> None:
    from torch.nn.utils import prune

    prune.l1_unstructured(body[0], "weight", 0.3)
    prune.random_structured(body[2], "weight", 0.5, dim=0)


def hooked(body: nn.Sequential) -> None:
    body[1].register_forward_hook(lambda module, inputs, output: output * 2)
    body[0].register_forward_pre_hook(lambda module, inputs: (inputs[0] * 0.5,))


@pytest.mark.parametrize("change", [weight_normed, pruned, hooked])
def test_methods_see_a_changed_module_as_it_runs(change: Any) -> None:
    body = plain()
    change(body)
    pixels = picture()[None].requires_grad_()
    (true,) = torch.autograd.grad(body(pixels)[0, 1], pixels)
    net = Net(body, size=SIDE)
    torch.testing.assert_close(explain(net, picture(), "gradient", of=1).values, true[0])
    heat = explain(net, picture(), "occlusion", of=1, patch=8, stride=8, baseline="0")
    covered = picture()[None]
    covered[..., :8, :8] = 0
    with torch.no_grad():
        lost = body(pixels)[0, 1] - body(covered)[0, 1]
    torch.testing.assert_close(heat.values[0, 4, 4], lost, atol=1e-6, rtol=1e-5)
    assert [name for name in net.layers if "param" in name] == []


# What is switched for the whole process


def test_recurrent_layers_run_without_cudnn_where_a_gradient_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU cuDNN's have no backward pass in eval mode; here only the switch can be seen."""
    gpu, body = torch.device("cuda"), nn.Sequential(nn.LSTM(3, 4))
    monkeypatch.setattr(torch.backends.cudnn, "enabled", True)
    with bodies.surroundings(body, gpu, holds_compiled=False):
        assert not torch.backends.cudnn.enabled
        with bodies.surroundings(body, gpu, holds_compiled=False):
            pass
        assert not torch.backends.cudnn.enabled
    assert torch.backends.cudnn.enabled
    with torch.no_grad(), bodies.surroundings(body, gpu, holds_compiled=False):
        assert torch.backends.cudnn.enabled
    for other, device in ((plain(), gpu), (body, torch.device("cpu"))):
        with bodies.surroundings(other, device, holds_compiled=False):
            assert torch.backends.cudnn.enabled


def test_a_second_input_of_more_rows_than_pictures_is_refused_in_words() -> None:
    class WithNumber(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.number = nn.Conv2d(3, 4, 3), nn.Embedding(7, 4)

        def forward(self, pixels: Tensor, number: Tensor) -> Tensor:
            return self.read(pixels).mean((2, 3)) + self.number(number)

    net = Net(WithNumber(), size=8, extra=[torch.tensor([3, 4])])
    with pytest.raises(NetworkError, match=r"2 rows for 1 picture: .*extra=\[torch.tensor"):
        explain(net, torch.rand(1, 3, 8, 8), "gradient", 0)
