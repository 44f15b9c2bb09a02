"""Predictions become metrics with confidence intervals."""
