"""Operations: what each operation of torch reads and does, in one table.

Backward rules look operations up by the name of their autograd node, receptive fields and incremental inference by the
name of the function that was called. An operation that is missing here is unknown to all of them: rules refuse it,
its receptive field is everything, and occlusion computes it in full.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Reach(Enum):
    """What each number of an operation's result is computed from."""

    POINTWISE = "the numbers at its own spatial position (of any channel), broadcast"
    NOISE = "its own number, times random ones while training"
    JOIN = "one of several tensors, laid side by side along a dimension"
    ALONG = "the numbers along one dimension"
    REDUCTION = "all numbers along some dimensions"
    WINDOW = "the numbers inside a window that slides over rows and columns"
    RESAMPLING = "the numbers around the same share of rows and columns"
    NORMALISATION = "its own number and statistics of some dimensions"
    MATRIX = "all numbers along the last dimensions"
    RESHAPE = "one number; all keep their order in memory"
    MOVE = "one number from elsewhere"
    CREATION = "no number: only the shape is read"
    QUERY = "no number: the result is no tensor"
    CHOICE = "numbers chosen by their values, so that the result's size depends on them"


class Backward(Enum):
    """What an operation does to the gradient that is sent back through it."""

    LINEAR = "scales and moves it, whatever the values (a maximum: once its switches are set)"
    RECTIFIER = "passes it where the input is above a floor, maybe below a lid"
    ACTIVATION = "bends it as an activation function that is no rectifier"
    CURVED = "bends it, and is known not to rectify"
    SELECTION = "passes it by comparing values, so that it may be a rectifier written out by hand"
    COMPARISON = "ends it: the result says how values compare"
    NONE = "ends it, or has no node that rules know"


@dataclass(frozen=True)
class Operation:
    """One operation of torch.

    `names` are what torch calls its functions and methods, without underscores at either end; `nodes` what autograd
    calls its backward pass, without "Backward0". `title` is the name in error messages. `floor` is the number that a
    rectifier's node saves, 0 for max(x, 0). `batched` says that one call with a batch in the first dimension computes
    for each picture what a call of its own would.
    """

    reach: Reach
    backward: Backward
    names: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    title: str = ""
    floor: str = ""
    batched: bool = False


def _operation(
    reach: Reach, backward: Backward, names: str, nodes: str = "", *, title: str = "", floor: str = ""
) -> Operation:
    names_ = tuple(names.split())
    batched = reach in _BATCHED or any(name in _BATCHED_NAMES for name in names_)
    return Operation(reach, backward, names_, tuple(nodes.split()), title, floor, batched)


# What is computed position by position keeps the pictures of a batch apart; of the others these are known to.
_BATCHED = frozenset((Reach.POINTWISE, Reach.NOISE, Reach.JOIN, Reach.ALONG, Reach.REDUCTION))
_BATCHED_NAMES = frozenset(
    """conv2d conv_transpose2d max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d max_unpool2d pad
    interpolate linear getitem batch_norm group_norm layer_norm pixel_shuffle channel_shuffle
    scaled_dot_product_attention""".split()
)

_RECTIFIERS = (
    _operation(Reach.POINTWISE, Backward.RECTIFIER, "relu", "Relu"),
    _operation(Reach.POINTWISE, Backward.RECTIFIER, "relu6 hardtanh", "Hardtanh", floor="min_val"),
    _operation(Reach.POINTWISE, Backward.RECTIFIER, "clamp clip", "Clamp", floor="min"),
    _operation(Reach.POINTWISE, Backward.RECTIFIER, "clamp_min", "ClampMin", floor="min"),
    _operation(Reach.POINTWISE, Backward.RECTIFIER, "threshold", "Threshold", floor="threshold"),
)

