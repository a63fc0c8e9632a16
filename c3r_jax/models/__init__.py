"""Flax modules: encoders, fusions, heads and the twin network."""
