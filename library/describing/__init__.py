"""Descriptions of a data set, a network and an input pipeline, before training."""
