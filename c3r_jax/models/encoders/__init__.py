"""One encoder for each kind of modality."""
