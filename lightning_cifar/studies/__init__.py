"""Studies: a training choice, repeated over seeds, and whether the difference is real.

``spec`` reads what to compare, ``executors`` run it, ``results`` reads run folders, ``report`` tells what came out.
"""
