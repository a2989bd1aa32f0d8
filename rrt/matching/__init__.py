"""Matches between the local descriptors of two images."""
