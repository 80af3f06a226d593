"""A run: one training, evaluation or prediction in a folder of its own."""
