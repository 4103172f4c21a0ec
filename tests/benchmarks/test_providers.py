import pytest
import torch

from benchmarks.accuracy import value_and_gradient
from benchmarks.problems import Problem, Shape, build, dense, nt_xent, supcon
from benchmarks.providers import PROVIDERS

SHAPES = (
    Shape("sparse", "sparse", 2, 16, 24, 20, 4, 0.2, 8),  # ragged blocks, some without an anchor
    Shape("full", "full", 1, 16, 20, 20, 3, 0.3),
    dense(1024, 16),
    nt_xent(16),
    supcon(64),
)
ON_CPU = ("fused", "fused-bf16", "tiled", "anchors-only", "authors")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("name", ON_CPU)
def test_all_compute_the_loss_of_the_reference(name, shape):
    provider = PROVIDERS[name]
    dtype = provider.dtype or torch.float32
    problem = build(shape, dtype)
    wide = Problem(problem.features.detach().double().requires_grad_(), problem.labels, problem.block)
    exact, exact_gradient = value_and_gradient("reference", wide)
    value, gradient = provider.call(problem)()
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
    assert abs(float(value / exact) - 1) < tolerance
    assert float((gradient - exact_gradient).norm() / exact_gradient.norm()) < tolerance


def test_expected_memory_grows_as_the_code_does():
    small, large = (dense(points, 128) for points in (1024, 4096))
    fused, authors = (
        PROVIDERS[name].expected_bytes(large, torch.float32) / PROVIDERS[name].expected_bytes(small, torch.float32)
        for name in ("fused", "authors")
    )
    assert fused == 4
    assert authors > 12
