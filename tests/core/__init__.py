"""Tests of c3r_jax.core against float64 NumPy oracles (oracles.py)."""
