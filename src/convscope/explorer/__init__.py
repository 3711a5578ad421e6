"""The explorer: a page on one's own machine that shows what every layer, channel and unit of a network responds to."""
