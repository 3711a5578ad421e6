"""The table of operations: every record is true of torch, and every reader finds in it what it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from convscope import operations, rules
from convscope.attribution import cam
from convscope.incremental import regions, tape, whole
from convscope.operations import BY_NAME, BY_NODE, OPERATIONS, Backward, Reach, names, nodes

SHAPE = (1, 4, 6, 6)

EVERY_OTHER = torch.arange(0, 18, 2).view(1, 1, 3, 3)

CALLS: dict[str, Callable[[Tensor], Any]] = {
    "relu": F.relu, "relu6": F.relu6, "hardtanh": lambda x: F.hardtanh(x, 0, 2), "clamp": lambda x: x.clamp(0),
    "clip": lambda x: x.clip(0), "clamp_min": lambda x: x.clamp_min(0), "clamp_max": lambda x: x.clamp_max(1),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "silu": F.silu, "gelu": F.gelu, "leaky_relu": F.leaky_relu, "elu": F.elu, "selu": F.selu, "celu": F.celu,
    "prelu": lambda x: F.prelu(x, torch.full((4,), 0.2, dtype=x.dtype)), "rrelu": F.rrelu, "hardswish": F.hardswish,
    "mish": F.mish, "softplus": F.softplus,
    "add": lambda x: x + 1, "sub": lambda x: x - 1, "rsub": lambda x: 1 - x, "div": lambda x: x / 2,
    "true_divide": lambda x: torch.true_divide(x, 2), "neg": lambda x: -x, "clone": lambda x: x.clone(),
    "contiguous": lambda x: x.contiguous(), "to": lambda x: x.to(torch.float32), "float": lambda x: x.float(),
    "double": lambda x: x.double(), "type_as": lambda x: x.type_as(torch.zeros(())), "mul": lambda x: x * 2,
    "type": lambda x: x.type(torch.float32), "detach": lambda x: x.detach(), "half": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "lerp": lambda x: torch.lerp(x, x * 2, x), "addcmul": lambda x: torch.addcmul(x, x, x),
    "addcdiv": lambda x: torch.addcdiv(x, x, x + 1), "erf": lambda x: x.erf(), "expm1": lambda x: x.expm1(),
    "atan": lambda x: x.atan(), "arctan": lambda x: x.arctan(),
    "reciprocal": lambda x: x.reciprocal(), "rdiv": lambda x: 2 / x, "pow": lambda x: x**3,
    "square": lambda x: x.square(), "sqrt": lambda x: x.sqrt(), "rsqrt": lambda x: x.rsqrt(), "exp": lambda x: x.exp(),
    "log": lambda x: x.log(), "log1p": lambda x: x.log1p(), "sin": lambda x: x.sin(), "cos": lambda x: x.cos(),
    "sigmoid": lambda x: x.sigmoid(), "log_sigmoid": F.logsigmoid, "hardsigmoid": F.hardsigmoid,
    "tanh": lambda x: x.tanh(), "softsign": F.softsign, "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "local_response_norm": lambda x: F.local_response_norm(x, 3),
    "maximum": lambda x: torch.maximum(x, torch.ones(())), "minimum": lambda x: torch.minimum(x, torch.ones(())),
    "where": lambda x: torch.where(x > 0, x, 0.0), "masked_fill": lambda x: x.masked_fill(x > 1, 0.0), "abs": abs,
    "gt": lambda x: x > 1, "lt": lambda x: x < 1, "ge": lambda x: x >= 1, "le": lambda x: x <= 1,
    "eq": lambda x: x == 1, "ne": lambda x: x != 1, "greater": lambda x: x.greater(1), "less": lambda x: x.less(1),
    "greater_equal": lambda x: x.greater_equal(1), "less_equal": lambda x: x.less_equal(1),
    "sign": lambda x: x.sign(), "sgn": lambda x: x.sgn(), "signbit": lambda x: x.signbit(),
    "heaviside": lambda x: torch.heaviside(x, torch.ones((), dtype=x.dtype)),
    "conv2d": lambda x: F.conv2d(x, torch.ones(2, 4, 3, 3, dtype=x.dtype)),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, torch.ones(4, 2, 3, 3, dtype=x.dtype)),
    "max_pool2d": lambda x: F.max_pool2d(x, 2), "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "max_pool2d_with_indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "max_pool3d": lambda x: F.max_pool3d(x, 2),
    "lp_pool2d": lambda x: F.lp_pool2d(x, 2, 2), "pad": lambda x: F.pad(x, (1, 1)),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 2),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 2),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2),
    "dropout": lambda x: F.dropout(x, 0.5, False), "dropout2d": lambda x: F.dropout2d(x, 0.5, False),
    "feature_dropout": lambda x: torch.feature_dropout(x, 0.5, False),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.5, False),
    "cat": lambda x: torch.cat([x, x], 1), "concat": lambda x: torch.concat([x, x], 1),
    "concatenate": lambda x: torch.concatenate([x, x], 1), "chunk": lambda x: x.chunk(2, 1)[0],
    "split": lambda x: x.split(2, 1)[0], "softmax": lambda x: x.softmax(1), "log_softmax": lambda x: x.log_softmax(1),
    "mean": lambda x: x.mean((2, 3)), "sum": lambda x: x.sum(1), "amax": lambda x: x.amax((2, 3)),
    "max": lambda x: x.max(),
    "batch_norm": lambda x: F.batch_norm(x, torch.zeros(4, dtype=x.dtype), torch.ones(4, dtype=x.dtype)),
    "layer_norm": lambda x: F.layer_norm(x, (6,)), "group_norm": lambda x: F.group_norm(x, 2),
    "linear": lambda x: F.linear(x, torch.ones(3, 6, dtype=x.dtype)),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "view": lambda x: x.view(1, -1), "reshape": lambda x: x.reshape(1, 2, 2, 6, 6), "flatten": lambda x: x.flatten(1),
    "unflatten": lambda x: x.unflatten(1, (2, 2)), "squeeze": lambda x: x.squeeze(0),
    "unsqueeze": lambda x: x.unsqueeze(1), "getitem": lambda x: x[:, 1:, ::2], "narrow": lambda x: x.narrow(1, 0, 2),
    "unbind": lambda x: x.unbind(1)[0], "permute": lambda x: x.permute(0, 2, 3, 1),
    "flip": lambda x: x.flip(1),
    "transpose": lambda x: x.transpose(1, 2), "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
    "max_unpool2d": lambda x: F.max_unpool2d(x[..., :3, :3], EVERY_OTHER.expand(len(x), 4, 3, 3), 2),
}  # fmt: skip


class Names(TorchFunctionMode):
    """Note what is called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(getattr(func, "__name__", "").strip("_"))
        return func(*args, **(kwargs or {}))


