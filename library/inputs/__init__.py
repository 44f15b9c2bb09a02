"""How examples become batches: decoding, augmenting, balancing, caching. No room for taste here."""
