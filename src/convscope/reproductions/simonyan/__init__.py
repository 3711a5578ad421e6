"""Simonyan, Vedaldi and Zisserman 2013: class models, saliency, localisation, and the deconvnet (arXiv:1312.6034v2)."""
