"""FixMatch: sure points of the weak view supervise the strong view, point by point, and no other label does."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semicl.data.grid import Grid
from semicl.data.prepared import Prepared
from semicl.models.checkpoint import ModelCard
from semicl.models.unet import UNet
from semicl.options import (
    AugmentationOptions,
    ExperimentOptions,
    FixMatchOptions,
    ScheduleOptions,
    SegmentationOptions,
)
from semicl.training.fixmatch import (
    LONGEST,
    PSEUDO_LOSS,
    SHORTEST,
    SURE,
    PseudoLabels,
    WeakToStrong,
    pseudo_label_loss,
    random_boxes,
    with_next,
)
from semicl.training.inputs import stage_inputs
from semicl.training.losses import grown
from semicl.training.stages import Segmentation, Stage
from tests.semicl.conftest import TINY, error_of, one_schedule, run_command

STILL = AugmentationOptions(0, 0, (1, 1), 0, 0, 0)
SHAPES = pytest.mark.parametrize("shape", [(40, 1, 24, 32), (40, 2, 8, 12, 16)], ids=["slices", "patches"])


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Steps outside a trainer, halfway; what is logged is kept."""
    trainer = SimpleNamespace(world_size=1, training=True, global_step=5, global_rank=0, estimated_stepping_batches=10)
    trainer.logged = {}
    monkeypatch.setattr(Stage, "trainer", property(lambda _: trainer))
    monkeypatch.setattr(Stage, "global_step", property(lambda _: trainer.global_step))
    monkeypatch.setattr(Stage, "log", lambda _, name, value, **__: trainer.logged.update({name: float(value)}))
    torch.manual_seed(0)
    return trainer


def _stage(network: nn.Module, card: ModelCard, **fixmatch: Any) -> WeakToStrong:
    options = FixMatchOptions(**{"weight": 1.0, "ramp_up": 0.0, "intensity": 0.0, "noise": 0.0, **fixmatch})
    segmentation = SegmentationOptions(ScheduleOptions(batch_size=2), augmentation=STILL, fixmatch=options)
    return WeakToStrong(network, segmentation, card, seed=0)  # type: ignore[arg-type]


@pytest.fixture
def batch() -> tuple[tuple[Tensor, Tensor], Tensor]:
    labels = torch.zeros(2, 32, 32, dtype=torch.uint8)
    labels[:, 8:20, 10:24] = 1
    return (torch.rand(2, 1, 32, 32), labels), torch.rand(3, 1, 32, 32)


@SHAPES
def test_a_box_is_a_range_of_every_axis(shape: tuple[int, ...]) -> None:
    images = torch.zeros(shape)
    for box in random_boxes(images, chance=1.0)[:, 0]:
        for axis, length in enumerate(box.shape):
            (places,) = box.any(tuple(each for each in range(box.dim()) if each != axis)).nonzero(as_tuple=True)
            assert SHORTEST * length - 1 <= len(places) <= LONGEST * length + 1
            assert places.tolist() == list(range(int(places[0]), int(places[-1]) + 1))
        sides = [int(box.any(axis).sum()) for axis in range(box.dim())]
        assert int(box.sum()) ** (box.dim() - 1) == torch.tensor(sides).prod()
    assert not random_boxes(images, chance=0.0).any()
    assert 8 < int(random_boxes(images, chance=0.5).flatten(1).any(1).sum()) < 32


