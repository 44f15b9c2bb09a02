"""Pretrained modules, layer freezing, weights and cached features."""
