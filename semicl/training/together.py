"""Several processes that train together: started by torchrun, one for each device."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

from semicl.console import on_main_process
from semicl.errors import UsageError
from semicl.options import MachineOptions
from semicl.training.interruption import take_signals


@contextmanager
def together(machine: MachineOptions) -> Iterator[None]:
    """Join the processes that torchrun started, where several devices are asked for.

    Raises:
        UsageError: torchrun has not started as many.
    """
    devices = machine.devices
    if devices == 1:
        yield
        return
    started = os.environ.get("WORLD_SIZE") if "TORCHELASTIC_RUN_ID" in os.environ else None
    if started != str(devices):
        raise UsageError(
            f"--machine.devices takes as many as torchrun starts processes ({started or 'it has started none'}), got "
            f"{devices}; put torchrun --nproc-per-node {devices} -m in front of the command"
        )
    import torch

    on_gpu = machine.accelerator != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo")  # which Lightning takes as it is
    take_signals()
    yield
    gc.collect()  # what is left of a model holds the group, and gloo may then abort the process as it exits
    torch.distributed.destroy_process_group()


@contextmanager
def first_process_first() -> Iterator[None]:
    """What is within is done by the first process, then by the others, which find what it wrote."""
    import torch

    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    if joined and not on_main_process():
        torch.distributed.barrier()
    yield
    if joined and on_main_process():
        torch.distributed.barrier()
