"""Trained runs, evaluated: every modality subset, noise, shift, and the causal diagnostics."""
