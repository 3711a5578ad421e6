"""Caffe's public schema, as far as networks that run need it, as message classes of protobuf.

Field names and numbers are those of Caffe's files (proto2). `data` and `double_data` of a blob are packed numbers,
which lie in the file as bytes do: declared as bytes they are read at once, however many there are.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_ENUMS = """
Phase: TRAIN 0, TEST 1
Engine: DEFAULT 0, CAFFE 1, CUDNN 2
PoolMethod: MAX 0, AVE 1, STOCHASTIC 2
RoundMode: CEIL 0, FLOOR 1
NormRegion: ACROSS_CHANNELS 0, WITHIN_CHANNEL 1
DimCheckMode: STRICT 0, PERMISSIVE 1
EltwiseOp: PROD 0, SUM 1, MAX 2
LayerType: NONE 0, ACCURACY 1, BNLL 2, CONCAT 3, CONVOLUTION 4, DATA 5, DROPOUT 6, EUCLIDEAN_LOSS 7, FLATTEN 8,
    HDF5_DATA 9, HDF5_OUTPUT 10, IM2COL 11, IMAGE_DATA 12, INFOGAIN_LOSS 13, INNER_PRODUCT 14, LRN 15,
    MULTINOMIAL_LOGISTIC_LOSS 16, POOLING 17, RELU 18, SIGMOID 19, SOFTMAX 20, SOFTMAX_LOSS 21, SPLIT 22, TANH 23,
    WINDOW_DATA 24, ELTWISE 25, POWER 26, SIGMOID_CROSS_ENTROPY_LOSS 27, HINGE_LOSS 28, MEMORY_DATA 29, ARGMAX 30,
    THRESHOLD 31, DUMMY_DATA 32, SLICE 33, MVN 34, ABSVAL 35, SILENCE 36, CONTRASTIVE_LOSS 37, EXP 38, DECONVOLUTION 39
"""

# "type name number", a star for what is repeated, "= value" for a default. Unread stands for every message whose
# contents do not matter here, such as how weights were first filled.
_MESSAGES = """
Unread:
BlobShape: int64* dim 1
BlobProto: BlobShape shape 7, bytes data 5, bytes double_data 8, int32 num 1, int32 channels 2, int32 height 3,
    int32 width 4
NetState: Phase phase 1 = TEST, int32 level 2 = 0, string* stage 3
NetStateRule: Phase phase 1, int32 min_level 2, int32 max_level 3, string* stage 4, string* not_stage 5
ParamSpec: string name 1, DimCheckMode share_mode 2, float lr_mult 3, float decay_mult 4
NetParameter: string name 1, V1LayerParameter* layers 2, string* input 3, int32* input_dim 4, bool force_backward 5,
    NetState state 6, bool debug_info 7, BlobShape* input_shape 8, LayerParameter* layer 100
LayerParameter: string name 1, string type 2, string* bottom 3, string* top 4, float* loss_weight 5, ParamSpec* param 6,
    BlobProto* blobs 7, NetStateRule* include 8, NetStateRule* exclude 9, Phase phase 10, bool* propagate_down 11,
    TransformationParameter transform_param 100, Unread loss_param 101, Unread accuracy_param 102,
    Unread argmax_param 103, ConcatParameter concat_param 104, Unread contrastive_loss_param 105,
    ConvolutionParameter convolution_param 106, DataParameter data_param 107, DropoutParameter dropout_param 108,
    DummyDataParameter dummy_data_param 109, EltwiseParameter eltwise_param 110, ExpParameter exp_param 111,
    Unread hdf5_data_param 112, Unread hdf5_output_param 113, Unread hinge_loss_param 114,
    ImageDataParameter image_data_param 115, Unread infogain_loss_param 116,
    InnerProductParameter inner_product_param 117, LRNParameter lrn_param 118,
    MemoryDataParameter memory_data_param 119, Unread mvn_param 120, PoolingParameter pooling_param 121,
    PowerParameter power_param 122, ReLUParameter relu_param 123, SigmoidParameter sigmoid_param 124,
    SoftmaxParameter softmax_param 125, SliceParameter slice_param 126, TanHParameter tanh_param 127,
    Unread threshold_param 128, DataParameter window_data_param 129, Unread python_param 130,
    PReLUParameter prelu_param 131, Unread spp_param 132, ReshapeParameter reshape_param 133,
    LogParameter log_param 134, FlattenParameter flatten_param 135, Unread reduction_param 136, Unread embed_param 137,
    Unread tile_param 138, BatchNormParameter batch_norm_param 139, ELUParameter elu_param 140,
    BiasParameter bias_param 141, ScaleParameter scale_param 142, InputParameter input_param 143,
    CropParameter crop_param 144, Unread parameter_param 145, Unread recurrent_param 146
