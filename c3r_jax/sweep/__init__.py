"""Ablation studies: many small runs as one compiled program."""
