"""Receptive fields: against gradients, against published tables, and on every classification network at hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models
from torchvision.models import regnet

from convscope import Net, load
from convscope.dry_run import Execution, trace
from convscope.geometry import Field
from oracles.receptive_field import extent, positive, supports
from test_laws import assert_same, state_of

Shape = tuple[int, int, int]
CHANNELS = 2
thorough = settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


class Do(nn.Module):
    """Any function of a module's children and its input."""

    def __init__(self, function: Callable[..., Tensor], **children: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.children())


def conv(kernel: Any = 3, stride: Any = 1, padding: Any = 1, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(CHANNELS, CHANNELS, kernel, stride, padding, **options)


def last(body: nn.Module, shape: Shape) -> Execution:
    return trace(body, shape)[-1]


def outside(body: nn.Module, shape: Shape, field: Field, *, inputs: int = 3) -> list[str]:
    """List the units that depend on pixels outside their box."""
    support, wrong = supports(body, shape, inputs=inputs), []
    for position in np.ndindex(*support.shape[:2]):
        top, left, bottom, right = field.box(position, shape[1:])
        rest = support[position].clone()
        rest[top:bottom, left:right] = False
        if rest.any():
            wrong.append(f"unit {position}: box {(top, left, bottom, right)}, support {extent(support[position])}")
    return wrong


# Random architectures


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


def half(kernel: tuple[int, int], padding: tuple[int, int]) -> tuple[int, int]:
    """Pooling allows padding up to half its kernel."""
    return min(padding[0], kernel[0] // 2), min(padding[1], kernel[1] // 2)


def within(kernel: tuple[int, int], dilation: tuple[int, int], padding: tuple[int, int]) -> tuple[int, int]:
    """Padding that no window lies in wholly."""
    y, x = (min(p, (k - 1) * d) for k, d, p in zip(kernel, dilation, padding, strict=True))
    return y, x


convolutions = st.builds(
    lambda k, s, p, d, g: conv(k, s, p, dilation=d, groups=g),
    pairs(1, 4), pairs(1, 3), pairs(0, 3), pairs(1, 2), st.sampled_from([1, 2]),
)  # fmt: skip
same_convolutions = st.builds(lambda k, d: conv(k, 1, "same", dilation=d), pairs(1, 4), pairs(1, 2))
max_pools = st.builds(
    # A dilated window might read padding alone, whose maximum is that of nothing.
    lambda k, s, p, d, c: nn.MaxPool2d(k, s, half(k, p) if d == (1, 1) else 0, d, ceil_mode=c),
    pairs(1, 3), pairs(1, 3), pairs(0, 1), pairs(1, 2), st.booleans(),
)  # fmt: skip
average_pools = st.builds(
    lambda k, s, p, c, i: nn.AvgPool2d(k, s, half(k, p), ceil_mode=c, count_include_pad=i),
    pairs(1, 3), pairs(1, 3), pairs(0, 1), st.booleans(), st.booleans(),
)  # fmt: skip
adaptive_pools = st.builds(
    lambda size, most: (nn.AdaptiveMaxPool2d if most else nn.AdaptiveAvgPool2d)(size), pairs(1, 6), st.booleans()
)
paddings = st.builds(lambda p: Do(lambda x: F.pad(x, p)), st.tuples(*[st.integers(-1, 2)] * 4))
slices = st.builds(
    lambda first, step: Do(lambda x: x[:, :, first[0] :: step[0], first[1] :: step[1]]), pairs(0, 2), pairs(1, 2)
)
residuals = st.builds(
    lambda k, d: Do(lambda x, c: x + F.relu(c(x)), c=conv(k, 1, "same", dilation=d)), pairs(1, 3), pairs(1, 2)
)
concatenations = st.builds(
    lambda k: Do(
        lambda x, c, mix: mix(torch.cat([x, c(x)], 1)), c=conv(k, 1, "same"), mix=nn.Conv2d(2 * CHANNELS, CHANNELS, 1)
    ),
    pairs(1, 4),
)
upsamplings = st.builds(
    lambda more, mode: Do(lambda x: F.interpolate(x, (x.shape[2] + more[0], x.shape[3] + more[1]), mode=mode)),
    pairs(0, 7), st.sampled_from(["nearest", "bilinear"]),
)  # fmt: skip
scalings = st.builds(
    lambda factor, mode: nn.Upsample(scale_factor=factor, mode=mode),
    st.sampled_from([1, 2, 3]), st.sampled_from(["nearest", "bilinear"]),
)  # fmt: skip
transposed = st.builds(
    lambda k, s, p, d: nn.ConvTranspose2d(CHANNELS, CHANNELS, k, s, within(k, d, p), 0, dilation=d),
    pairs(1, 4), pairs(1, 3), pairs(0, 1), pairs(1, 2),
)  # fmt: skip
excitations = st.just(None).map(lambda _: Do(lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True))))
heads = st.just(None).map(lambda _: nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * CHANNELS, 3)))
steps = (
    convolutions | same_convolutions | max_pools | average_pools | adaptive_pools | paddings | slices | residuals
    | concatenations | upsamplings | scalings | transposed | excitations
)  # fmt: skip


