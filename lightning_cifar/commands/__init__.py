"""Commands of this package, one module or folder each."""