TransformationParameter: float scale 1 = 1, bool mirror 2, uint32 crop_size 3, string mean_file 4, float* mean_value 5,
    bool force_color 6, bool force_gray 7, Unread resize_param 8, Unread noise_param 9, Unread emit_constraint 10,
    Unread distort_param 12, Unread expand_param 14
DataParameter: float scale 2, string mean_file 3, uint32 crop_size 5
ImageDataParameter: float scale 2, string mean_file 3, uint32 crop_size 5, uint32 new_height 9, uint32 new_width 10,
    bool is_color 11 = true
MemoryDataParameter: uint32 batch_size 1, uint32 channels 2, uint32 height 3, uint32 width 4
DummyDataParameter: uint32* num 2, uint32* channels 3, uint32* height 4, uint32* width 5, BlobShape* shape 6
InputParameter: BlobShape* shape 1
ConvolutionParameter: uint32 num_output 1, bool bias_term 2 = true, uint32* pad 3, uint32* kernel_size 4,
    uint32 group 5 = 1, uint32* stride 6, Unread weight_filler 7, Unread bias_filler 8, uint32 pad_h 9, uint32 pad_w 10,
    uint32 kernel_h 11, uint32 kernel_w 12, uint32 stride_h 13, uint32 stride_w 14, Engine engine 15,
    int32 axis 16 = 1, bool force_nd_im2col 17, uint32* dilation 18
PoolingParameter: PoolMethod pool 1, uint32 kernel_size 2, uint32 stride 3 = 1, uint32 pad 4 = 0, uint32 kernel_h 5,
    uint32 kernel_w 6, uint32 stride_h 7, uint32 stride_w 8, uint32 pad_h 9 = 0, uint32 pad_w 10 = 0, Engine engine 11,
    bool global_pooling 12 = false, RoundMode round_mode 13
LRNParameter: uint32 local_size 1 = 5, float alpha 2 = 1, float beta 3 = 0.75, NormRegion norm_region 4, float k 5 = 1,
    Engine engine 6
InnerProductParameter: uint32 num_output 1, bool bias_term 2 = true, Unread weight_filler 3, Unread bias_filler 4,
    int32 axis 5 = 1, bool transpose 6 = false
ConcatParameter: uint32 concat_dim 1 = 1, int32 axis 2 = 1
EltwiseParameter: EltwiseOp operation 1 = SUM, float* coeff 2, bool stable_prod_grad 3
SliceParameter: uint32 slice_dim 1 = 1, uint32* slice_point 2, int32 axis 3 = 1
BatchNormParameter: bool use_global_stats 1, float moving_average_fraction 2, float eps 3 = 0.00001
ScaleParameter: int32 axis 1 = 1, int32 num_axes 2 = 1, Unread filler 3, bool bias_term 4 = false, Unread bias_filler 5
BiasParameter: int32 axis 1 = 1, int32 num_axes 2 = 1, Unread filler 3
ReLUParameter: float negative_slope 1 = 0, Engine engine 2
PReLUParameter: Unread filler 1, bool channel_shared 2 = false
ELUParameter: float alpha 1 = 1
PowerParameter: float power 1 = 1, float scale 2 = 1, float shift 3 = 0
ExpParameter: float base 1 = -1, float scale 2 = 1, float shift 3 = 0
LogParameter: float base 1 = -1, float scale 2 = 1, float shift 3 = 0
FlattenParameter: int32 axis 1 = 1, int32 end_axis 2 = -1
ReshapeParameter: BlobShape shape 1, int32 axis 2 = 0, int32 num_axes 3 = -1
CropParameter: int32 axis 1 = 2, uint32* offset 2
SoftmaxParameter: Engine engine 1, int32 axis 2 = 1
SigmoidParameter: Engine engine 1
TanHParameter: Engine engine 1
DropoutParameter: float dropout_ratio 1 = 0.5, bool scale_train 2
V1LayerParameter: V0LayerParameter layer 1, string* bottom 2, string* top 3, string name 4, LayerType type 5,
    BlobProto* blobs 6, float* blobs_lr 7, float* weight_decay 8, ConcatParameter concat_param 9,
    ConvolutionParameter convolution_param 10, DataParameter data_param 11, DropoutParameter dropout_param 12,
    Unread hdf5_data_param 13, Unread hdf5_output_param 14, ImageDataParameter image_data_param 15,
    Unread infogain_loss_param 16, InnerProductParameter inner_product_param 17, LRNParameter lrn_param 18,
    PoolingParameter pooling_param 19, DataParameter window_data_param 20, PowerParameter power_param 21,
    MemoryDataParameter memory_data_param 22, Unread argmax_param 23, EltwiseParameter eltwise_param 24,
    Unread threshold_param 25, DummyDataParameter dummy_data_param 26, Unread accuracy_param 27,
    Unread hinge_loss_param 29, ReLUParameter relu_param 30, SliceParameter slice_param 31, NetStateRule* include 32,
    NetStateRule* exclude 33, Unread mvn_param 34, float* loss_weight 35, TransformationParameter transform_param 36,
    TanHParameter tanh_param 37, SigmoidParameter sigmoid_param 38, SoftmaxParameter softmax_param 39,
    Unread contrastive_loss_param 40, ExpParameter exp_param 41, Unread loss_param 42, string* param 1001,
    DimCheckMode* blob_share_mode 1002
