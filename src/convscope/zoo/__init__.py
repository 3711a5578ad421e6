"""Where networks come from: those that ship with the package, and other libraries' by a prefix."""

from .loading import DEFAULT, default_for, find_device, load, names
from .runs import shipping

__all__ = ["DEFAULT", "default_for", "find_device", "load", "names", "shipping"]
