"""The dry run: which layers a network has, and what each can see, from one run without data.

A network is run once on tensors without data (torch's "meta" device) while a function mode follows how every call
moves, strides and merges the two spatial axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from . import bodies, calling
from .calls import in_place, name_of, tensors
from .fields import Call, Input, TensorField, everything, extent_of, laid_evenly
from .geometry import Field, Moved
from .heads import LastOperations, last_operation
from .interruptions import orderly
from .propagation import LIKE_ANOTHER, output_field
from .quiet import quiet
from .sharing import frozen, hooked
from .surroundings import Surroundings
from .twins import twin

T = TypeVar("T")


@dataclass(frozen=True)
class Execution:
    """One execution of one module: its kind, the shape of its output without the batch, and its receptive field.

    `call` counts the executions of the same module from 1. `lies` says where units lie, and what each sees through
    windows alone (convolutions, pooling), where `field` also has the statistics and gates that they read; of channels
    last, `field` is that of the whole layer. `parts` says how many entries along the batch a picture has: more than one
    for windows or heads. `operation` is the last that gave the output its meaning (`heads`). `followed` is false where
    no call is known to lead from the picture to the output.
    """

    module: str
    call: int
    kind: str
    shape: tuple[int, ...]
    field: Field
    lies: Field
    channels_last: bool = False
    parts: int = 1
    operation: str = ""
    followed: bool = True


def trace(body: nn.Module, shape: tuple[int, int, int], call: calling.Call | None = None) -> list[Execution]:
    """Run a module on a picture of `shape` (c, h, w) without data and return the executions of its modules in order.

    The output of `call(body, picture)` comes last; the module is called plainly when that is not given.
    """
    return without_data(body, shape, call, _run)


@orderly
def without_data(
    body: nn.Module,
    shape: tuple[int, int, int],
    call: calling.Call | None,
    run: Callable[[nn.Module, Tensor, Callable[[Tensor], Any]], T],
) -> T:
    """Return what `run(body, picture, forward)` makes of a twin of a module and a picture without data.

    Falls back to a run of the module itself on real zeros where it cannot run without data.
    """
    call = call or (lambda module, x: module(x))
    first = bodies.first_float(body)
    picture = torch.zeros(1, *shape, dtype=first.dtype, device="meta")
    try:
        with Surroundings(body):
            copy = twin(body)
            return run(copy, picture, lambda x: call(copy, x))
    except Exception:  # whatever a copy without data raises, the module itself may not
        if first.is_meta:
            raise
    with frozen(body):
        return run(body, picture.new_zeros(picture.shape, device=first.device), lambda x: call(body, x))


def _run(body: nn.Module, picture: Tensor, forward: Callable[[Tensor], Any]) -> list[Execution]:
    executions = _Executions(picture)

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, _, output: executions.add(name, module, output)

    # What the body itself returns may not be the output.
    named = [(name, module) for name, module in bodies.parts(body) if name]
    # Tensors of inference mode do not know what they are views of.
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        quiet(),
        hooked((m, hook(n)) for n, m in named),
        _Fields(),
        LastOperations(),
    ):
        executions.add("", body, forward(picture))
    return executions.list


class _Executions:
    """What modules return during one run on a picture, in order."""

    def __init__(self, picture: Tensor) -> None:
        self.list: list[Execution] = []
        self.calls: dict[str, int] = {}
        self.size = extent_of(picture)
        _mark(picture, Known(TensorField(Field(), (2, 3)), TensorField(Field(), (2, 3))))

    def add(self, name: str, module: nn.Module, output: Any) -> None:
        """Note the output of a module, if it is one tensor."""
        self.calls[name] = self.calls.get(name, 0) + 1
        if not isinstance(output, Tensor):
            return
        known = _known(output)
        followed = known is not None and not known.whole.empty
        units, alone = (known.whole, known.alone) if known else (TensorField(Field().over(self.size), None),) * 2
        if units.dims is None and output.ndim == 4:
            units = alone = laid_evenly(alone, output, self.size)
        swapped = units.dims is not None and units.dims[0] > units.dims[1]
        channels_last = units.dims is not None and output.ndim - 1 not in units.dims
        field = units.field.over(units.grid(output.shape)) if channels_last else units.field
        self.list.append(
            Execution(
                module=name,
                call=self.calls[name],
                kind=bodies.kind(module),
                shape=tuple(output.shape[1:]),
                field=replace(field, swapped=swapped, moved=alone.field.moved),
                channels_last=channels_last,
                lies=replace(alone.field, swapped=swapped),
                parts=output.shape[0] if output.ndim else 1,
                operation=last_operation(output),
                followed=followed,
            )
        )


@dataclass(frozen=True)
class Known:
    """What is known of a tensor's units: all that they see, and what they see through windows alone."""

    whole: TensorField
    alone: TensorField


