"""Weights from elsewhere, read and written without PyTorch."""

from c3r_jax.interop.files import read_tensors, write_tensors
from c3r_jax.interop.names import from_tensors, to_tensors
from c3r_jax.interop.torch_files import read_torch

__all__ = ["from_tensors", "read_tensors", "read_torch", "to_tensors", "write_tensors"]
