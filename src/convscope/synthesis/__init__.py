"""Pictures made by the network: one optimiser over a start, a shake, a question and steps."""
