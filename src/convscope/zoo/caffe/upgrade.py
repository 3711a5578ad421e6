"""Caffe's two older schemas in today's: the same options under other names."""

from __future__ import annotations

from typing import Any

from .schema import LayerParameter, V1LayerParameter, chosen

V1_TYPES = tuple(V1LayerParameter.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_name)
"""The types that `layers` can have, in the order of Caffe's list."""

_SPELT = {
    "ABSVAL": "AbsVal", "ARGMAX": "ArgMax", "BNLL": "BNLL", "HDF5_DATA": "HDF5Data", "HDF5_OUTPUT": "HDF5Output",
    "LRN": "LRN", "MVN": "MVN", "RELU": "ReLU", "SOFTMAX_LOSS": "SoftmaxWithLoss", "TANH": "TanH",
}  # fmt: skip

_SHORT = {
    "conv": "CONVOLUTION", "pool": "POOLING", "innerproduct": "INNER_PRODUCT", "images": "IMAGE_DATA",
}  # fmt: skip

# In the oldest schema a layer's options lie beside its name: where they are today, and what they are called there.
_OPTIONS = {
    "conv": ("convolution_param", "num_output biasterm:bias_term pad kernelsize:kernel_size group stride"),
    "innerproduct": ("inner_product_param", "num_output biasterm:bias_term"),
    "pool": ("pooling_param", "pool kernelsize:kernel_size stride pad"),
    "lrn": ("lrn_param", "local_size alpha beta k"),
    "dropout": ("dropout_param", "dropout_ratio"),
    "concat": ("concat_param", "concat_dim"),
    **dict.fromkeys(
        ("data", "images", "image_data", "window_data", "hdf5_data"),
        ("transform_param", "scale meanfile:mean_file cropsize:crop_size"),
    ),
}

_NOT_KEPT = {"layer", "type", "blobs", "blobs_lr", "weight_decay", "param", "blob_share_mode"}

PADDING = "Padding"
"""A layer of the oldest schema that today is the option `pad` of the layer that reads it."""


def type_name(old: str) -> str:
    """Spell a type of an older schema as today: CONVOLUTION (V1) and conv (V0) are Convolution."""
    upper = _SHORT.get(old, old.upper())
    return _SPELT.get(upper) or "".join(word.capitalize() for word in upper.split("_"))


def upgraded(old: Any) -> Any:
    """Return a V1LayerParameter, or the V0LayerParameter in it, as today's LayerParameter, without blobs."""
    kept = {entry.name: value for entry, value in old.ListFields() if entry.name not in _NOT_KEPT}
    kind = chosen(old, "type")
    new = LayerParameter(**kept, type=type_name(kind), param=[{"name": name} for name in old.param])
    if old.HasField("layer"):
        _add_oldest(new, old.layer)
    return new


def _add_oldest(new: Any, oldest: Any) -> None:
    new.name, new.type = oldest.name, type_name(oldest.type)
    if oldest.type == "padding":
        new.convolution_param.pad.append(oldest.pad)
    where, names = _OPTIONS.get(oldest.type, ("", ""))
    for entry in names.split():
        name, _, today = entry.partition(":")
        if oldest.HasField(name):
            options, value = getattr(new, where), getattr(oldest, name)
            repeated = where == "convolution_param" and name in ("pad", "kernelsize", "stride")
            options.MergeFrom(type(options)(**{today or name: [value] if repeated else value}))


def absorb_padding(layers: list[Any]) -> None:
    """Give each padding layer's width to the convolutions and poolings that read it, which then read its bottom."""
    padding: dict[str, Any] = {}
    for layer in layers:
        source = padding.get(layer.bottom[0]) if layer.bottom else None
        if source is not None and layer.type in ("Convolution", "Pooling"):
            layer.bottom[0] = source.bottom[0]
            pad = source.convolution_param.pad
            if layer.type == "Convolution":
                layer.convolution_param.pad[:] = pad
            else:
                layer.pooling_param.pad = pad[0]
        for top in layer.top:
            padding.pop(top, None)
        if layer.type == PADDING and layer.bottom and layer.top:
            padding[layer.top[0]] = layer
