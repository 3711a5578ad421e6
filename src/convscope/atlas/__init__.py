"""The atlas: what excites every unit of a network over a whole data set."""
