"""Fuzzers: bytes that were mutated at random, until a time is over. `make fuzz` runs them."""
