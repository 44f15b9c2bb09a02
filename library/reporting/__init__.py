"""Evaluation results as pages: a report about one network, and a comparison of runs."""