def fitting(parts: list[nn.Module], shape: Shape, *, largest: int = 20) -> list[nn.Module]:
    """Keep the steps that fit the size that the steps before them leave."""
    kept, x = [], torch.zeros(1, *shape, dtype=torch.float64)
    for part in parts:
        try:
            after = part.double()(x)
        except RuntimeError:
            continue
        if after.numel() > 0 and (after.ndim == 2 or max(after.shape[2:]) <= largest):
            kept, x = [*kept, part], after
    return kept


random_networks = given(st.lists(steps, min_size=1, max_size=6), heads | st.none(), pairs(6, 14))


def check_boxes(parts: list[nn.Module], tail: nn.Module | None, size: tuple[int, int]) -> None:
    shape = (CHANNELS, *size)
    kept = fitting([*parts, *([tail] if tail else [])], shape)
    body = positive(nn.Sequential(*kept))
    fields = {execution.module: execution.field for execution in trace(body, shape)}
    for index in range(len(kept)):
        assert outside(body[: index + 1], shape, fields[str(index)]) == []


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@random_networks
@settings(thorough, max_examples=40)
def test_no_unit_of_a_random_network_sees_outside_its_box(
    parts: list[nn.Module], tail: nn.Module | None, size: tuple[int, int]
) -> None:
    check_boxes(parts, tail, size)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@random_networks
@settings(thorough, max_examples=1000)
def test_no_unit_of_a_thousand_random_networks_sees_outside_its_box(
    parts: list[nn.Module], tail: nn.Module | None, size: tuple[int, int]
) -> None:
    check_boxes(parts, tail, size)


real_convolutions = st.builds(
    lambda k, s, p, d, g: conv(k, s, within(k, d, p), dilation=d, groups=g),
    pairs(1, 4), pairs(1, 3), pairs(0, 3), pairs(1, 2), st.sampled_from([1, 2]),
)  # fmt: skip


@given(st.lists(real_convolutions | average_pools, min_size=1, max_size=5), pairs(6, 18))
@thorough
def test_boxes_of_convolutions_and_average_pools_are_exact(parts: list[nn.Module], size: tuple[int, int]) -> None:
    """Each edge of a box that lies inside the picture is an edge of the support; the others lie outside it.

    (Beyond the picture a window may read padding of a deeper layer, so that less than the clipped box is seen.)
    """
    shape = (CHANNELS, *size)
    body = positive(nn.Sequential(*fitting(parts, shape)))
    field = last(body, shape).field
    support = supports(body, shape, inputs=1)
    for position in np.ndindex(*support.shape[:2]):
        box, visible = field.box(position, size), extent(support[position])
        starts = [offset + i * step for i, offset, step in zip(position, field.offset, field.step, strict=True)]
        if visible is None:  # a dilated window that reads nothing but padding
            assert any(start < 0 or start + field.size[axis] > size[axis] for axis, start in enumerate(starts))
            continue
        for axis, (start, end) in enumerate(zip(starts, size, strict=True)):
            stop = start + field.size[axis]
            assert box[axis] == max(start, 0) and box[axis + 2] == min(stop, end)
            assert visible[axis] == start if start >= 0 else visible[axis] >= 0
            assert visible[axis + 2] == stop if stop <= end else visible[axis + 2] <= end


dense_convolutions = st.builds(lambda k, p: conv(k, 1, within(k, (1, 1), p)), pairs(1, 4), pairs(0, 3))


