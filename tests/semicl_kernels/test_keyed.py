"""Weights of anchors, keys beside the points, the mean over classes and temperatures with a gradient."""

from __future__ import annotations

import copy
import random
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from semicl_kernels import LocalContrastiveLoss, NTXentLoss, SupervisedContrastiveLoss

from .interpreter import is_interpreted
from .keyed_oracle import Truth, keyed_loss
from .on_device import local_contrastive_loss, nt_xent_loss, supervised_contrastive_loss


class Drawn(NamedTuple):
    features: Tensor
    labels: Tensor | None
    beside: dict[str, Tensor | None]  # weights, keys, key_labels, key_weights
    options: dict[str, Any]


def draw(number: int) -> Drawn:
    """A random call, small enough for the oracle's loops; its number is its seed."""
    pick, generator = random.Random(number), torch.Generator().manual_seed(number)
    batch, views, channels = pick.choice([1, 2]), pick.choice([1, 2]), pick.choice([2, 3, 16, 20])
    space = pick.choice([(3, 4), (5, 6), (2, 2, 3)])
    shape = (batch, views, *space)
    features = torch.randn(batch, views, channels, *space, generator=generator)
    labels = None if views == 2 and pick.random() < 0.2 else torch.randint(0, 4, shape, generator=generator)
    options = {
        "temperature": pick.choice([0.02, 0.07, 0.1, 0.5]),
        "block_size": pick.choice([None, 2, 3]),
        "scope": pick.choice(["batch", "image"]),
        "denominator": pick.choice(["all", "negatives", "pairwise"]),
        "background": pick.choice([0, None]),
        "ignore_index": pick.choice([None, 3]),
        "normalize": pick.random() < 0.8,
        "reduction": pick.choice(["block", "anchor", "class", "sum", "none"]),
    }
    if not options["normalize"]:
        options["temperature"] *= 10
    beside: dict[str, Tensor | None] = {"weights": None, "keys": None, "key_labels": None, "key_weights": None}
    if pick.random() < 0.7:
        count = pick.choice([0, 1, 7, 40])
        beside["keys"] = torch.randn(count, channels, generator=generator)
        if labels is not None:
            beside["key_labels"] = torch.randint(0, 5, (count,), generator=generator)
        if pick.random() < 0.5:
            beside["key_weights"] = torch.rand(count, generator=generator) * 3 + 0.1
    if pick.random() < 0.6:
        zeros = torch.rand(shape, generator=generator) < pick.choice([0, 0.3, 0.9])
        beside["weights"] = torch.where(zeros, 0.0, torch.rand(shape, generator=generator))
    return Drawn(features, labels, beside, options)


class Found(NamedTuple):
    loss: Tensor
    by_features: Tensor
    by_keys: Tensor
    by_temperature: Tensor


def solve(drawn: Drawn, backend: str, dtype: torch.dtype, above: Tensor | None) -> Found:
    features = drawn.features.detach().to(dtype).requires_grad_()
    beside, options = dict(drawn.beside), dict(drawn.options)
    if beside["keys"] is not None:
        beside["keys"] = beside["keys"].detach().to(dtype).requires_grad_()
    temperature = torch.tensor(options.pop("temperature"), dtype=torch.float64, requires_grad=True)
    call = partial(local_contrastive_loss, backend=backend, temperature=temperature)
    loss = call(features, drawn.labels, **beside, **options)
    asked = [features, temperature, *([] if beside["keys"] is None else [beside["keys"]])]
    grads = torch.autograd.grad(loss, asked, None if above is None else above.to(loss.dtype))
    by_features, by_temperature, *by_keys = (grad.double() for grad in grads)
    return Found(
        loss.detach().double(), by_features, by_keys[0] if by_keys else by_temperature.new_zeros(0), by_temperature
    )


