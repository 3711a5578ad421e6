"""Caffe networks: a definition (.prototxt), its weights (.caffemodel) and its mean (.binaryproto)."""
