"""Slow, plain re-implementations of the papers, written without the code that they are compared with."""
