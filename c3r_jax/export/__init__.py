"""Trained models for other programs: StableHLO, weights and a model card."""
