"""Where a network is weak: metrics of slices of a split, and accuracy on corrupted images."""
