"""Whatever happens to a run, it loses nothing: python -m tests.chaos (docs/reliability.md)."""
