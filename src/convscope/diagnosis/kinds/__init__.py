"""Kinds of findings, a module each: `kinds.py` beside this folder says what a kind is."""
