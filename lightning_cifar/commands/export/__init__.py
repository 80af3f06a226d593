"""Export of a trained network to one file: command line, writing, reading, and comparison with the network."""
