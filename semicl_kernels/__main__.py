"""``python -m semicl_kernels``: what this installation can do, and a check that it does it right."""

from __future__ import annotations

import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version

import torch

from .backends import AVAILABLE, BACKENDS, available_backends, cpu
from .loss import local_contrastive_loss

CHECKED_DTYPE = torch.float32
TOLERANCE = 1e-4  # relative; a backend in working order is a hundred times closer


def installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def print_versions() -> None:
    print(f"semicl {installed_version('semicl')}, Python {platform.python_version()} on {platform.machine()}")
    for package in ("torch", "numpy", "triton"):
        print(f"  {package:<8} {installed_version(package)}")


def print_processor() -> None:
    print(f"processor: {torch.get_num_threads()} threads")
    if cpu.state() != AVAILABLE:
        return
    name, narrow = cpu.instruction_set()
    print(f"  instruction set in use: {name}; bfloat16 dot products: {'yes' if narrow else 'no'}")
    print(f"  built and supported here: {', '.join(other for other, _ in cpu.extension().instruction_sets())}")
    print(f"  peak on registers: {2e-9 * cpu.peak_multiply_adds(seconds=0.1):.0f} GFLOP/s in float32")


def loss_and_gradient(features: torch.Tensor, labels: torch.Tensor, backend: str) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = features.clone().requires_grad_()
    loss = local_contrastive_loss(leaf, labels, block_size=24, backend=backend)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach().double(), gradient.double()


def relative_error(value: torch.Tensor, exact: torch.Tensor) -> float:
    return float((value - exact).norm() / exact.norm())


def check_backends() -> bool:
    """Compare every available backend with the reference in float64 on one problem; return whether all agree."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 2, 32, 40, 44, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 1, 40, 44), generator=generator).expand(2, 2, 40, 44)
    exact = loss_and_gradient(features, labels, "reference")
    right = True
    print(f"backends, and their error against float64 ({CHECKED_DTYPE}, {labels.numel()} points):")
    for name, state in available_backends().items():
        refusal = (
            BACKENDS[name].refuses(features.device, CHECKED_DTYPE, features.shape[2], None)
            if state == AVAILABLE
            else state
        )
        if refusal is not None:
            print(f"  {name:<10} {refusal}")
            continue
        start = time.perf_counter()
        found = loss_and_gradient(features.to(CHECKED_DTYPE), labels, name)
        elapsed = time.perf_counter() - start
        errors = [relative_error(value, truth) for value, truth in zip(found, exact, strict=True)]
        agrees = all(error < TOLERANCE for error in errors)
        right &= agrees
        print(
            f"  {name:<10} {state}; loss {errors[0]:.1e}, gradient {errors[1]:.1e}, {1e3 * elapsed:.0f} ms: "
            f"{'right' if agrees else 'WRONG'}"
        )
    return right


def main() -> int:
    """Print the report; return the exit status, 1 where a backend is wrong."""
    print_versions()
    print_processor()
    return 0 if check_backends() else 1


if __name__ == "__main__":
    sys.exit(main())