@given(st.lists(dense_convolutions, min_size=1, max_size=4), pairs(6, 12))
@thorough
def test_boxes_of_dense_convolutions_are_exact_also_at_the_border(
    parts: list[nn.Module], size: tuple[int, int]
) -> None:
    shape = (CHANNELS, *size)
    body = positive(nn.Sequential(*fitting(parts, shape)))
    field, support = last(body, shape).field, supports(body, shape, inputs=1)
    for position in np.ndindex(*support.shape[:2]):
        assert extent(support[position]) == field.box(position, size)


TIGHT: dict[str, nn.Module] = {
    "max pool": nn.MaxPool2d(3, 2, 1),
    "max pool, dilated": nn.MaxPool2d((2, 3), (2, 1), dilation=(3, 2), ceil_mode=True),
    "Lp pool": nn.LPPool2d(2, 3, 2),
    "adaptive, whole windows": nn.AdaptiveAvgPool2d((3, 4)),
    "adaptive, one": nn.AdaptiveAvgPool2d(1),
    "slice": Do(lambda x: x[..., 1::2, 2:]),
    "nearest": nn.Upsample(scale_factor=3),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "transposed": nn.ConvTranspose2d(CHANNELS, CHANNELS, 4, 2, 1),
    "residual": Do(lambda x, c: x + c(x), c=conv(5, 1, 2)),
    "concatenation": Do(lambda x, a, b: torch.cat([a(x), b(x)], 1), a=conv(3, 1, 1), b=conv((5, 1), 1, (2, 0))),
    "channels last": Do(lambda x, c: c(x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)), c=conv()),
    "channel shuffle": Do(lambda x, c: c(x.view(len(x), 2, 1, 12, 12).transpose(1, 2).reshape(x.shape)), c=conv()),
    "one channel": Do(lambda x, c: c(torch.cat([x[:, 0][:, None], x[:, 1].unsqueeze(1)], 1)), c=conv()),
    "layer norm of channels": Do(
        lambda x, c: F.layer_norm(c(x).permute(0, 2, 3, 1), (5,)).permute(0, 3, 1, 2), c=nn.Conv2d(2, 5, 3, 1, 1)
    ),
    "batch norm and LRN": nn.Sequential(conv(), nn.BatchNorm2d(2), nn.LocalResponseNorm(2)),
    "softmax over channels": nn.Sequential(conv(), nn.Softmax(1)),
    "halves": Do(lambda x, c: torch.cat(c(x).chunk(2, 1)[::-1], 1), c=conv()),
    "mean over channels": Do(lambda x, c: x * c(x).mean(1, keepdim=True), c=conv()),
}  # fmt: skip


@pytest.mark.parametrize("name", TIGHT)
def test_boxes_of_other_local_operations_are_exact_inside(name: str) -> None:
    shape = (CHANNELS, 12, 12)
    body = positive(TIGHT[name])
    field = last(body, shape).field
    support = supports(body, shape, inputs=40)
    for position in np.ndindex(*support.shape[:2]):
        box, visible = field.box(position, shape[1:]), extent(support[position])
        if visible is None:  # nothing but padding
            continue
        for low, high in ((0, 2), (1, 3)):
            assert visible[low] == box[low] or box[low] == 0
            assert visible[high] == box[high] or box[high] == 12
            assert box[low] <= visible[low] and visible[high] <= box[high]


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        share = torch.sigmoid(x)
        return gradient * (share + x * share * (1 - share))


def _rows_moved_into_a_new_tensor(x: Tensor) -> Tensor:
    moved = torch.zeros(x.shape, dtype=x.dtype, device=x.device)
    moved[:, :, 2:] = x[:, :, :-2]
    return torch.cat([x, moved], 1)


def _rows_moved_in_place(x: Tensor, c: nn.Module) -> Tensor:
    y = c(x)
    y[:, :1].add_(x.roll(2, 2)[:, :1])
    return y


def _rows_moved_by_assignment(x: Tensor, c: nn.Module) -> Tensor:
    y = c(x)
    y[:, :, 2:] = x[:, :, :-2]
    return y


