"""The ways to compute the loss that are compared on a GPU, and what each is expected to need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from semicl_kernels.backends import AVAILABLE, BACKENDS, LONGEST_SQUARE

from .. import anchors_only, authors
from ..looks import Look
from ..problems import TEMPERATURE, Problem, Shape, identities
from ..providers import anchor_matrices, dense_matrices, no_matrix, ours
from .device import Device

Loss = Callable[[], Tensor]


def never(shape: Shape, dtype: torch.dtype, device: Device) -> None:
    return None


@dataclass(frozen=True)
class Provider:
    look: Look
    prepare: Callable[[Problem, Device], Loss]  # what depends on labels and shape alone may be made beforehand
    expected_bytes: Callable[[Shape, torch.dtype], int]  # extra memory, an estimate that decides whether to try
    refuses: Callable[[Shape, torch.dtype, Device], str | None] = never
    capturable: bool = False  # as a CUDA graph: it never waits for the device


# ---- our backends ----------------------------------------------------------------------------------------------------


def prepare_ours(problem: Problem, device: Device, backend: str) -> Loss:
    return partial(ours, problem, backend)


def backend_refuses(shape: Shape, dtype: torch.dtype, device: Device, backend: str) -> str | None:
    state, bound = BACKENDS[backend].state(), LONGEST_SQUARE / TEMPERATURE
    return BACKENDS[backend].refuses(device.place, dtype, shape.channels, bound) if state == AVAILABLE else state


def own(backend: str, look: Look) -> Provider:
    return Provider(
        look, partial(prepare_ours, backend=backend), no_matrix, partial(backend_refuses, backend=backend), True
    )


# ---- the others ------------------------------------------------------------------------------------------------------


def prepare_authors(problem: Problem, device: Device) -> Loss:
    return partial(authors.loss, problem)


def prepare_anchors_only(problem: Problem, device: Device) -> Loss:
    return partial(anchors_only.loss, problem)


def one_block_loss(features: Tensor, labels: Tensor) -> Tensor:
    loss = anchors_only.block_loss(F.normalize(features, dim=2), labels)
    assert loss is not None, "every shape of one block has an anchor"
    return loss


def prepare_compiled(problem: Problem, device: Device) -> Loss:
    return partial(
        torch.compile(one_block_loss, dynamic=False, backend=device.compiler), problem.features, identities(problem)
    )


def several_blocks(shape: Shape, dtype: torch.dtype, device: Device) -> str | None:
    return None if shape.block is None else "would be compiled anew for every block's number of anchors"


def prepare_flex(problem: Problem, device: Device) -> Loss:
    from . import flex

    return flex.prepare(problem, flex.compiled())


def flex_refuses(shape: Shape, dtype: torch.dtype, device: Device) -> str | None:
    if device.place.type == "cpu":
        return "flex_attention has no backward on a CPU"
    return several_blocks(shape, dtype, device)


OWN = {"triton": own("triton", Look("semicl, Triton", "#0b6e4f")), "cuda": own("cuda", Look("semicl, CUDA", "#6fb98f"))}
PEERS = {
    "authors": Provider(Look("the authors' algorithm", "#c8553d"), prepare_authors, dense_matrices),
    "anchors-only": Provider(Look("plain PyTorch, anchor rows", "#3b6fb6"), prepare_anchors_only, anchor_matrices),
    "compiled": Provider(Look("the same, torch.compile", "#7b5ea7"), prepare_compiled, anchor_matrices, several_blocks),
    "flex": Provider(Look("flex_attention, its lse", "#c9a227"), prepare_flex, no_matrix, flex_refuses),
}
PROVIDERS = OWN | PEERS
