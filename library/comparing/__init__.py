"""Runs side by side: results, whether a difference is more than chance, and settings."""
