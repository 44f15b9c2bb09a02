"""Hyperparameter search with Optuna, whose trials resume where they were killed."""
