"""How many stages this machine has room for at once."""

import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path

import torch

from semicl.data.prepared import Prepared
from semicl.options import ExperimentOptions, MachineOptions
from semicl.study.plan import FINETUNE, Cell, Job

PROCESS_BYTES = 800 * 2**20
"""What a stage takes before its first batch: Python, torch, MONAI, Lightning."""

MAPS_A_LEVEL = 10
"""Maps of each level that are kept for the backward pass, encoder and decoder together."""

COPIES_OF_WEIGHTS = 5
"""The weights, their gradient, Adam's two moments, and a copy while a checkpoint is written."""

SPARE = 0.75
"""Share of the free memory that is given out."""

FLOAT = 4
MEMORY = Path("/proc/meminfo")


def default_jobs(prepared: Prepared, experiment: ExperimentOptions, cells: Iterable[Cell]) -> int:
    """As many as torch has threads, and as fit the free memory with the largest stage of the cells in each."""
    needed = max(
        stage_bytes(prepared.grid.patch_size, experiment.network.levels, _pieces_at_once(job))
        for cell in cells
        for job in cell.training
    )
    return max(1, min(torch.get_num_threads(), int(SPARE * _free_bytes(experiment.machine) // needed)))


def stage_bytes(patch_size: Sequence[int], levels: Sequence[int], pieces: int) -> int:
    """The memory a stage may take, an estimate: the process, the weights, and the maps of so many pieces."""
    dimensions = len(patch_size)
    maps = sum(channels * prod(patch_size) // 2 ** (dimensions * level) for level, channels in enumerate(levels))
    # Of a level and the one below: two convolutions down, two up, and the transposed one between them.
    weights = sum(
        3**dimensions * (upper * lower + lower**2 + 3 * upper**2) + 2**dimensions * upper * lower
        for upper, lower in pairwise(levels)
    )
    return PROCESS_BYTES + FLOAT * (MAPS_A_LEVEL * maps * pieces + COPIES_OF_WEIGHTS * weights)


def _pieces_at_once(job: Job) -> int:
    """Slices or patches in a step: both views of them, where a stage contrasts two."""
    return int(job.config["schedule"]["batch_size"]) * (1 if job.command == FINETUNE else 2)


def _free_bytes(machine: MachineOptions) -> int:
    """Of the device that trains."""
    if machine.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    if MEMORY.is_file():
        entries = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines())
        return 1024 * int(entries["MemAvailable"].split()[0])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
