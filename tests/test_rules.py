"""Backward rules: every spelling of a rectifier is rewritten, everything else is right or refused, nothing stays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import Function
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from convscope import Net, rules
from convscope.attribution.deconvnet import deconvnet, guided_backprop
from convscope.attribution.gradient import gradient
from convscope.context import listen
from convscope.errors import NetworkError, RuleError
from convscope.objectives import Objective, Unit
from convscope.rules import relu_rule
from convscope.tracing import OUTPUT
from networks import pictures
from oracles.deconvnet import ExplicitDeconvnet, walk_gradient

METHODS: dict[str, Callable[..., Tensor]] = {"deconvnet": deconvnet, "guided": guided_backprop}
INDEX = 2
OBJECTIVE = Objective(((1.0, Unit(OUTPUT, INDEX)),))
ZERO = torch.zeros((), dtype=torch.float64)
Activation = Callable[[Tensor], Tensor]


class Two(nn.Module):
    """Two convolutions, each with an activation of our choice, and a linear head."""

    def __init__(self, low: Activation, high: Activation) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3, groups=2)
        self.head = nn.Linear(6 * 8 * 8, 5)
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.high(self.b(self.low(self.a(x)))).flatten(1))


def two(low: Activation, high: Activation) -> Net:
    """Weights are large, so that ReLU6 is cut off above too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        body = Two(low, high).double()
        for conv in (body.a, body.b):
            nn.init.uniform_(conv.weight, -3, 3)
    return Net(body.eval(), size=12)


def look() -> Tensor:
    return pictures(2, side=12)


def by_hand(net: Net, pixels: Tensor, rule: str, cap: float = torch.inf) -> Tensor:
    """The rule spelled out, without a gradient; rectifiers are cut off at `cap`."""
    body: Any = net.body
    with torch.no_grad():
        low = body.a(pixels)
        high = body.b(low.clamp(0, cap))
        assert cap == torch.inf or ((low > cap).any() and (high > cap).any())
        signal = body.head.weight[INDEX].view(1, *high.shape[1:]).expand_as(high)
        for conv, before in ((body.b, high), (body.a, low)):
            signal = signal * (signal > 0)
            if rule == "guided":
                signal = signal * ((before > 0) & (before < cap))
            signal = F.conv_transpose2d(signal, conv.weight, groups=conv.groups)
    return signal


def assert_same(actual: Tensor, expected: Tensor) -> None:
    assert expected.any()
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12 * float(expected.abs().max()))


def assert_right_or_refused(net: Net, expected: Callable[[str], Tensor], times: int = 1) -> set[str]:
    """Apply every rule, several times over; return what happened."""
    happened = set()
    for rule, method in METHODS.items():
        for _ in range(times):
            try:
                signal = method(net, look(), OBJECTIVE)
            except RuleError:
                happened.add("refused")
                continue
            happened.add("right")
            assert_same(signal, expected(rule))
    return happened


def saved_elsewhere(x: Tensor) -> Tensor:
    with torch.autograd.graph.save_on_cpu():
        return F.relu(x)


