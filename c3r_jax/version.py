"""The version, which everything may read."""

__version__ = "0.1.0"
