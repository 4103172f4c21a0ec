"""Which of Lightning's accelerators this machine has."""

from pytorch_lightning.accelerators import AcceleratorRegistry

from semicl.errors import SemiclError
from semicl.options import MachineOptions

_GPUS = ("cuda", "mps")
"""What Lightning's "gpu" stands for, the first that is there."""


def require_accelerator(machine: MachineOptions) -> None:
    """Look for the accelerator, before Lightning does: it would find out after logs have been written.

    Raises:
        SemiclError: it is unknown or not there.
    """
    found = available_accelerators()
    if machine.accelerator not in found:
        raise SemiclError(f"--machine.accelerator {machine.accelerator}: not found here; give {' or '.join(found)}")


def available_accelerators() -> list[str]:
    """The names that can be given."""
    there = sorted(name for name, known in AcceleratorRegistry.items() if known["accelerator"].is_available())
    return ["auto", *there, *(["gpu"] if any(name in _GPUS for name in there) else [])]
