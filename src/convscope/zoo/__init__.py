"""Where networks come from: those that ship with the package, and other libraries' by a prefix."""

from .loading import DEFAULT, load, names

__all__ = ["DEFAULT", "load", "names"]
