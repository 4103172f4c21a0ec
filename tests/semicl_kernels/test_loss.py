"""The losses against their definition (oracle.py), and against themselves where options must agree."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from semicl_kernels import LocalContrastiveLoss, NTXentLoss, SupervisedContrastiveLoss

from . import oracle
from .cases import CODES, DENOMINATORS, IGNORE, Case, cases, true_value_and_gradient, value_and_gradient
from .on_device import at, local_contrastive_loss, nt_xent_loss, supervised_contrastive_loss


def reference(features: torch.Tensor, labels: torch.Tensor | None, **options: object) -> torch.Tensor:
    return local_contrastive_loss(features, labels, backend="reference", **options)


def assert_reference_is_right(case: Case) -> None:
    value, gradient = value_and_gradient(reference, case, case.features(torch.float64))
    expected, expected_gradient = true_value_and_gradient(case, case.features(torch.float64))
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-8, atol=1e-9)


@settings(max_examples=120)
@given(case=cases(largest_side=4, most_channels=4))
def test_reference_is_the_definition(case: Case) -> None:
    assert_reference_is_right(case)


@pytest.mark.parametrize("reduction", ["block", "anchor", "sum", "none"])
@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("scope", ["batch", "image"])
def test_every_combination_of_words(reduction: str, denominator: str, scope: str) -> None:
    options = {"reduction": reduction, "denominator": denominator, "scope": scope, "block_size": (2, 3)}
    assert_reference_is_right(Case((2, 2, 3, 3, 4), "ignored", options={**options, "ignore_index": IGNORE}))


@pytest.mark.parametrize("stride", [1, 2, (1, 3), (3, 2), 7])
@pytest.mark.parametrize("block_size", [None, 1, 2, (3, 1), 50])
def test_strides_and_ragged_blocks(stride: object, block_size: object) -> None:
    assert_reference_is_right(Case((1, 2, 3, 5, 4), options={"stride": stride, "block_size": block_size}))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_integer_types_of_labels(backend: str, dtype: torch.dtype) -> None:
    case = Case((1, 2, 8, 6, 6))
    labels = torch.randint(0, 4, (1, 2, 6, 6), generator=torch.Generator().manual_seed(0))
    features = case.features(torch.float32)
    expected = local_contrastive_loss(features, labels, backend=backend)
    assert torch.equal(local_contrastive_loss(features, labels.to(dtype), backend=backend), expected)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint16, torch.uint32])
def test_labels_that_torch_cannot_sort(backend: str, dtype: torch.dtype) -> None:
    features = Case((1, 2, 8, 6, 6)).features(torch.float32)
    labels = torch.randint(0, 2, (1, 2, 6, 6), generator=torch.Generator().manual_seed(0))
    expected = local_contrastive_loss(features, labels, backend=backend)
    assert torch.equal(local_contrastive_loss(features, labels.to(dtype), backend=backend), expected)


def test_label_values_do_not_matter(backend: str) -> None:
    """Only which labels are equal does, however large or negative they are."""
    small = torch.randint(0, len(CODES), (2, 2, 6, 6), generator=torch.Generator().manual_seed(0))
    features = Case((2, 2, 8, 6, 6)).features(torch.float32)
    extremes = torch.tensor([0, 2**63 - 1, -(2**63), 2**40, 2**40 + 1, -1])[small]
    expected = local_contrastive_loss(features, small, reduction="none", backend=backend)
    actual = local_contrastive_loss(features, extremes, reduction="none", backend=backend)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("option", ["background", "ignore_index"])
@pytest.mark.parametrize(
    ("dtype", "label", "outside"), [(torch.uint8, 156, -100), (torch.int8, -1, 255), (torch.int32, 0, 2**32)]
)
def test_option_outside_the_range_of_the_labels_matches_none(
    backend: str, dtype: torch.dtype, label: int, outside: int, option: str
) -> None:
    """It must not wrap around to a label that is there."""
    features = Case((1, 1, 8, 4, 4)).features(torch.float32)
    labels = torch.full((1, 1, 4, 4), label, dtype=dtype)
    others = {"background": 7, "ignore_index": 7}
    expected = local_contrastive_loss(features, labels.long(), **{**others, option: outside}, backend=backend)
    assert expected > 0
    assert torch.equal(
        local_contrastive_loss(features, labels, **{**others, option: outside}, backend=backend), expected
    )


@pytest.mark.parametrize("space", [(7, 5), (3, 4, 5)])
def test_stride_is_taking_points_beforehand(backend: str, space: tuple[int, ...]) -> None:
    case = Case((2, 2, 8, *space))
    features, labels = case.features(torch.float32), case.labels()
    assert labels is not None
    taken = (..., *[slice(None, None, 2)] * len(space))
    expected = local_contrastive_loss(features[taken], labels[taken], block_size=2, backend=backend)
    assert torch.equal(local_contrastive_loss(features, labels, stride=2, block_size=2, backend=backend), expected)


def test_points_of_one_class_over_negatives_have_no_denominator(backend: str) -> None:
    features = Case((1, 2, 8, 4, 4)).features(torch.float32).requires_grad_()
    labels = torch.ones(1, 2, 4, 4, dtype=torch.int64)
    loss = local_contrastive_loss(features, labels, denominator="negatives", backend=backend)
    loss.backward()
    assert loss.item() == 0
    assert features.grad is not None
    assert torch.equal(features.grad, torch.zeros_like(features))


@pytest.mark.parametrize("reduction", ["block", "anchor", "sum", "none"])
@pytest.mark.parametrize("label_kind", ["background", "one pixel"])
def test_no_anchor_gives_zero_with_a_zero_gradient(backend: str, label_kind: str, reduction: str) -> None:
    case = Case((2, 1, 8, 5, 5), label_kind, options={"reduction": reduction, "backend": backend, "block_size": 2})
    value, gradient = value_and_gradient(local_contrastive_loss, case, case.features(torch.float32))
    assert torch.equal(value, torch.zeros_like(value))
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("shape", [(0, 2, 8, 4, 4), (1, 0, 8, 4, 4), (1, 2, 8, 0, 4)])
def test_no_point_at_all_gives_zero(backend: str, shape: tuple[int, ...]) -> None:
    features = torch.zeros(shape, requires_grad=True)
    labels = torch.zeros(*shape[:2], *shape[3:], dtype=torch.int64)
    for given_labels in (labels, None):
        loss = local_contrastive_loss(features, given_labels, backend=backend)
        (gradient,) = torch.autograd.grad(loss, features)
        assert loss.item() == 0
        assert gradient.shape == shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("reduction", ["block", "none"])
def test_a_vector_of_zeros_is_like_nothing_and_has_no_gradient(
    backend: str, reduction: str, dtype: torch.dtype
) -> None:
    """ReLU makes such vectors: their similarities are 0, and they have no direction to turn."""
    features = Case((1, 1, 8, 4, 4)).features(dtype)
    features[..., :2, :] = 0
    features.requires_grad_()
    labels = torch.ones(1, 1, 4, 4, dtype=torch.int64)
    loss = local_contrastive_loss(features, labels, reduction=reduction, backend=backend).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()
    assert not features.grad[..., :2, :].any()
    assert features.grad[..., 2:, :].norm() > 0


@pytest.mark.parametrize("reduction", ["block", "none"])
@pytest.mark.parametrize(
    ("length", "options"),
    [
        (1.0, {"temperature": 1e-10}),
        (1.0, {"temperature": 4.5e-10}),
        (1.0, {"temperature": 1e-37}),
        (1e5, {"normalize": False}),
        (1e-18, {"normalize": False, "temperature": 1e-36}),
        (1e-3, {"normalize": False, "temperature": 1e-6, "denominator": "negatives"}),
    ],
)
def test_similarities_too_large_for_rounding_to_matter(
    backend: str, length: float, options: dict[str, Any], reduction: str
) -> None:
    """One unit in the last place of the exponent is then more than exp can take, or the scale alone is large."""
    case = Case((1, 2, 4, 5, 5))
    features = length * case.features(torch.float32)
    options = {**options, "reduction": reduction}
    exact_leaf = features.double().requires_grad_()
    exact = local_contrastive_loss(exact_leaf, case.labels(), backend="reference", **options)
    (exact_gradient,) = torch.autograd.grad(exact.sum(), exact_leaf)
    exact = exact.detach()
    leaf = features.requires_grad_()
    loss = local_contrastive_loss(leaf, case.labels(), backend=backend, **options)
    loss.sum().backward()
    with torch.no_grad():
        alone = local_contrastive_loss(leaf, case.labels(), backend=backend, **options)
    for found in (loss.detach(), alone):
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5 * float(exact.max()))
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
    if backend in ("triton", "cuda"):
        return  # their two passes may round one product differently, which is all or nothing here
    torch.testing.assert_close(
        leaf.grad.double(), exact_gradient, rtol=1e-4, atol=1e-4 * float(exact_gradient.abs().max())
    )


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("normalize", [True, False])
def test_non_finite_features_give_a_non_finite_loss(backend: str, poison: float, label: int, normalize: bool) -> None:
    """Whether the bad point is an anchor or only a column."""
    features = Case((1, 2, 8, 12, 12)).features(torch.float32)
    labels = torch.ones(1, 2, 12, 12, dtype=torch.int64)
    labels[0, 0, 3, 3] = label
    features[0, 0, 2, 3, 3] = poison
    features.requires_grad_()
    loss = local_contrastive_loss(features, labels, normalize=normalize, backend=backend)
    loss.backward()
    assert not torch.isfinite(loss)


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("normalize", [True, False])
def test_nan_reaches_the_gradient_of_all_that_met_it(backend: str, normalize: bool, denominator: str) -> None:
    """A gradient of zero would hide that training has gone wrong."""
    features = Case((1, 1, 8, 4, 4)).features(torch.float32)
    features[0, 0, 3, 1, 2] = torch.nan
    features.requires_grad_()
    labels = torch.arange(16).reshape(1, 1, 4, 4) % 2 + 1
    local_contrastive_loss(features, labels, normalize=normalize, denominator=denominator, backend=backend).backward()
    assert features.grad is not None
    others = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    others[0, 0, 1, 2] = False
    assert torch.isnan(features.grad.movedim(2, -1)[others]).all()


@pytest.mark.parametrize("value", [1e3, float("nan"), float("inf")])
@pytest.mark.parametrize("reduction", ["block", "none"])
@pytest.mark.parametrize("normalize", [True, False])
def test_points_without_a_part_may_hold_anything(backend: str, normalize: bool, reduction: str, value: float) -> None:
    """Those that are ignored, and those of blocks without an anchor."""
    case = Case((1, 2, 8, 6, 6), "ignored")
    features, labels = case.features(torch.float32), case.labels()
    assert labels is not None
    labels[..., :2, :2] = 0  # a block of background
    idle = labels == IGNORE
    idle[..., :2, :2] = True
    options = {"ignore_index": IGNORE, "block_size": 2, "normalize": normalize, "reduction": reduction}

    def value_and_gradient(at_idle: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = features.clone()
        if at_idle is not None:
            leaf.movedim(2, -1)[idle] = at_idle
        leaf.requires_grad_()
        loss = local_contrastive_loss(leaf, labels, backend=backend, **options)
        return loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]

    for found, expected in zip(value_and_gradient(value), value_and_gradient(None), strict=True):
        assert torch.equal(found, expected)


def test_training_after_inference_on_the_same_shape(backend: str) -> None:
    """Nothing made in inference mode may be kept for a graph."""
    case = Case((1, 2, 8, 7, 3))
    with torch.inference_mode():
        expected = local_contrastive_loss(case.features(torch.float32), case.labels(), backend=backend)
    features = case.features(torch.float32).requires_grad_()
    loss = local_contrastive_loss(features, case.labels(), backend=backend)
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-5, atol=1e-6)


def test_numbers_of_any_library_and_any_size(backend: str) -> None:
    case = Case((1, 2, 8, 7, 5))
    features, labels = case.features(torch.float32), case.labels()
    expected = local_contrastive_loss(features, labels, temperature=0.5, stride=2, block_size=(2, 5), backend=backend)
    actual = local_contrastive_loss(
        features,
        labels,
        temperature=np.float32(0.5),
        stride=np.int64(2),
        block_size=(np.int32(2), 2**70),
        background=np.uint8(0),
        backend=backend,
    )
    assert torch.equal(actual, expected)
    assert local_contrastive_loss(features, labels, stride=2**70, backend=backend).item() == 0  # one point a view


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_loss_without_a_gradient_is_the_loss_with_one(fast_backend: str, dtype: torch.dtype) -> None:
    """As exact as float32: a backend may go about it in another way, but not round the features again."""
    case = Case((1, 2, 24, 9, 11))
    features, labels = case.features(dtype), case.labels()
    with_gradient = local_contrastive_loss(features.requires_grad_(), labels, block_size=5, backend=fast_backend)
    with torch.no_grad():
        without = local_contrastive_loss(features, labels, block_size=5, backend=fast_backend)
    torch.testing.assert_close(without, with_gradient.detach(), rtol=2e-7, atol=0)


@pytest.mark.parametrize("factor", [65536.0, 1e30])
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_large_gradients_from_above(backend: str, reduction: str, factor: float) -> None:
    """As a gradient scaler makes them; at this temperature exponentials already span most of float32."""
    case = Case((1, 2, 8, 5, 5), "random")

    def gradient(scaled: float) -> torch.Tensor:
        features = case.features(torch.float32).requires_grad_()
        loss = local_contrastive_loss(features, case.labels(), temperature=0.026, reduction=reduction, backend=backend)
        return torch.autograd.grad(loss, features, torch.full_like(loss, scaled))[0]

    torch.testing.assert_close(gradient(factor) / factor, gradient(1.0), rtol=1e-5, atol=1e-5)


def uneven(anchor: torch.Tensor, one: float, two: float) -> torch.Tensor:
    """A gradient from above (2, V, *space): ``one`` on the first image's anchors, ``two`` on the second's."""
    return torch.stack([torch.where(image, size, 0.0) for image, size in zip(anchor, (one, two), strict=True)])


@pytest.mark.parametrize(("one", "two"), [(1e30, 1e-20), (1e-30, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("temperature", [0.026, 0.035, 0.5])
def test_gradients_from_above_of_any_size(backend: str, temperature: float, one: float, two: float) -> None:
    """Each image keeps its own, whatever the other's, and a number beside no anchor counts for nothing."""
    case = Case((2, 2, 8, 5, 5), "random")
    # Long features have short gradients: those of 2e38 must fit.
    features, labels = 1e3 * case.features(torch.float32), case.labels()
    assert labels is not None
    options = {"temperature": temperature, "scope": "image", "reduction": "none", "backend": backend}

    def gradient(above: torch.Tensor) -> torch.Tensor:
        leaf = features.clone().requires_grad_()
        return torch.autograd.grad(local_contrastive_loss(leaf, labels, **options), leaf, above)[0]

    anchor = local_contrastive_loss(features, labels, **options) != 0
    expected = gradient(uneven(anchor, 1.0, 1.0)).double()
    for beside in (0.0, 1e38, float("nan")):
        found = gradient(torch.where(anchor, uneven(anchor, one, two), beside)).double()
        for image, size in enumerate((one, two)):
            torch.testing.assert_close(
                found[image], size * expected[image], rtol=1e-5, atol=1e-5 * size * float(expected.abs().max()) + 1e-42
            )


