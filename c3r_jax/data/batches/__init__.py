"""From a source to batches: order, augmentation, crops, padding."""