# Whatever a network does, no unit may see outside its box.
NEVER_TOO_SMALL: dict[str, nn.Module] = {
    "reflected border": nn.ReflectionPad2d(2),
    "reflected border, small kernel": nn.Sequential(nn.ReflectionPad2d(3), conv(3, 1, 0)),
    "reflecting convolution": conv(5, 1, 2, padding_mode="reflect"),
    "replicated border after a stride": nn.Sequential(conv(5, 2, 1), nn.ReplicationPad2d(1)),
    "replicating convolution": nn.Sequential(conv(5, 2, 1), conv(3, 1, 1, padding_mode="replicate")),
    "circular convolution": conv(3, 1, 1, padding_mode="circular"),
    "smaller, nearest": nn.Upsample(scale_factor=0.5),
    "smaller, nearest, uneven": nn.Upsample(size=(5, 7)),
    "smaller, bilinear": nn.Upsample(size=(5, 7), mode="bilinear"),
    "smaller, antialiased": Do(lambda x: F.interpolate(x, size=(4, 5), mode="bilinear", antialias=True)),
    "larger by 1.37, nearest": nn.Upsample(scale_factor=1.37),
    "larger by 1.37, bilinear": nn.Upsample(scale_factor=1.37, mode="bilinear"),
    "larger, corners aligned": nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    "larger, bicubic": nn.Upsample(scale_factor=2, mode="bicubic"),
    "narrow": Do(lambda x: x.narrow(2, 3, 1)),
    "split": Do(lambda x: x.split(3, 3)[1]),
    "chunk": Do(lambda x: x.chunk(2, 2)[1]),
    "a row": Do(lambda x: x[:, :, 3][:, :, None]),
    "rows moved into a new tensor": Do(_rows_moved_into_a_new_tensor),
    "rows moved in place": Do(_rows_moved_in_place, c=conv()),
    "rows moved by assignment": Do(_rows_moved_by_assignment, c=conv()),
    "one row below another": Do(lambda x, c: torch.cat([x, c(x)], 2), c=conv()),
    "kernel made from the picture": Do(
        lambda x: F.conv2d(x, x.mean((0, 2, 3))[:, None, None, None].expand(2, 2, 3, 3), padding=1)
    ),
    "batch norm of the picture's own statistics": nn.BatchNorm2d(2, track_running_stats=False),
    "instance norm": nn.InstanceNorm2d(2),
    "group norm": nn.GroupNorm(1, 2),
    "softmax over rows": nn.Softmax(2),
    "sum over rows": Do(lambda x: x.cumsum(2)),
    "transposed picture": Do(lambda x, c: c(x).transpose(2, 3) + x, c=conv()),
    "mirrored": Do(lambda x: x.flip(2)),
    "mean over windows": Do(lambda x: x.view(len(x), 2, 6, 2, 12).mean(3)),
    "folded": Do(lambda x: F.fold(F.unfold(x, 3, padding=1), x.shape[-2:], 3, padding=1)),
    "shuffled pixels": nn.PixelUnshuffle(2),
    "unpooled": Do(lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)),
    "a function of one's own": Do(lambda x, c: x + Swish.apply(c(x)), c=conv()),
    "one by one": Do(lambda x, c: torch.stack([c(one) for one in x]), c=conv()),
    "stretched thrice": nn.Sequential(nn.ConvTranspose2d(2, 2, 2, 3, 1), nn.ConvTranspose2d(2, 2, 2, 3, 1), conv(3, 3)),
}


