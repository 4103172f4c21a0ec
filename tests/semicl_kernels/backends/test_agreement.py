"""Every backend against the reference in float64, by the one rule of accuracy."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from ..accuracy import assert_gradients_follow_rule, assert_reduced_follows_rule, assert_values_follow_rule
from ..cases import DENOMINATORS, IGNORE, LAYOUTS, Case, cases, lay_out, value_and_gradient
from ..interpreter import examples, skip_many_points
from ..on_device import local_contrastive_loss


def assert_agrees(backend: str, case: Case, dtype: torch.dtype) -> None:
    rounded = case.features(dtype)
    exact = lay_out(rounded.double(), case.layout)  # the rounding of the input is nobody's error
    reference = partial(local_contrastive_loss, backend="reference")
    truth, true_gradient = value_and_gradient(reference, case, exact)
    plain, plain_gradient = value_and_gradient(case.plain(dtype), case, rounded)
    value, gradient = value_and_gradient(partial(local_contrastive_loss, backend=backend), case, rounded)
    true_map, plain_map = (
        loss(features, case.labels(), **{**case.options, "reduction": "none"})
        for loss, features in ((reference, exact), (case.plain(dtype), rounded))
    )
    sizes = case.sizes(dtype)
    assert value.shape == truth.shape
    assert_gradients_follow_rule(gradient, plain_gradient, true_gradient, sizes)
    if case.options.get("reduction") == "none":
        assert_values_follow_rule(value, plain, truth, sizes)
    else:
        weight = sizes.anchors if case.options.get("reduction") == "sum" else 1
        assert_reduced_follows_rule(value, plain_map, true_map, truth, sizes, weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_any_case(fast_backend: str, dtype: torch.dtype) -> None:
    @settings(max_examples=examples(fast_backend, 150))
    @given(case=cases(largest_side=12, most_channels=40))
    def agrees(case: Case) -> None:
        assert_agrees(fast_backend, case, dtype)

    agrees()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [1, 2, 127, 129, 300, 1000])
@pytest.mark.parametrize(
    "options",
    [{}, {"denominator": "negatives"}, {"denominator": "pairwise"}, {"block_size": (1, 37)}, {"reduction": "none"}],
)
def test_counts_of_points(fast_backend: str, count: int, dtype: torch.dtype, options: dict[str, Any]) -> None:
    skip_many_points(fast_backend, count)
    assert_agrees(fast_backend, Case((1, 1, 16, 1, count), options=options), dtype)


@pytest.mark.parametrize("label_kind", ["random", "one class", "one pixel", "background", "pair", "ignored", None])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("space", [(13, 9), (5, 4, 6)])
@pytest.mark.parametrize("reduction", ["block", "none"])
def test_labels_and_layouts(
    fast_backend: str, label_kind: str | None, layout: str, space: tuple[int, ...], reduction: str
) -> None:
    options = {"block_size": 4, "ignore_index": IGNORE, "reduction": reduction}
    assert_agrees(fast_backend, Case((2, 2, 24, *space), label_kind, layout, options=options), torch.float32)


@pytest.mark.parametrize(
    ("temperature", "dtype"),
    [(0.005, torch.float32), (0.01, torch.float32), (0.01, torch.float16), (0.01, torch.bfloat16), (10, torch.float32)],
)
@pytest.mark.parametrize("duplicated", [False, True])
@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("channels", [2, 64])
def test_temperatures(
    fast_backend: str, temperature: float, dtype: torch.dtype, duplicated: bool, denominator: str, channels: int
) -> None:
    """With two channels some similarities are near 1 and others near -1: the whole range of exponents."""
    options = {"temperature": temperature, "denominator": denominator}
    case = Case((1, 2, channels, 9, 11), duplicated=duplicated, options=options)
    loss, gradient = value_and_gradient(
        partial(local_contrastive_loss, backend=fast_backend), case, case.features(dtype)
    )
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    assert_agrees(fast_backend, case, dtype)


@pytest.mark.parametrize("length", [1e-3, 30.0])
def test_unnormalised_vectors_of_any_length(fast_backend: str, length: float) -> None:
    case = Case((1, 2, 16, 8, 8), options={"normalize": False, "temperature": length**2})
    features = length * case.features(torch.float64)
    reference = partial(local_contrastive_loss, backend="reference")
    expected, _ = value_and_gradient(reference, case, features)
    actual, _ = value_and_gradient(partial(local_contrastive_loss, backend=fast_backend), case, features.float())
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factor", [-3.0, 0.0, 65536.0])
def test_upstream_factor_scales_the_gradient(backend: str, factor: float) -> None:
    """As a loss scaler or a weight in a sum of losses does."""
    case = Case((1, 2, 16, 8, 8))
    features = case.features(torch.float32).requires_grad_()
    loss = local_contrastive_loss(features, case.labels(), backend=backend)
    (once,) = torch.autograd.grad(loss, features, retain_graph=True)
    (scaled,) = torch.autograd.grad(factor * loss, features)
    expected = factor * once
    torch.testing.assert_close(scaled, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


def test_gradient_twice_from_one_graph(backend: str) -> None:
    """retain_graph: the second time must not find spent memory."""
    case = Case((1, 2, 16, 8, 8))
    features = case.features(torch.float32).requires_grad_()
    loss = local_contrastive_loss(features, case.labels(), backend=backend)
    (first,) = torch.autograd.grad(loss, features, retain_graph=True)
    (second,) = torch.autograd.grad(loss, features)
    assert torch.equal(first, second)


def test_features_without_gradient(backend: str) -> None:
    case = Case((1, 2, 16, 8, 8))
    features = case.features(torch.float32)
    expected = local_contrastive_loss(features.clone().requires_grad_(), case.labels(), backend=backend)
    assert not local_contrastive_loss(features, case.labels(), backend=backend).requires_grad
    with torch.inference_mode():
        actual = local_contrastive_loss(features, case.labels(), backend=backend)
    torch.testing.assert_close(actual, expected.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("default", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["block", "none"])
def test_default_dtype_does_not_matter(backend: str, default: torch.dtype, reduction: str) -> None:
    case = Case((2, 2, 16, 9, 8), options={"block_size": 4, "reduction": reduction, "backend": backend})
    features = case.features(torch.float32)
    expected = value_and_gradient(local_contrastive_loss, case, features)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        actual = value_and_gradient(local_contrastive_loss, case, features)
    finally:
        torch.set_default_dtype(before)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_features_changed_after_the_loss(compiled_backend: str) -> None:
    """The fused loss has its gradient already and keeps nothing of the features."""
    case = Case((2, 2, 16, 8, 8))
    leaf = case.features(torch.float32).requires_grad_()
    features = leaf * 1.0
    loss = local_contrastive_loss(features, case.labels(), backend=compiled_backend)
    (expected,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    features.detach().zero_()
    assert torch.equal(torch.autograd.grad(loss, leaf)[0], expected)


def test_inputs_are_left_alone(backend: str) -> None:
    case = Case((2, 2, 16, 8, 8), "ignored")
    features, labels = case.features(torch.float32).requires_grad_(), case.labels()
    assert labels is not None
    before = features.detach().clone(), labels.clone()
    local_contrastive_loss(features, labels, ignore_index=IGNORE, backend=backend).backward()
    assert torch.equal(features.detach(), before[0])
    assert torch.equal(labels, before[1])
