"""Examples become batches: read, cached, balanced, decoded, batched."""