_ACTIVATIONS = (
    _operation(Reach.POINTWISE, Backward.ACTIVATION, "silu", "Silu", title="SiLU"),
    _operation(Reach.POINTWISE, Backward.ACTIVATION, "gelu", "Gelu", title="GELU"),
    _operation(Reach.POINTWISE, Backward.ACTIVATION, "leaky_relu", "LeakyRelu", title="leaky ReLU"),
    _operation(Reach.POINTWISE, Backward.ACTIVATION, "prelu", "PreluKernel", title="PReLU"),
    _operation(Reach.NOISE, Backward.ACTIVATION, "rrelu", "RreluWithNoise", title="RReLU"),
    _operation(Reach.POINTWISE, Backward.ACTIVATION, "elu selu", "Elu", title="ELU"),
    _operation(Reach.POINTWISE, Backward.ACTIVATION, "celu", "Celu", title="CELU"),
    _operation(Reach.POINTWISE, Backward.ACTIVATION, "hardswish", "Hardswish", title="hard swish"),
    _operation(Reach.POINTWISE, Backward.ACTIVATION, "mish", "Mish", title="Mish"),
    _operation(Reach.POINTWISE, Backward.ACTIVATION, "softplus", "Softplus", title="softplus"),
)

_ARITHMETIC = (
    _operation(Reach.POINTWISE, Backward.LINEAR, "add iadd radd", "Add"),
    _operation(Reach.POINTWISE, Backward.LINEAR, "sub isub", "Sub"),
    _operation(Reach.POINTWISE, Backward.LINEAR, "rsub", "Rsub"),
    # Linear in what is divided; division by an activity is curved beside it.
    _operation(Reach.POINTWISE, Backward.LINEAR, "div true_divide truediv itruediv", "Div"),
    _operation(Reach.POINTWISE, Backward.LINEAR, "neg", "Neg"),
    _operation(Reach.POINTWISE, Backward.LINEAR, "clone contiguous requires_grad identity", "Clone"),
    _operation(Reach.POINTWISE, Backward.LINEAR, "to float double half bfloat16 type type_as", "ToCopy"),
    _operation(Reach.POINTWISE, Backward.LINEAR, "detach", "Detach"),
    _operation(Reach.POINTWISE, Backward.CURVED, "mul imul rmul", "Mul"),
    _operation(Reach.POINTWISE, Backward.CURVED, "lerp", "Lerp"),
    _operation(Reach.POINTWISE, Backward.CURVED, "addcmul", "Addcmul"),
    _operation(Reach.POINTWISE, Backward.CURVED, "addcdiv", "Addcdiv"),
    _operation(Reach.POINTWISE, Backward.CURVED, "erf", "Erf"),
    _operation(Reach.POINTWISE, Backward.CURVED, "expm1", "Expm1"),
    _operation(Reach.POINTWISE, Backward.CURVED, "atan arctan", "Atan"),
    _operation(Reach.POINTWISE, Backward.CURVED, "reciprocal rdiv", "Reciprocal"),
    _operation(Reach.POINTWISE, Backward.CURVED, "pow", "Pow"),
    _operation(Reach.POINTWISE, Backward.CURVED, "square", "Square"),
    _operation(Reach.POINTWISE, Backward.CURVED, "sqrt", "Sqrt"),
    _operation(Reach.POINTWISE, Backward.CURVED, "rsqrt", "Rsqrt"),
    _operation(Reach.POINTWISE, Backward.CURVED, "exp", "Exp"),
    _operation(Reach.POINTWISE, Backward.CURVED, "log", "Log"),
    _operation(Reach.POINTWISE, Backward.CURVED, "log1p", "Log1P"),
    _operation(Reach.POINTWISE, Backward.CURVED, "sin", "Sin"),
    _operation(Reach.POINTWISE, Backward.CURVED, "cos", "Cos"),
    _operation(Reach.POINTWISE, Backward.CURVED, "sigmoid", "Sigmoid"),
    _operation(Reach.POINTWISE, Backward.CURVED, "log_sigmoid", "LogSigmoid"),
    _operation(Reach.POINTWISE, Backward.CURVED, "hardsigmoid", "Hardsigmoid"),
    _operation(Reach.POINTWISE, Backward.CURVED, "tanh", "Tanh"),
    _operation(Reach.POINTWISE, Backward.NONE, "softsign"),
    _operation(Reach.POINTWISE, Backward.ACTIVATION, "hardshrink", "Hardshrink", title="hard shrinkage"),
    _operation(Reach.POINTWISE, Backward.ACTIVATION, "softshrink", "Softshrink", title="soft shrinkage"),
    _operation(Reach.POINTWISE, Backward.NONE, "local_response_norm"),
)

