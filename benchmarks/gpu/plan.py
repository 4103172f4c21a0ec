"""What is measured, the most important first: what the time does not allow is left out from the end."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..problems import SHAPES, Shape, dense
from .providers import OWN

EAGER = (*OWN, "authors", "anchors-only")
ALL = (*EAGER, "compiled", "flex")
WIDTHS = (64, 128, 256)
PLOTTED_CHANNELS = 128
POINTS = tuple(1 << power for power in range(10, 18))
TYPES = (torch.bfloat16, torch.float32)
FULL512 = Shape("full512", "full", 1, 128, 512, 512, 8, 0.2)


@dataclass(frozen=True)
class Task:
    """A shape in one dtype, who computes it, and for how many seconds once all are warm."""

    shape: Shape
    dtype: torch.dtype
    providers: tuple[str, ...]
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.shape.name}-{str(self.dtype).removeprefix('torch.')}"


@dataclass(frozen=True)
class Plan:
    first: tuple[Task, ...]
    accuracies: tuple[tuple[Shape, torch.dtype], ...]
    host: Shape  # so small that what is timed is the host's work
    then: tuple[Task, ...]
    tests: tuple[str, ...]  # what pytest is given
    rehearsed: str  # the plan whose tasks are rehearsed while the tests run
    rehearsals: int  # processes for that
    plotted_channels: int


def full() -> Plan:
    known = {shape.name: shape for shape in SHAPES}
    sparse = [shape for shape in SHAPES if shape.family == "sparse"]
    first = [
        *(Task(shape, torch.bfloat16, EAGER, 2) for shape in sparse),
        *(Task(dense(16384, channels), torch.bfloat16, ALL, 3) for channels in (128, 64, 256)),
        Task(FULL512, torch.bfloat16, ALL, 4),
        Task(dense(4096, 128), torch.bfloat16, ALL, 2),
    ]
    most_wanted = [
        *(Task(shape, dtype, EAGER, 1) for dtype in TYPES for shape in SHAPES if shape.family == "vectors"),
        Task(known["full"], torch.bfloat16, ALL, 3),
        *(Task(dense(points, 128), torch.bfloat16, EAGER, 2) for points in POINTS),
        *(Task(shape, torch.float32, EAGER, 2) for shape in sparse),
        Task(dense(16384, 128), torch.float32, ALL, 3),
        *(Task(dense(points, 128), torch.float32, EAGER, 2) for points in POINTS),
        Task(known["full"], torch.float32, EAGER, 3),
        Task(FULL512, torch.float32, EAGER, 4),
        *(
            Task(dense(points, channels), dtype, EAGER, 1)
            for dtype in TYPES
            for channels in WIDTHS
            for points in POINTS
        ),
    ]
    taken = {task.name for task in first}
    then: dict[str, Task] = {}
    for task in most_wanted:
        if task.name not in taken:
            then.setdefault(task.name, task)
    shapes = (known["hippocampus16"], known["mmwhs16"], dense(2048, 64), dense(4096, 128), dense(2048, 256))
    return Plan(
        first=tuple(first),
        accuracies=tuple((shape, dtype) for shape in shapes for dtype in TYPES),
        host=dense(64, 32),
        then=tuple(then.values()),
        tests=(
            "tests/semicl_kernels/test_gpu.py",
            "tests/semicl_kernels/test_known_answers.py",
            "tests/semicl_kernels",
        ),
        rehearsed="full",
        rehearsals=4,
        plotted_channels=PLOTTED_CHANNELS,
    )


def small() -> tuple[Task, ...]:
    """Our backends on tiny shapes, with and without blocks: what runs under a sanitizer, which takes its time."""
    shapes = (Shape("small", "sparse", 1, 32, 12, 10, 4, 0.3, 8), dense(192, 32))
    return tuple(Task(shape, dtype, tuple(OWN), 0) for shape, dtype in zip(shapes, TYPES, strict=True))


def toy() -> Plan:
    """The whole run in little, for Triton's interpreter."""
    sparse = Shape("toy", "sparse", 1, 16, 12, 12, 3, 0.3, 8)
    return Plan(
        first=(Task(sparse, torch.bfloat16, ALL, 0.1), Task(dense(32, 16), torch.float32, ALL, 0.1)),
        accuracies=((sparse, torch.float32),),
        host=dense(16, 16),
        then=(Task(dense(64, 16), torch.float32, EAGER, 0.1),),
        tests=("tests/semicl_kernels/test_gpu.py",),
        rehearsed="toy",
        rehearsals=1,
        plotted_channels=16,
    )


def rehearsed_tasks(name: str) -> tuple[Task, ...]:
    """Return the tasks of the plan of this name: "small", "toy" or "full"."""
    if name == "small":
        return small()
    plan = toy() if name == "toy" else full()
    return plan.first + plan.then