def positive() -> Tensor:
    """Numbers above 0, none on the threshold of an operation, and no two alike."""
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1.6 + 0.1


def gradient_of(call: Callable[[Tensor], Any], pixels: Tensor) -> Tensor:
    leaf = pixels.clone().requires_grad_()
    output = call(leaf)
    weights = torch.linspace(1, 2, output.numel(), dtype=torch.float64).view(output.shape)
    return torch.autograd.grad((output.double() * weights).sum(), leaf)[0]


def test_names_and_nodes_are_those_of_one_operation_each() -> None:
    for group in (
        [name for operation in OPERATIONS for name in operation.names],
        [node for operation in OPERATIONS for node in operation.nodes],
    ):
        assert [name for name, count in Counter(group).items() if count > 1] == []


@pytest.mark.parametrize("name", CALLS)
def test_torch_calls_the_operation_so(name: str) -> None:
    with Names() as mode:
        CALLS[name](positive())
    assert name in mode.names


def test_every_operation_that_returns_numbers_is_tried() -> None:
    """In-place spellings are what Python's own operators are called on tensors; `requires_grad_` computes nothing."""
    spellings = {"iadd", "radd", "isub", "truediv", "itruediv", "imul", "rmul", "requires_grad", "identity"}
    tried = {name for name, known in BY_NAME.items() if known.reach not in WITHOUT_NUMBERS}
    assert tried - spellings == CALLS.keys()


WITHOUT_NUMBERS = (Reach.CREATION, Reach.QUERY, Reach.CHOICE)