def _mark(tensor: Tensor, known: Known) -> None:
    tensor._convscope_field = known  # type: ignore[attr-defined]


def _known(tensor: Tensor) -> Known | None:
    return getattr(tensor, "_convscope_field", None)


class _Fields(TorchFunctionMode):
    """Carry what is known of tensors from the inputs of every call to its outputs."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        read = args[:1] if name_of(func) in LIKE_ANOTHER else (args, kwargs)
        sources = [(known, t, t.shape) for t in tensors(read) if (known := _known(t)) is not None]
        output = func(*args, **kwargs)
        if not sources:
            return output
        changed = changed_unseen(func, args)
        # What has the shape of another tensor and none of its values tells nothing beside one that has some.
        if changed is None:
            sources = [source for source in sources if not source[0].whole.empty] or sources
        wholes = [(known.whole, shape) for known, _, shape in sources]
        alones = [(known.alone, shape) for known, _, shape in sources]
        name = name_of(func)
        for out in tensors(output):
            if changed is None:
                whole = Call(sources[0][1], out, args, kwargs)
                alone = replace(whole, alone=True)
                _mark(out, Known(output_field(name, wholes, whole), output_field(name, alones, alone)))
            else:
                _mark(out, Known(everything(wholes, out, Moved(name)), everything(alones, out, Moved(name))))
        if changed is not None:
            before = _known(changed)
            _mark(
                changed,
                Known(
                    _overwritten(name, before and before.whole, wholes, args, changed),
                    _overwritten(name, before and before.alone, alones, args, changed),
                ),
            )
        return output


def changed_unseen(func: Any, args: Any) -> Tensor | None:
    """Return the tensor that is changed unseen: by assignment, or by an in-place call on a view of it."""
    if getattr(func, "__name__", "") == "__setitem__":
        return args[0] if args[0]._base is None else args[0]._base
    return args[0]._base if in_place(func) and args and isinstance(args[0], Tensor) else None


def _overwritten(
    name: str, before: TensorField | None, sources: Sequence[Input], args: Any, changed: Tensor
) -> TensorField:
    """Return the field of a tensor of which a part has been written over."""
    if (before is None or before.empty) and _pastes(name, args, changed) and _known(args[1]) is not None:
        picture, shape = sources[-1]
        if picture.dims != (args[1].ndim - 2, args[1].ndim - 1):
            return everything([(picture, shape)], changed, Moved(name))
        return replace(picture, dims=(changed.ndim - 2, changed.ndim - 1))
    return everything(sources, changed, Moved(name))


def _pastes(name: str, args: Any, onto: Tensor) -> bool:
    """Whether a call copies a picture into the upper left corner of an empty one, as detectors pad theirs."""
    if name != "copy" or onto.ndim < 2 or not onto.is_contiguous():
        return False
    corner = (args[0].storage_offset() - onto.storage_offset()) % max(onto.shape[-1] * onto.shape[-2], 1) == 0
    return corner and args[0].ndim == args[1].ndim >= 2 and args[0].stride()[-2:] == onto.stride()[-2:]
