"""Readers of labeled files, one per kind of source."""