_SELECTIONS = (
    _operation(Reach.POINTWISE, Backward.SELECTION, "maximum", "Maximum", title="an element-wise maximum"),
    _operation(Reach.POINTWISE, Backward.SELECTION, "minimum", "Minimum", title="an element-wise minimum"),
    _operation(Reach.POINTWISE, Backward.SELECTION, "where", "Where", title="torch.where"),
    _operation(Reach.POINTWISE, Backward.SELECTION, "masked_fill", "MaskedFill", title="masked_fill"),
    _operation(Reach.POINTWISE, Backward.SELECTION, "abs", "Abs", title="the absolute value"),
    _operation(Reach.MOVE, Backward.SELECTION, "", "CopySlices", title="an in-place operation on a view"),
    _operation(Reach.POINTWISE, Backward.NONE, "clamp_max"),
    _operation(Reach.POINTWISE, Backward.COMPARISON, "gt greater"),
    _operation(Reach.POINTWISE, Backward.COMPARISON, "lt less"),
    _operation(Reach.POINTWISE, Backward.COMPARISON, "ge greater_equal"),
    _operation(Reach.POINTWISE, Backward.COMPARISON, "le less_equal"),
    _operation(Reach.POINTWISE, Backward.COMPARISON, "sign"),
    _operation(Reach.POINTWISE, Backward.COMPARISON, "sgn"),
    _operation(Reach.POINTWISE, Backward.COMPARISON, "signbit"),
    _operation(Reach.POINTWISE, Backward.COMPARISON, "heaviside"),
    _operation(Reach.POINTWISE, Backward.NONE, "eq"),
    _operation(Reach.POINTWISE, Backward.NONE, "ne"),
)

_WINDOWS = (
    _operation(Reach.WINDOW, Backward.LINEAR, "conv2d", "Convolution MkldnnConvolution"),
    _operation(Reach.WINDOW, Backward.LINEAR, "conv_transpose2d"),
    _operation(Reach.WINDOW, Backward.LINEAR, "max_pool2d max_pool2d_with_indices", "MaxPool2D MaxPool2DWithIndices"),
    _operation(Reach.WINDOW, Backward.LINEAR, "max_pool3d", "MaxPool3DWithIndices"),
    _operation(Reach.WINDOW, Backward.LINEAR, "", "FractionalMaxPool2D"),
    _operation(Reach.WINDOW, Backward.LINEAR, "max_unpool2d", "MaxUnpool2D"),
    _operation(Reach.WINDOW, Backward.LINEAR, "avg_pool2d", "AvgPool2D"),
    _operation(Reach.WINDOW, Backward.LINEAR, "", "AvgPool1D"),
    _operation(Reach.WINDOW, Backward.LINEAR, "", "AvgPool3D"),
    _operation(Reach.WINDOW, Backward.NONE, "lp_pool2d"),
    _operation(Reach.WINDOW, Backward.LINEAR, "", "Im2Col Col2Im Unfold"),
    _operation(
        Reach.WINDOW,
        Backward.LINEAR,
        "pad",
        """ConstantPadNd ReflectionPad1D ReflectionPad2D ReflectionPad3D ReplicationPad1D ReplicationPad2D
        ReplicationPad3D""",
    ),
    _operation(Reach.RESAMPLING, Backward.LINEAR, "adaptive_avg_pool2d", "AdaptiveAvgPool2D MkldnnAdaptiveAvgPool2D"),
    _operation(Reach.RESAMPLING, Backward.LINEAR, "adaptive_max_pool2d", "AdaptiveMaxPool2D"),
    _operation(
        Reach.RESAMPLING,
        Backward.LINEAR,
        "interpolate",
        """UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D UpsampleNearestExact1D UpsampleNearestExact2D
        UpsampleNearestExact3D UpsampleLinear1D UpsampleBilinear2D UpsampleBicubic2D UpsampleTrilinear3D
        UpsampleBilinear2DAa UpsampleBicubic2DAa""",
    ),
    _operation(Reach.RESAMPLING, Backward.LINEAR, "", "GridSampler2D GridSampler3D"),
    _operation(Reach.MATRIX, Backward.LINEAR, "", "AffineGridGenerator"),
)

