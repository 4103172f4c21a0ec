"""Errors of loss and gradient against float64, beside those of plain PyTorch in the same dtype.

Plain PyTorch is the backend "reference" here, matrix, masks and all: the positive term collapsed to sums of classes, as
in anchors_only.py, is faster, but loses the gradient's digits where the features of a class are nearly equal.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from .problems import TEMPERATURE, Problem, Shape, build, type_name
from .providers import ours

# Below these both are as exact as the dtype can tell, and their ratio says nothing: the rounding of one stored number.
FLOOR = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-9}


@dataclass(frozen=True)
class Error:
    loss: float  # relative
    gradient: float  # relative L2 of the whole gradient

    def over(self, plain: Error, floor: float, loss: float) -> tuple[float, float]:
        """This error in units of the plain one, of the ``loss`` and of its gradient.

        A loss is the difference of two numbers of the similarities' size, up to 1 / temperature, each rounded.
        """
        floor_of_loss = floor * max(1.0, 1 / (TEMPERATURE * loss))
        return self.loss / max(plain.loss, floor_of_loss), self.gradient / max(plain.gradient, floor)


def value_and_gradient(backend: str, problem: Problem) -> tuple[Tensor, Tensor]:
    value = ours(problem, backend)
    (gradient,) = torch.autograd.grad(value, problem.features)
    return value.detach().double(), gradient.double()


def error(found: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> Error:
    loss, gradient = ((one - right).norm() / right.norm() for one, right in zip(found, exact, strict=True))
    return Error(float(loss), float(gradient))


def compare(shape: Shape, dtype: torch.dtype, backend: str, device: torch.device | str = "cpu") -> dict[str, object]:
    """Return both errors of one shape, and those of our ``backend`` over plain PyTorch's."""
    problem = build(shape, dtype, device)
    wide = Problem(problem.features.detach().double().requires_grad_(), problem.labels, problem.block)
    exact = value_and_gradient("reference", wide)
    own = error(value_and_gradient(backend, problem), exact)
    plain = error(value_and_gradient("reference", problem), exact)
    loss_ratio, gradient_ratio = own.over(plain, FLOOR[dtype], float(exact[0]))
    return {
        "shape": shape.name,
        "dtype": type_name(dtype),
        "backend": backend,
        "fused": asdict(own),
        "plain": asdict(plain),
        "loss_ratio": loss_ratio,
        "gradient_ratio": gradient_ratio,
    }
