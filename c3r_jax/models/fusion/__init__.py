"""Fusions of representations, or of decisions."""
