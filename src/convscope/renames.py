"""What had another name before 0.2.0: it keeps working until 0.3.0, with a warning that says the new name."""

from __future__ import annotations

import warnings
from typing import Any

OPTIONS = {
    "fill": "baseline",
    "space": "parametrization",
    "start": "init",
    "shake": "transform",
    "optimiser": "optimizer",
}
NAMES = {"ask": "as_objective", "Shake": "Transform", "Steps": "Optimizer"}


def warn(old: str, new: str, *, depth: int = 3) -> None:
    """Warn whoever stands `depth` calls above that something has a new name."""
    warnings.warn(f"{old} is called {new} now; the old name goes in 0.3.0", DeprecationWarning, stacklevel=depth)


def renamed(old: str, new: str) -> property:
    """Return a property that stands for an attribute or method of another name."""

    def read(owner: Any) -> Any:
        warn(old, new)
        return getattr(owner, new)

    return property(read, doc=f"The old name of `{new}`.")
