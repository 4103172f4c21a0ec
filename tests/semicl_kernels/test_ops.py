"""The primitive, grouped_logsumexp: its definition, its edges, its place in torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from . import oracle
from .accuracy import Sizes, assert_gradients_follow_rule, assert_values_follow_rule
from .cases import DENOMINATORS, Case
from .groups import Packed, int32, itself_skipped, packed_groups, unit_rows
from .interpreter import examples, skip_many_points
from .on_device import grouped_logsumexp, local_contrastive_loss

SCALE = 10.0


def lse_and_gradient(
    packed: Packed, dtype: torch.dtype, backend: str, scale: float = SCALE, mutual: bool = False
) -> tuple[Tensor, Tensor]:
    """The log-sum-exps, and the gradient of an uneven sum of the finite ones."""
    rows = packed.rows.to(dtype).requires_grad_()
    lse = grouped_logsumexp(*packed.with_rows(rows), scale=scale, bound=scale, mutual=mutual, backend=backend)
    weights = torch.linspace(-1, 2, len(rows), dtype=lse.dtype)
    (gradient,) = torch.autograd.grad((weights * lse)[torch.isfinite(lse)].sum(), rows)
    return lse.detach(), gradient


def sizes_of(packed: Packed, dtype: torch.dtype) -> Sizes:
    anchors = int(packed.anchors.sum())
    return Sizes(dtype, exponent=SCALE, anchors=anchors, gradient=SCALE * max(1, anchors) ** 0.5)


@settings(max_examples=40)
@given(packed=packed_groups(st.integers(0, 6), most_channels=4))
def test_reference_is_the_definition(packed: Packed) -> None:
    lse, gradient = lse_and_gradient(packed, torch.float64, "reference")
    weights = torch.linspace(-1, 2, len(packed.rows), dtype=torch.float64)
    expected, expected_gradient = oracle.grouped_logsumexp(*packed, scale=SCALE, above=weights)
    torch.testing.assert_close(lse, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_backends_agree(fast_backend: str, dtype: torch.dtype) -> None:
    @settings(max_examples=examples(fast_backend, 45))
    @given(packed=packed_groups(st.sampled_from((0, 1, 2, 15, 16, 17, 64, 127, 129, 200)), most_channels=40))
    def agree(packed: Packed) -> None:
        assert_backends_agree(fast_backend, packed, dtype)

    agree()


def assert_backends_agree(fast_backend: str, packed: Packed, dtype: torch.dtype, mutual: bool = False) -> None:
    packed = packed.with_rows(packed.rows.to(dtype).double())  # the rounding of the input is nobody's error
    truth, true_gradient = lse_and_gradient(packed, torch.float64, "reference")
    plain, plain_gradient = lse_and_gradient(packed, dtype, "reference")
    lse, gradient = lse_and_gradient(packed, dtype, fast_backend, mutual=mutual)
    finite = torch.isfinite(truth)
    assert torch.equal(lse[~finite].double(), truth[~finite])
    sizes = sizes_of(packed, dtype)
    assert_values_follow_rule(lse[finite], plain[finite], truth[finite], sizes)
    assert_gradients_follow_rule(gradient, plain_gradient, true_gradient, sizes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [1, 16, 33, 48, 128, 160])
@pytest.mark.parametrize("count", [1, 2, 127, 129, 300, 1000])
def test_one_dense_group(fast_backend: str, count: int, channels: int, dtype: torch.dtype) -> None:
    skip_many_points(fast_backend, count)
    assert_backends_agree(fast_backend, itself_skipped(unit_rows(count, channels, seed=count)), dtype, mutual=True)


def test_rows_that_are_no_anchors_have_zero_and_empty_denominators_minus_infinity(backend: str) -> None:
    rows = unit_rows(5, 4, seed=0).float()
    packed = Packed(rows, int32([0, 3, 5]), int32([2, 1]), int32([0, 0, 0, 3, 3]), int32([1, 3, 0, 5, 3]))
    lse = grouped_logsumexp(*packed, backend=backend)
    assert torch.isfinite(lse[0])
    assert lse[1] == -torch.inf
    assert lse[2] == 0
    assert lse[3] == -torch.inf
    assert lse[4] == 0


def test_gradient_of_an_empty_denominator_is_zero(backend: str) -> None:
    """And so is that of a row that is no anchor, whatever gradient comes from above."""
    rows = unit_rows(4, 4, seed=0).float().requires_grad_()
    packed = Packed(rows, int32([0, 4]), int32([2]), int32([0, 0, 0, 0]), int32([4, 4, 0, 0]))
    lse = grouped_logsumexp(*packed, backend=backend)
    (gradient,) = torch.autograd.grad(lse, rows, torch.ones_like(lse))
    assert torch.equal(gradient, torch.zeros_like(rows))


def test_rows_past_the_last_group_belong_to_none(backend: str) -> None:
    rows = unit_rows(6, 4, seed=0).float()
    inside = itself_skipped(rows[:4])
    own = torch.arange(6, dtype=torch.int32)
    padded = Packed(rows, inside.offsets, inside.anchors, own, own + 1)
    expected = grouped_logsumexp(*inside, backend=backend)
    actual = grouped_logsumexp(*padded, backend=backend)
    assert torch.equal(actual, torch.cat([expected, torch.zeros(2)]))


def test_ranges_left_out_may_reach_past_the_group(backend: str) -> None:
    rows = unit_rows(6, 4, seed=0).float()
    offsets, anchors = int32([0, 3, 6]), int32([3, 3])
    within = Packed(rows, offsets, anchors, int32([0, 0, 1, 3, 3, 3]), int32([1, 3, 3, 6, 4, 5]))
    beyond = Packed(rows, offsets, anchors, int32([-9, -9, 1, 0, 0, -9]), int32([1, 99, 99, 99, 4, 5]))
    assert torch.equal(grouped_logsumexp(*beyond, backend=backend), grouped_logsumexp(*within, backend=backend))


def test_no_rows(backend: str) -> None:
    rows = torch.zeros(0, 4, requires_grad=True)
    packed = Packed(rows, int32([0, 0]), int32([0]), int32([]), int32([]))
    lse = grouped_logsumexp(*packed, backend=backend)
    assert lse.shape == (0,)
    assert torch.autograd.grad(lse.sum(), rows)[0].shape == (0, 4)


def test_strided_rows(backend: str) -> None:
    rows = unit_rows(40, 20, seed=0).float()
    expected = grouped_logsumexp(*itself_skipped(rows), backend=backend)
    wide = torch.zeros(80, 40)
    wide[::2, 1::2] = rows
    for view in (wide[::2, 1::2], rows.T.contiguous().T):
        assert torch.equal(grouped_logsumexp(*itself_skipped(view), backend=backend), expected)


def test_bound_is_a_promise_that_does_not_change_the_value(backend: str) -> None:
    packed = itself_skipped(unit_rows(100, 8, seed=0).float())
    with_bound = grouped_logsumexp(*packed, scale=SCALE, bound=SCALE, backend=backend)
    torch.testing.assert_close(
        with_bound, grouped_logsumexp(*packed, scale=SCALE, backend=backend), rtol=1e-6, atol=1e-6
    )


def test_large_exponents_without_a_bound(backend: str) -> None:
    """Similarities of thousands overflow exp unless their maximum is taken out."""
    rows = 30 * unit_rows(60, 4, seed=0)
    truth, true_gradient = lse_and_gradient(itself_skipped(rows), torch.float64, "reference", scale=5.0)
    leaf = rows.float().requires_grad_()
    lse = grouped_logsumexp(*itself_skipped(leaf), scale=5.0, backend=backend)
    assert truth.max() > 1000
    torch.testing.assert_close(lse.double(), truth, rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad((torch.linspace(-1, 2, 60) * lse).sum(), leaf)
    torch.testing.assert_close(
        gradient.double(), true_gradient, rtol=1e-3, atol=1e-3 * float(true_gradient.abs().max())
    )


@pytest.mark.parametrize("factor", [1e-30, 1.0, 65536.0, 4e38])
@pytest.mark.parametrize(("scale", "bound"), [(39.9, None), (31.5, 31.5), (39.9e4, None)])
def test_gradients_from_above_of_any_size(backend: str, scale: float, bound: float | None, factor: float) -> None:
    """Exponentials already span most of float32."""
    length = min(1.0, (39.9 / scale) ** 0.5)
    rows = (length * torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).requires_grad_()
    lse = grouped_logsumexp(*itself_skipped(rows), scale=scale, bound=bound, backend=backend)
    above = factor * length**2 / 100
    (gradient,) = torch.autograd.grad(lse, rows, torch.full_like(lse, above))
    expected = above * scale * length * torch.tensor([[-2.0, 0.0], [2.0, 0.0]])
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ["reference", "tiled"])
def test_gradcheck(name: str) -> None:
    own = torch.arange(9, dtype=torch.int32)
    groups = (int32([0, 4, 4, 9]), int32([2, 0, 5]), own, own + 1)

    def lse(rows: Tensor) -> Tensor:
        return grouped_logsumexp(rows, *groups, scale=3.0, backend=name)

    assert torch.autograd.gradcheck(lse, unit_rows(9, 3, seed=0).requires_grad_())


@pytest.mark.parametrize("name", ["reference", "tiled"])
@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("reduction", ["block", "anchor", "sum", "none"])
def test_gradcheck_of_the_loss(name: str, denominator: str, reduction: str) -> None:
    case = Case((1, 2, 3, 3, 3), "ignored", seed=3)

    def loss(features: Tensor) -> Tensor:
        return local_contrastive_loss(
            features,
            case.labels(),
            temperature=0.5,
            block_size=2,
            ignore_index=-100,
            denominator=denominator,
            reduction=reduction,
            backend=name,
        )

    assert torch.autograd.gradcheck(loss, case.features(torch.float64).requires_grad_())


@pytest.mark.parametrize("reduction", ["block", "none"])
def test_second_order_gradients_are_refused(backend: str, reduction: str) -> None:
    features = Case((1, 2, 8, 4, 4)).features(torch.float32).requires_grad_()
    loss = local_contrastive_loss(features, Case((1, 2, 8, 4, 4)).labels(), reduction=reduction, backend=backend)

    (gradient,) = torch.autograd.grad(loss.sum(), features, create_graph=True)
    for allow_unused in (False, True):  # a derivative that is not there may be taken for zero
        with pytest.raises(RuntimeError, match="first-order"):
            torch.autograd.grad(gradient.square().sum(), features, allow_unused=allow_unused, retain_graph=True)
    with pytest.raises(RuntimeError, match="first-order"):
        gradient.square().sum().backward()


@pytest.mark.parametrize("reduction", ["block", "none"])
def test_hessians_are_refused(backend: str, reduction: str) -> None:
    case = Case((1, 2, 8, 2, 2))

    def loss(features: Tensor) -> Tensor:
        return local_contrastive_loss(features, case.labels(), reduction=reduction, backend=backend).sum()

    with pytest.raises(RuntimeError, match="first-order"):
        torch.autograd.functional.hessian(loss, case.features(torch.float32))


def test_primitive_refuses_second_order_gradients(backend: str) -> None:
    rows = unit_rows(6, 4, seed=0).float().requires_grad_()
    lse = grouped_logsumexp(*itself_skipped(rows), backend=backend)

    def twice() -> None:
        (gradient,) = torch.autograd.grad(lse.sum(), rows, create_graph=True)
        gradient.square().sum().backward()

    with pytest.raises(RuntimeError, match="first-order"):
        twice()
