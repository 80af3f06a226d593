"""Studies: training configurations repeated over seeds, with confidence intervals of their differences.

``spec`` reads a study, ``jobs`` lists its runs, ``local`` and ``ray_executor`` run them, ``report`` evaluates them.
"""