@pytest.mark.parametrize("name", sorted(names(Reach.POINTWISE, Reach.NOISE) & CALLS.keys()))
def test_a_pointwise_operation_reads_its_own_position_only(name: str) -> None:
    """A change at one position changes that position, and keeps the grid."""
    pixels = positive()
    changed = pixels.clone()
    changed[:, :, 2, 3] += 0.7
    before, after = CALLS[name](pixels), CALLS[name](changed)
    assert before.shape[-2:] == SHAPE[-2:]
    different = (before != after).flatten(0, 1).any(0)
    different[2, 3] = False
    assert not different.any()


@pytest.mark.parametrize("name", sorted(name for name in CALLS if BY_NAME[name].batched))
def test_a_batch_is_computed_picture_by_picture(name: str) -> None:
    if name in ("squeeze", "unsqueeze", "view", "reshape"):
        pytest.skip("the shapes in its arguments are those of one picture")
    pixels = torch.cat([positive(), positive().flip(2), positive().flip(3)])
    together = CALLS[name](pixels)
    alone = torch.cat([CALLS[name](picture[None]) for picture in pixels]) if name != "max" else together
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "name", [name for name in CALLS if BY_NAME[name].backward is Backward.LINEAR and name != "detach"]
)
def test_a_linear_operation_has_one_gradient(name: str) -> None:
    """Wherever the maxima stay where they are: the gradient at a picture is that at half of it."""
    pixels = positive()
    torch.testing.assert_close(
        gradient_of(CALLS[name], pixels), gradient_of(CALLS[name], pixels / 2), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in CALLS
        if BY_NAME[n].backward in (Backward.CURVED, Backward.ACTIVATION) and n not in ("mul", "amax", "max")
    ],
)
def test_a_curved_operation_has_another_gradient_elsewhere(name: str) -> None:
    pixels = positive() * 4 - 3.3 if BY_NAME[name].backward is Backward.ACTIVATION else positive()
    assert not torch.allclose(gradient_of(CALLS[name], pixels), gradient_of(CALLS[name], pixels + pixels.flip(2)))


@pytest.mark.parametrize("name", [n for n in CALLS if BY_NAME[n].nodes and n not in ("detach",)])
def test_the_node_of_an_operation_is_one_of_its_own(name: str) -> None:
    """Or one of an operation that does the same to a gradient, as a square is a power."""
    output = CALLS[name](positive().requires_grad_())
    if output.grad_fn is None:
        assert name in ("contiguous", "double") or BY_NAME[name].reach is Reach.NOISE, "there was something to do"
        return
    kind = rules.kind_of(output.grad_fn)
    assert BY_NODE[kind].backward is BY_NAME[name].backward or (name, kind) in COMPOSED
    assert rules._rectifies(output.grad_fn) == (BY_NAME[name].backward is Backward.RECTIFIER)


# What is computed by other operations, whose nodes are in the graph.
COMPOSED = {("rdiv", "Mul"), ("linear", "UnsafeView"), ("group_norm", "NativeGroupNorm")}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: " ".join(o.names or o.nodes))
def test_a_record_agrees_with_itself(operation: operations.Operation) -> None:
    assert operation.names or operation.nodes
    assert bool(operation.title) == (operation.backward in (Backward.ACTIVATION, Backward.SELECTION))
    assert not operation.floor or operation.backward is Backward.RECTIFIER
    if operation.reach in WITHOUT_NUMBERS:
        assert operation.backward is Backward.NONE and not operation.nodes and not operation.batched
    if operation.backward is Backward.COMPARISON:
        assert operation.reach is Reach.POINTWISE and not operation.nodes


# What the readers knew when each had lists of its own.

LINEAR = """AccumulateGrad MaxPool2D Convolution Addmm Baddbmm Addbmm Mm Bmm Mv Linear NativeBatchNorm CudnnBatchNorm
    MiopenBatchNorm MkldnnLinear MkldnnConvolution MaxPool2DWithIndices AdaptiveMaxPool2D MaxPool3DWithIndices
    AvgPool2D AvgPool3D
    AdaptiveAvgPool2D MkldnnAdaptiveAvgPool2D AvgPool1D Mean Sum Add Sub Rsub Div Neg Cat Stack View UnsafeView Reshape
    ReshapeAlias Flatten Squeeze Unsqueeze T Transpose Permute Select Slice Index IndexSelect Gather Clone Copy ToCopy
    ConstantPadNd ReflectionPad2D ReplicationPad2D Expand Repeat Split SplitWithSizes Unbind Narrow Alias Detach
    AsStrided Unfold Im2Col Col2Im Roll Flip Diagonal PixelShuffle PixelUnshuffle UpsampleNearest2D UpsampleBilinear2D
    UpsampleBicubic2D GridSampler2D NativeDropout FusedDropout _PassBack"""
