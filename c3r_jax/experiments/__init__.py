"""A run, built from its configuration: data, model, method, compiled functions, workdir and checkpoints."""
