"""A run: one training, evaluation or prediction in its own folder."""
