"""Incremental inference: when a part of the picture changes, recompute only what it can reach."""