_MIXING = (
    _operation(Reach.NOISE, Backward.LINEAR, "dropout", "NativeDropout FusedDropout"),
    _operation(Reach.NOISE, Backward.LINEAR, "dropout2d feature_dropout"),
    _operation(Reach.NOISE, Backward.LINEAR, "alpha_dropout"),
    _operation(Reach.JOIN, Backward.LINEAR, "cat concat concatenate", "Cat"),
    _operation(Reach.ALONG, Backward.LINEAR, "chunk split", "Split SplitWithSizes UnsafeSplit UnsafeSplitWithSizes"),
    _operation(Reach.ALONG, Backward.CURVED, "", "Glu"),
    _operation(Reach.ALONG, Backward.CURVED, "softmax", "Softmax"),
    _operation(Reach.ALONG, Backward.CURVED, "log_softmax", "LogSoftmax"),
    _operation(Reach.REDUCTION, Backward.LINEAR, "mean", "Mean"),
    _operation(Reach.REDUCTION, Backward.LINEAR, "sum", "Sum"),
    _operation(Reach.REDUCTION, Backward.CURVED, "amax", "Amax"),
    _operation(Reach.MATRIX, Backward.CURVED, "max", "Max"),
    _operation(Reach.MATRIX, Backward.CURVED, "", "Norm LinalgVectorNorm"),
    _operation(Reach.MATRIX, Backward.CURVED, "", "Var Std VarMean StdMean"),
    _operation(Reach.MATRIX, Backward.CURVED, "", "Logsumexp"),
    _operation(Reach.MATRIX, Backward.CURVED, "", "Prod Cumsum Cumprod"),
    # Numbers chosen by rank: where they come from stays as it is, as the switches of max pooling.
    _operation(Reach.MATRIX, Backward.CURVED, "", "Min Amin Topk Sort Kthvalue Median"),
    _operation(Reach.MATRIX, Backward.LINEAR, "", "FftR2C FftC2C FftC2R"),
    _operation(Reach.MATRIX, Backward.CURVED, "", "Cdist Trilinear"),
    _operation(
        Reach.MATRIX,
        Backward.CURVED,
        "",
        "MkldnnRnnLayer CudnnRnn MiopenRnn ThnnFusedLstmCell ThnnFusedGruCell",
    ),
    _operation(Reach.NORMALISATION, Backward.LINEAR, "batch_norm", "NativeBatchNorm CudnnBatchNorm MiopenBatchNorm"),
    _operation(Reach.NORMALISATION, Backward.CURVED, "layer_norm", "NativeLayerNorm"),
    _operation(Reach.NORMALISATION, Backward.CURVED, "group_norm", "NativeGroupNorm"),
    _operation(Reach.MATRIX, Backward.LINEAR, "linear", "Linear MkldnnLinear"),
    _operation(Reach.MATRIX, Backward.LINEAR, "", "Addmm Baddbmm Addbmm Mm Bmm Mv"),
    _operation(Reach.MATRIX, Backward.CURVED, "", "Einsum"),
    _operation(
        Reach.MATRIX,
        Backward.CURVED,
        "scaled_dot_product_attention",
        """ScaledDotProductFlashAttentionForCpu ScaledDotProductFlashAttention ScaledDotProductEfficientAttention
        ScaledDotProductFusedAttentionOverrideable""",
    ),
)