SPELLINGS: dict[str, Activation] = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "F.relu by keyword": lambda x: F.relu(input=x),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.relu_": lambda x: x.relu_(),
    "clamp(min=0)": lambda x: x.clamp(min=0),
    "clamp(0)": lambda x: x.clamp(0),
    "torch.clamp": lambda x: torch.clamp(x, min=0.0),
    "clamp_": lambda x: x.clamp_(min=0),
    "clamp_min": lambda x: x.clamp_min(0),
    "torch.clamp_min": lambda x: torch.clamp_min(x, 0.0),
    "clamp_min_": lambda x: x.clamp_min_(0),
    "clip": lambda x: x.clip(min=0),
    "clip_": lambda x: x.clip_(0),
    "nn.Threshold": nn.Threshold(0, 0),
    "nn.Threshold in place": nn.Threshold(0, 0, inplace=True),
    "F.threshold": lambda x: F.threshold(x, 0.0, 0.0),
    "F.threshold_": lambda x: F.threshold_(x, 0.0, 0.0),
    "nn.Hardtanh without a lid": nn.Hardtanh(0, 1e9),
    "twice": lambda x: F.relu(F.relu(x)),
    "dropout afterwards": lambda x: F.dropout(F.relu(x), training=False),
    "out of dispatch": torch.ops.aten.relu.default,
    "out of dispatch, in place": torch.ops.aten.relu_.default,
    "in a batch of pieces": lambda x: torch.cat([F.relu(piece) for piece in x.chunk(2, 1)], 1),
    "a base with views": lambda x: x.clone().relu_()[:, :],
    "saved elsewhere": saved_elsewhere,
    "ordered keywords": lambda x: torch.clamp(max=None, min=0, input=x),
}
CAPPED: dict[str, Activation] = {
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6 in place": nn.ReLU6(inplace=True),
    "F.relu6": F.relu6,
    "nn.Hardtanh": nn.Hardtanh(0, 6),
    "F.hardtanh": lambda x: F.hardtanh(x, 0.0, 6.0),
    "F.hardtanh_": lambda x: F.hardtanh_(x, 0.0, 6.0),
    "clamp(0, 6)": lambda x: x.clamp(0, 6),
    "clamp_(0, 6)": lambda x: x.clamp_(0, 6),
}


@pytest.mark.parametrize("rule", METHODS)
@pytest.mark.parametrize("spelling", [*SPELLINGS, *CAPPED])
def test_every_spelling_of_a_rectifier_is_rewritten(spelling: str, rule: str) -> None:
    activation, cap = (SPELLINGS | CAPPED)[spelling], 6 if spelling in CAPPED else torch.inf
    net = two(activation, activation)
    with listen() as remarks:
        signal = METHODS[rule](net, look(), OBJECTIVE)
    assert_same(signal, by_hand(net, look(), rule, cap))
    assert any(remark in remarks for remark in ("2 of 2 rectifiers rewritten", "4 of 4 rectifiers rewritten"))
    assert not torch.allclose(signal, gradient(net, look(), OBJECTIVE))


@pytest.mark.parametrize("activation", [lambda x: x.clamp(min=0.5), nn.Hardtanh(-1, 6), nn.Threshold(0.5, 0)])
def test_other_thresholds_are_not_taken_for_rectifiers(activation: Activation) -> None:
    """They are refused, or keep their true gradient; they are not rewritten."""
    net = two(F.relu, activation)

    def expected(rule: str) -> Tensor:
        body: Any = net.body
        low = body.a(look()).detach()
        middle = low.clamp(min=0).requires_grad_()
        (signal,) = torch.autograd.grad(body.head(activation(body.b(middle)).flatten(1))[:, INDEX].sum(), middle)
        signal = signal.clamp(min=0) * (1 if rule == "deconvnet" else low > 0)
        return F.conv_transpose2d(signal, body.a.weight).detach()

    assert_right_or_refused(net, expected)


def test_a_threshold_that_does_not_return_zero_is_no_rectifier() -> None:
    """threshold(x, 0, value) has a rectifier's gradient but is not max(x, 0): either answer will do, not a crash."""
    net = two(F.relu, nn.Threshold(0, -3))
    for method in METHODS.values():
        try:
            assert method(net, look(), OBJECTIVE).isfinite().all()
        except RuleError:
            continue


