"""Training writes what it learned, in the order its folder promises, and says what it cost."""

import csv
import math
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from semicl.data.datasets import Draw, ImagePieces, LabelledPieces, Repeated, Volumes
from semicl.data.prepared import Prepared
from semicl.errors import SemiclError
from semicl.models.checkpoint import ModelCard, load_weights, read_card
from semicl.models.unet import UNet
from semicl.options import GlobalContrastOptions, MachineOptions, ScheduleOptions, SegmentationOptions
from semicl.training.folder import StageFolder
from semicl.training.stages import VALIDATION_DICE, GlobalContrast, Segmentation
from semicl.training.trainer import Draws, train, train_with_validation

CPU = MachineOptions(accelerator="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    return StageFolder(tmp_path / "stage")


def _contrast(network: UNet, card: ModelCard, decay: str = "none") -> GlobalContrast:
    schedule = ScheduleOptions(2, 16, 1e-3, decay)  # type: ignore[arg-type]
    return GlobalContrast(network, GlobalContrastOptions(schedule), card, seed=0)


@pytest.mark.parametrize("decay", ["none", "one-cycle"])
def test_a_stage_learns_and_writes_what_it_learned(
    prepared: Prepared, network: UNet, card: ModelCard, folder: StageFolder, decay: str
) -> None:
    before = {name: value.clone() for name, value in network.encoder.state_dict().items()}
    stage = _contrast(network, card, decay)
    cost = train(stage, ImagePieces(prepared, prepared.cases[:2]), folder, CPU, "test")
    assert cost["steps"] == 2 * (40 // 16)
    assert cost["images a second"] > 0
    assert 0 <= cost["share of time waiting for data"] < 1
    weight = "stem.conv_0.conv.weight"
    assert not torch.equal(network.encoder.state_dict()[weight], before[weight])
    fresh = card.new_network(1)
    load_weights(fresh, folder.model)
    assert torch.equal(fresh.encoder.state_dict()[weight], network.encoder.state_dict()[weight])
    assert read_card(folder.model) == card
    assert list(folder.path.rglob(".partial-*")) == []


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_an_epoch_has_the_steps_that_are_asked_for(
    prepared: Prepared,
    network: UNet,
    card: ModelCard,
    folder: StageFolder,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
) -> None:
    """Of 40 slices each epoch takes others or, for 5 batches of 16, repeats them, each at most twice."""
    schedule = ScheduleOptions(2, 16, steps_per_epoch=steps)
    stage = GlobalContrast(network, GlobalContrastOptions(schedule), card, seed=0)
    epochs = list[Counter[int]]()
    pieces = ImagePieces(prepared, prepared.cases[:2])
    monkeypatch.setattr(stage, "on_train_epoch_start", lambda: epochs.append(Counter()))
    read = ImagePieces.__getitem__

    def counted(self: ImagePieces, piece: int | Draw) -> Tensor:
        epochs[-1][piece.number if isinstance(piece, Draw) else piece] += 1
        return read(self, piece)

    monkeypatch.setattr(ImagePieces, "__getitem__", counted)
    assert train(stage, pieces, folder, CPU, "test")["steps"] == 2 * steps
    assert all(max(epoch.values()) <= math.ceil(16 * steps / 40) for epoch in epochs)
    assert len(epochs[0] + epochs[1]) > len(epochs[0]) or len(epochs[0]) == 40


def test_repeated_slices_come_once_each_before_one_comes_again(prepared: Prepared) -> None:
    pieces = ImagePieces(prepared, prepared.cases[:2])
    for devices in (1, 2):
        draws = Draws(Repeated(pieces, 3), devices, 0, shuffle=True, seed=0)
        numbers = [draw.number for draw in draws]
        assert numbers != sorted(numbers)
        passes = [number // 40 for number in numbers]
        assert passes == sorted(passes)
        assert set(passes) == {0, 1, 2}
    (first, second) = (list(Draws(pieces, 1, 0, shuffle=True, seed=seed)) for seed in (0, 1))
    assert sorted(draw.number for draw in first) == sorted(draw.number for draw in second) == [*range(40)]
    assert first != second


def test_an_interruption_is_one_and_keeps_what_is_done(
    prepared: Prepared, network: UNet, card: ModelCard, folder: StageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning leaves the process on Ctrl-C; the command line has more to say."""
    before = signal.getsignal(signal.SIGINT)
    stage = _contrast(network, card)
    monkeypatch.setattr(stage, "on_train_epoch_start", lambda: _interrupt_after(stage, 1))
    try:
        with pytest.raises(KeyboardInterrupt):
            train(stage, ImagePieces(prepared, prepared.cases[:2]), folder, CPU, "test")
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning has switched it off
    assert folder.last.is_file()
    assert not folder.model.is_file()


def _interrupt_after(stage: GlobalContrast, epochs: int) -> None:
    if stage.current_epoch == epochs:
        raise KeyboardInterrupt


def _fine_tune(
    prepared: Prepared, network: UNet, card: ModelCard, folder: StageFolder, machine: MachineOptions = CPU
) -> Segmentation:
    stage = Segmentation(network, SegmentationOptions(ScheduleOptions(3, 16, 1e-2)), card, seed=0)
    pieces, validation = LabelledPieces(prepared, prepared.cases[:2]), Volumes(prepared, prepared.cases[2:4])
    train_with_validation(stage, pieces, validation, 1, folder, machine, "test", keep_last=True)
    return stage


@pytest.mark.parametrize(("dice", "best"), [([0.9, 0.1, 0.2], 0), ([0.1, 0.9, 0.2], 1), ([0.1, 0.2, 0.9], 2)])
def test_validation_picks_the_checkpoint(
    prepared: Prepared,
    network: UNet,
    card: ModelCard,
    folder: StageFolder,
    monkeypatch: pytest.MonkeyPatch,
    dice: list[float],
    best: int,
) -> None:
    given = iter([value for value in dice for _ in range(2)])
    monkeypatch.setattr("semicl.training.stages.dice_per_class", lambda *_: torch.full((3,), next(given)))
    stage = _fine_tune(prepared, network, card, folder)
    steps = [2, 4, 6]
    assert torch.load(folder.model, weights_only=True)["global_step"] == steps[best]
    assert [step for step, _ in stage.history] == steps
    assert [found for _, found in stage.history] == pytest.approx(dice)
    picked = card.new_network(1)
    load_weights(picked, folder.model)
    last = stage.network.state_dict()["classifier.weight"]
    kept = card.new_network(1)
    load_weights(kept, folder.model_last)
    assert torch.equal(kept.state_dict()["classifier.weight"], last)
    assert torch.equal(picked.state_dict()["classifier.weight"], last) == (best == 2)


def test_the_best_weights_stay_the_best_in_a_folder_that_was_moved(
    prepared: Prepared, network: UNet, card: ModelCard, folder: StageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = iter([value for value in (0.9, 0.1, 0.2) for _ in range(2)])
    monkeypatch.setattr("semicl.training.stages.dice_per_class", lambda *_: torch.full((3,), next(given)))
    before = signal.getsignal(signal.SIGINT)
    options = SegmentationOptions(ScheduleOptions(3, 16, 1e-2))
    pieces, validation = LabelledPieces(prepared, prepared.cases[:2]), Volumes(prepared, prepared.cases[2:4])
    stage = Segmentation(network, options, card, seed=0)
    monkeypatch.setattr(stage, "on_train_epoch_start", lambda: _interrupt_after(stage, 2))
    try:
        with pytest.raises(KeyboardInterrupt):
            train_with_validation(stage, pieces, validation, 1, folder, CPU, "test")
    finally:
        signal.signal(signal.SIGINT, before)
    assert str(folder.path).encode() not in folder.last.read_bytes()
    moved = StageFolder(folder.path.rename(folder.path.with_name("moved")))
    stage = Segmentation(card.new_network(0), options, card, seed=0)
    cost = train_with_validation(stage, pieces, validation, 1, moved, CPU, "test")
    assert torch.load(moved.model, weights_only=True)["epoch"] == 0
    assert cost["best epoch"] == 1
    assert cost["best validation Dice"] == pytest.approx(0.9)
    assert not folder.path.exists()


def test_a_resumed_stage_misses_the_best_weights_that_it_wrote(
    prepared: Prepared, network: UNet, card: ModelCard, folder: StageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fine_tune(prepared, network, card, folder)
    folder.model.unlink()
    with pytest.raises(SemiclError, match=r"model\.ckpt: no such file, .*; put it back, or give --overwrite"):
        _fine_tune(prepared, network, card, folder)


def test_logs_hold_losses_dice_and_pictures(
    prepared: Prepared, network: UNet, card: ModelCard, folder: StageFolder
) -> None:
    _fine_tune(prepared, network, card, folder)
    (table,) = folder.logs.rglob("metrics.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len([row for row in rows if row[VALIDATION_DICE]]) == 3
    assert len([row for row in rows if row["loss"]]) == 3
    (events,) = folder.logs.rglob("events.out.tfevents.*")
    board = EventAccumulator(str(events)).Reload()
    assert len(board.Images("validation")) == 3
    assert board.Images("validation")[0].encoded_image_string.startswith(b"\x89PNG")
    assert len(board.Scalars(VALIDATION_DICE)) == 3


@pytest.mark.parametrize(
    "machine",
    [
        replace(CPU, precision="bf16-mixed"),
        replace(CPU, deterministic=True),
        replace(CPU, workers=2),
    ],
    ids=["bf16-mixed", "deterministic", "workers"],
)
def test_machines(
    prepared: Prepared, network: UNet, card: ModelCard, folder: StageFolder, machine: MachineOptions
) -> None:
    stage = _fine_tune(prepared, network, card, folder, machine)
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in stage.state_dict().values())
    assert folder.model.is_file()
    torch.use_deterministic_algorithms(False)


@pytest.mark.slow
def test_a_compiled_network_trains_to_about_the_same_weights(
    prepared: Prepared, card: ModelCard, tmp_path: Path
) -> None:
    found = []
    for name, machine in (("eager", CPU), ("compiled", replace(CPU, compile=True))):
        torch.manual_seed(0)  # of the projection head
        stage = _contrast(card.new_network(0), card)
        train(stage, ImagePieces(prepared, prepared.cases[:1]), StageFolder(tmp_path / name), machine, "test")
        found.append(stage.state_dict())
    assert list(found[0]) == list(found[1])
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, atol=5e-3, rtol=1e-2)