def above_of(drawn: Drawn) -> Tensor | None:
    if drawn.options["reduction"] != "none":
        return None
    shape = drawn.features[:, :, 0].shape
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def truth_of(drawn: Drawn, above: Tensor | None) -> Found:
    of_oracle: Truth = keyed_loss(
        drawn.features, drawn.labels, **drawn.beside, **drawn.options, above=None if above is None else above.numpy()
    )
    loss, by_features, by_keys, by_temperature = map(np.asarray, of_oracle)
    by_keys = by_keys if drawn.beside["keys"] is not None else np.zeros(0)
    return Found(*map(torch.from_numpy, (loss.copy(), by_features, by_keys, by_temperature.copy())))


@pytest.mark.parametrize("backend", ["reference", "tiled"])
def test_float64_is_the_definition(backend: str) -> None:
    for number in range(80):
        drawn = draw(number)
        above = above_of(drawn)
        for found, truth in zip(solve(drawn, backend, torch.float64, above), truth_of(drawn, above), strict=True):
            torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-9, msg=f"{number}: {found} {truth}")


def test_errors_are_of_the_size_of_plain_pytorch(fast_backend: str) -> None:
    """At most twice as large, with a floor of a few roundings of what cancels."""
    for number in range(100, 110 if is_interpreted(fast_backend) else 180):
        drawn = draw(number)
        above = above_of(drawn)
        truth = truth_of(drawn, above)
        plain = solve(drawn, "reference", torch.float32, above)
        found = solve(drawn, fast_backend, torch.float32, above)
        exponent = float(drawn.features.square().sum(2).amax()) if not drawn.options["normalize"] else 1.0
        exponent /= drawn.options["temperature"]
        rounding = 8 * torch.finfo(torch.float32).eps * (1 + exponent)
        lengths = drawn.features.square().sum(2).sqrt().amin() if drawn.options["normalize"] else 1.0
        weight = 1.0 if above is None else float(above.abs().sum())
        weight *= 1.0 if drawn.options["reduction"] != "sum" else drawn.features[:, :, 0].numel()
        sizes = (max(1.0, exponent) * weight, *[weight * exponent / float(lengths)] * 2, weight * exponent)
        sizes = (*sizes[:3], sizes[3] / drawn.options["temperature"])
        for name, one, ours, theirs, size in zip(Found._fields, truth, found, plain, sizes, strict=True):
            error, allowed = float((ours - one).norm()), 2 * float((theirs - one).norm()) + rounding * size
            assert error <= allowed, (number, name, error, allowed, drawn.options)


@pytest.mark.parametrize("around", ["class", "one"])
@pytest.mark.parametrize("spread", [0.3, 0.01, 0.001])
def test_gradients_of_nearly_equal_features_and_keys(fast_backend: str, spread: float, around: str) -> None:
    space, count = ((8, 9), 75) if is_interpreted(fast_backend) else ((16, 18), 300)
    generator = torch.Generator().manual_seed(1)
    labels, key_labels = (torch.randint(0, 4, size, generator=generator) for size in ((1, 2, *space), (count,)))
    centers = torch.randn(4, 48, generator=generator)[[0, 1, 2, 3] if around == "class" else [0] * 4]
    features = (centers[labels] + spread * torch.randn(*labels.shape, 48, generator=generator)).movedim(-1, 2)
    keys = centers[key_labels] + spread * torch.randn(count, 48, generator=generator)
    weights = torch.rand(labels.shape, generator=generator)
    few = torch.where(weights < 0.8, 0.0, weights)
    none: dict[str, Tensor | None] = {"weights": None, "keys": None, "key_labels": None, "key_weights": None}
    met = {**none, "keys": keys, "key_labels": key_labels}
    for beside in (
        met,
        {**met, "key_weights": weights.flatten()[:count] + 0.5},
        {**none, "weights": weights},
        {**met, "weights": few},
    ):
        for denominator in ("all", "negatives", "pairwise"):
            drawn = Drawn(features, labels, beside, {"temperature": 0.1, "denominator": denominator})
            truth = solve(drawn, "reference", torch.float64, None)
            plain = solve(drawn, "reference", torch.float32, None)
            found = solve(drawn, fast_backend, torch.float32, None)
            for name in ("by_features", "by_keys"):
                one, ours, theirs = (getattr(each, name) for each in (truth, found, plain))
                assert (ours - one).norm() <= 2 * (theirs - one).norm(), (name, denominator)


