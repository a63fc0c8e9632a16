"""Scores of predictions on NumPy arrays, their names, and confidence intervals."""