@pytest.mark.usefixtures("trainer")
@SHAPES
def test_images_classes_and_confidence_are_pasted_alike(shape: tuple[int, ...], card: ModelCard) -> None:
    """A network that looks at each point alone makes of the strong view what the pseudo-labels are."""
    dimensions, channels = len(shape) - 2, shape[1]
    pointwise = nn.Conv2d(channels, 3, 1) if dimensions == 2 else nn.Conv3d(channels, 3, 1)
    with torch.no_grad():
        pointwise.weight *= 8
    other = replace(card, grid=Grid(shape[2:]), channels=channels)
    stage = _stage(other.new_network(0), other, confidence=0.7, cutmix=1.0)
    stage.network = pointwise  # type: ignore[assignment]
    labels = torch.zeros((4, *shape[2:]), dtype=torch.uint8)
    _, views = stage.views(((torch.rand(4, *shape[1:]), labels), torch.rand(shape)))
    assert not torch.equal(views.weak, views.strong)
    pseudo = stage.pseudo_labels(views)
    confidence, expected = pointwise(views.strong).softmax(1).max(1)
    assert torch.equal(pseudo.labels, expected)
    assert len(pseudo.labels.unique()) > 1
    torch.testing.assert_close(pseudo.confidence, confidence)
    assert torch.equal(pseudo.sure, pseudo.confidence >= 0.7)
    assert 0 < pseudo.sure.float().mean() < 1


@pytest.mark.usefixtures("trainer")
def test_the_strong_view_differs_in_intensity_where_nothing_is_pasted(
    network: UNet, card: ModelCard, batch: tuple[tuple[Tensor, Tensor], Tensor]
) -> None:
    _, views = _stage(network, card, intensity=0.5, noise=0.1, cutmix=0.0).views(batch)
    torch.testing.assert_close(views.weak, batch[1])
    assert not views.pasted.any()
    assert (views.strong - views.weak).abs().mean() > 0.01


def test_the_next_of_the_last_is_the_first() -> None:
    maps = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 1, 2)
    pasted = torch.tensor([True, False]).expand(3, 1, 1, 2)
    assert with_next(maps, pasted).flatten(1).tolist() == [[1, 0], [2, 1], [0, 2]]


def _pseudo(sure: Tensor) -> PseudoLabels:
    labels = torch.randint(3, sure.shape)
    return PseudoLabels(labels, torch.rand(sure.shape), sure)


@pytest.mark.parametrize("space", [(8, 8), (4, 6, 8)])
def test_unsure_points_have_no_part_in_the_loss(space: tuple[int, ...]) -> None:
    scores = torch.randn(2, 3, *space, requires_grad=True)
    pseudo = _pseudo(torch.rand(2, *space) < 0.3)
    loss = pseudo_label_loss(scores, pseudo)
    (gradient,) = torch.autograd.grad(loss, scores)
    moved = gradient.abs().sum(1) > 0
    assert torch.equal(moved, pseudo.sure)
    others = pseudo._replace(labels=torch.where(pseudo.sure, pseudo.labels, (pseudo.labels + 1) % 3))
    torch.testing.assert_close(pseudo_label_loss(scores, others), loss)


def test_the_loss_is_that_of_labels_where_all_points_are_sure_and_zero_where_none_is() -> None:
    scores = torch.randn(2, 3, 8, 8, requires_grad=True)
    pseudo = _pseudo(torch.ones(2, 8, 8, dtype=torch.bool))
    expected = nn.CrossEntropyLoss()(scores, pseudo.labels)
    torch.testing.assert_close(pseudo_label_loss(scores, pseudo), expected)
    none = pseudo_label_loss(scores, pseudo._replace(sure=torch.zeros(2, 8, 8, dtype=torch.bool)))
    assert none == 0
    assert torch.autograd.grad(none, scores)[0].abs().max() == 0


def test_a_step_adds_the_loss_on_pseudo_labels_by_the_weight_of_its_moment(
    network: UNet, card: ModelCard, batch: tuple[tuple[Tensor, Tensor], Tensor], trainer: SimpleNamespace
) -> None:
    stage = _stage(network, card, weight=2.0, ramp_up=1.0, confidence=0.4)
    mix, views = stage.views(batch)
    plain = Segmentation(network, SegmentationOptions(augmentation=STILL), card, seed=0).training_step(mix)
    added = pseudo_label_loss(network(views.strong), stage.pseudo_labels(views))
    assert added > 0
    torch.testing.assert_close(stage.training_step((mix, views)) - plain, 2 * grown(0.5, 1.0) * added)
    assert trainer.logged[SURE] == pytest.approx(float(stage.pseudo_labels(views).sure.float().mean()))
    assert trainer.logged[PSEUDO_LOSS] == pytest.approx(added.item())
    trainer.global_step = 10
    torch.testing.assert_close(stage.training_step((mix, views)) - plain, 2 * added)


