"""Layouts of benchmarks on disk: which files each has, and how an item is read."""
