"""The report of a study, or of runs that are compared."""
