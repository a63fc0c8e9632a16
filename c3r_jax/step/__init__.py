"""One training step, its state and its optimiser; and runs on arrays in memory."""
