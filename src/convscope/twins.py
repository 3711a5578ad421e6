"""Twins: a copy of a module whose parameters and buffers are without data, so that a dry run touches nothing of it.

A twin has the module's own classes and attributes, and costs no memory: its tensors are on torch's "meta" device. What
a pass writes, to attributes and caches, is written to the twin and goes with it; other threads may use the module.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

_VALUES = "_convscope_values"
_CONTAINERS = (dict, OrderedDict, list, set, tuple)


def twin(body: nn.Module) -> nn.Module:
    """Return a copy of a module in eval mode, without data and without gradients.

    Scripted modules are shared with the original, and so are attributes other than tensors, modules, their methods and
    containers of those.
    """
    modules = [module for module in body.modules() if not isinstance(module, torch.jit.ScriptModule)]
    copies: dict[int, Any] = {id(module): object.__new__(type(module)) for module in modules}
    for module in modules:
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None and id(tensor) not in copies:
                copies[id(tensor)] = _without_data(tensor)
    for module in modules:
        attributes = {name: _copied(value, copies) for name, value in dict(vars(module)).items()}
        vars(copies[id(module)]).update(attributes | {"training": False})
        _decompile(copies[id(module)])
    return copies.get(id(body), body)


def _decompile(copy: nn.Module) -> None:
    """Let a twin run as it was written: what `torch.compile` made belongs to the original."""
    if vars(copy).get("_compiled_call_impl") is not None:
        vars(copy)["_compiled_call_impl"] = None
    if "dynamo_ctx" in vars(copy):
        vars(copy)["forward"] = copy._modules["_orig_mod"]


def known_values(tensor: Tensor) -> Tensor | None:
    """Return a tensor's numbers, those of the original where it is a twin's whole numbers; None where it has none."""
    return getattr(tensor, _VALUES, None) if tensor.is_meta else tensor


def _without_data(tensor: Tensor) -> Tensor:
    copy = tensor.detach().to("meta")
    if not tensor.is_floating_point():  # an index: a dry run asks what it takes
        setattr(copy, _VALUES, tensor.detach())
    return copy


def _copied(value: Any, copies: dict[int, Any]) -> Any:
    """Return what stands for an attribute's value in the twin; `copies` has that of everything copied so far, by id."""
    if id(value) in copies:
        return copies[id(value)]
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, MethodType):
        return MethodType(value.__func__, _copied(value.__self__, copies))
    if isinstance(value, partial):
        return partial(_copied(value.func, copies), *_copied(value.args, copies), **_copied(value.keywords, copies))
    return _copied_container(value, copies) if type(value) in _CONTAINERS else value


def _copied_container(value: Any, copies: dict[int, Any]) -> Any:
    if isinstance(value, tuple):
        return tuple(_copied(item, copies) for item in value)
    copy = copies[id(value)] = type(value)()
    if isinstance(value, dict):
        copy.update({key: _copied(item, copies) for key, item in dict(value).items()})
    else:
        items = [_copied(item, copies) for item in type(value)(value)]
        copy.extend(items) if isinstance(copy, list) else copy.update(items)
    return copy
