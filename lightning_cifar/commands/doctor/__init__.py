"""The command ``lightning-cifar doctor``: check the machine, packages and data, and print the fix of each problem."""
