"""Data sets, their preparation, and batches."""