UNDEFINED: dict[str, Activation] = {
    "SiLU": nn.SiLU(),
    "GELU": nn.GELU(),
    "leaky ReLU": nn.LeakyReLU(0.1),
    "PReLU": nn.PReLU(dtype=torch.float64),
    "RReLU": nn.RReLU(),
    "ELU": nn.ELU(),
    "CELU": nn.CELU(),
    "hard swish": nn.Hardswish(),
    "Mish": nn.Mish(),
    "softplus": nn.Softplus(),
    "maximum": lambda x: torch.maximum(x, ZERO),
}
VARIANTS: list[tuple[str, Activation]] = [
    ("SiLU", nn.SiLU(inplace=True)),
    ("GELU", nn.GELU(approximate="tanh")),
    ("leaky ReLU", nn.LeakyReLU(0.1, inplace=True)),
    ("leaky ReLU|RReLU", nn.RReLU(inplace=True)),
    ("ELU", nn.ELU(inplace=True)),
    ("ELU", nn.SELU()),
    ("ELU", nn.SELU(inplace=True)),
    ("CELU", nn.CELU(inplace=True)),
    ("hard swish", nn.Hardswish(inplace=True)),
    ("Mish", nn.Mish(inplace=True)),
    ("maximum", lambda x: torch.max(x, ZERO)),
]


@pytest.mark.parametrize("method", METHODS.values())
@pytest.mark.parametrize(("name", "activation"), [*UNDEFINED.items(), *VARIANTS])
def test_an_activation_without_a_rule_is_named(name: str, activation: Activation, method: Any) -> None:
    for net in (two(activation, activation), two(F.relu, activation), two(activation, F.relu)):
        with pytest.raises(RuleError, match=name):
            method(net, look(), OBJECTIVE)
        assert gradient(net, look(), OBJECTIVE).any()


@pytest.mark.parametrize("method", METHODS.values())
@pytest.mark.parametrize(
    "activation", [torch.tanh, torch.sigmoid, F.softsign, F.hardsigmoid, lambda x: torch.where(x > 0, x, ZERO)]
)
def test_a_curved_network_without_rectifiers_is_refused(activation: Activation, method: Any) -> None:
    with pytest.raises(RuleError, match=r"(no ReLU lies between|uses|compares).*gradient"):
        method(two(activation, activation), look(), OBJECTIVE)


class Straight(nn.Module):
    """Linear in every picture, up to the switches."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn, self.b = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 4, 2)
        self.pool, self.mean, self.head = nn.MaxPool2d(3, 2), nn.AdaptiveAvgPool2d(2), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.pad(self.bn(self.a(0.5 * x)), (1, 1, 1, 1)))
        x = torch.cat([self.b(x)[:, :, 1:, 1:], x - x.mean((2, 3), keepdim=True)], 1)
        return self.head(self.mean(x).reshape(len(x), -1)) / 2


@pytest.mark.parametrize("method", METHODS.values())
def test_in_a_linear_network_a_rule_is_the_gradient(method: Any) -> None:
    net = Net(Straight().double().eval(), size=12)
    with listen() as remarks:
        signal = method(net, look(), OBJECTIVE)
    assert_same(signal, gradient(net, look(), OBJECTIVE))
    assert "no rectifier on the way down" in remarks


class OwnRelu(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp(min=0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grads[0] * (y > 0)


@torch.library.custom_op("convscope_tests::relu", mutates_args=())
def library_relu(x: Tensor) -> Tensor:
    return x.clamp(min=0)


def _keep(ctx: Any, inputs: Any, output: Tensor) -> None:
    ctx.save_for_backward(output)


library_relu.register_autograd(lambda ctx, grad: grad * (ctx.saved_tensors[0] > 0), setup_context=_keep)


def on_a_view(x: Tensor) -> Tensor:
    y = x.clone()
    y.view(-1).relu_()
    return y


def on_halves(clip: Callable[[Tensor], Any]) -> Activation:
    def activation(x: Tensor) -> Tensor:
        y = x.clone()
        clip(y[:, :3])
        clip(y[:, 3:])
        return y

    return activation


def by_assignment(x: Tensor) -> Tensor:
    y = x.clone()
    y[y < 0] = 0
    return y


def times_one(x: Tensor) -> Tensor:
    return F.relu(x) * torch.ones_like(x.detach())


def times_one_saved_elsewhere(x: Tensor) -> Tensor:
    with torch.autograd.graph.save_on_cpu():
        return times_one(x)


def in_another_thread(x: Tensor) -> Tensor:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(F.relu, x).result()


def without_torch_function(x: Tensor) -> Tensor:
    with torch._C.DisableTorchFunction():
        return F.relu(x)


class Wrapped(Tensor):
    """A tensor subclass, as many libraries have."""


class Method(nn.Module):
    """A module that calls a method."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu()


