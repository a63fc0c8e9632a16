"""Each task's rules for labels, scores and reports, without JAX: one file per task."""
