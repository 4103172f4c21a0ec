"""TCSM: the teacher is the student's moving average, and agreement under turns costs nothing."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from semicl.models.checkpoint import ModelCard
from semicl.models.unet import UNet
from semicl.options import AugmentationOptions, SegmentationOptions, TcsmOptions
from semicl.training.losses import grown
from semicl.training.stages import Segmentation, Stage
from semicl.training.tcsm import SelfEnsembling, Turn, inconsistency, random_turns, turned

TURNS = tuple(Turn(quarters, flipped) for quarters in range(4) for flipped in (False, True))
STILL = AugmentationOptions(0, 0, (1, 1), 0, 0, 0)


@pytest.fixture(autouse=True)
def trainer(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Steps outside a trainer, halfway: nothing logged."""
    trainer = SimpleNamespace(world_size=1, training=True, global_step=5, global_rank=0, estimated_stepping_batches=10)
    monkeypatch.setattr(Stage, "trainer", property(lambda _: trainer))
    monkeypatch.setattr(Stage, "global_step", property(lambda _: trainer.global_step))
    monkeypatch.setattr(Stage, "log", lambda *_, **__: None)
    torch.manual_seed(0)
    return trainer


@pytest.fixture
def batch() -> tuple[tuple[Tensor, Tensor], Tensor]:
    labels = torch.zeros(2, 32, 32, dtype=torch.uint8)
    labels[:, 8:20, 10:24] = 1
    return (torch.rand(2, 1, 32, 32), labels), torch.rand(3, 1, 32, 32)


def _stage(network: UNet, card: ModelCard, **tcsm: float) -> SelfEnsembling:
    options = SegmentationOptions(augmentation=STILL, tcsm=TcsmOptions(**{"weight": 1.0, **tcsm}))
    return SelfEnsembling(network, options, card, seed=0)


def test_a_turn_moves_every_point_where_it_says() -> None:
    square = torch.arange(4.0).view(1, 1, 2, 2)
    assert turned(square, [Turn(0, True)]).flatten().tolist() == [1, 0, 3, 2]
    assert turned(square, [Turn(1, False)]).flatten().tolist() == [1, 3, 0, 2]
    all_of_them = turned(square.expand(8, 1, 2, 2), TURNS)
    assert len({tuple(each.flatten().tolist()) for each in all_of_them}) == 8


@pytest.mark.parametrize("shape", [(8, 3, 6, 6), (8, 3, 2, 6, 6)])
def test_consistency_is_zero_for_what_turns_with_the_image_and_only_then(shape: tuple[int, ...]) -> None:
    scores = torch.randn(shape)
    # Zero but for the rounding of softmax, which takes its points in another order.
    assert inconsistency(turned(scores, TURNS), scores, TURNS) < 1e-12
    assert inconsistency(scores, scores, TURNS) > 0.01


def test_a_plane_that_is_no_square_keeps_its_shape() -> None:
    images = torch.rand(64, 1, 4, 6)
    turns = random_turns(images)
    assert {turn.quarters for turn in turns} == {0, 2}
    assert turned(images, turns).shape == images.shape
    assert {turn.quarters for turn in random_turns(torch.rand(64, 1, 4, 4))} == {0, 1, 2, 3}


def test_voxels_that_are_no_squares_are_turned_by_half_circles() -> None:
    for voxel_size, quarters in (((5, 2, 1), {0, 2}), ((5, 0.7, 0.7001), {0, 1, 2, 3}), ((1, 0.9, 1), {0, 2})):
        assert {turn.quarters for turn in random_turns(torch.rand(64, 1, 4, 4), voxel_size)} == quarters


def test_the_weight_grows_to_its_full_value() -> None:
    values = [grown(done, 0.4) for done in (0, 0.1, 0.2, 0.4, 0.9)]
    assert values == sorted(values)
    assert values[0] < 0.01
    assert values[-2:] == [1, 1]
    assert grown(0, 0) == 1


def test_the_student_is_trained_and_the_teacher_follows(
    network: UNet, card: ModelCard, batch: tuple[tuple[Tensor, Tensor], Tensor]
) -> None:
    stage = _stage(network, card)
    stage.training_step(stage.views(batch)).backward()
    assert all(parameter.grad is None for parameter in stage.network.parameters())
    assert stage.student.classifier.weight.grad.abs().sum() > 0
    before = stage.network.classifier.weight.clone()
    with torch.no_grad():
        stage.student.classifier.weight += 1
    stage.on_train_batch_end(None, None, 0)
    now = stage.network.classifier.weight
    assert ((now > before) & (now < stage.student.classifier.weight)).all()


def test_the_unlabelled_images_alone_add_to_the_loss(
    network: UNet, card: ModelCard, batch: tuple[tuple[Tensor, Tensor], Tensor]
) -> None:
    stage = _stage(network, card)
    mix, pair = stage.views(batch)
    plain = Segmentation(network, SegmentationOptions(augmentation=STILL), card, seed=0).training_step(mix)
    added = stage.training_step((mix, pair)) - plain
    expected = inconsistency(network(pair.for_student), network(pair.for_teacher), pair.turns)
    assert expected > 0
    torch.testing.assert_close(added, expected, rtol=1e-3, atol=1e-6)


def test_the_weight_in_a_step_is_that_of_its_moment(
    network: UNet, card: ModelCard, batch: tuple[tuple[Tensor, Tensor], Tensor], trainer: SimpleNamespace
) -> None:
    stage = _stage(network, card, ramp_up=1.0)
    views = stage.views(batch)
    supervised = stage.supervised_loss(views[0])
    halfway = stage.training_step(views) - supervised
    trainer.global_step = 10
    torch.testing.assert_close(halfway, grown(0.5, 1.0) * (stage.training_step(views) - supervised))
