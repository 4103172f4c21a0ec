"""Two processes with half of a batch each train to the weights of one process with all of it."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from semicl.models.checkpoint import ModelCard
from semicl.options import GlobalContrastOptions, LocalContrastOptions, ScheduleOptions
from semicl.training.losses import contrast_all_devices
from semicl.training.stages import GlobalContrast, Stage, SupervisedLocalContrast

STEPS, COUNT = 3, 4


class Step(nn.Module):
    """A training step as a forward pass, which is what DistributedDataParallel wraps."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, batch: object) -> Tensor:
        return self.stage.training_step(batch)


def stages(card: ModelCard) -> list[Stage]:
    schedule = ScheduleOptions(1, 2)
    torch.manual_seed(0)
    made = [
        GlobalContrast(card.new_network(0), GlobalContrastOptions(schedule), card, seed=0),
        SupervisedLocalContrast(card.new_network(0), LocalContrastOptions(schedule), card, seed=0),
    ]
    for stage in made:
        stage.double().eval()  # normalization layers of the batch would see a part of it
        stage.log = lambda *args, **options: None  # type: ignore[method-assign,assignment]
    return made


def batch(stage: Stage, card: ModelCard, own: slice) -> object:
    """Two views of some slices, and labels where the stage takes some."""
    generator = torch.Generator().manual_seed(0)
    size = card.grid.patch_size
    views = torch.randn(2, COUNT, 1, *size, generator=generator, dtype=torch.float64)[:, own].flatten(0, 1)
    labels = torch.randint(0, 3, (COUNT, 2, *size), generator=generator)[own]
    return views if isinstance(stage, GlobalContrast) else (views, labels)


def train(card: ModelCard, rank: int | None) -> list[list[Tensor]]:
    own = slice(None) if rank is None else slice(rank * COUNT // 2, (rank + 1) * COUNT // 2)
    found = []
    for stage in stages(card):
        step: nn.Module = Step(stage)
        if rank is not None:
            contrast_all_devices(stage)
            step = DistributedDataParallel(step)
        optimizer = torch.optim.SGD(stage.parameters(), lr=0.1)
        for _ in range(STEPS):
            optimizer.zero_grad()
            step(batch(stage, card, own)).backward()
            optimizer.step()
        found.append([parameter.detach() for parameter in stage.parameters()])
    return found


def process(rank: int, place: str, card: ModelCard) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2)
    torch.save(train(card, rank), f"{place}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_train_as_one(tmp_path: Path, card: ModelCard) -> None:
    multiprocessing.spawn(process, (str(tmp_path), card), nprocs=2)
    alone, before = train(card, None), [list(stage.parameters()) for stage in stages(card)]
    for rank in range(2):
        for found, expected, start in zip(torch.load(tmp_path / f"{rank}.pt"), alone, before, strict=True):
            assert not torch.equal(
                torch.cat([one.flatten() for one in expected]), torch.cat([one.flatten() for one in start])
            )
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
