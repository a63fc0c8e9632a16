"""Weights and modes of the objective, see :mod:`c3r_jax.objective_config`."""

from c3r_jax.objective_config import INSTRUMENTS, C3RConfig

__all__ = ["INSTRUMENTS", "C3RConfig"]
