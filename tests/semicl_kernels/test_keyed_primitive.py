"""grouped_logsumexp of rows against other rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import semicl_kernels

from .interpreter import is_interpreted
from .on_device import grouped_logsumexp


def integers(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def problem(channels: int = 20, weighted: bool = True, seed: int = 0) -> dict[str, Any]:
    """Three groups, one without rows; the keys of two overlap, those of the third are none."""
    generator = torch.Generator().manual_seed(seed)
    rows, keys = torch.randn(31, channels, generator=generator), torch.randn(45, channels, generator=generator)
    skip_begin = torch.randint(0, 46, (31,), generator=generator, dtype=torch.int32)
    width = torch.randint(0, 12, (31,), generator=generator, dtype=torch.int32)
    return {
        "rows": rows,
        "offsets": integers(0, 14, 14, 29, 31),
        "anchors": integers(14, 0, 11, 2),
        "skip_begin": skip_begin,
        "skip_end": torch.minimum(skip_begin + width, torch.tensor(45, dtype=torch.int32)),
        "keys": keys,
        "key_begin": integers(0, 3, 20, 7),
        "key_end": integers(33, 40, 45, 7),
        "key_weights": torch.rand(45, generator=generator) + 0.1 if weighted else None,
    }


def dense(given: dict[str, Any], scale: float) -> Tensor:
    """The same with a matrix and a mask."""
    rows, keys, count = given["rows"], given["keys"], len(given["rows"])
    number = torch.arange(len(keys))
    met, anchor = torch.zeros(count, len(keys), dtype=torch.bool), torch.zeros(count, dtype=torch.bool)
    for g, first in enumerate(given["offsets"][:-1].tolist()):
        mine = slice(first, int(given["offsets"][g + 1]))
        met[mine] = (number >= given["key_begin"][g]) & (number < given["key_end"][g])
        anchor[first : first + int(given["anchors"][g])] = True
    met &= (number < given["skip_begin"][:, None]) | (number >= given["skip_end"][:, None])
    s = scale * rows @ keys.T
    if given["key_weights"] is not None:
        s = s + given["key_weights"].log().to(s.dtype)
    lse = s.masked_fill(~met, -torch.inf).logsumexp(1)
    return torch.where(anchor, lse, torch.zeros_like(lse))


def solve(call: Any, given: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    leaves = {name: given[name].detach().clone().requires_grad_() for name in ("rows", "keys")}
    lse = call({**given, **leaves})
    live = lse.isfinite()
    weights = torch.randn(len(lse), generator=torch.Generator().manual_seed(9)).to(lse.dtype)
    by_rows, by_keys = torch.autograd.grad((lse * weights)[live].sum(), list(leaves.values()))
    return lse.detach(), by_rows, by_keys


@pytest.mark.parametrize("scale", [0.3, 5.0, -1.0])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("channels", [1, 20, 150])
def test_rows_against_keys(backend: str, channels: int, weighted: bool, scale: float) -> None:
    given = problem(channels, weighted)
    found = solve(lambda one: grouped_logsumexp(**one, scale=scale, backend=backend), given)
    exact = {
        name: one.double() if isinstance(one, Tensor) and one.is_floating_point() else one
        for name, one in given.items()
    }
    for ours, truth in zip(found, solve(lambda one: dense(one, scale), exact), strict=True):
        torch.testing.assert_close(ours.double(), truth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_rows(backend: str, dtype: torch.dtype) -> None:
    given = problem()
    given = {**given, "rows": given["rows"].to(dtype), "keys": given["keys"].to(dtype)}
    found = solve(lambda one: grouped_logsumexp(**one, backend=backend), given)
    exact = {
        name: one.double() if isinstance(one, Tensor) and one.is_floating_point() else one
        for name, one in given.items()
    }
    for ours, truth in zip(found, solve(lambda one: dense(one, 1.0), exact), strict=True):
        assert (ours.double() - truth).nan_to_num().norm() <= 0.02 * truth.nan_to_num(0, 0, 0).norm()


def test_keys_without_a_gradient_get_none(backend: str) -> None:
    given = problem()
    rows = given["rows"].clone().requires_grad_()
    grouped_logsumexp(**{**given, "rows": rows}, backend=backend)[:14].sum().backward()
    assert rows.grad is not None
    assert rows.grad[:14].any()
    assert not rows.grad[14:].any()


def test_no_rows_and_no_keys(backend: str) -> None:
    given = problem()
    none = {**given, "keys": given["keys"][:0], "key_begin": integers(0, 0, 0, 0), "key_end": integers(0, 0, 0, 0)}
    lse = grouped_logsumexp(**{**none, "key_weights": None}, backend=backend)
    assert torch.equal(lse[:14], torch.full((14,), -torch.inf))
    empty = {name: one[:0] for name, one in given.items() if name in ("rows", "skip_begin", "skip_end")}
    groups = {"offsets": integers(0), "anchors": integers(), "key_begin": integers(), "key_end": integers()}
    assert grouped_logsumexp(**{**given, **empty, **groups}, backend=backend).shape == (0,)


def test_clip_loss_of_two_towers(backend: str) -> None:
    """InfoNCE from images to texts and back, by the primitive alone."""
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(9, 12, generator=generator)) for _ in range(2))
    one_group = {"offsets": integers(0, 9), "anchors": integers(9), "key_begin": integers(0), "key_end": integers(9)}
    nothing = torch.zeros(9, dtype=torch.int32)
    options = {**one_group, "skip_begin": nothing, "skip_end": nothing, "scale": 10.0, "backend": backend}
    own = 10 * (images * texts).sum(1)
    both = grouped_logsumexp(images, keys=texts, **options) + grouped_logsumexp(texts, keys=images, **options)
    s, target = 10 * images @ texts.T, torch.arange(9)
    expected = (torch.nn.functional.cross_entropy(s, target) + torch.nn.functional.cross_entropy(s.T, target)) / 2
    torch.testing.assert_close((both / 2 - own).mean(), expected, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_primitive() -> None:
    given = {name: one.double() if name in ("rows", "keys") else one for name, one in problem(3).items()}

    def call(rows: Tensor, keys: Tensor) -> Tensor:
        return semicl_kernels.grouped_logsumexp(**{**given, "rows": rows, "keys": keys}, backend="tiled")[:14]

    assert torch.autograd.gradcheck(call, [given[name].requires_grad_() for name in ("rows", "keys")])


def test_one_graph(backend: str) -> None:
    if is_interpreted(backend):
        pytest.skip("the operator is the same for every backend")
    torch.compiler.reset()
    given = problem()

    def call(rows: Tensor, keys: Tensor) -> Tensor:
        return grouped_logsumexp(**{**given, "rows": rows, "keys": keys}, backend=backend)[:14].sum()

    found = []
    for function in (call, torch.compile(call, backend="aot_eager", fullgraph=True)):
        leaves = [given[name].clone().requires_grad_() for name in ("rows", "keys")]
        found.append(torch.autograd.grad(function(*leaves), leaves))
    for eager, captured in zip(*found, strict=True):
        torch.testing.assert_close(captured, eager)


def test_the_operator_is_as_torch_wants_it() -> None:
    given = problem()
    leaves = [given[name].requires_grad_() for name in ("rows", "keys")]
    scale = torch.tensor(1.0, dtype=torch.float64)
    torch.library.opcheck(
        torch.ops.semicl.keyed_logsumexp.default,
        (*leaves, given["key_begin"], given["key_end"], given["key_weights"], given["offsets"], given["anchors"],
         given["skip_begin"], given["skip_end"], 31, False, scale, None, "tiled"),
    )  # fmt: skip


MISTAKES = [
    ({"keys": None}, ValueError, "got no keys"),
    ({"keys": torch.randn(45, 3)}, ValueError, r"keys.*\(K, 20\).*\(45, 3\)"),
    ({"keys": torch.randn(45, 20).double()}, ValueError, "keys.*float64"),
    ({"key_begin": None}, TypeError, "key_begin.*NoneType"),
    ({"key_end": integers(1, 2)}, ValueError, r"key_end.*\(4,\)"),
    ({"key_end": integers(33, 46, 45, 7)}, ValueError, "key_end.*45"),
    ({"key_weights": torch.zeros(45)}, ValueError, "key_weights.*positive"),
]


@pytest.mark.parametrize(("change", "kind", "message"), MISTAKES)
def test_mistakes_are_named(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        semicl_kernels.grouped_logsumexp(**{**problem(), **change})


def test_exponentials_of_large_similarities(compiled_backend: str) -> None:
    """64, 63, ... are exact in float32, and so is what their exponents lack of the log-sum-exp."""
    rows, keys = torch.zeros(1, 16), torch.zeros(65, 16)
    rows[0, 0], keys[:, 0] = 8, 8 - torch.arange(65) / 8
    own = {"offsets": integers(0, 1), "anchors": integers(1), "skip_begin": integers(0), "skip_end": integers(0)}
    ranges = {"key_begin": integers(0), "key_end": integers(65)}
    keys.requires_grad_()
    lse = grouped_logsumexp(rows, **own, keys=keys, **ranges, scale=1.0, backend=compiled_backend)
    (gradient,) = torch.autograd.grad(lse.sum(), keys)
    apart = (gradient[:, 0] / gradient[0, 0]).double().log() + torch.arange(65)
    assert apart.abs().max() < 3e-7


@pytest.mark.parametrize("name", ["reference", "tiled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_float64_keys_keep_their_digits(name: str, dtype: torch.dtype) -> None:
    given = problem()
    given = {key: one.double() if key in ("rows", "keys") else one for key, one in given.items()}
    given["key_weights"] = torch.rand(45, generator=torch.Generator().manual_seed(2), dtype=dtype) + 0.1
    found = grouped_logsumexp(**given, backend=name)
    weights = given["key_weights"].double()
    torch.testing.assert_close(found, dense({**given, "key_weights": weights}, 1.0), rtol=1e-12, atol=1e-12)