class Masked(nn.Module):
    """A rectifier as a product with zeros and ones."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (x > 0).to(x.dtype)


def exported(module: nn.Module) -> Activation:
    program = torch.export.export(module, (torch.zeros(2, 6, 8, 8, dtype=torch.float64),)).module()
    return program.forward


class Arithmetic(nn.Module):
    """A rectifier between other operations, so that a compiler finds something to fuse."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x * 2.0) * 0.5


HIDDEN: dict[str, Callable[[], Activation]] = {
    "autograd.Function": lambda: OwnRelu.apply,
    "library operator": lambda: library_relu,
    "checkpoint, reentrant": lambda: lambda x: checkpoint(F.relu, x, use_reentrant=True),
    "checkpoint": lambda: lambda x: checkpoint(F.relu, x, use_reentrant=False),
    "checkpoint of a product": lambda: lambda x: checkpoint(times_one, x, use_reentrant=False),
    "saved elsewhere, product": lambda: times_one_saved_elsewhere,
    "script": lambda: torch.jit.script(Method()),
    "script in place": lambda: torch.jit.script(nn.ReLU(inplace=True)),
    "script, fused": lambda: torch.jit.script(Arithmetic()),
    "trace": lambda: torch.jit.trace(Method(), torch.zeros(1, 6, 8, 8, dtype=torch.float64)),
    "trace, fused": lambda: torch.jit.trace(Arithmetic(), torch.zeros(1, 6, 8, 8, dtype=torch.float64)),
    "symbolic trace": lambda: torch.fx.symbolic_trace(Method()),
    "data parallel": lambda: nn.DataParallel(nn.ReLU()),
    "view": lambda: on_a_view,
    "halves": lambda: on_halves(lambda x: F.relu(x, inplace=True)),
    "halves clipped": lambda: on_halves(lambda x: x.clip_(min=0)),
    "halves clamped": lambda: on_halves(lambda x: torch.clamp_(x, 0)),
    "halves cut": lambda: on_halves(lambda x: torch._C._nn.hardtanh_(x, 0, 1e9)),
    "halves multiplied": lambda: on_halves(lambda x: x.mul_(x > 0)),
    "vmap": lambda: torch.func.vmap(F.relu),
    "vjp": lambda: lambda x: torch.func.vjp(F.relu, x)[0],
    "jvp": lambda: lambda x: torch.func.jvp(F.relu, (x,), (x,))[0],
    "linearize": lambda: lambda x: torch.func.linearize(F.relu, x)[0],
    "functionalize": lambda: torch.func.functionalize(F.relu),
    "another thread": lambda: in_another_thread,
    "torch functions off": lambda: without_torch_function,
    "tensor subclass": lambda: lambda x: F.relu(x.as_subclass(Wrapped)).as_subclass(Tensor),
    "nn.RReLU": lambda: nn.RReLU(0, 0).eval(),
    "nn.LeakyReLU": lambda: nn.LeakyReLU(0),
    "nn.PReLU": lambda: nn.PReLU(init=0, dtype=torch.float64),
    "nn.ELU": lambda: nn.ELU(alpha=0),
    "clamp by a tensor": lambda: lambda x: x.clamp(min=ZERO),
    "clamp_min by a tensor": lambda: lambda x: x.clamp_min(ZERO),
    "clamp by tensors": lambda: lambda x: x.clamp(ZERO, ZERO + 1e9),
    "fmax": lambda: lambda x: torch.fmax(x, ZERO),
    "where": lambda: lambda x: torch.where(x > 0, x, ZERO),
    "where, a number": lambda: lambda x: torch.where(x > 0, x, 0.0),
    "masked_fill": lambda: lambda x: x.masked_fill(x < 0, 0),
    "masked_fill_": lambda: lambda x: x.masked_fill_(x < 0, 0),
    "assignment": lambda: by_assignment,
    "a mask as factor": lambda: lambda x: x * (x > 0),
    "a mask of numbers": Masked,
    "a mask of numbers, script": lambda: torch.jit.script(Masked()),
    "a mask of numbers, export": lambda: exported(Masked()),
    "a mask of numbers, detached": lambda: lambda x: x * (x.detach() > 0).to(x.dtype),
    "a mask of numbers, in place": lambda: lambda x: x.clone().mul_((x.detach() > 0).to(x.dtype)),
    "a mask of twos": lambda: lambda x: x * (1 + x.detach().sign()) / 2,
    "the magnitude": lambda: lambda x: (x + x.abs()) / 2,
    "minimum": lambda: lambda x: -torch.minimum(-x, ZERO),
    "fmin": lambda: lambda x: -torch.fmin(-x, ZERO),
    "clamp(max=0)": lambda: lambda x: -((-x).clamp(max=0)),
    "clamp_max": lambda: lambda x: x - x.clamp_max(0),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_hidden_rectifier_is_right_or_refused(hidden: str) -> None:
    """Beside a plain one, so that a rule finds something to rewrite; and again, as scripts change with their calls."""
    net = two(F.relu, HIDDEN[hidden]())
    assert_right_or_refused(net, lambda rule: by_hand(net, look(), rule), times=4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("first", ["rule", "plain"], ids=["cold", "warm"])
def test_a_compiled_module_is_right_or_refused(backend: str, first: str) -> None:
    for low, high in ((F.relu, nn.ReLU()), (F.relu, nn.ReLU(inplace=True)), (F.relu, Arithmetic())):
        for whole in (False, True):
            torch._dynamo.reset()
            net = two(low, high if whole else torch.compile(high, backend=backend))
            if whole:
                net.body.compile(backend=backend)
            if first == "plain":
                for _ in range(3):
                    gradient(net, look(), OBJECTIVE)
            assert_right_or_refused(net, lambda rule, net=net: by_hand(net, look(), rule), times=2)
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_function_among_plain_ones_is_right_or_refused() -> None:
    """Compiled before, outside the rule, in a way that hides its rectifier in one node."""
    fused = torch.compile(Arithmetic(), backend="aot_eager")
    fused(torch.zeros(2, 6, 8, 8, dtype=torch.float64, requires_grad=True))
    net = two(F.relu, torch.compiler.disable(lambda x: 1.0 * fused(x)))
    assert_right_or_refused(net, lambda rule: by_hand(net, look(), rule), times=2)
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_is_right_or_refused() -> None:
    net = two(F.relu, F.relu)
    program = torch.export.export(net.body, (look(),)).module()
    exported = Net(program, size=12, channels=3)
    assert_right_or_refused(exported, lambda rule: by_hand(net, look(), rule))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["script", "trace"])
def test_a_scripted_network_is_right_or_refused(how: str) -> None:
    net = two(nn.ReLU(), nn.ReLU())
    body = torch.jit.script(net.body) if how == "script" else torch.jit.trace(net.body, look())
    try:
        scripted = Net(body, size=12, channels=3)
    except NetworkError:
        return
    assert_right_or_refused(scripted, lambda rule: by_hand(net, look(), rule), times=4)


class Encoder(nn.Module):
    """Attention over positions, with a rectifier in its feed-forward part."""

    def __init__(self, activation: Any) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0, activation=activation, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(F.relu(self.conv(x)).flatten(2).mT).mean(1))


