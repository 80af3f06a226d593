"""The command ``lightning-cifar doctor``: what this machine has, and what to mend.

``findings`` is what is told, the other files look: ``machine``, ``environment``, ``packages``, and, in a process of
their own that may break, ``libraries`` and ``datasets``. Of all this only ``command`` prints.
"""

from lightning_cifar.doctor.command import _parser as _parser
from lightning_cifar.doctor.command import main as main
