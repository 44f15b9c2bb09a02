"""Cross-validation: each image is predicted by the one network that did not train on its fold."""
