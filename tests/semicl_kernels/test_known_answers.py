"""Four pixels whose loss and gradient can be worked out on paper, on every backend."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from .on_device import local_contrastive_loss, nt_xent_loss, supervised_contrastive_loss

E1, E2 = [1.0, 0.0], [0.0, 1.0]
TEMPERATURE = 0.5
E = math.exp(1 / TEMPERATURE)  # of two equal unit vectors; orthogonal ones give 1


def pixels(*vectors: list[float]) -> Tensor:
    """One image, one view, the pixels in a row of height 1: (1, 1, C, 1, len(vectors))."""
    return torch.tensor(vectors).T.reshape(1, 1, 2, 1, len(vectors)).contiguous()


def labels(*values: int) -> Tensor:
    return torch.tensor(values).reshape(1, 1, 1, len(values))


def loss_map(backend: str, features: Tensor, classes: Tensor, **options: object) -> list[float]:
    loss = local_contrastive_loss(
        features, classes, temperature=TEMPERATURE, reduction="none", backend=backend, **options
    )
    return loss.flatten().tolist()


def test_two_pairs(backend: str) -> None:
    expected = math.log(E + 2) - 1 / TEMPERATURE
    actual = loss_map(backend, pixels(E1, E1, E2, E2), labels(1, 1, 2, 2))
    assert actual == pytest.approx([expected] * 4, rel=1e-6)


def test_two_pairs_over_negatives(backend: str) -> None:
    expected = math.log(2) - 1 / TEMPERATURE
    actual = loss_map(backend, pixels(E1, E1, E2, E2), labels(1, 1, 2, 2), denominator="negatives")
    assert actual == pytest.approx([expected] * 4, rel=1e-6)


def test_background_is_a_column_and_never_an_anchor(backend: str) -> None:
    expected = math.log(E + 2) - 1 / TEMPERATURE
    actual = loss_map(backend, pixels(E1, E1, E2, E2), labels(1, 1, 0, 0))
    assert actual == pytest.approx([expected, expected, 0, 0], rel=1e-6)


def test_positives_are_averaged_outside_the_logarithm(backend: str) -> None:
    like_one_positive = math.log(E + 2) - 0.5 / TEMPERATURE
    like_none = math.log(E + 2)
    actual = loss_map(backend, pixels(E1, E2, E1, E2), labels(1, 1, 1, 0))
    assert actual == pytest.approx([like_one_positive, like_none, like_one_positive, 0], rel=1e-6)


def test_class_of_one_pixel_is_no_anchor(backend: str) -> None:
    expected = math.log(E + 2) - 1 / TEMPERATURE
    actual = loss_map(backend, pixels(E1, E1, E2, E2), labels(1, 1, 2, 3))
    assert actual == pytest.approx([expected, expected, 0, 0], rel=1e-6)


def test_ragged_last_block_is_kept(backend: str) -> None:
    """Five pixels in blocks of three: the last block has two, of one class."""
    first = math.log(E + 1) - 1 / TEMPERATURE
    second = 0.0  # the one other pixel is both the positive and the denominator
    features = pixels(E1, E1, E2, E1, E2)
    actual = loss_map(backend, features, labels(1, 1, 0, 1, 1), block_size=3)
    assert actual == pytest.approx([first, first, 0, second, second], abs=1e-6)


@pytest.mark.parametrize(("reduction", "weights"), [("block", (1 / 2, 1 / 2)), ("anchor", (3 / 5, 2 / 5))])
def test_weights_of_blocks(backend: str, reduction: str, weights: tuple[float, float]) -> None:
    """Blocks of four: three anchors and a background pixel, then two anchors and two."""
    loss = local_contrastive_loss(
        pixels(E1, E1, E1, E2, E1, E1, E2, E2),
        labels(1, 1, 1, 0, 1, 1, 0, 0),
        temperature=TEMPERATURE,
        block_size=(1, 4),
        reduction=reduction,
        backend=backend,
    )
    first = math.log(2 * E + 1) - 1 / TEMPERATURE
    second = math.log(E + 2) - 1 / TEMPERATURE
    assert loss.item() == pytest.approx(weights[0] * first + weights[1] * second, rel=1e-6)


def test_sum(backend: str) -> None:
    loss = local_contrastive_loss(
        pixels(E1, E1, E2, E2), labels(1, 1, 2, 2), temperature=TEMPERATURE, reduction="sum", backend=backend
    )
    assert loss.item() == pytest.approx(4 * (math.log(E + 2) - 1 / TEMPERATURE), rel=1e-6)


def test_gradient(backend: str) -> None:
    """With f0 = f1 = e1 the anchors and f2 = f3 = e2 background, and the softmax (p, q, q) = (e, 1, 1) / (e + 2):
    d/df0 = d/df1 = (p - 1) e1 + q e2 and d/df2 = d/df3 = q e1, for the mean of the two anchors at temperature 1.
    """
    features = pixels(E1, E1, E2, E2).requires_grad_()
    local_contrastive_loss(features, labels(1, 1, 0, 0), temperature=1.0, normalize=False, backend=backend).backward()
    p, q = math.e / (math.e + 2), 1 / (math.e + 2)
    expected = pixels([p - 1, q], [p - 1, q], [q, 0.0], [q, 0.0])
    assert features.grad is not None
    torch.testing.assert_close(features.grad, expected, rtol=1e-5, atol=1e-7)


def test_scope_image_keeps_images_apart(backend: str) -> None:
    """Two images of one pixel have a positive in each other, but not in their own image."""
    features = torch.tensor([E1, E1]).reshape(2, 1, 2, 1, 1)
    classes = torch.ones(2, 1, 1, 1, dtype=torch.int64)
    assert loss_map(backend, features, classes, scope="image") == [0, 0]
    assert loss_map(backend, features, classes, scope="batch") == pytest.approx([0, 0], abs=1e-6)
    background = torch.tensor([E2, E2]).reshape(2, 1, 2, 1, 1)
    wider = torch.cat([features, background], dim=4)
    wider_classes = torch.tensor([[1, 0], [1, 0]]).reshape(2, 1, 1, 2)
    expected = math.log(E + 2) - 1 / TEMPERATURE
    assert loss_map(backend, wider, wider_classes, scope="batch") == pytest.approx([expected, 0] * 2, rel=1e-6)


def test_self_supervised_positive_is_the_same_place_in_the_other_view(backend: str) -> None:
    """Two views of two pixels (e1, e2), equal in both views."""
    features = torch.stack([pixels(E1, E2)[0, 0]] * 2)[None]
    loss = local_contrastive_loss(features, temperature=TEMPERATURE, backend=backend)
    assert loss.item() == pytest.approx(math.log(E + 2) - 1 / TEMPERATURE, rel=1e-6)


def test_nt_xent(backend: str) -> None:
    views = torch.tensor([E1, E2])
    loss = nt_xent_loss(views, views, temperature=TEMPERATURE, backend=backend)
    assert loss.item() == pytest.approx(math.log(E + 2) - 1 / TEMPERATURE, rel=1e-6)


def test_supervised_contrastive(backend: str) -> None:
    """One view of each of e1, e1, e2, e2: classes 0 and 0 (never background here), 4 and 4."""
    features = torch.tensor([E1, E1, E2, E2])[:, None]
    loss = supervised_contrastive_loss(features, torch.tensor([0, 0, 4, 4]), temperature=TEMPERATURE, backend=backend)
    assert loss.item() == pytest.approx(math.log(E + 2) - 1 / TEMPERATURE, rel=1e-6)
