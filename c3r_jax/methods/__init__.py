"""Training methods: C3R, and published ones to compare with or to join C3R to; docs/rivals.md has the list."""
