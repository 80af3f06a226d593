"""The command ``lightning-cifar explain``."""