@pytest.mark.usefixtures("trainer")
def test_pseudo_labels_pass_no_gradient_on(
    network: UNet, card: ModelCard, batch: tuple[tuple[Tensor, Tensor], Tensor]
) -> None:
    stage = _stage(network, card)
    _, views = stage.views(batch)
    assert not any(part.requires_grad for part in stage.pseudo_labels(views))


@pytest.mark.usefixtures("trainer")
@pytest.mark.parametrize("decay", [0.0, 0.99])
def test_pseudo_labels_are_those_of_the_teacher(
    network: UNet, card: ModelCard, batch: tuple[tuple[Tensor, Tensor], Tensor], decay: float
) -> None:
    stage = _stage(network, card, decay=decay)
    mix, views = stage.views(batch)
    stage.training_step((mix, views)).backward()
    assert stage.student.classifier.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in stage.network.parameters())
    before = stage.pseudo_labels(views).confidence
    with torch.no_grad():
        stage.student.classifier.weight += torch.tensor([0.0, 1.0, 2.0, 3.0]).view(-1, 1, 1, 1)
    assert torch.equal(stage.pseudo_labels(views).confidence, before)
    stage.on_train_batch_end(None, None, 0)
    assert not torch.equal(stage.pseudo_labels(views).confidence, before)
    assert torch.equal(stage.network.classifier.weight, stage.student.classifier.weight) == (decay == 0)


def test_the_images_are_those_of_training_volumes_without_a_label_in_use(prepared: Prepared) -> None:
    split, options = prepared.split(0), SegmentationOptions(fixmatch=FixMatchOptions(weight=1))
    inputs = stage_inputs(options, ExperimentOptions(0.34), split)
    assert set(inputs.images) == set(split.training) - set(split.labelled(0.34))
    assert set(inputs.labelled) == set(split.labelled(0.34))


def test_a_fraction_that_leaves_none_is_refused(
    prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["finetune", *TINY, "--prepared", prepared.folder, "--output", tmp_path / "o", "--fixmatch.weight", 1]
    assert "--label_fraction 1 leaves no training volume" in error_of(capsys, *words, "--label_fraction", 1)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"tcsm": {"weight": 1}}])
def test_what_else_changes_the_batch_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"fixmatch\.weight takes 0 beside"):
        SegmentationOptions(fixmatch=FixMatchOptions(weight=1), **options)


def test_few_unlabelled_images_are_repeated(prepared: Prepared, tmp_path: Path) -> None:
    """An epoch goes over the labelled slices, however few the others are, and however many a batch takes of them."""
    words = ["finetune", *TINY, *one_schedule(2), "--prepared", prepared.folder, "--label_fraction", 0.84]
    more = ["--fixmatch.weight", 1, "--fixmatch.batch_size", 12, "--fixmatch.confidence", 0.4]
    for name, options in (("plain", []), ("fixmatch", more)):
        assert run_command(*words, *options, "--output", tmp_path / name) == 0
    plain, other = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("plain", "fixmatch"))
    assert plain["steps"] == other["steps"] > 2
    (path,) = (tmp_path / "fixmatch" / "logs").glob("csv/version_0/metrics.csv")
    rows = [row for row in csv.DictReader(path.read_text().splitlines()) if row[SURE]]
    assert len(rows) == 2
    assert all(0 <= float(row[SURE]) <= 1 for row in rows)
