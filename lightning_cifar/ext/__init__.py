"""Hand-written layers on NumPy arrays."""
