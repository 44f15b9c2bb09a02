"""Predictions become metrics."""
