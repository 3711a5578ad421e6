"""Pictures made by the network: one optimiser over where it starts, how it is shaken, what is asked and how it steps."""
