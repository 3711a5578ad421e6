"""Devices by name."""

from __future__ import annotations

import re
from textwrap import shorten

import torch

from ..errors import OptionError


def find_device(name: str | torch.device) -> torch.device:
    """Return a device that is here, by name. Raises OptionError when it is not."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" has no values
    except (RuntimeError, AssertionError) as error:
        reason = shorten(re.split(r"\. |\n", str(error))[0], 80, placeholder=" ...")
        others = ", cuda" if torch.cuda.is_available() else ""
        raise OptionError(f"there is no device {str(name)!r} here ({reason}); use cpu{others}") from None
    return device
