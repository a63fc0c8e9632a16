"""What the labels of a task mean: one object for each task."""
