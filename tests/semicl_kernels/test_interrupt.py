"""Ctrl-C in a long call ends it within a second, and the next call is right."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from semicl_kernels import local_contrastive_loss

from .cases import Case, value_and_gradient

SMALL = Case((1, 2, 16, 9, 8), "random", seed=1)
SIDE, CHANNELS = 181, 64  # 32761 anchors: seconds of one thread, where nothing stops it


@pytest.fixture
def raising() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("threads", "raising")
@pytest.mark.parametrize("reduction", ["block", "none"])
@pytest.mark.parametrize(("name", "threads_of_torch"), [("cpu", 1), ("cpu", 2), ("tiled", 1)])
def test_interrupt_ends_a_long_call(name: str, threads_of_torch: int, reduction: str) -> None:
    torch.set_num_threads(threads_of_torch)

    def loss(*arguments: object, **options: object) -> torch.Tensor:
        return local_contrastive_loss(*arguments, backend=name, **options)

    expected = value_and_gradient(loss, SMALL, SMALL.features(torch.float32))
    features = torch.randn(1, 1, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.ones(1, 1, SIDE, SIDE, dtype=torch.int64)
    sent: list[float] = []

    def interrupt() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    def call_until_interrupted() -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:  # a machine may be fast enough for the call to end before
            local_contrastive_loss(features, labels, reduction=reduction, backend=name)

    timer = threading.Timer(0.4, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        call_until_interrupted()
    assert time.monotonic() - sent[0] < 1
    timer.join()
    start = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - start < 0.15  # no thread goes on
    for got, right in zip(value_and_gradient(loss, SMALL, SMALL.features(torch.float32)), expected, strict=True):
        assert torch.equal(got, right)


@pytest.mark.usefixtures("threads")
def test_signal_whose_handler_returns_does_not_end_a_call() -> None:
    torch.set_num_threads(1)
    handled: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: handled.append(number))
    features = torch.randn(1, 1, CHANNELS, 64, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.ones(1, 1, 64, 64, dtype=torch.int64)
    timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1))
    try:
        expected = local_contrastive_loss(features, labels, backend="cpu")
        timer.start()
        values = [local_contrastive_loss(features, labels, backend="cpu")]
        while not handled:
            values.append(local_contrastive_loss(features, labels, backend="cpu"))
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert all(torch.equal(value, expected) for value in values)
