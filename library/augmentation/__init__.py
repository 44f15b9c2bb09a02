"""Augmentations: pure functions of an image and a seed."""
