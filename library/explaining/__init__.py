"""Explanations of predictions: heatmaps, nearest training images, feature maps, kernels."""