@pytest.mark.parametrize("name", NEVER_TOO_SMALL)
def test_no_box_is_too_small(name: str) -> None:
    shape = (CHANNELS, 12, 12)
    body = positive(NEVER_TOO_SMALL[name])
    assert outside(body, shape, last(body, shape).field) == []


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(CHANNELS, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return self.attend(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape)


UNKNOWN: dict[str, nn.Module] = {
    "roll": Do(lambda x: torch.roll(x, (1, 2), (2, 3))),
    "indices out of order": Do(lambda x: x[:, :, torch.tensor([3, 1, 0, 2, 5, 4, 7, 6])][..., [2, 0, 1]]),
    "Fourier": Do(lambda x: torch.fft.ifft2(torch.fft.fft2(x) * 2).real),
    "attention": Attention(),
    "matmul": Do(lambda x: x @ x),
    "circular": conv(3, 1, 1, padding_mode="circular"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_units_of_unknown_operations_see_everything(name: str) -> None:
    shape = (CHANNELS, 8, 10) if name != "matmul" else (CHANNELS, 9, 9)
    field = last(positive(UNKNOWN[name]), shape).field
    assert field.y.shared and field.x.shared
    assert field.box((0, 0), shape[1:]) == field.box((5, 3), shape[1:]) == (0, 0, *shape[1:])


@pytest.mark.parametrize("name", ["group norm", "Fourier"])
def test_operations_that_keep_the_size_keep_step_and_centre(name: str) -> None:
    body = nn.Sequential(conv(5, 2, 1), (UNKNOWN | NEVER_TOO_SMALL)[name], conv(3, 2, 1)).double()
    first, _, then = trace(body, (CHANNELS, 20, 20))[:3]
    assert not first.field.y.shared and then.field.y.shared
    assert (then.field.step, then.field.y.centre) == ((4, 4), first.field.y.centre)


@pytest.mark.parametrize("then", [nn.Identity(), conv()], ids=["itself", "and after it"])
def test_pixels_that_become_channels_lie_in_windows(then: nn.Module) -> None:
    body = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * CHANNELS, CHANNELS, 1), then)
    axis = trace(body, (CHANNELS, 12, 12))[2].field.y
    wider = 0 if isinstance(then, nn.Identity) else 2
    assert (axis.step, axis.centre, axis.start, axis.size) == (2, 0.5, -wider, 2 + 2 * wider)


# Where units lie when pixels move


def _halves_swapped(x: Tensor) -> Tensor:
    return torch.cat([x[..., 6:], x[..., :6]], 3)


def _blocks_swapped(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c, 3, h // 3, 3, w // 3).transpose(2, 4).reshape(x.shape)


def _turned_by_hand(x: Tensor) -> Tensor:
    return F.grid_sample(
        x, F.affine_grid(x.new_tensor([[[-1.0, 0, 0], [0, 1, 0]]]).expand(len(x), 2, 3), list(x.shape))
    )


# What moves pixels and is followed exactly.
FOLLOWED: dict[str, Callable[[Tensor], Tensor]] = {
    "flip": lambda x: x.flip(3),
    "flip of both": lambda x: torch.flip(x, dims=(-2, -1)),
    "rot90": lambda x: torch.rot90(x, 1, (2, 3)),
    "rot90 twice": lambda x: x.rot90(2, (2, 3)),
    "rot90 backwards": lambda x: x.rot90(-1, (-2, -1)),
    "mT": lambda x: x.mT,
    "mH": lambda x: x.mH,
    "swapaxes": lambda x: x.swapaxes(2, 3),
    "swapdims": lambda x: torch.swapdims(x, -1, -2),
    "transpose": lambda x: x.transpose(-2, -1),
    "permute": lambda x: x.permute(0, 1, 3, 2),
    "movedim": lambda x: x.movedim(3, 2),
    "channels last, swapped, and back": lambda x: x.permute(0, 3, 2, 1).flip(1).permute(0, 3, 1, 2),
    "columns by index": lambda x: x[..., torch.arange(x.shape[3] - 1, -1, -1)],
    "rows by a list": lambda x: x[:, :, list(range(x.shape[2]))[::-1]],
    "index_select": lambda x: x.index_select(2, torch.arange(x.shape[2] - 1, -1, -1)),
    "every other by index": lambda x: x[..., torch.arange(1, x.shape[3], 2)],
    "slices": lambda x: x[:, :, 2::2, 1:-1],
    "cropped": lambda x: x[..., :-1, :-2],
    "narrow": lambda x: x.narrow(2, 3, 6),
    "split": lambda x: x.split(7, 3)[0],
    "second chunk": lambda x: x.chunk(2, 2)[1],
    "padded unevenly": lambda x: F.pad(x, (0, 3, 2, 1)),
    "padded, channels last": lambda x: F.pad(x.permute(0, 2, 3, 1), (0, 0, 3, 0, 0, 2)).permute(0, 3, 1, 2),
    "stacked planes": lambda x: torch.stack([x[:, k] for k in range(x.shape[1])], 1).flip(2),
    "there and back": lambda x: x.flip(2).mT.flip(3).mT,
    "pixels shuffled and back": lambda x: F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2).flip(3),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic").flip(2),
    "corners aligned": lambda x: F.interpolate(x, size=(23, 31), mode="bilinear", align_corners=True),
    "nearest-exact": lambda x: F.interpolate(x, size=(9, 20), mode="nearest-exact"),
}

# What moves pixels so that a unit's place is not known.
NOT_FOLLOWED: dict[str, Callable[[Tensor], Tensor]] = {
    "columns in any order": lambda x: x[..., [3, 1, 2, 0, *range(11, 3, -1), *range(12, x.shape[3])]],
    "gathered": lambda x: x.gather(3, torch.arange(x.shape[3] - 1, -1, -1).expand(x.shape)),
    "grid_sample": _turned_by_hand,
    "halves swapped": _halves_swapped,
    "blocks swapped": _blocks_swapped,
    "sorted": lambda x: x.sort(3).values,
    "beside its mirror image": lambda x: x + x.flip(3),
    "left beside right": lambda x: torch.cat([x[:, :1, :, :6], x[:, 1:, :, 6:12]], 1),
    "rolled as one row": lambda x: x.roll(5),
}

ASYMMETRIC = {"kernel_size": (5, 3), "stride": (1, 2), "padding": (1, 2)}


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_unit_lies_where_its_gradient_does_when_pixels_move(name: str) -> None:
    """Behind a convolution of another height than width, which must not be taken along the wrong axis."""
    shape = (CHANNELS, 12, 18)
    body = Do(lambda x, c: c(FOLLOWED[name](x)), c=nn.Conv2d(CHANNELS, CHANNELS, **ASYMMETRIC))
    positive(body)
    step = last(body, shape)
    assert step.lies.moved is None and outside(body, shape, step.field) == []
    support = supports(body, shape, inputs=1)
    boxes = {(int(y), int(x)): extent(support[y, x]) for y, x in np.ndindex(*support.shape[:2])}
    for which, axis in enumerate((step.lies.y, step.lies.x)):
        spans = {at: (box[which], box[which + 2]) for at, box in boxes.items() if box}
        largest = max(high - low for low, high in spans.values())
        for at, (low, high) in spans.items():
            if high - low == largest:  # not cut by an edge, of the picture or inside
                place = axis.centre + step.lies.along(at)[which] * axis.step
                assert abs(place - (low + high - 1) / 2) <= 0.5 + 1e-9


@pytest.mark.parametrize("name", NOT_FOLLOWED)
def test_where_units_lie_is_unknown_and_never_taken_for_granted(name: str) -> None:
    shape = (CHANNELS, 12, 18)
    body = positive(Do(lambda x, c: c(NOT_FOLLOWED[name](x)), c=conv()))
    step = last(body, shape)
    assert step.lies.moved is not None
    assert outside(body, shape, step.field) == []


def test_rolled_units_lie_within_the_picture_and_come_back() -> None:
    body = nn.Sequential(conv(3, 2, 1), Do(lambda x: x.roll((3, -1), (2, 3))), Do(lambda x: x.roll((-3, 1), (2, 3))))
    first, there, back = trace(body.double(), (CHANNELS, 12, 12))[:3]
    assert there.lies.y.positions(6) == [6, 8, 10, 0, 2, 4] and there.lies.x.positions(6) == [2, 4, 6, 8, 10, 0]
    assert back.lies == first.lies
    assert there.field.y.shared and there.field.x.shared, "at the seam a unit sees both ends"
    assert (
        outside(positive(nn.Sequential(*body, conv())), (CHANNELS, 12, 12), last(body, (CHANNELS, 12, 12)).field) == []
    )


def test_an_index_that_is_a_buffer_is_read() -> None:
    class Mirror(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("order", torch.arange(11, -1, -1))

        def forward(self, x: Tensor) -> Tensor:
            return x[..., self.order]

    assert last(nn.Sequential(Mirror(), conv()), (CHANNELS, 12, 12)).lies.x.step == -1


def test_a_unit_that_the_picture_itself_moves_is_told_apart() -> None:
    class Turns(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            turn = x.mean((1, 2, 3))[:, None, None] * torch.ones(2, 3)
            return F.grid_sample(x, F.affine_grid(turn, list(x.shape)))

    moved = [last(body, (CHANNELS, 12, 12)).lies.moved for body in (Turns(), Do(_turned_by_hand))]
    assert [(one.operation, one.by_picture) for one in moved if one] == [("grid_sample", True), ("grid_sample", False)]


# Normalisations and gates that read the whole map

WHOLE_MAP: dict[str, Callable[[], nn.Module]] = {
    "group norm": lambda: nn.GroupNorm(1, CHANNELS),
    "instance norm": lambda: nn.InstanceNorm2d(CHANNELS),
    "layer norm": lambda: nn.LayerNorm([CHANNELS, 6, 9]),
    "batch norm of the picture": lambda: nn.BatchNorm2d(CHANNELS, track_running_stats=False),
    "squeeze and excitation": lambda: Do(lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True))),
    "softmax over positions": lambda: Do(lambda x: x.softmax(3)),
    "global response normalisation": lambda: Do(lambda x: x * x.norm(2, dim=(2, 3), keepdim=True) + x),
    "standardised by hand": lambda: Do(lambda x: (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)),
    "strips": lambda: Do(lambda x: x * (x.mean(3, keepdim=True) + x.mean(2, keepdim=True)).sigmoid()),
    "pooled beside it": lambda: Do(
        lambda x: x + F.interpolate(F.adaptive_avg_pool2d(x, 1), x.shape[2:], mode="bilinear", align_corners=False)
    ),
}


@pytest.mark.parametrize("name", WHOLE_MAP)
def test_the_field_of_the_convolutions_stands_beside_everything(name: str) -> None:
    body, shape = nn.Sequential(conv(3, 2, 1), WHOLE_MAP[name](), conv(3, 2, 1)).double(), (CHANNELS, 12, 18)
    plain = last(nn.Sequential(body[0], body[2]), shape)
    step = last(body, shape)
    assert step.lies == plain.field and step.field.shared
    assert step.field.box((1, 1), shape[1:]) == (0, 0, *shape[1:])


# Published tables


# Size, step and offset. VGG-16, Inception v3: Araujo, Norris & Sim, "Computing Receptive Fields of Convolutional Neural
# Networks", Distill 2019 (its AlexNet and ResNets are another library's, with other padding and strides elsewhere).
# The others follow from its recurrence by hand.
PUBLISHED: dict[str, dict[str, tuple[int, int, int]]] = {
    "alexnet": {
        "features.0": (11, 4, -2), "features.2": (19, 8, -2), "features.3": (51, 8, -18), "features.5": (67, 16, -18),
        "features.6": (99, 16, -34), "features.8": (131, 16, -50), "features.10": (163, 16, -66),
        "features.12": (195, 32, -66),
    },
    "vgg16": {
        "features.0": (3, 1, -1), "features.2": (5, 1, -2), "features.4": (6, 2, -2), "features.7": (14, 2, -6),
        "features.14": (40, 4, -18), "features.21": (92, 8, -42), "features.28": (196, 16, -90),
        "features.30": (212, 32, -90),
    },
    "resnet18": {"conv1": (7, 2, -3), "maxpool": (11, 4, -5), "layer4": (435, 32, -217)},
    "resnet50": {"layer4": (427, 32, -213)},
    "inception_v3": {"Mixed_7c": (1311, 32, -618)},
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_receptive_fields(name: str) -> None:
    with torch.device("meta"):
        net = load(f"torchvision:{name}", weights=None)
    for layer, (size, step, offset) in PUBLISHED[name].items():
        field = net.layer(layer).field
        assert (field.size, field.step, field.offset) == ((size,) * 2, (step,) * 2, (offset,) * 2), layer
        assert not field.y.shared


@pytest.fixture
def regnets_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """RegNet computes its widths with tensors: let it do so on real ones while the network itself has no data."""
    widths = regnet.BlockParams.from_init_params

    def on_cpu(*args: Any, **options: Any) -> Any:
        with torch.device("cpu"):
            return widths(*args, **options)

    monkeypatch.setattr(regnet.BlockParams, "from_init_params", on_cpu)


@pytest.mark.parametrize("name", models.list_models(module=models))
def test_every_classification_network_of_torchvision_is_followed(name: str, regnets_on_meta: None) -> None:
    with torch.device("meta"):
        net = load(f"torchvision:{name}", weights=None)
    assert net.layers[""].shape == (1000,)
    assert next(reversed(net.layers)) == "" and len(net.classes) == 1000
    spatial = [layer for layer in net.layers.values() if layer.number is not None]
    assert [layer.number for layer in spatial] == list(range(1, len(spatial) + 1))
    assert spatial[0].shape[1] <= net.size[0] and not spatial[0].field.y.shared
    for layer in spatial:
        for axis, units, side in zip((layer.field.y, layer.field.x), layer.shape[1:], net.size, strict=True):
            assert units == 1 or side / 2 <= axis.step * units <= 2 * side, "the grid must lie over the picture"


def test_squeeze_and_excitation_shares_fields_but_keeps_step_and_centre() -> None:
    """RegNet X and Y differ in nothing but squeeze and excitation (and widths)."""
    x, y = (load(f"torchvision:regnet_{kind}_400mf", weights=None) for kind in "xy")
    last_x, last_y = x.layer("trunk_output.block4"), y.layer("trunk_output.block4")
    assert not last_x.field.y.shared and last_y.field.y.shared
    assert last_y.field.step == (32, 32) == last_x.field.step
    assert last_y.field.y.centre == last_x.field.y.centre
    assert last_y.field.box((3, 3), (224, 224)) == (0, 0, 224, 224)


# How networks are run


class Asks(nn.Module):
    """Looks at its data to decide what to do, which cannot be done without data."""

    def __init__(self, body: nn.Module, objective: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.body, self.objective = body, objective

    def forward(self, x: Tensor) -> Tensor:
        self.objective(x)
        return self.body(x)


@pytest.mark.parametrize(
    "objective",
    [lambda x: x.mean().item(), lambda x: bool(x.sum() > 0), lambda x: x.detach().numpy(), lambda x: x[x > 0].sum()],
    ids=["item", "bool", "numpy", "mask"],
)
def test_a_network_that_cannot_run_without_data_is_followed_on_zeros(objective: Callable[[Tensor], Any]) -> None:
    body = nn.Sequential(conv(5, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), conv(3, 1, 1), nn.Flatten())
    shape = (CHANNELS, 17, 23)
    assert trace(Asks(body, objective), shape) == trace(Asks(body, lambda x: None), shape)
    with pytest.raises(RuntimeError):
        Asks(body, lambda x: x.mean().item())(torch.zeros(1, *shape, device="meta"))


def test_a_network_that_fails_with_and_without_data_raises_its_own_error() -> None:
    with pytest.raises(RuntimeError, match="expected input"):
        trace(nn.Conv2d(3, 3, 3), (CHANNELS, 9, 9))


@pytest.mark.parametrize("objective", [lambda x: None, lambda x: x.mean().item()], ids=["without data", "on zeros"])
def test_nothing_is_left_behind(objective: Callable[[Tensor], Any]) -> None:
    body = Asks(nn.Sequential(conv(), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Dropout(), conv()), objective)
    next(body.parameters()).grad = torch.ones(CHANNELS, CHANNELS, 3, 3)
    list(body.parameters())[1].requires_grad_(False)
    body.train()
    body.body[1].eval()
    net = Net(body, size=12)
    before, torch_state, python_state = state_of(body), torch.get_rng_state(), random.getstate()
    attributes = [set(vars(part)) for part in body.modules()]
    assert len(net.layers) == 7
    assert_same(before, state_of(body))
    assert attributes == [set(vars(part)) for part in body.modules()]
    assert torch.equal(torch_state, torch.get_rng_state()) and python_state == random.getstate()
    assert not any(hasattr(tensor, "_convscope_field") for tensor in body.state_dict(keep_vars=True).values())


def test_nothing_is_left_behind_by_a_failure() -> None:
    body = nn.Sequential(conv(), nn.Linear(5, 5))
    before = state_of(body)
    with pytest.raises(RuntimeError):
        trace(body, (CHANNELS, 12, 12))
    assert_same(before, state_of(body))


def test_half_precision_and_shared_parameters_are_followed() -> None:
    body = nn.Sequential(conv(), conv()).bfloat16()
    body[1].weight = body[0].weight
    assert [execution.field.size for execution in trace(body, (CHANNELS, 8, 8))][:2] == [(3, 3), (5, 5)]
