"""Synthetic images with known correspondence."""
