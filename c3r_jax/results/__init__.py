"""Recorded tables: what made each, every value by seed, how to make it again, and its Markdown."""
