"""Corrupted inputs: noise, missing and misaligned modalities, and published evaluation protocols."""