@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize(
    ("shape", "labelled"),
    [*itertools.product([(1, 2, 3), (5, 2, 3), (3, 4, 2)], [True, False]), ((7, 1, 4), True)],
)
def test_supervised_contrastive_is_its_definition(shape: tuple[int, ...], labelled: bool, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(-1, 2, shape[:1], generator=generator) if labelled else None
    actual = supervised_contrastive_loss(features, labels, temperature=temperature, backend="reference")
    expected = oracle.supervised_contrastive_loss(features, labels, temperature=temperature)
    torch.testing.assert_close(actual.detach(), expected.value, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.autograd.grad(actual, features)[0], expected.gradient, rtol=1e-8, atol=1e-9)


def test_what_a_call_without_labels_leaves_behind_serves_the_next(backend: str) -> None:
    """The first is in inference mode, whose tensors no gradient can keep."""
    first, second = torch.randn(2, 9, 20, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = nt_xent_loss(first, second, backend=backend)
    for _ in range(2):
        leaf = first.clone().requires_grad_()
        loss = nt_xent_loss(leaf, second, backend=backend)
        loss.backward()
        assert leaf.grad is not None
        assert torch.equal(loss.detach(), expected)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_nt_xent_is_its_definition(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    views = torch.randn(2, count, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    actual = nt_xent_loss(views[0], views[1], temperature=0.3, backend="reference")
    expected = oracle.supervised_contrastive_loss(views.transpose(0, 1), temperature=0.3)
    torch.testing.assert_close(actual.detach(), expected.value, rtol=1e-9, atol=1e-9)
    (gradient,) = torch.autograd.grad(actual, views)
    torch.testing.assert_close(gradient.transpose(0, 1), expected.gradient, rtol=1e-8, atol=1e-9)


def test_modules_are_their_functions(backend: str) -> None:
    case = Case((2, 2, 8, 6, 6), "ignored")
    features, labels = case.features(torch.float32), case.labels()
    options = {
        "temperature": 0.2,
        "stride": (1, 2),
        "block_size": 3,
        "scope": "image",
        "denominator": "negatives",
        "background": CODES[2],
        "ignore_index": IGNORE,
        "normalize": False,
        "reduction": "anchor",
        "backend": backend,
    }
    expected = local_contrastive_loss(features, labels, **options)
    assert torch.equal(at(backend, LocalContrastiveLoss(**options))(features, labels), expected)

    vectors = features.flatten(2)[0].T.reshape(-1, 2, 8)
    short = {"temperature": 0.2, "backend": backend}
    pair = (vectors[:, 0], vectors[:, 1])
    assert torch.equal(at(backend, NTXentLoss(**short))(*pair), nt_xent_loss(*pair, **short))
    classes = torch.arange(len(vectors)) % 3
    actual = at(backend, SupervisedContrastiveLoss(**short))(vectors, classes)
    assert torch.equal(actual, supervised_contrastive_loss(vectors, classes, **short))
