"""The queue of each class: first in, first out, as the losses take it."""

from __future__ import annotations

import copy
from collections import defaultdict, deque
from typing import Any

import pytest
import torch
from torch import Tensor

from semicl_kernels import ClassQueue, local_contrastive_loss, supervised_contrastive_loss


def unit_vectors(count: int, seed: int = 0) -> Tensor:
    vectors = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=1)


def contents(queue: ClassQueue) -> dict[int, set[tuple[float, ...]]]:
    found: dict[int, set[tuple[float, ...]]] = defaultdict(set)
    keys = queue.keys()
    for vector, label in zip(keys["keys"].tolist(), keys["key_labels"].tolist(), strict=True):
        found[label].add(tuple(vector))
    return dict(found)


@pytest.mark.parametrize("batch", [1, 2, 5, 23])
def test_the_latest_of_each_class_are_kept(batch: int) -> None:
    """As a deque for each class keeps them, whatever comes at once."""
    queue, expected = ClassQueue(3, 4, 4), [deque(maxlen=4) for _ in range(3)]
    vectors = unit_vectors(46)
    labels = torch.randint(0, 3, (46,), generator=torch.Generator().manual_seed(1))
    for first in range(0, 46, batch):
        some = slice(first, first + batch)
        queue.push(vectors[some], labels[some])
        for vector, label in zip(vectors[some].tolist(), labels[some].tolist(), strict=True):
            expected[label].append(tuple(vector))
        assert contents(queue) == {label: set(one) for label, one in enumerate(expected) if one}
        assert len(queue) == sum(map(len, expected))


def test_keys_are_what_the_losses_take() -> None:
    queue = ClassQueue(3, 8, 4)
    features, labels = torch.randn(5, 2, 4, requires_grad=True), torch.tensor([0, 1, 2, 0, 1])
    alone = supervised_contrastive_loss(features, labels)
    torch.testing.assert_close(supervised_contrastive_loss(features, labels, **queue.keys()), alone)
    queue.push(unit_vectors(9), torch.arange(9) % 3)
    loss = supervised_contrastive_loss(features, labels, **queue.keys())
    assert not torch.equal(loss, alone)
    loss.backward()
    maps = torch.randn(1, 2, 4, 3, 3)
    assert local_contrastive_loss(maps, torch.ones(1, 2, 3, 3, dtype=torch.int64), **queue.keys()).isfinite()


def test_contents_are_saved_and_move_with_the_module() -> None:
    queue, other = ClassQueue(3, 2, 4), ClassQueue(3, 2, 4)
    queue.push(unit_vectors(7), torch.arange(7) % 3)
    other.load_state_dict(queue.state_dict())
    for one in (other, copy.deepcopy(queue), queue.half().float()):
        assert {label: len(vectors) for label, vectors in contents(one).items()} == {0: 2, 1: 2, 2: 2}
    assert not list(queue.parameters())
    assert contents(other) != {}
    other.push(unit_vectors(1, seed=5), torch.tensor([2]))
    assert len(other) == 6


def test_what_is_pushed_is_copied_without_its_graph() -> None:
    queue, vectors = ClassQueue(1, 2, 4), unit_vectors(2).requires_grad_()
    queue.push(vectors, torch.zeros(2, dtype=torch.int64))
    with torch.no_grad():
        vectors.zero_()
    keys = queue.keys()["keys"]
    assert keys.any()
    assert not keys.requires_grad


def test_a_queue_of_inference_mode_is_trained_with() -> None:
    with torch.inference_mode():
        queue = ClassQueue(2, 2, 4)
        queue.push(unit_vectors(2), torch.tensor([0, 1]))
    queue.push(unit_vectors(2, seed=1), torch.tensor([0, 1]))
    features = torch.randn(3, 2, 4, requires_grad=True)
    supervised_contrastive_loss(features, torch.tensor([0, 0, 1]), **queue.keys()).backward()
    other = ClassQueue(2, 2, 4)
    queue.load_state_dict(other.state_dict())
    assert len(queue) == 0


def test_nothing_is_pushed_of_an_empty_batch() -> None:
    queue = ClassQueue(2, 2, 4)
    queue.push(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert len(queue) == 0
    assert queue  # is a queue, though there is nothing in it


ONE = torch.tensor([1])
MISTAKES = [
    ((unit_vectors(1)[:, :3], ONE), ValueError, r"vectors.*\(N, 4\).*\(1, 3\)"),
    ((unit_vectors(1), torch.tensor([3])), ValueError, "labels.*0 to 2.*3"),
    ((unit_vectors(1), torch.tensor([-1])), ValueError, "labels.*0 to 2.*-1"),
    ((unit_vectors(1), torch.tensor([1.0])), TypeError, "labels.*float32"),
    ((unit_vectors(2), ONE), ValueError, r"labels.*\(2,\).*\(1,\)"),
    ((2 * unit_vectors(1), ONE), ValueError, r"vectors.*unit length; got one of 2.*normalize"),
    ((unit_vectors(1) * torch.nan, ONE), ValueError, "vectors.*unit length; got one of nan"),
    (([1.0], ONE), TypeError, "vectors.*list"),
]


@pytest.mark.parametrize(("arguments", "kind", "message"), MISTAKES)
def test_mistakes_are_named_and_nothing_is_pushed(arguments: Any, kind: type[Exception], message: str) -> None:
    queue = ClassQueue(3, 2, 4)
    with pytest.raises(kind, match=message):
        queue.push(*arguments)
    assert len(queue) == 0


@pytest.mark.parametrize("numbers", [(0, 1, 1), (1, -1, 1), (1, 1, 0)])
def test_sizes_are_one_or_more(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        ClassQueue(*numbers)
    with pytest.raises(TypeError, match="classes must be an integer"):
        ClassQueue(1.5, 1, 1)  # type: ignore[arg-type]
