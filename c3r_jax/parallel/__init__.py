"""Devices and processes: how batches and training states are distributed over them."""
