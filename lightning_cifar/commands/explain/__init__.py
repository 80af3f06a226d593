"""``lightning-cifar explain``."""
