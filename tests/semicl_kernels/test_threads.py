"""The same bits from run to run, for any number of threads, from several threads at once and after a fork."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
from torch import Tensor

from semicl_kernels import nt_xent_loss

from .cases import Case, value_and_gradient
from .groups import itself_skipped, unit_rows
from .interpreter import skip_threads
from .on_device import grouped_logsumexp, local_contrastive_loss

DENSE = Case((1, 2, 48, 23, 29), "one class", seed=1)
LARGE = Case((1, 2, 16, 80, 90), "random", seed=3, options={"block_size": 10, "background": 0})
SPARSE = Case((2, 2, 48, 37, 31), "random", seed=2, options={"block_size": 16, "background": 0})
PAIRWISE = Case((1, 2, 48, 23, 29), "random", seed=1, options={"denominator": "pairwise"})


def result(backend: str, case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    def loss(*args: object, **options: object) -> Tensor:
        return local_contrastive_loss(*args, backend=backend, **options)

    return value_and_gradient(loss, case, case.features(dtype))


def assert_same_bits(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", [DENSE, SPARSE], ids=["dense", "sparse"])
def test_same_bits_from_run_to_run(backend: str, case: Case, dtype: torch.dtype) -> None:
    first = result(backend, case, dtype)
    for _ in range(3):
        assert_same_bits(result(backend, case, dtype), first)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", [DENSE, SPARSE, PAIRWISE], ids=["dense", "sparse", "pairwise"])
def test_compiled_backend_gives_the_same_bits_for_any_number_of_threads(
    compiled_backend: str, case: Case, dtype: torch.dtype
) -> None:
    torch.set_num_threads(1)
    alone = result(compiled_backend, case, dtype)
    for count in (2, 3, 7):
        torch.set_num_threads(count)
        assert_same_bits(result(compiled_backend, case, dtype), alone)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [1, 2, 17, 129, 700])
def test_primitive_gives_the_same_bits_for_any_number_of_threads(compiled_backend: str, count: int) -> None:
    rows = unit_rows(count, 33, seed=0).float().requires_grad_()

    def lse_and_gradient() -> tuple[Tensor, Tensor]:
        lse = grouped_logsumexp(*itself_skipped(rows), scale=10.0, bound=10.0, backend=compiled_backend)
        return lse.detach(), torch.autograd.grad(lse[torch.isfinite(lse)].sum(), rows)[0]

    torch.set_num_threads(1)
    alone = lse_and_gradient()
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        assert_same_bits(lse_and_gradient(), alone)


@pytest.mark.usefixtures("threads")
def test_several_python_threads_at_once(backend: str) -> None:
    skip_threads(backend)
    torch.set_num_threads(2)
    cases = [DENSE, SPARSE, *(Case((1, 2, 16, 9, 9 + k), seed=k) for k in range(4))]
    expected = [result(backend, case, torch.float32) for case in cases]
    together = threading.Barrier(len(cases))

    def repeated(case: Case) -> list[tuple[Tensor, Tensor]]:
        together.wait()
        return [result(backend, case, torch.float32) for _ in range(5)]

    with ThreadPoolExecutor(len(cases)) as pool:
        for results, right in zip(pool.map(repeated, cases), expected, strict=True):
            for got in results:
                if (
                    backend == "reference"
                ):  # its products are torch's, whose sums may depend on how busy its threads are
                    torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-6)
                else:
                    assert_same_bits(got, right)


def value_and_gradient_lists(loss_of: Callable[[Tensor], Tensor], features: Tensor) -> tuple[Any, Any]:
    """Plain lists, since tensors would be sent through shared memory, which some machines do not have. They are not
    flattened: of a gradient that is a view that is a copy by torch, which may hang in a child."""
    loss = loss_of(features)
    (gradient,) = torch.autograd.grad(loss, features, torch.ones_like(loss))
    return loss.tolist(), gradient.tolist()


def send_result(connection: Connection, loss_of: Callable[[Tensor], Tensor], features: Tensor) -> None:
    # In the main thread, which had torch's threads before the fork; then several callers again and again.
    first = value_and_gradient_lists(loss_of, features)
    with ThreadPoolExecutor(2) as pool:
        others = list(pool.map(lambda _: value_and_gradient_lists(loss_of, features), range(8)))
    assert all(other == first for other in others)
    assert torch.get_num_threads() == 3
    connection.send(first)


def assert_child_computes_the_same(loss_of: Callable[[Tensor], Tensor], features: Tensor) -> None:
    """In a child of a process whose three threads have worked."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no fork")
    torch.set_num_threads(3)
    expected = value_and_gradient_lists(loss_of, features)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=send_result, args=(sender, loss_of, features))
    child.start()
    sender.close()  # the child's end is then the last: should it fail, that is told from hanging
    try:
        assert receiver.poll(60), "the child hangs"
        assert receiver.recv() == expected
    finally:
        child.kill()
        child.join()


# Newer Pythons warn of any fork in a process with threads; that it works nevertheless is what is tested.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@forks
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("case", [DENSE, LARGE], ids=["dense", "large"])
@pytest.mark.parametrize("reduction", ["block", "none"])
def test_after_a_fork(compiled_backend: str, case: Case, reduction: str) -> None:
    """A child computes the same, in one thread: where torch alone would hang, too, which is from some ten thousand
    points on."""
    # Made before the fork: torch's threads do not survive one.
    features, labels = case.features(torch.float32).requires_grad_(), case.labels()
    options = {**case.options, "reduction": reduction, "backend": compiled_backend}
    assert_child_computes_the_same(lambda x: local_contrastive_loss(x, labels, **options), features)


@forks
@pytest.mark.usefixtures("threads")
def test_views_after_a_fork(compiled_backend: str) -> None:
    """Of NT-Xent, which stacks its views itself."""
    first, second = torch.randn(2, 2000, 64, generator=torch.Generator().manual_seed(0))
    assert_child_computes_the_same(
        lambda x: nt_xent_loss(x, second, backend=compiled_backend), first.clone().requires_grad_()
    )


def test_forward_on_one_thread_and_backward_on_another(backend: str) -> None:
    features = SPARSE.features(torch.float32).requires_grad_()
    loss = local_contrastive_loss(features, SPARSE.labels(), backend=backend)
    (expected,) = torch.autograd.grad(loss, features, retain_graph=True)
    worker = threading.Thread(target=loss.backward)
    worker.start()
    worker.join()
    torch.testing.assert_close(features.grad, expected)