@pytest.mark.parametrize("temperature", [0.0225, 0.0229, 0.0235])
def test_pairwise_where_next_to_nothing_is_left(fast_backend: str, temperature: float) -> None:
    """Classes are opposite: a pull is 1 and its share about 1e-38, which float32 just holds."""
    labels = torch.tensor([[1, 1], [2, 2]]).reshape(1, 1, 2, 2)
    generator = torch.Generator().manual_seed(0)
    center = torch.nn.functional.normalize(torch.randn(8, generator=generator), dim=0)
    features = torch.where(labels == 1, 1.0, -1.0)[:, :, None] * center[:, None, None]
    features = features + 1e-3 * torch.randn(features.shape, generator=generator)
    options = {
        "denominator": "pairwise",
        "temperature": temperature,
        "reduction": "sum",
        "weights": torch.ones(labels.shape),
    }
    truth = value_and_gradient(features.double(), labels, backend="reference", **options)
    found = value_and_gradient(features, labels, backend=fast_backend, **options)
    for one, exact in zip(found, truth, strict=True):
        assert (one.double() - exact).abs().max() <= 1e-3 * exact.abs().max() + 1e-36


# ---- what holds for every backend ------------------------------------------------------------------------------------


def small(number: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(2, 2, 8, 4, 5, generator=generator), torch.randint(0, 3, (2, 2, 4, 5), generator=generator)


def value_and_gradient(features: Tensor, labels: Tensor | None, **options: Any) -> tuple[Tensor, Tensor]:
    leaf = features.detach().requires_grad_()
    loss = local_contrastive_loss(leaf, labels, **options)
    return loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]


def assert_same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reduction", ["block", "anchor", "class", "sum", "none"])
def test_weights_of_one_change_nothing(backend: str, reduction: str) -> None:
    features, labels = small()
    options = {"reduction": reduction, "backend": backend, "block_size": 2}
    weighted = value_and_gradient(features, labels, weights=torch.ones(labels.shape), **options)
    assert_same(weighted, value_and_gradient(features, labels, **options))


def test_a_point_of_weight_zero_is_no_anchor_but_stays_in_the_denominators(backend: str) -> None:
    features, labels = small()
    weights = torch.ones(labels.shape)
    weights[0] = 0
    losses = local_contrastive_loss(features, labels, reduction="none", backend=backend)
    kept = local_contrastive_loss(features, labels, weights=weights, reduction="none", backend=backend)
    torch.testing.assert_close(kept, losses * weights, rtol=1e-5, atol=1e-6)


def test_the_mean_over_classes_is_that_of_each_class(backend: str) -> None:
    features, labels = small()
    losses = local_contrastive_loss(features, labels, reduction="none", backend=backend)
    means = [losses[labels == name].mean() for name in (1, 2)]
    by_class = local_contrastive_loss(features, labels, reduction="class", backend=backend)
    torch.testing.assert_close(by_class, torch.stack(means).mean(), rtol=1e-5, atol=1e-6)


