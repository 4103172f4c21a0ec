"""The ways to compute the loss that are compared, and what each is expected to need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from semicl_kernels import available_backends, local_contrastive_loss, nt_xent_loss, supervised_contrastive_loss

from . import anchors_only, authors
from .problems import TEMPERATURE, Problem, Shape, build


def fused(problem: Problem) -> Tensor:
    return ours(problem, "cpu")


def tiled(problem: Problem) -> Tensor:
    return ours(problem, "tiled")


def ours(problem: Problem, backend: str) -> Tensor:
    vectors = problem.vectors
    if vectors is not None and problem.labels is not None:
        labels = problem.labels[:, 0, 0, 0]
        return supervised_contrastive_loss(vectors, labels, temperature=TEMPERATURE, backend=backend)
    if vectors is not None:
        return nt_xent_loss(vectors[:, 0], vectors[:, 1], temperature=TEMPERATURE, backend=backend)
    return local_contrastive_loss(
        problem.features, problem.labels, temperature=TEMPERATURE, block_size=problem.block, backend=backend
    )


def no_matrix(shape: Shape, dtype: torch.dtype = torch.float32) -> int:
    return 4 * shape.feature_bytes(dtype)


def anchor_matrices(shape: Shape, dtype: torch.dtype = torch.float32) -> int:
    """Similarities and two temporaries of the largest block, one matrix kept of each."""
    cells = [block.anchors * block.points for block in shape.blocks()]
    return dtype.itemsize * (sum(cells) + 2 * max(cells, default=0)) + 4 * shape.feature_bytes(dtype)


def dense_matrices(shape: Shape, dtype: torch.dtype = torch.float32) -> int:
    """Four matrices kept of each block and four temporaries of the largest."""
    cells = [block.points**2 for block in shape.blocks()]
    return dtype.itemsize * (4 * sum(cells) + 4 * max(cells, default=0)) + 4 * shape.feature_bytes(dtype)


@dataclass(frozen=True)
class Provider:
    name: str
    title: str
    loss: Callable[[Problem], Tensor]
    expected_bytes: Callable[[Shape], int]  # extra memory, an estimate that decides whether to try
    dtype: torch.dtype = torch.float32

    def call(self, shape: Shape) -> Callable[[], None]:
        """Return a function that computes loss and gradient of the shape once."""
        problem = build(shape, self.dtype)

        def forward_backward() -> None:
            problem.features.grad = None
            self.loss(problem).backward()

        return forward_backward


PROVIDERS = {
    provider.name: provider
    for provider in (
        Provider("fused", "semicl", fused, no_matrix),
        Provider("fused-bf16", "semicl, bfloat16", fused, no_matrix, torch.bfloat16),
        Provider("tiled", "semicl, tiled PyTorch", tiled, no_matrix),
        Provider("anchors-only", "plain PyTorch", anchors_only.loss, anchor_matrices),
        Provider("authors", "the authors' algorithm", authors.loss, dense_matrices),
    )
}


def require_compiled() -> None:
    """Raise RuntimeError, with the way out, where the compiled backend that is to be measured is missing."""
    state = available_backends()["cpu"]
    if state != "available":
        raise RuntimeError(f"the benchmark measures the compiled cpu backend, but {state}")
