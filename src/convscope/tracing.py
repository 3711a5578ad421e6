"""Layers: every execution of every module in a network's forward pass, as the dry run finds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from . import bodies
from .dry_run import Execution
from .geometry import Field

OUTPUT = ""
"""The name of the last layer, as `named_modules` names the root."""

WHOLE_OUTPUT = "output"
"""Names the output in objectives, where a network gives one number per picture or a term reads all of it."""

PIXELS = "(pixels)"
"""What stands for the picture itself where layers are read."""

_PARAMETRIZATIONS = "parametrizations"

_MOST_EXTRA_TOKENS = 8
"""Class, distillation and register tokens that may stand before those of the patches."""


@dataclass(frozen=True)
class Layer:
    """One execution of one module in the network's forward pass.

    `name` is what `tap` reads it by; a module that runs k times is k layers, "name#1" to "name#k". `shape` is without
    the batch; `module` is the module itself; `number` says that it is the nth convolution in execution order. A layer
    (tokens, channels) of a transformer has as its last tokens one per patch: `tokens` says in how many rows and
    columns. `lies` says by steps and centres where units lie, and what each sees through windows alone (convolutions,
    pooling), where `field` also has what normalisations and gates read of the whole picture. `parts` is above 1 where a
    picture is cut into windows or heads that take several entries of the batch. `operation` is the last that gave the
    layer's numbers their meaning. `reads_picture` is false of a layer that depends on nothing but what else the network
    is given, or on constants.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    field: Field
    parameters: int
    module: nn.Module = dataclasses.field(repr=False, compare=False)
    number: int | None = None
    leaf: bool = True
    channels_last: bool = False
    tokens: tuple[int, int] | None = None
    lies: Field | None = None
    parts: int = 1
    operation: str = ""
    reads_picture: bool = True

    @property
    def title(self) -> str:
        """What messages call the layer: "layer 'conv1'", or "the output"."""
        return f"layer {self.name!r}" if self.name else "the output"

    @property
    def spatial(self) -> bool:
        """Whether the layer has channels with a height and a width, in that order."""
        return len(self.shape) == 3 and not self.channels_last

    @property
    def channelled(self) -> bool:
        """Whether the layer's first dimension is its channels: (c, h, w) or (c,)."""
        return len(self.shape) == 1 or self.spatial

    @property
    def grid(self) -> tuple[int, int]:
        """The rows and columns of a layer with spatial positions."""
        if self.tokens:
            return self.tokens
        return (self.shape[0], self.shape[1]) if self.channels_last else (self.shape[-2], self.shape[-1])

    @property
    def positions(self) -> int:
        """How many spatial positions the layer has; 0 when it has none."""
        spatial = self.parts == 1 and (self.spatial or self.channels_last or self.tokens)
        return self.grid[0] * self.grid[1] if spatial else 0

    @property
    def lattice(self) -> Field:
        """Where units lie, and what each sees through windows alone."""
        return self.lies or self.field

    @property
    def shown_field(self) -> Field:
        """The field that figures show: what units see through windows alone, unless that is no interval."""
        alone = self.lattice
        return self.field if alone.moved or alone.y.wrap or alone.x.wrap else alone

    @property
    def seen(self) -> str:
        """What each unit sees, in words: by windows alone, and that it reads the whole picture where it does."""
        alone = self.lattice
        size = "" if alone.shared else f"{alone.size[0]:g} × {alone.size[1]:g} px"
        if not self.field.shared:
            return size
        return f"the whole picture (through convolutions alone {size})" if size else "the whole picture"

    def by_position(self, activity: Tensor) -> Tensor:
        """Return a view of the layer's activity as (n, channels, rows, columns) of the picture, whatever its layout."""
        if self.tokens:
            activity = activity[:, -self.positions :].unflatten(1, self.tokens).permute(0, 3, 1, 2)
        elif self.channels_last:
            activity = activity.permute(0, 3, 1, 2)
        return activity.mT if self.lattice.swapped else activity

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.shape)) or "one number"
        return f"<Layer {self.name!r}: {self.kind}, {shape}>"


def traced_layers(body: nn.Module, executions: Sequence[Execution]) -> dict[str, Layer]:
    """Return every layer of a body by name, in the order in which they finish, from the executions of its modules."""
    modules = dict(body.named_modules())
    calls = {step.module: step.call for step in executions}
    layers: dict[str, Layer] = {}
    convolutions = 0
    patches: Execution | None = None
    for step in executions:
        module = modules[step.module]
        if _PARAMETRIZATIONS in step.module.split("."):  # it computes a weight, not an activity
            continue
        convolution = isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
        convolutions += convolution
        patches = step if convolution else patches
        name = f"{step.module}#{step.call}" if calls[step.module] > 1 else step.module
        layers[name] = _layer(name, step, module, patches, convolutions if convolution else None)
    return layers


def _layer(name: str, step: Execution, module: nn.Module, patches: Execution | None, number: int | None) -> Layer:
    tokens = _tokens(step, patches)
    return Layer(
        name=name,
        kind=_kind(module),
        shape=step.shape,
        field=step.field,
        parameters=sum(p.numel() for part in _own(module) for p in part.parameters(recurse=False)),
        module=module,
        number=number,
        leaf=_scripted(module) or all(name == _PARAMETRIZATIONS for name, _ in module.named_children()),
        channels_last=step.channels_last,
        tokens=tokens,
        lies=replace(patches.lies, moved=patches.lies.moved or step.lies.moved) if patches and tokens else step.lies,
        parts=step.parts,
        operation=step.operation,
        reads_picture=step.followed,
    )


def _kind(module: nn.Module) -> str:
    return bodies.kind(module) if _scripted(module) else parametrize.type_before_parametrizations(module).__name__


def _scripted(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def _tokens(step: Execution, patches: Execution | None) -> tuple[int, int] | None:
    """Recognise (tokens, channels): one token per position of the last convolution, after a few that have none."""
    if len(step.shape) != 2 or patches is None or len(patches.shape) != 3:
        return None
    rows, columns = patches.shape[1:]
    return (rows, columns) if 1 < rows * columns <= step.shape[0] <= rows * columns + _MOST_EXTRA_TOKENS else None


def _own(module: nn.Module) -> list[nn.Module]:
    """Return a module and what computes its parameters; of a scripted one all that is inside."""
    if _scripted(module):
        return list(module.modules())
    beside = module._modules.get(_PARAMETRIZATIONS)
    return [module, *(beside.modules() if beside is not None else ())]
