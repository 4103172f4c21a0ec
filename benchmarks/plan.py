"""What is measured, the most important first: what the time does not allow is left out from the end."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from .problems import SHAPES, Shape, dense, hippocampus, nearly_equal, nt_xent, supcon, type_name

PLOTTED_CHANNELS = 128
TYPES = (torch.bfloat16, torch.float32)
FULL512 = Shape("full512", "full", 1, 128, 512, 512, 8, 0.2)
GPU_POINTS = tuple(1 << power for power in range(10, 18))

CPU_OURS = ("fused", "fused-bf16", "anchors-only")
CPU_VECTORS = ("fused", "fused-bf16", "tiled", "anchors-only")
CPU_ALL = (*CPU_VECTORS, "authors")
GPU_EAGER = ("triton", "cuda", "authors", "anchors-only")
GPU_ALL = (*GPU_EAGER, "compiled", "flex")


@dataclass(frozen=True)
class Task:
    """A shape in one dtype, who computes it, and for how many seconds once all are warm."""

    shape: Shape
    providers: tuple[str, ...]
    seconds: float
    dtype: torch.dtype = torch.float32

    @property
    def name(self) -> str:
        return self.shape.name + ("" if self.dtype == torch.float32 else f"-{type_name(self.dtype)}")


@dataclass(frozen=True)
class Plan:
    tasks: tuple[Task, ...]
    accuracies: tuple[tuple[Shape, torch.dtype], ...]
    minutes: float
    timeout: float  # seconds of one job
    first: int = 0  # tasks that come before checks and errors
    tests: tuple[str, ...] = ()  # what pytest is given


def accuracies(shapes: Iterable[Shape], spreads: Iterable[float]) -> tuple[tuple[Shape, torch.dtype], ...]:
    """Normal features of the shapes, and those of the first and the last within ``spreads`` of a center."""
    normal = tuple(shapes)
    near = [nearly_equal(*of) for of in itertools.product({normal[0], normal[-1]}, ("class", "one"), spreads)]
    wanted = (*normal, *sorted(near, key=lambda shape: shape.name))
    return tuple((shape, dtype) for shape in wanted for dtype in (torch.float32, torch.bfloat16))


def cpu_task(shape: Shape) -> Task:
    if shape.family == "vectors":
        return Task(shape, CPU_VECTORS, 3)
    if shape.family == "full":
        return Task(shape, ("fused", "anchors-only", "authors"), 30)
    plotted = shape.family != "dense" or shape.channels == PLOTTED_CHANNELS
    return Task(shape, CPU_ALL if plotted else CPU_OURS, 25 if plotted else 8)


def cpu(quick: bool) -> Plan:
    """Some ten minutes on two cores, or under two."""
    if not quick:
        judged = (hippocampus(16), hippocampus(32), dense(2048, 256), dense(2048, 64))
        tasks = tuple(cpu_task(shape) for shape in SHAPES)
        return Plan(tasks, accuracies(judged, (0.1, 0.01, 0.001)), float("inf"), 1800)
    rows = (dense(points, 128) for points in (1024, 2048, 4096, 8192))
    shapes = (hippocampus(16), hippocampus(32), nt_xent(16), supcon(256), *rows)
    tasks = tuple(Task(shape, CPU_OURS, 6) for shape in shapes)
    return Plan(tasks, accuracies(shapes[:1], (0.01,)), float("inf"), 1800)


def cuda(quick: bool) -> Plan:
    """Nine minutes on one GPU, or its first numbers alone."""
    known = {shape.name: shape for shape in SHAPES}
    sparse = [shape for shape in SHAPES if shape.family == "sparse"]
    vectors = [shape for shape in SHAPES if shape.family == "vectors"]
    half = torch.bfloat16
    wanted = [
        Task(hippocampus(16), GPU_EAGER, 1, half),
        Task(dense(4096, 128), GPU_EAGER, 1, half),
        Task(nt_xent(16), GPU_EAGER, 1),
        *(Task(dense(16384, channels), GPU_ALL, 2, half) for channels in (128, 64, 256)),
        *(Task(shape, GPU_EAGER, 1, half) for shape in sparse),
        Task(FULL512, GPU_ALL, 2, half),
        *(Task(shape, GPU_EAGER, 0.5, dtype) for shape in vectors for dtype in TYPES),
        Task(known["full"], GPU_ALL, 1, half),
        *(Task(dense(points, 128), GPU_EAGER, 1, half) for points in GPU_POINTS),
        *(Task(shape, GPU_EAGER, 1) for shape in sparse),
        Task(dense(16384, 128), GPU_ALL, 1),
        *(Task(dense(points, 128), GPU_EAGER, 1) for points in GPU_POINTS),
        Task(known["full"], GPU_EAGER, 1),
        Task(FULL512, GPU_EAGER, 2),
        *(Task(dense(p, c), GPU_EAGER, 0.5, dtype) for dtype in TYPES for c in (64, 128, 256) for p in GPU_POINTS),
    ]
    tasks: dict[str, Task] = {}
    for task in wanted:
        tasks.setdefault(task.name, task)
    plan = Plan(tuple(tasks.values()), accuracies((hippocampus(16),), (0.01,)), 9, 90, first=3)
    if quick:
        return replace(plan, tasks=plan.tasks[: plan.first])
    shapes = (hippocampus(16), known["mmwhs16"], dense(4096, 128), dense(2048, 64))
    tests = ("tests/semicl_kernels/test_gpu.py", "tests/semicl_kernels/test_known_answers.py", "tests/semicl_kernels")
    return replace(plan, accuracies=accuracies(shapes, (0.1, 0.01)), tests=tests)


def small() -> tuple[Task, ...]:
    """Ours on tiny shapes, with and without blocks: what runs under a sanitizer, which takes its time."""
    shapes = (Shape("small", "sparse", 1, 32, 12, 10, 4, 0.3, 8), dense(192, 32))
    return tuple(Task(shape, ("triton", "cuda"), 0, dtype) for shape, dtype in zip(shapes, TYPES, strict=True))


def interpreter(quick: bool) -> Plan:
    """The plan of a GPU in little."""
    sparse = Shape("toy", "sparse", 1, 16, 12, 12, 3, 0.3, 8)
    tasks = (
        Task(sparse, GPU_ALL, 0.1, torch.bfloat16),
        Task(dense(32, 16), GPU_ALL, 0.1),
        Task(replace(nt_xent(16), channels=16), GPU_EAGER, 0.1),
        Task(dense(64, 16), GPU_EAGER, 0.1),
    )
    plan = Plan(tasks, ((sparse, torch.float32),), 30, 300, first=1)
    return plan if quick else replace(plan, tests=("tests/semicl_kernels/test_gpu.py",))


PLANS = {"cpu": cpu, "cuda": cuda, "interpreter": interpreter}


def only(plan: Plan, words: list[str]) -> Plan:
    """Return the tasks whose shape's name begins with one of the words, without the checks.

    Raises:
        ValueError: if a word begins no name.
    """
    names = list(dict.fromkeys(task.shape.name for task in plan.tasks))
    for word in words:
        if not any(name.startswith(word) for name in names):
            raise ValueError(f"--only {word!r} begins no shape's name; there are {', '.join(names)}")
    begins = tuple(words)
    return replace(
        plan,
        tasks=tuple(task for task in plan.tasks if task.name.startswith(begins)),
        accuracies=tuple((shape, dtype) for shape, dtype in plan.accuracies if shape.name.startswith(begins)),
        tests=(),
    )