def test_the_weight_of_a_key_is_how_often_it_counts(backend: str) -> None:
    features, labels = small()
    keys, names = torch.randn(5, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([0, 1, 1, 2, 7])
    often = torch.tensor([1, 2, 1, 3, 2])
    weighted = value_and_gradient(features, labels, keys=keys, key_labels=names, key_weights=often, backend=backend)
    listed = [torch.repeat_interleave(one, often, dim=0) for one in (keys, names)]
    assert_same(weighted, value_and_gradient(features, labels, keys=listed[0], key_labels=listed[1], backend=backend))


def test_a_key_alone_makes_an_anchor(backend: str) -> None:
    features, labels = small()
    labels[:] = 0
    labels[0, 0, 0, 0] = 1
    options = {"reduction": "none", "backend": backend}
    keys = torch.randn(2, 8, generator=torch.Generator().manual_seed(3))
    assert not local_contrastive_loss(features, labels, **options).any()
    found = local_contrastive_loss(features, labels, keys=keys, key_labels=torch.tensor([1, 5]), **options)
    assert found.nonzero().tolist() == [[0, 0, 0, 0]]


def test_ignored_keys_are_left_out(backend: str) -> None:
    features, labels = small()
    keys, names = torch.randn(6, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([1, 9, 2, 9, 0, 1])
    options = {"ignore_index": 9, "backend": backend}
    kept = names != 9
    with_them = value_and_gradient(features, labels, keys=keys, key_labels=names, **options)
    assert_same(with_them, value_and_gradient(features, labels, keys=keys[kept], key_labels=names[kept], **options))


def test_nt_xent_with_more_negatives(backend: str) -> None:
    """As cross entropy over the other view and all that is negative."""
    generator = torch.Generator().manual_seed(2)
    z1, z2, keys = (torch.randn(size, 16, generator=generator) for size in (6, 6, 9))
    z, k = torch.nn.functional.normalize(torch.cat([z1, z2])), torch.nn.functional.normalize(keys)
    s = (torch.cat([z @ z.T, z @ k.T], 1) / 0.2).fill_diagonal_(-torch.inf)
    expected = torch.nn.functional.cross_entropy(s, torch.arange(12).roll(6))
    found = nt_xent_loss(z1, z2, keys=keys, temperature=0.2, backend=backend)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_keys_alone_are_a_cross_entropy(backend: str) -> None:
    """Groups of one point meet nothing but keys, as in MoCo and CLIP (docs/loss.md)."""
    generator = torch.Generator().manual_seed(2)
    x, keys = (torch.randn(count, 16, generator=generator).requires_grad_() for count in (6, 9))
    temperature, labels = torch.tensor(0.2, requires_grad=True), torch.tensor([3, 0, 8, 8, 1, 5])
    alone = {"block_size": 1, "scope": "image", "background": None, "reduction": "anchor", "backend": backend}
    beside = {"keys": keys, "key_labels": torch.arange(9), "temperature": temperature}
    found = local_contrastive_loss(x[:, None, :, None, None], labels[:, None, None, None], **beside, **alone)
    s = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(keys).T / temperature
    expected = torch.nn.functional.cross_entropy(s, labels)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    leaves = (x, keys, temperature)
    for one, other in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_supcon_with_a_queue(backend: str) -> None:
    """The queue's vectors are positives and negatives, and no anchors."""
    generator = torch.Generator().manual_seed(2)
    features, keys = torch.randn(6, 2, 16, generator=generator), torch.randn(9, 16, generator=generator)
    labels, key_labels = torch.tensor([0, 0, 1, 1, 2, 3]), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 4])
    x, k = torch.nn.functional.normalize(features.movedim(1, 0).reshape(12, 16)), torch.nn.functional.normalize(keys)
    names = torch.cat([labels, labels])
    s = torch.cat([x @ x.T, x @ k.T], 1) / 0.1
    positive = torch.cat([names[:, None] == names, names[:, None] == key_labels], 1)
    positive[torch.arange(12), torch.arange(12)] = False
    lse = s.masked_fill(torch.eye(12, 21, dtype=torch.bool), -torch.inf).logsumexp(1)
    expected = (lse - (s * positive).sum(1) / positive.sum(1)).mean()
    found = supervised_contrastive_loss(
        features, labels, keys=keys, key_labels=key_labels, temperature=0.1, backend=backend
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_results_repeat_to_the_bit(fast_backend: str) -> None:
    drawn = draw(7)
    first, second = (solve(drawn, fast_backend, torch.float32, above_of(drawn)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_threads_do_not_change_the_bits(compiled_backend: str, threads: None) -> None:
    generator = torch.Generator().manual_seed(3)
    features, keys = torch.randn(1, 2, 32, 24, 24, generator=generator), torch.randn(900, 32, generator=generator)
    labels, key_labels = (torch.randint(0, 4, size, generator=generator) for size in ((1, 2, 24, 24), (900,)))
    weights = (torch.rand(labels.shape, generator=generator) < 0.3).float()
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        beside: dict[str, Tensor | None] = {
            "weights": weights, "keys": keys, "key_labels": key_labels, "key_weights": None
        }  # fmt: skip
        found.append(
            solve(Drawn(features, labels, beside, {"temperature": 0.1}), compiled_backend, torch.float32, None)
        )
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.parametrize("key_dtype", [torch.uint8, torch.int8, torch.int32, torch.int64, torch.bool, torch.uint16])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_labels_of_any_dtypes_are_compared_as_numbers(backend: str, dtype: torch.dtype, key_dtype: torch.dtype) -> None:
    features, labels = small()
    keys, names = torch.randn(6, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([1, 0, 1, 0, 0, 1])
    labels[labels == 2] = 200 if dtype == torch.uint8 else 257  # which is 1 in 8 bits
    options = {"keys": keys, "ignore_index": 257, "backend": backend}
    found = value_and_gradient(features, labels.to(dtype), key_labels=names.to(key_dtype), **options)
    assert_same(found, value_and_gradient(features, labels, key_labels=names, **options))


def test_ignored_keys_whose_label_points_cannot_have(backend: str) -> None:
    features, labels = small()
    keys, names = torch.randn(6, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([1, -1, 1, 0, -1, 2])
    options = {"ignore_index": -1, "backend": backend}
    found = value_and_gradient(features, labels.to(torch.uint8), keys=keys, key_labels=names, **options)
    assert_same(
        found, value_and_gradient(features, labels, keys=keys[names >= 0], key_labels=names[names >= 0], **options)
    )


@pytest.mark.parametrize("weights", [[1e10, 1e-8, 1e-8] * 2, [1.0, 1e-30, 1e-30] * 2, [1e30, 1.0, 1e-30] * 2])
@pytest.mark.parametrize("denominator", ["all", "negatives", "pairwise"])
def test_weights_of_keys_of_very_different_sizes(backend: str, denominator: str, weights: list[float]) -> None:
    """A class's own keys alone are its positives, however small their weights."""
    generator = torch.Generator().manual_seed(0)
    features, keys = torch.randn(1, 1, 8, 1, 3, generator=generator), torch.randn(6, 8, generator=generator)
    labels, key_labels = torch.arange(3).reshape(1, 1, 1, 3), torch.arange(6) % 3
    beside = {"weights": None, "keys": keys, "key_labels": key_labels, "key_weights": torch.tensor(weights)}
    options = {"temperature": 0.5, "denominator": denominator, "background": None, "reduction": "sum"}
    drawn = Drawn(features, labels, beside, options)
    for found, truth in zip(solve(drawn, backend, torch.float32, None), truth_of(drawn, None), strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-4, atol=1e-4)


def test_a_negative_of_next_to_no_weight(backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    features, keys = torch.randn(1, 1, 8, 1, 5, generator=generator), torch.randn(6, 8, generator=generator)
    key_labels, key_weights = torch.tensor([0, 0, 0, 0, 0, 1]), torch.tensor([1.0, 1, 1, 1, 1, 1e-30])
    beside = {"weights": None, "keys": keys, "key_labels": key_labels, "key_weights": key_weights}
    options = {"temperature": 0.1, "denominator": "negatives", "background": None, "reduction": "sum"}
    drawn = Drawn(features, torch.zeros(1, 1, 1, 5, dtype=torch.int64), beside, options)
    for found, truth in zip(solve(drawn, backend, torch.float32, None), truth_of(drawn, None), strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("reduction", ["block", "anchor", "class"])
def test_weights_as_large_as_numbers_are(backend: str, reduction: str) -> None:
    features, labels = small()
    weights = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1
    options = {"reduction": reduction, "backend": backend}
    large = value_and_gradient(features, labels, weights=weights * 1e308, **options)
    assert_same(large, value_and_gradient(features, labels, weights=weights, **options))


@pytest.mark.parametrize("denominator", ["all", "pairwise"])
def test_autocast_changes_nothing(backend: str, denominator: str) -> None:
    features, labels = small()
    keys, names = torch.randn(6, 8, generator=torch.Generator().manual_seed(3)), torch.arange(6) % 3
    options = {"keys": keys, "key_labels": names, "denominator": denominator, "backend": backend}
    plain = value_and_gradient(features, labels, **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(value_and_gradient(features, labels, **options), plain)


# ---- temperatures ----------------------------------------------------------------------------------------------------


def test_a_tensor_is_the_same_temperature(backend: str) -> None:
    features, labels = small()
    number = value_and_gradient(features, labels, temperature=0.2, backend=backend)
    assert_same(number, value_and_gradient(features, labels, temperature=torch.tensor(0.2), backend=backend))


def test_a_parameter_is_learned_with_its_module() -> None:
    criterion = LocalContrastiveLoss(temperature=torch.nn.Parameter(torch.tensor(0.5)))
    assert [name for name, _ in criterion.named_parameters()] == ["temperature"]
    features, labels = small()
    before = criterion(features, labels).item()
    optimizer = torch.optim.SGD(criterion.parameters(), lr=0.01)
    criterion(features, labels).backward()
    optimizer.step()
    assert criterion.temperature.item() != 0.5
    assert criterion(features, labels).item() < before
    assert criterion.state_dict()["temperature"] == criterion.temperature
    criterion.temperature = 0.3
    assert not list(criterion.parameters())
    assert criterion.temperature == 0.3


def test_a_module_uses_the_parameter_that_it_has_now() -> None:
    criterion = LocalContrastiveLoss(temperature=torch.nn.Parameter(torch.tensor(0.2)))
    features, labels = small()
    expected = local_contrastive_loss(features, labels, temperature=0.5)
    other = {"temperature": torch.tensor(0.5)}
    torch.testing.assert_close(torch.func.functional_call(criterion, other, (features, labels)), expected)
    copied = copy.deepcopy(criterion)
    with torch.no_grad():
        copied.temperature.fill_(0.5)
    torch.testing.assert_close(copied(features, labels), expected)
    assert criterion.temperature.item() == pytest.approx(0.2)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_tensor_that_is_no_temperature_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        local_contrastive_loss(*small(), temperature=torch.tensor(bad))


def test_a_tensor_of_several_temperatures_is_refused() -> None:
    with pytest.raises(ValueError, match=r"temperature.*\(2,\)"):
        NTXentLoss(temperature=torch.ones(2))


# ---- in PyTorch ------------------------------------------------------------------------------------------------------


def differentiable(reduction: str) -> tuple[Any, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 2, 3, 2, 3, generator=generator, dtype=torch.float64).requires_grad_()
    keys = torch.randn(4, 3, generator=generator, dtype=torch.float64).requires_grad_()
    temperature = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    labels, names = torch.randint(0, 3, (1, 2, 2, 3), generator=generator), torch.tensor([0, 1, 2, 2])
    weights = torch.rand(labels.shape, generator=generator)

    def loss(features: Tensor, keys: Tensor, temperature: Tensor) -> Tensor:
        beside = {"weights": weights, "key_labels": names, "key_weights": torch.tensor([1.0, 2.0, 0.5, 1.0])}
        options = {"reduction": reduction, "background": None, "backend": "tiled"}
        return local_contrastive_loss(features, labels, keys=keys, temperature=temperature, **beside, **options)

    return loss, [features, keys, temperature]


@pytest.mark.parametrize("reduction", ["block", "class", "none"])
def test_gradients_are_those_of_the_loss(reduction: str) -> None:
    assert torch.autograd.gradcheck(*differentiable(reduction))


@pytest.mark.parametrize("reduction", ["class", "none"])
def test_a_second_derivative_is_refused(reduction: str) -> None:
    loss, leaves = differentiable(reduction)
    (first,) = torch.autograd.grad(loss(*leaves).sum(), leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match="first-order"):
        first.sum().backward()


@pytest.mark.parametrize("reduction", ["anchor", "none"])
def test_one_graph(backend: str, reduction: str) -> None:
    torch.compiler.reset()
    features, labels = small()
    keys, names = torch.randn(7, 8, generator=torch.Generator().manual_seed(3)), torch.arange(7) % 3
    weights = torch.rand(labels.shape, generator=torch.Generator().manual_seed(4))

    def loss(features: Tensor, keys: Tensor, temperature: Tensor) -> Tensor:
        beside = {"weights": weights, "keys": keys, "key_labels": names}
        options = {"temperature": temperature, "reduction": reduction, "backend": backend}
        return local_contrastive_loss(features, labels, **beside, **options)

    found = []
    for call in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        leaves = [one.detach().requires_grad_() for one in (features, keys, torch.tensor(0.2))]
        value = call(*leaves)
        found.append((value.detach(), *torch.autograd.grad(value.sum(), leaves)))
    for eager, captured in zip(*found, strict=True):
        torch.testing.assert_close(captured, eager, rtol=1e-5, atol=1e-6)


def test_a_schedule_of_temperatures_compiles_once() -> None:
    torch.compiler.reset()
    graphs = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    features, labels = small()
    call = torch.compile(
        lambda t: local_contrastive_loss(features, labels, temperature=t), backend=count, fullgraph=True
    )
    losses = {call(torch.tensor(0.1 + 0.01 * step)).item() for step in range(50)}
    assert len(losses) == 50
    assert len(graphs) == 1


@pytest.mark.parametrize("reduction", ["block", "none"])
def test_the_operator_is_as_torch_wants_it(reduction: str) -> None:
    points, keys = torch.randn(24, 8, requires_grad=True), torch.randn(5, 8, requires_grad=True)
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    labels, weights = torch.arange(24).reshape(1, 2, 3, 4) % 3, torch.rand(24)
    beside = (labels, weights, torch.arange(5) % 3, torch.rand(5) + 0.1)
    choices = ([2, 2], False, False, 0, None, False, False, reduction, False)
    torch.library.opcheck(
        torch.ops.semicl.keyed_contrast.default, (points, keys, scale, *beside, *choices, True, True, "tiled")
    )


# ---- mistakes --------------------------------------------------------------------------------------------------------


F, Y = small()
K = torch.randn(3, 8)
MISTAKES = [
    ({"weights": [1.0]}, TypeError, "weights.*list"),
    ({"weights": torch.ones(2, 2, 4)}, ValueError, r"weights.*\(2, 2, 4, 5\).*\(2, 2, 4\)"),
    ({"weights": -torch.ones(2, 2, 4, 5)}, ValueError, "weights.*-1"),
    ({"weights": torch.full((2, 2, 4, 5), float("nan"))}, ValueError, "weights.*nan"),
    ({"weights": torch.full((2, 2, 4, 5), float("inf"))}, ValueError, "weights.*finite.*inf"),
    *(
        ({"keys": K, "key_labels": Y[0, 0, 0, :3], "key_weights": torch.full((3,), one).double()}, ValueError, got)
        for one, got in ((0.0, "0 to 0"), (1e-37, "1e-30.*1e-37"), (3e38, r"1e\+30.*3e\+38"), (torch.nan, "nan"))
    ),
    ({"weights": torch.ones(2, 2, 4, 5, requires_grad=True)}, ValueError, r"weights\.detach\(\)"),
    ({"keys": K}, ValueError, "key_labels must be given"),
    ({"keys": K[:, :5], "key_labels": Y[0, 0, 0, :3]}, ValueError, r"keys.*\(K, 8\).*\(3, 5\)"),
    ({"keys": K.long(), "key_labels": Y[0, 0, 0, :3]}, TypeError, "keys.*int64"),
    ({"keys": K, "key_labels": Y[0, 0, 0, :2]}, ValueError, r"key_labels.*\(3,\).*\(2,\)"),
    ({"keys": K, "key_labels": torch.ones(3)}, TypeError, "key_labels.*float32"),
    (
        {"keys": K, "key_labels": Y[0, 0, 0, :3], "key_weights": torch.ones(2)},
        ValueError,
        r"key_weights.*\(3,\).*\(2,\)",
    ),
    ({"key_labels": Y[0, 0, 0, :3]}, ValueError, "got no keys"),
]


@pytest.mark.parametrize(("beside", "kind", "message"), MISTAKES)
def test_mistakes_are_named(beside: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        local_contrastive_loss(F, Y, **beside)


def test_keys_have_labels_exactly_where_points_have() -> None:
    with pytest.raises(ValueError, match="key_labels must be None where labels is"):
        SupervisedContrastiveLoss()(torch.randn(3, 2, 8), keys=K, key_labels=torch.arange(3))
