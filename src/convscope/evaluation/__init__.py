"""How right a network is on labelled pictures, and what its maps show of many of them."""
