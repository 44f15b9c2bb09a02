"""Checkpoints and snapshots: whole or not at all."""
