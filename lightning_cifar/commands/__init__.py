"""The commands of the package's own, one module or folder each."""
