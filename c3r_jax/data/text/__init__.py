"""Tokenisers, from files or trained, and the token ids that all of them share."""