_LAYOUT = (
    _operation(Reach.RESHAPE, Backward.LINEAR, "view", "View UnsafeView"),
    _operation(Reach.RESHAPE, Backward.LINEAR, "reshape", "Reshape ReshapeAlias"),
    _operation(Reach.RESHAPE, Backward.LINEAR, "flatten", "Flatten"),
    _operation(Reach.RESHAPE, Backward.LINEAR, "unflatten"),
    _operation(Reach.RESHAPE, Backward.LINEAR, "squeeze", "Squeeze"),
    _operation(Reach.RESHAPE, Backward.LINEAR, "unsqueeze", "Unsqueeze"),
    _operation(Reach.MOVE, Backward.LINEAR, "getitem", "Select Slice Index"),
    _operation(Reach.MOVE, Backward.LINEAR, "narrow", "Narrow"),
    _operation(Reach.MOVE, Backward.LINEAR, "unbind", "Unbind"),
    _operation(Reach.MOVE, Backward.LINEAR, "permute", "Permute"),
    _operation(Reach.MOVE, Backward.LINEAR, "transpose", "T Transpose"),
    _operation(Reach.MOVE, Backward.LINEAR, "pixel_shuffle", "PixelShuffle"),
    _operation(Reach.MOVE, Backward.LINEAR, "", "PixelUnshuffle"),
    _operation(Reach.MOVE, Backward.LINEAR, "channel_shuffle", "ChannelShuffle"),
    _operation(Reach.MOVE, Backward.LINEAR, "", "Scatter ScatterAdd IndexAdd IndexCopy IndexFill Fill Zero"),
    _operation(Reach.MOVE, Backward.LINEAR, "", "ViewAsReal ViewAsComplex Complex Real Imag Conj ConjPhysical"),
    _operation(Reach.MOVE, Backward.LINEAR, "", "Rot90 Tril Triu"),
    _operation(Reach.MOVE, Backward.LINEAR, "", "Stack"),
    _operation(Reach.MOVE, Backward.LINEAR, "", "IndexSelect Gather"),
    _operation(Reach.MOVE, Backward.LINEAR, "", "Expand Repeat"),
    _operation(Reach.MOVE, Backward.LINEAR, "flip", "Flip"),
    _operation(Reach.MOVE, Backward.LINEAR, "", "Roll Diagonal AsStrided"),
    _operation(Reach.MOVE, Backward.LINEAR, "", "Alias Copy AccumulateGrad"),
)

_WITHOUT_VALUES = (
    _operation(Reach.CREATION, Backward.NONE, "new_full new_zeros new_ones new_empty new_tensor"),
    _operation(Reach.CREATION, Backward.NONE, "full_like zeros_like ones_like empty_like"),
    _operation(
        Reach.QUERY,
        Backward.NONE,
        """size dim ndimension numel nelement stride storage_offset is_floating_point is_complex is_contiguous
        element_size get_device len data_ptr is_inference is_same_size is_signed is_conj is_neg format repr get""",
    ),
    _operation(Reach.CHOICE, Backward.NONE, "nonzero argwhere"),
    _operation(Reach.CHOICE, Backward.NONE, "masked_select unique unique_consecutive"),
    _operation(Reach.CHOICE, Backward.NONE, "torchvision::nms"),
)

OPERATIONS = (
    *_RECTIFIERS, *_ACTIVATIONS, *_ARITHMETIC, *_SELECTIONS, *_WINDOWS, *_MIXING, *_LAYOUT, *_WITHOUT_VALUES,
)  # fmt: skip

BY_NAME = {name: operation for operation in OPERATIONS for name in operation.names}
"""Operations by the names of their functions."""

BY_NODE = {node: operation for operation in OPERATIONS for node in operation.nodes}
"""Operations by the names of their autograd nodes."""


def names(*groups: Reach | Backward) -> frozenset[str]:
    """Return the names of all functions that belong to one of some groups."""
    return frozenset(name for name, operation in BY_NAME.items() if {operation.reach, operation.backward} & {*groups})


def nodes(*groups: Reach | Backward) -> frozenset[str]:
    """Return the names of all autograd nodes that belong to one of some groups."""
    return frozenset(node for node, operation in BY_NODE.items() if {operation.reach, operation.backward} & {*groups})


def nodes_of(*functions: str) -> frozenset[str]:
    """Return the names of the autograd nodes of some functions."""
    return frozenset(node for function in functions for node in BY_NAME[function].nodes)
