"""Pictures made by the network: one optimiser over a start, a transform, an objective and steps."""
