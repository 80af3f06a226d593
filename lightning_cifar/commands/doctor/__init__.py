"""``lightning-cifar doctor``: checks the machine, the packages and the data, and prints the fix of each problem."""
