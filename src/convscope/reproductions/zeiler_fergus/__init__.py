"""Zeiler & Fergus 2013: figures 2 to 9 and tables 1 to 7 of the longer version (arXiv:1311.2901v3)."""
