"""From a benchmark on disk to a prepared set of shards."""
