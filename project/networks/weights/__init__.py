"""Weights that are part of the project, and the scripts that made them."""