V0LayerParameter: string name 1, string type 2, uint32 num_output 3, bool biasterm 4 = true, Unread weight_filler 5,
    Unread bias_filler 6, uint32 pad 7 = 0, uint32 kernelsize 8, uint32 group 9 = 1, uint32 stride 10 = 1,
    PoolMethod pool 11, float dropout_ratio 12 = 0.5, uint32 local_size 13 = 5, float alpha 14 = 1,
    float beta 15 = 0.75, float scale 17 = 1, string meanfile 18, uint32 cropsize 20, float k 22 = 1,
    BlobProto* blobs 50, float* blobs_lr 51, float* weight_decay 52, uint32 concat_dim 65 = 1
"""

_PACKAGE, _VALUES = "caffe", "Value"

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
    "uint32": _Field.TYPE_UINT32,
}


def _entries(table: str) -> dict[str, list[str]]:
    """Split a table above into names and their entries."""
    lines = table.replace("\n    ", " ").strip().splitlines()
    split = (line.split(":", 1) for line in lines)
    return {name: [entry.strip() for entry in entries.split(",") if entry.strip()] for name, entries in split}


def _add_field(message: Any, entry: str, enums: dict[str, list[str]]) -> None:
    declared, _, default = entry.partition(" = ")
    kind, name, number = declared.split()
    label = _Field.LABEL_REPEATED if kind.endswith("*") else _Field.LABEL_OPTIONAL
    kind = kind.removesuffix("*")
    field = message.field.add(name=name, number=int(number), label=label)
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _Field.TYPE_ENUM if kind in enums else _Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}" + (f".{_VALUES}" if kind in enums else "")
    if default:
        field.default_value = default


def _file() -> Any:
    """Describe the tables above as one proto2 file."""
    file = descriptor_pb2.FileDescriptorProto(name="convscope/caffe.proto", package=_PACKAGE, syntax="proto2")
    enums = _entries(_ENUMS)
    for name, entries in enums.items():
        # The names of values count as the surroundings' own: MAX is in two enums, so each has a message around it.
        enum = file.message_type.add(name=name).enum_type.add(name=_VALUES)
        for entry in entries:
            value, number = entry.split()
            enum.value.add(name=value, number=int(number))
    for name, entries in _entries(_MESSAGES).items():
        message = file.message_type.add(name=name)
        for entry in entries:
            _add_field(message, entry, enums)
    return file


# A pool of its own: an installed Caffe declares the same names in protobuf's.
_POOL = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(_file().SerializeToString())


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


BlobProto = _class("BlobProto")
LayerParameter = _class("LayerParameter")
NetParameter = _class("NetParameter")
NetState = _class("NetState")
TransformationParameter = _class("TransformationParameter")
V1LayerParameter = _class("V1LayerParameter")


def chosen(message: Any, field: str) -> str:
    """Name the value of an enum's field: `chosen(options.pooling_param, "pool")` is "MAX"."""
    return message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number[getattr(message, field)].name
