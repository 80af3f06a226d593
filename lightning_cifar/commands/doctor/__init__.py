"""``lightning-cifar doctor``: checks the machine and the installed packages, and names the fix for each problem.

``findings`` holds the results. The other modules look: ``machine``, ``environment``, ``packages``, and, in a separate
process that may crash, ``library_checks`` and ``datasets``. Only ``command`` prints.
"""
