"""Benchmarks as people have them on disk: what each layout looks like, and how it becomes a prepared set."""