ALSO_LINEAR = """FractionalMaxPool2D MaxUnpool2D ReflectionPad1D ReflectionPad3D ReplicationPad1D ReplicationPad3D
    UpsampleNearest1D UpsampleNearest3D UpsampleNearestExact1D UpsampleNearestExact2D UpsampleNearestExact3D
    UpsampleLinear1D UpsampleTrilinear3D UpsampleBilinear2DAa UpsampleBicubic2DAa GridSampler3D AffineGridGenerator
    UnsafeSplit UnsafeSplitWithSizes FftR2C FftC2C FftC2R ChannelShuffle Scatter ScatterAdd IndexAdd IndexCopy IndexFill
    Fill Zero ViewAsReal ViewAsComplex Complex Real Imag Conj ConjPhysical Rot90 Tril Triu"""
ALSO_CURVED = """Lerp Addcmul Addcdiv Erf Expm1 Atan Glu Cumprod Min Amin Topk Sort Kthvalue Median Cdist Trilinear
    MkldnnRnnLayer CudnnRnn MiopenRnn ThnnFusedLstmCell ThnnFusedGruCell"""
CURVED = """Mul Sigmoid Tanh Softmax LogSoftmax LogSigmoid Hardsigmoid Exp Log Log1P Pow Sqrt Rsqrt Reciprocal Square
    NativeLayerNorm NativeGroupNorm Norm LinalgVectorNorm Var Std VarMean StdMean Logsumexp Amax Max
    ScaledDotProductFlashAttentionForCpu ScaledDotProductFlashAttention ScaledDotProductEfficientAttention
    ScaledDotProductFusedAttentionOverrideable Prod Cumsum Einsum Sin Cos"""
ACTIVATIONS = "Silu Gelu LeakyRelu PreluKernel RreluWithNoise Elu Celu Hardswish Mish Softplus"
COMPARISONS = "gt lt ge le greater less greater_equal less_equal sign sgn heaviside signbit"
FIELDS = """relu relu6 hardtanh clamp clamp_min clamp_max threshold silu gelu hardswish hardsigmoid sigmoid tanh
    leaky_relu elu selu celu prelu rrelu mish softplus dropout dropout2d feature_dropout alpha_dropout
    add sub mul div true_divide iadd isub imul itruediv radd rmul rsub neg abs exp log sqrt pow square
    cat concat concatenate to float double half bfloat16 type type_as contiguous clone detach requires_grad
    local_response_norm where maximum minimum lerp addcmul identity"""
PARTS = """softmax log_softmax chunk split mean sum amax cat concat concatenate
    dropout dropout2d feature_dropout alpha_dropout
    relu relu6 hardtanh clamp clamp_min clamp_max threshold silu gelu hardswish hardsigmoid sigmoid tanh
    leaky_relu elu selu celu prelu mish softplus softsign hardshrink
    add sub mul div true_divide iadd isub imul itruediv truediv radd rmul rsub neg abs exp log sqrt rsqrt pow
    square reciprocal maximum minimum where lerp addcmul sign gt lt ge le eq ne
    to float double half bfloat16 type type_as contiguous clone detach local_response_norm batch_norm"""
QUERIES = """size dim ndimension numel nelement stride storage_offset is_floating_point is_complex is_contiguous
    element_size get_device len data_ptr is_inference is_same_size is_signed is_conj is_neg format repr type get"""
CHOICES = "nonzero argwhere masked_select unique unique_consecutive torchvision::nms"
BATCHED = """conv2d max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d pad interpolate linear getitem
    group_norm layer_norm conv_transpose2d pixel_shuffle scaled_dot_product_attention"""

