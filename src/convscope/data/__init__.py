"""Data: pictures in."""
