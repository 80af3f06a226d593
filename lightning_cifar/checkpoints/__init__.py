"""Find, read and write checkpoints, and load trained networks from them."""
