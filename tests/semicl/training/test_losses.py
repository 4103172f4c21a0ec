"""Two processes contrast as one that holds the whole batch: in value and in gradient, each for its own anchors."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing

from semicl.models.checkpoint import ModelCard
from semicl.options import GlobalContrastOptions, ScheduleOptions
from semicl.training.stages import GlobalContrast
from semicl_kernels import nt_xent_loss

COUNT, CHANNELS = 6, 5


def _vectors() -> Tensor:
    """Two views of the slices of both processes: (2 processes, 2 views, COUNT, CHANNELS)."""
    return torch.randn(2, 2, COUNT, CHANNELS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _contrast(rank: int, place: str, card: ModelCard) -> None:
    """One of two processes: its loss, its gradient, and how many anchors it had."""
    warnings.simplefilter("error")
    distributed.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2)
    stage = GlobalContrast(card.new_network(0), GlobalContrastOptions(ScheduleOptions(1, 2)), card, seed=0)
    anchors = []
    found = stage._own.forward

    def counted(features: Tensor, labels: Any) -> Tensor:
        anchors.append(int((labels > 0).sum()))
        return found(features, labels)

    stage._own.forward = counted  # type: ignore[method-assign]
    own = _vectors()[rank].clone().requires_grad_()
    loss = stage._loss_among_everyones(*own)
    loss.backward()
    torch.save({"loss": loss.detach(), "gradient": own.grad, "anchors": anchors}, f"{place}/{rank}.pt")
    distributed.destroy_process_group()


def test_value_and_gradient_are_those_of_one_process(tmp_path: Path, card: ModelCard) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_contrast, args=(rank, str(tmp_path), card)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    whole = _vectors().requires_grad_()
    loss = nt_xent_loss(*(whole[:, view].flatten(0, 1) for view in range(2)), temperature=0.5, backend="reference")
    loss.backward()
    assert [each["anchors"] for each in found] == [[2 * COUNT]] * 2
    # DistributedDataParallel takes the mean over processes, of the loss's gradient too.
    torch.testing.assert_close(torch.stack([each["loss"] for each in found]).mean(), loss.detach())
    torch.testing.assert_close(torch.stack([each["gradient"] for each in found]) / 2, whole.grad)
