"""What is measured: in full, some ten minutes on two cores, or quickly, under two."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from .measure import Task
from .problems import SHAPES, Shape, dense, hippocampus, nearly_equal, nt_xent, supcon

ALL = ("fused", "fused-bf16", "tiled", "anchors-only", "authors")
OURS = ("fused", "fused-bf16", "anchors-only")
NARROW_AND_WIDE = ("fused", "fused-bf16")
PLOTTED_CHANNELS = 128


@dataclass(frozen=True)
class Plan:
    tasks: tuple[Task, ...]
    accuracies: tuple[tuple[Shape, torch.dtype], ...]


def full_task(shape: Shape) -> Task:
    if shape.family == "dense" and shape.channels != PLOTTED_CHANNELS:
        return Task(shape, OURS, ("fused",), 8)
    if shape.family == "vectors":
        return Task(shape, ("fused", "fused-bf16", "tiled", "anchors-only"), ("fused", "anchors-only"), 3)
    if shape.family == "full":
        return Task(shape, ("fused", "anchors-only", "authors"), ("fused", "anchors-only"), 30)
    return Task(shape, ALL, ("fused", "tiled", "anchors-only", "authors"), 25)


def quick_task(shape: Shape) -> Task:
    return Task(shape, ("fused", "fused-bf16", "anchors-only"), ("fused", "anchors-only"), 6)


def accuracies(shapes: Iterable[Shape], spreads: Iterable[float]) -> tuple[tuple[Shape, torch.dtype], ...]:
    """Normal features of the shapes, and those of the first and the last within ``spreads`` of a center."""
    normal = tuple(shapes)
    near = [nearly_equal(*of) for of in itertools.product({normal[0], normal[-1]}, ("class", "one"), spreads)]
    wanted = (*normal, *sorted(near, key=lambda shape: shape.name))
    return tuple((shape, dtype) for shape in wanted for dtype in (torch.float32, torch.bfloat16))


def full() -> Plan:
    shapes = (hippocampus(16), hippocampus(32), dense(2048, 256), dense(2048, 64))
    return Plan(tuple(full_task(shape) for shape in SHAPES), accuracies(shapes, (0.1, 0.01, 0.001)))


def quick() -> Plan:
    rows = (dense(points, 128) for points in (1024, 2048, 4096, 8192))
    shapes = (hippocampus(16), hippocampus(32), nt_xent(16), supcon(256), *rows)
    return Plan(tuple(quick_task(shape) for shape in shapes), accuracies(shapes[:1], (0.01,)))


def only(plan: Plan, words: list[str]) -> Plan:
    """Return the tasks whose shape's name begins with one of the words.

    Raises:
        ValueError: if a word begins no name.
    """
    names = [task.shape.name for task in plan.tasks]
    for word in words:
        if not any(name.startswith(word) for name in names):
            raise ValueError(f"--only {word!r} begins no shape's name; there are {', '.join(names)}")
    return Plan(
        tuple(task for task in plan.tasks if any(task.shape.name.startswith(word) for word in words)),
        tuple((shape, dtype) for shape, dtype in plan.accuracies if any(shape.name.startswith(w) for w in words)),
    )
