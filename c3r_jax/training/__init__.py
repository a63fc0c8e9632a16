"""The training loop of a run: health checks, stopping and resuming."""
