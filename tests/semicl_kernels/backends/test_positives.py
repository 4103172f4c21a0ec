"""The terms of the positives, compiled and in PyTorch, against a matrix and masks in float64."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from semicl_kernels.backends import AVAILABLE, BACKENDS, Groups, Keys, Positives
from semicl_kernels.backends import cpu as cpu_backend


class Given(NamedTuple):
    rows: Tensor
    keys: Keys | None
    groups: Groups
    positives: Positives
    positive: Tensor  # (M, K): whether key k is a positive of row i
    weight: Tensor  # (K,)
    met: Tensor  # (M, K): whether key k is in D(i)


def integers(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def ranges(labels: Tensor, of: Tensor) -> tuple[Tensor, Tensor]:
    """[begin, end) of each of ``labels`` in ``of``, which is ascending."""
    return torch.searchsorted(of, labels).int(), torch.searchsorted(of, labels, right=True).int()


def square(sizes: tuple[int, ...], channels: int, length: float) -> Given:
    """One group of anchors of classes of these sizes, and 40 points of no class behind them."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    anchors, points = len(labels), len(labels) + 40
    rows = torch.nn.functional.normalize(torch.randn(points, channels, generator=generator), dim=1) * length
    begin, end = (torch.cat([one, torch.zeros(40, dtype=torch.int32)]) for one in ranges(labels, labels))
    groups = Groups(integers(0, points), integers(anchors), begin, end, points, True)
    pulls = torch.rand(points, generator=generator) * (torch.arange(points) < anchors)
    number = torch.arange(points)
    same = (number >= begin[:, None]) & (number < end[:, None])
    met = ~same & (number < anchors)[:, None]
    positive = same & ~torch.eye(points, dtype=torch.bool)
    return Given(rows, None, groups, Positives(begin, end, pulls, True), positive, torch.ones(points), met)


def beside(sizes: tuple[int, ...], channels: int, length: float) -> Given:
    """Rows of these classes against weighted keys of the same; some of the rows are keys themselves."""
    generator = torch.Generator().manual_seed(1)
    names = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    values = torch.nn.functional.normalize(torch.randn(len(names), channels, generator=generator), dim=1) * length
    labels = torch.arange(-1, len(sizes)).repeat_interleave(torch.tensor([5, *(size // 3 + 1 for size in sizes)]))
    rows = torch.nn.functional.normalize(torch.randn(len(labels), channels, generator=generator), dim=1) * length
    begin, end = ranges(labels, names)
    first = torch.arange(len(labels)) - torch.searchsorted(labels, labels)  # of its class
    itself = torch.where((first % 3 == 1) & (first < end - begin), begin + 2 * first.int(), -1).int()
    itself = torch.where(itself < end, itself, -1)
    number = torch.arange(len(names))
    same = (number >= begin[:, None]) & (number < end[:, None])
    weight = torch.rand(len(names), generator=generator) + 0.1
    keys = Keys(values, integers(0), integers(len(names)), itself, weight)
    groups = Groups(integers(0, len(labels)), integers(len(labels)), begin, end, len(labels), False)
    positives = Positives(begin, end, torch.rand(len(labels), generator=generator), True)
    return Given(rows, keys, groups, positives, same & (number != itself[:, None]), weight, ~same)


SIZES = {"large": (500, 900, 1, 60), "small": (3, 2, 7) * 20, "one": (300,)}
FORMS = {"square": square, "beside": beside}


def names() -> list[str]:
    compiled = cpu_backend.extension().instruction_sets() if cpu_backend.state() == AVAILABLE else []
    return ["tiled", *(f"cpu {name}" for name, _ in compiled)]


@pytest.fixture(params=names())
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    backend, _, instruction_set = request.param.partition(" ")
    if instruction_set:
        monkeypatch.setattr(cpu_backend, "instruction_set", lambda: (instruction_set, False))
    return str(backend)


def close(found: Tensor, truth: Tensor, what: str, scale: float) -> None:
    """An exponent is rounded as float32, and its exponential is off by that."""
    error = (found.double() - truth).norm() / truth.norm().clamp_min(1e-30)
    assert error < 1e-6 + 1e-7 * scale, (what, float(error))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("scale", [3.0, 300.0], ids=["fixed maximum", "online softmax"])
def test_terms_of_the_positives(name: str, sizes: str, form: str, scale: float) -> None:
    given = FORMS[form](SIZES[sizes], 37, 1.0)
    backend, rows, keys = BACKENDS[name], given.rows, given.keys
    anchors = given.positives.pulls > 0
    x, y = rows.double(), (rows if keys is None else keys.values).double()
    x.requires_grad_(), y.requires_grad_()
    s = scale * x @ y.T
    count = torch.where(given.positive, given.weight.double(), 0.0)

    positives = given.positives
    sums = backend.positive_sums(rows, keys, given.groups, positives.class_begin, positives.class_end)
    close(sums[anchors], (count * s / scale).sum(1).detach()[anchors], "sums", scale)

    lse = (s + given.weight.double().log()).masked_fill(~given.met, -torch.inf).logsumexp(1).detach()
    terms = count * torch.nn.functional.softplus(lse[:, None] - s)
    values, slopes = backend.softplus(rows, keys, given.groups, positives, lse, scale)
    close(values[anchors], terms.sum(1).detach()[anchors], "values", scale)
    close(slopes[anchors], (count * torch.sigmoid(lse[:, None] - s)).sum(1).detach()[anchors], "slopes", scale)

    grad = torch.rand(len(rows), generator=torch.Generator().manual_seed(2)) * anchors
    live = given.met & anchors[:, None]
    soft = torch.where(live, grad[:, None] * torch.exp(s.detach() + given.weight.double().log() - lse[:, None]), 0.0)
    total = (soft * s).sum() + (positives.pulls[:, None] * terms)[anchors].sum()
    by_x, by_y = torch.autograd.grad(total, [x, y])
    found = backend.backward(grad, rows, keys, lse, given.groups, positives, scale, None, False, True, True)
    close(found[0], by_x + by_y if keys is None else by_x, "by rows", scale)
    if keys is not None:
        close(found[1], by_y, "by keys", scale)
