"""Data sets as sources: embedded, prepared, in shards, or sampled from a structural causal model."""
