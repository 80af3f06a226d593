"""A trained network as one file: ``command`` asks, ``writing`` makes, ``reading`` opens it, ``checking`` compares."""
