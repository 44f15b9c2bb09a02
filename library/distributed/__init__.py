"""Training by several workers, on several machines: see docs/cluster.md."""
