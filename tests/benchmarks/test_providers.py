import pytest
import torch

from benchmarks.accuracy import value_and_gradient
from benchmarks.problems import Problem, Shape, build, dense, nt_xent, supcon
from benchmarks.providers import PROVIDERS, ours

SHAPES = (
    Shape("sparse", "sparse", 2, 16, 24, 20, 4, 0.2, 8),  # ragged blocks, some without an anchor
    Shape("full", "full", 1, 16, 20, 20, 3, 0.3),
    dense(1024, 16),
    nt_xent(16),
    supcon(64),
)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("name", PROVIDERS)
def test_all_compute_the_loss_of_the_reference(name, shape):
    provider = PROVIDERS[name]
    problem = build(shape, provider.dtype)
    wide = Problem(problem.features.detach().double().requires_grad_(), problem.labels, problem.block)
    exact, exact_gradient = value_and_gradient(lambda p: ours(p, "reference"), wide)
    value, gradient = value_and_gradient(provider.loss, problem)
    tolerance = 1e-2 if provider.dtype == torch.bfloat16 else 1e-5
    assert abs(float(value / exact) - 1) < tolerance
    assert float((gradient - exact_gradient).norm() / exact_gradient.norm()) < tolerance


def test_expected_memory_grows_as_the_code_does():
    small, large = dense(1024, 128), dense(4096, 128)
    growth = {name: PROVIDERS[name].expected_bytes(large) / PROVIDERS[name].expected_bytes(small) for name in PROVIDERS}
    assert growth["fused"] == 4
    assert growth["authors"] > 12
