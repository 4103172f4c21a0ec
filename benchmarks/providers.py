"""The ways to compute the loss that are compared, and what each is expected to need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from semicl_kernels import local_contrastive_loss, nt_xent_loss, supervised_contrastive_loss
from semicl_kernels.backends import AVAILABLE, BACKENDS, MAX_SQUARED_NORM

from . import anchors_only, authors, flex
from .problems import TEMPERATURE, Problem, Shape, identities

Loss = Callable[[], Tensor]
Refusal = Callable[[Shape, torch.dtype, torch.device], str | None]


@dataclass(frozen=True)
class Provider:
    title: str
    color: str
    prepare: Callable[[Problem], Loss]  # what depends on labels and shape alone may be made beforehand
    expected_bytes: Callable[[Shape, torch.dtype], int]  # extra memory, an estimate that decides whether to try
    refuses: Refusal
    dtype: torch.dtype | None = None  # its own, where it is not the task's
    backend: str | None = None  # of ours
    compiles: bool = False

    def call(self, problem: Problem) -> Callable[[], tuple[Tensor, Tensor]]:
        """Return a function that computes loss and gradient once."""
        loss = self.prepare(problem)

        def forward_backward() -> tuple[Tensor, Tensor]:
            value = loss()
            return value.detach(), torch.autograd.grad(value, problem.features)[0]

        return forward_backward


# ---- ours ------------------------------------------------------------------------------------------------------------


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


def backend_refuses(shape: Shape, dtype: torch.dtype, device: torch.device, backend: str) -> str | None:
    state = BACKENDS[backend].state()
    bound = MAX_SQUARED_NORM / TEMPERATURE  # of unit vectors, as the loss makes them
    return BACKENDS[backend].refuses(device, dtype, shape.channels, bound) if state == AVAILABLE else state


def own(backend: str, title: str, color: str, dtype: torch.dtype | None = None) -> Provider:
    prepare = partial(partial, ours, backend=backend)
    compiles = backend in ("triton", "cuda")
    refuses = partial(backend_refuses, backend=backend)
    return Provider(title, color, prepare, no_matrix, refuses, dtype, backend, compiles)


# ---- the others ------------------------------------------------------------------------------------------------------


def never(shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
    return None


def several_blocks(shape: Shape, dtype: torch.dtype, device: torch.device) -> str | None:
    return None if shape.block is None else "would be compiled anew for every block's number of anchors"


def flex_refuses(shape: Shape, dtype: torch.dtype, device: torch.device) -> str | None:
    return "flex_attention has no backward on a CPU" if device.type == "cpu" else several_blocks(shape, dtype, device)


def one_block_loss(features: Tensor, labels: Tensor) -> Tensor:
    loss = anchors_only.block_loss(F.normalize(features, dim=2), labels)
    assert loss is not None, "every shape of one block has an anchor"
    return loss


def prepare_compiled(problem: Problem) -> Loss:
    torch.compiler.reset()  # else torch stops compiling after some shapes
    compiler = "inductor" if problem.features.is_cuda else "aot_eager"
    compiled = torch.compile(one_block_loss, dynamic=False, backend=compiler)
    return partial(compiled, problem.features, identities(problem))


def prepare_flex(problem: Problem) -> Loss:
    return flex.prepare(problem, flex.compiled())


# ---- memory ----------------------------------------------------------------------------------------------------------


def no_matrix(shape: Shape, dtype: torch.dtype) -> int:
    return 4 * shape.feature_bytes(dtype)


def anchor_matrices(shape: Shape, dtype: torch.dtype) -> int:
    """Similarities and two temporaries of the largest block, one matrix kept of each."""
    cells = [block.anchors * block.points for block in shape.blocks()]
    return dtype.itemsize * (sum(cells) + 2 * max(cells, default=0)) + 4 * shape.feature_bytes(dtype)


def dense_matrices(shape: Shape, dtype: torch.dtype) -> int:
    """Four matrices kept of each block and four temporaries of the largest."""
    cells = [block.points**2 for block in shape.blocks()]
    return dtype.itemsize * (4 * sum(cells) + 4 * max(cells, default=0)) + 4 * shape.feature_bytes(dtype)


PROVIDERS = {
    "fused": own("cpu", "semicl", "#0b6e4f"),
    "fused-bf16": own("cpu", "semicl, bfloat16", "#6fb98f", torch.bfloat16),
    "triton": own("triton", "semicl, Triton", "#0b6e4f"),
    "cuda": own("cuda", "semicl, CUDA", "#6fb98f"),
    "tiled": own("tiled", "semicl, tiled PyTorch", "#8a8d91"),
    "anchors-only": Provider("plain PyTorch", "#3b6fb6", partial(partial, anchors_only.loss), anchor_matrices, never),
    "authors": Provider("naive", "#c8553d", partial(partial, authors.loss), dense_matrices, never),
    "compiled": Provider(
        "plain PyTorch, compiled", "#7b5ea7", prepare_compiled, anchor_matrices, several_blocks, compiles=True
    ),
    "flex": Provider("flex_attention", "#c9a227", prepare_flex, no_matrix, flex_refuses, compiles=True),
}
