"""``lightning-cifar completion``."""
