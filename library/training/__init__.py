"""The training loop and what it keeps: the latest state, the best model, the history."""