@pytest.mark.parametrize("rule", METHODS)
def test_a_transformer_layer_has_no_path_of_its_own(rule: Any) -> None:
    """In eval mode torch may run it as one fused operator; not while a gradient is wanted."""
    net = Net(Encoder("relu").double().eval(), size=12)
    with torch.no_grad():
        net(look())
    expected, count = walk_gradient(net, look(), lambda output: output[:, INDEX], rule)
    with listen() as remarks:
        assert_same(METHODS[rule](net, look(), OBJECTIVE), expected)
    assert f"{count} of {count} rectifiers rewritten" in remarks and count == 2
    with pytest.raises(RuleError, match="GELU"):
        METHODS[rule](Net(Encoder("gelu").double().eval(), size=12), look(), OBJECTIVE)


class Recurrent(nn.Module):
    """Rectifiers that torch runs inside one call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn, self.head = nn.Conv2d(3, 4, 4, 4), nn.RNN(4, 6, nonlinearity="relu"), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.rnn(F.relu(self.conv(x)).flatten(2).permute(2, 0, 1))
        return self.head(steps[-1])


def test_rectifiers_inside_one_call_are_refused() -> None:
    net = Net(Recurrent().double().eval(), size=12)
    for method in METHODS.values():
        with pytest.raises(RuleError, match="only 1 of 10 rectifiers"):
            method(net, look(), OBJECTIVE)


@pytest.mark.parametrize("rule", METHODS)
def test_an_in_place_rectifier_on_a_view_is_rewritten(rule: str) -> None:
    """Autograd hides what changes a view in place inside one node; the rule computes it beside the view."""
    in_place = ("view", "halves", "halves clipped", "halves clamped", "halves cut")
    for name in in_place:
        net = two(F.relu, HIDDEN[name]())
        with listen() as remarks:
            assert_same(METHODS[rule](net, look(), OBJECTIVE), by_hand(net, look(), rule))
        assert any("rectifiers rewritten" in remark for remark in remarks)


def gradient_inside(net: Net, pixels: Tensor, backward: Callable[[Tensor, Tensor], Tensor | None]) -> Tensor | None:
    with relu_rule(rules.deconvnet) as rule:
        leaf = pixels.clone().requires_grad_()
        grad = backward(net(leaf)[:, INDEX].sum(), leaf)
        assert "rewritten" in rule.report
    return leaf.grad if grad is None else grad


def test_every_way_of_going_back_is_checked() -> None:
    right, wrong = two(F.relu, F.relu), two(F.relu, nn.SiLU())
    ways: list[Callable[[Tensor, Tensor], Any]] = [
        lambda score, leaf: torch.autograd.grad(score, leaf)[0],
        lambda score, leaf: torch.autograd.grad([score], [leaf])[0],
        lambda score, leaf: torch.autograd.grad(outputs=score, inputs=leaf)[0],
        lambda score, _: score.backward(),
    ]
    for way in ways:
        signal = gradient_inside(right, look(), way)
        assert signal is not None
        assert_same(signal, by_hand(right, look(), "deconvnet"))
        with pytest.raises(RuleError, match="SiLU"):
            gradient_inside(wrong, look(), way)


def test_a_forward_pass_outside_the_block_is_refused() -> None:
    net, leaf = two(F.relu, F.relu), look().requires_grad_()
    score = net(leaf)[:, INDEX].sum()
    with pytest.raises(RuleError, match="only 0 of 2 rectifiers"), relu_rule(rules.deconvnet):
        torch.autograd.grad(score, leaf)


def test_nothing_is_left_behind() -> None:
    net = two(F.relu, F.relu)
    plain = gradient(net, look(), OBJECTIVE)
    for method in METHODS.values():
        assert not torch.allclose(method(net, look(), OBJECTIVE), plain)
        torch.testing.assert_close(gradient(net, look(), OBJECTIVE), plain, rtol=0, atol=0)


@pytest.mark.parametrize("where", ["forward pass", "backward pass", "block"])
def test_nothing_is_left_behind_after_an_exception(where: str) -> None:
    plain = gradient(two(F.relu, F.relu), look(), OBJECTIVE)

    def fail(x: Tensor) -> Tensor:
        if where == "forward pass":
            raise KeyError(where)
        if where == "backward pass":
            x.register_hook(lambda _: (_ for _ in ()).throw(KeyError(where)))
        return F.relu(x)

    net = two(F.relu, fail)
    for rule in (rules.deconvnet, rules.guided):
        with pytest.raises(KeyError, match=where), relu_rule(rule):
            gradient(net, look(), OBJECTIVE)
            raise KeyError(where)
        torch.testing.assert_close(gradient(two(F.relu, F.relu), look(), OBJECTIVE), plain, rtol=0, atol=0)


def test_another_thread_stays_plain() -> None:
    net = two(F.relu, F.relu)
    plain, entered, done = gradient(net, look(), OBJECTIVE), threading.Event(), threading.Event()
    gradients: list[Tensor] = []

    def other() -> None:
        entered.wait(10)
        gradients.append(gradient(net, look(), OBJECTIVE))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with relu_rule(rules.deconvnet):
        leaf = look().requires_grad_()
        score = net(leaf)[:, INDEX].sum()
        entered.set()
        assert done.wait(10)
        (own,) = torch.autograd.grad(score, leaf)
    thread.join()
    torch.testing.assert_close(gradients[0], plain, rtol=0, atol=0)
    assert_same(own, by_hand(net, look(), "deconvnet"))


def test_many_threads_with_different_rules() -> None:
    net = two(F.relu, F.relu)
    expected = {rule: by_hand(net, look(), rule) for rule in METHODS}
    with ThreadPoolExecutor(4) as pool:
        jobs = [(rule, pool.submit(METHODS[rule], net, look(), OBJECTIVE)) for rule in list(METHODS) * 10]
    for rule, job in jobs:
        assert_same(job.result(), expected[rule])


class Normalised(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.LocalResponseNorm(3, alpha=2.0), nn.Conv2d(6, 4, 3), nn.ReLU(),
            nn.Flatten(), nn.Linear(256, 5),
        )  # fmt: skip


class ByFunction(Normalised):
    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            lrn = isinstance(module, nn.LocalResponseNorm)
            x = F.local_response_norm(size=3, alpha=2.0, input=x) if lrn else module(x)
        return x


@pytest.mark.parametrize("kind", [Normalised, ByFunction])
def test_normalisation_is_skipped_only_on_request(kind: type[Normalised]) -> None:
    torch.manual_seed(0)
    net, pixels = Net(kind().double().eval(), size=12), look()
    with torch.no_grad():
        net.body[0].weight.mul_(10)
    true, _ = walk_gradient(net, pixels, lambda output: output[:, INDEX], "deconvnet")
    stack = ExplicitDeconvnet(net, pixels)
    seed = torch.zeros_like(stack.activity)
    seed[:, INDEX] = 1
    skipped = stack.down(seed)
    assert (skipped - true).abs().max() > 0.05 * skipped.abs().max()
    assert_same(deconvnet(net, pixels, OBJECTIVE), skipped)
    way = gradient_inside(net, pixels, lambda score, leaf: torch.autograd.grad(score, leaf)[0])
    assert way is not None
    assert_same(way, true)
    guided, _ = walk_gradient(net, pixels, lambda output: output[:, INDEX], "guided")
    assert_same(guided_backprop(net, pixels, OBJECTIVE), guided)


def test_skipping_normalisation_leaves_the_score_alone() -> None:
    net = Net(Normalised().double().eval(), size=12)
    plain = net(look())
    with relu_rule(rules.deconvnet, skip_lrn=True):
        torch.testing.assert_close(net(look().requires_grad_()), plain, rtol=0, atol=0)
