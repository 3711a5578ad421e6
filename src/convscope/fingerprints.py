"""Numbers of a body: their hash, and that they are finite."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .errors import WeightsError


def marks(state: Iterable[tuple[str, Tensor]]) -> tuple[Any, ...]:
    """Return what tells a quick look whether weights have changed.

    A sum and a sample see changes that bypass autograd's version counter, such as `parameter.data += 1`.
    """
    return tuple((t.data_ptr(), t._version, float(t.detach().sum()), bytes(_bytes(_sample(t)))) for _, t in state)


def sha256(state: Iterable[tuple[str, Tensor]]) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of names and values."""
    whole = hashlib.sha256()
    for name, value in state:
        whole.update(name.encode())
        whole.update(_bytes(value))
    return whole.hexdigest()[:16]


def _sample(tensor: Tensor) -> Tensor:
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // 64)]


def _bytes(tensor: Tensor) -> Any:
    flat = tensor.detach().contiguous().cpu().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""


def check_finite(body: nn.Module, name: str) -> None:
    """Refuse weights that are NaN or infinite, and say which."""
    bad = [key for key, value in body.named_parameters() if value.is_floating_point() and not _finite(value)]
    bad += [key for key, value in body.named_buffers() if value.is_floating_point() and not _finite(value)]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise WeightsError(
            f"{name} has NaN or infinite weights in {', '.join(bad[:3])}{more}: its maps would mean nothing"
        )


def _finite(value: Tensor) -> bool:
    # One reduction instead of a mask of the weights' size: a sum is finite only when (almost) every term is.
    if value.is_meta or value.numel() == 0 or bool(torch.isfinite(value.detach().sum())):
        return True
    return bool(torch.isfinite(value).all())
