"""What a run computes on: processor or graphics cards, one process or many, and in which precision."""

from __future__ import annotations

import os
import platform
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from ..data.batches import Share
from ..errors import OptionError


def precision_of(asked: str, device: torch.device) -> str:
    """Return the precision that "auto" stands for: bf16 where the machine computes in it, else fp32."""
    if asked not in ("auto", "bf16", "fp16", "fp32"):
        raise OptionError(f"precision is auto, bf16, fp16 or fp32, not {asked!r}")
    if asked == "fp16" and device.type != "cuda":
        raise OptionError("fp16 trains on CUDA devices only: use bf16 or fp32")
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    if device.type != "cpu":
        return "fp32"
    fast = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return "bf16" if any(getattr(torch.cpu, name, lambda: False)() for name in fast) else "fp32"


def share_of_work() -> Share:
    """Return this process's part of the work of all that `torchrun` started."""
    return Share(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Share()


def gathered(values: list[Any]) -> list[Any]:
    """Return the values of all processes, in each of them."""
    if not dist.is_initialized():
        return values
    everyone: list[list[Any]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(everyone, values)
    return [value for values in everyone for value in values]


@contextmanager
def processes(device: torch.device) -> Generator[torch.device]:
    """Join the other processes of `torchrun`, if it started this one; the block computes on the device given."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
        # Together: one that takes its connections down early can end the other in an abort.
        dist.barrier()
    finally:
        dist.destroy_process_group()


def machine(device: torch.device, precision: str) -> str:
    """Describe what computes: processor or graphics card, versions and precision."""
    if device.type == "cuda":
        what = f"{share_of_work().world} x {torch.cuda.get_device_name(device)}"
    else:
        what = f"{_processor()}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    return f"{what}; torch {torch.__version__.split('+')[0]}, Python {platform.python_version()}, {precision}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
