"""Layers by hand on NumPy arrays."""