# Pointwise for one reader and unknown to the other, or to both.
ALSO_FIELDS = """addcdiv erf expm1 atan arctan softshrink softsign hardshrink log_sigmoid truediv rdiv
    reciprocal rsqrt log1p sin cos clip masked_fill
    sign sgn signbit heaviside gt lt ge le greater less greater_equal less_equal eq ne"""
ALSO_PARTS = """addcdiv erf expm1 atan arctan softshrink rrelu log_sigmoid rdiv log1p sin cos clip masked_fill
    requires_grad identity sgn signbit heaviside greater less greater_equal less_equal"""


@pytest.mark.parametrize(
    ("derived", "before", "new"),
    [
        (rules._LINEAR, LINEAR, ALSO_LINEAR),
        (rules._CURVED, CURVED, ALSO_CURVED),
        (rules._ACTIVATIONS, ACTIVATIONS, "Hardshrink Softshrink"),
        (rules._UNDEFINED, f"{ACTIVATIONS} Maximum Minimum Where MaskedFill Abs CopySlices", "Hardshrink Softshrink"),
        (rules._COMPARISONS, COMPARISONS, ""),
        (rules._POOLINGS, "MaxPool2DWithIndices MaxPool2D AdaptiveMaxPool2D", ""),
        (rules._MAXIMA, "Amax Max Maximum", ""),
        (names(Reach.POINTWISE, Reach.NOISE, Reach.JOIN), FIELDS, ALSO_FIELDS),
        (regions._POINTWISE, PARTS, ALSO_PARTS),
        (names(Reach.RESHAPE), "view reshape flatten unflatten unsqueeze squeeze", ""),
        (names(Reach.CREATION), "new_full new_zeros new_ones new_empty full_like zeros_like ones_like empty_like",
         "new_tensor"),
        (tape._QUERIES, QUERIES, ""),
        (tape._CHOICES, CHOICES, ""),
        (frozenset(n for n, o in BY_NAME.items() if o.batched), f"{PARTS} {BATCHED}",
         f"{ALSO_PARTS} max_pool2d_with_indices channel_shuffle max_unpool2d"),
    ],
    ids=["linear", "curved", "activations", "undefined", "comparisons", "poolings", "maxima", "fields", "parts",
         "reshapes", "creations", "queries", "choices", "batches"],
)  # fmt: skip
def test_every_reader_finds_what_it_knew(derived: frozenset[str], before: str, new: str) -> None:
    assert derived - set(before.split()) == set(new.split())
    assert set(before.split()) <= derived


def test_the_head_of_a_class_activation_map_may_be_what_it_was_and_what_else_is_linear() -> None:
    before = """Addmm Mm Bmm Baddbmm Linear MkldnnLinear T Transpose Permute View UnsafeView ReshapeAlias Reshape
        Flatten Squeeze Unsqueeze Select Slice Index Gather Expand Clone Copy ToCopy Alias Mean Sum AvgPool2D
        AdaptiveAvgPool2D
        MkldnnAdaptiveAvgPool2D Convolution MkldnnConvolution Add Sub Neg Cat Stack NativeBatchNorm CudnnBatchNorm
        ConstantPadNd AsStrided AccumulateGrad"""
    assert set(before.split()) <= cam._LINEAR < nodes(Backward.LINEAR)
    assert not {"Div", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "Mul"} & cam._LINEAR


def test_along_a_dimension_means_the_same_to_regions_and_batches() -> None:
    assert regions._ALONG == whole._ALONG == {*"softmax log_softmax chunk split mean sum amax".split()} | regions._JOINS


@pytest.mark.parametrize("name", sorted(regions._WINDOWS))
def test_what_is_recomputed_in_parts_has_a_fitting_reach(name: str) -> None:
    assert BY_NAME[name].reach in (Reach.WINDOW, Reach.RESAMPLING, Reach.RESHAPE, Reach.MOVE)


def test_groups_are_found_by_either_property() -> None:
    assert names(Reach.JOIN) == {"cat", "concat", "concatenate"}
    assert nodes(Backward.RECTIFIER) == {"Relu", "Hardtanh", "Clamp", "ClampMin", "Threshold"}
    assert names(Reach.JOIN, Backward.RECTIFIER) > names(Reach.JOIN)
