"""Checkpoints: found, read, written, and turned into trained networks."""
