"""The local term of fine-tuning: its points, its classes, when it begins, its queue, and pseudo-labelled points."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from semicl.data.classes import IGNORED
from semicl.data.prepared import Prepared
from semicl.models.checkpoint import ModelCard
from semicl.models.unet import UNet
from semicl.options import AugmentationOptions, FixMatchOptions, LocalLossOptions, ScheduleOptions, SegmentationOptions
from semicl.training.augment import Mix
from semicl.training.fixmatch import WeakToStrong
from semicl.training.losses import at_scale, class_means
from semicl.training.stages import Segmentation, Stage
from semicl_kernels import local_contrastive_loss
from tests.semicl.conftest import TINY, error_of, one_schedule, run_command, same_weights

STILL = AugmentationOptions(0, 0, (1, 1), 0, 0, 0)
WEIGHT = 0.5


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Steps outside a trainer: nothing logged."""
    trainer = SimpleNamespace(world_size=1, training=True, global_step=0, global_rank=0, estimated_stepping_batches=10)
    trainer.current_epoch = 0
    monkeypatch.setattr(Stage, "trainer", property(lambda _: trainer))
    monkeypatch.setattr(Stage, "current_epoch", property(lambda _: trainer.current_epoch))
    monkeypatch.setattr(Stage, "global_step", property(lambda _: trainer.global_step))
    monkeypatch.setattr(Stage, "log", lambda *_, **__: None)
    torch.manual_seed(0)
    return trainer


@pytest.fixture
def mix() -> Mix:
    labels = torch.zeros(4, 32, 32, dtype=torch.int64)
    labels[:, 8:20, 10:24] = 1
    labels[2:, 20:30, 2:9] = 2
    images = 0.3 * torch.rand(4, 1, 32, 32) + 0.3 * labels[:, None]
    return Mix(images, labels, labels, 1.0)


def _options(**changes: Any) -> SegmentationOptions:
    given = {"schedule": ScheduleOptions(3, 4), "augmentation": STILL, "channels": 8} | changes
    return SegmentationOptions(**{"local_weight": WEIGHT} | given)


def _term(stage: Segmentation, images: Tensor, level: int) -> Tensor:
    """The points of the local term, projected, with a view of one."""
    return stage.projection(stage.network.decoder.pyramid(stage.network.encoder(images))[level])[:, None]


def test_the_pyramid_ends_in_the_decoders_map(network: UNet, card: ModelCard) -> None:
    maps = network.encoder(torch.rand(2, 1, 32, 32))
    pyramid = network.decoder.pyramid(maps)
    assert [each.shape for each in pyramid] == [each.shape for each in maps]
    assert torch.equal(pyramid[0], network.decoder(maps))
    assert pyramid[-1] is maps[-1]


@pytest.mark.parametrize("space", [(16, 8), (8, 16, 12)])
def test_a_coarse_point_has_the_class_of_its_middle(space: tuple[int, ...]) -> None:
    labels = torch.randint(-1, 200, (3, *space))
    coarse = at_scale(labels, torch.Size(side // 4 for side in space))
    assert torch.equal(coarse, labels[(slice(None), *(slice(2, None, 4) for _ in space))])
    assert at_scale(labels, labels.shape[1:]) is labels


@pytest.mark.parametrize("space", [(6, 5), (3, 4, 5)])
def test_class_means_are_those_of_the_directions_in_each_image(space: tuple[int, ...]) -> None:
    points, labels = 9 * torch.rand(3, 7, *space), torch.randint(4, (3, *space))
    labels[0][labels[0] == 2] = 1
    means, classes = class_means(points, labels, 5)
    expected = [
        (normalize(normalize(points[image].movedim(0, -1)[labels[image] == number], dim=1).mean(0), dim=0), number)
        for image in range(3)
        for number in range(5)
        if (labels[image] == number).any()
    ]
    assert classes.tolist() == [number for _, number in expected]
    torch.testing.assert_close(means, torch.stack([mean for mean, _ in expected]))
    opposite = torch.tensor([1.0, -1.0]).view(1, 1, 1, 2).expand(1, 7, 1, 2)
    assert [len(each) for each in class_means(opposite, torch.zeros(1, 1, 2, dtype=torch.int64), 2)] == [0, 0]


@pytest.mark.usefixtures("trainer")
@pytest.mark.parametrize(("scale", "level"), [(1, 0), (2, 1), (4, 2)])
def test_the_term_compares_the_points_of_its_scale(
    network: UNet, card: ModelCard, mix: Mix, scale: Any, level: int
) -> None:
    stage = Segmentation(network, _options(local_scale=scale, loss=LocalLossOptions(temperature=0.2)), card, seed=0)
    plain = Segmentation(network, _options(local_weight=0.0), card, seed=0).training_step(mix)
    places = slice(scale // 2, None, scale)
    points, labels = _term(stage, mix.images, level), mix.labels[:, None, places, places]
    assert points.shape[2:] == (8, 32 // scale, 32 // scale)
    expected = WEIGHT * local_contrastive_loss(points, labels, temperature=0.2)
    assert expected > 0
    torch.testing.assert_close(stage.training_step(mix) - plain, expected)


def test_the_term_begins_in_its_epoch_and_every_parameter_has_a_gradient_before(
    network: UNet, card: ModelCard, mix: Mix, trainer: SimpleNamespace
) -> None:
    stage = Segmentation(network, _options(local_warm_up=2, local_queue=3), card, seed=0)
    assert stage.queue is not None
    plain = Segmentation(network, _options(local_weight=0.0), card, seed=0).training_step(mix)
    for epoch in (0, 1):
        trainer.current_epoch = epoch
        loss = stage.training_step(mix)
        assert loss == plain
        loss.backward()
        assert all(each.grad is not None and not each.grad.any() for each in stage.projection.parameters())
        assert len(stage.queue) == 0
    trainer.current_epoch = 2
    assert stage.training_step(mix) > plain
    assert len(stage.queue) > 0


@pytest.mark.usefixtures("trainer")
def test_points_meet_the_class_means_of_the_slices_before(network: UNet, card: ModelCard, mix: Mix) -> None:
    stage = Segmentation(network, _options(local_queue=16), card, seed=0)
    assert stage.queue is not None
    plain = Segmentation(network, _options(local_weight=0.0), card, seed=0).training_step(mix)
    points = _term(stage, mix.images, 0)
    first, second = stage.training_step(mix) - plain, stage.training_step(mix) - plain
    torch.testing.assert_close(first, WEIGHT * local_contrastive_loss(points, mix.labels[:, None]))
    keys, numbers = class_means(points[:, 0], mix.labels, 4)
    expected = WEIGHT * local_contrastive_loss(points, mix.labels[:, None], keys=keys, key_labels=numbers)
    assert abs(second - first) > 1e-5
    torch.testing.assert_close(second, expected)
    assert len(stage.queue) == 2 * len(keys) == 2 * (4 + 4 + 2)


@pytest.mark.usefixtures("trainer")
@pytest.mark.parametrize("unsure", ["ignored", "weighed"])
@pytest.mark.parametrize("queue", [0, 8])
def test_labelled_and_pseudo_labelled_points_are_compared(
    network: UNet, card: ModelCard, mix: Mix, unsure: Any, queue: int
) -> None:
    fixmatch = FixMatchOptions(1.0, 0.4, 0.0, unsure=unsure)
    stage = WeakToStrong(network, _options(fixmatch=fixmatch, local_queue=queue), card, seed=0)
    plain = WeakToStrong(network, _options(fixmatch=fixmatch, local_weight=0.0), card, seed=0)
    batch = stage.views(((mix.images, mix.labels), torch.rand(3, 1, 32, 32)))
    pseudo = stage.pseudo_labels(batch[1])
    assert 0 < pseudo.sure.float().mean() < 1
    points = torch.cat([_term(stage, mix.images, 0), _term(stage, batch[1].strong, 0)])
    if unsure == "ignored":
        labels = torch.cat([mix.labels, torch.where(pseudo.sure, pseudo.labels, IGNORED)])[:, None]
        expected = local_contrastive_loss(points, labels, ignore_index=IGNORED)
    else:
        labels = torch.cat([mix.labels, pseudo.labels])[:, None]
        weights = torch.cat([torch.ones(4, 32, 32), pseudo.confidence])[:, None]
        expected = local_contrastive_loss(points, labels, weights=weights)
    torch.testing.assert_close(stage.training_step(batch) - plain.training_step(batch), WEIGHT * expected)
    if stage.queue is not None:  # which holds true labels alone
        means, _ = class_means(points[:4, 0], mix.labels, 4)
        assert len(stage.queue) == len(means) == 10
        torch.testing.assert_close(stage.queue.keys()["keys"].sum(0), means.sum(0))


def test_a_scale_that_the_network_lacks_is_refused(
    prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["finetune", "--network.widths", 4, 8, "--network.centre", None, "--prepared", prepared.folder]
    words += ["--output", tmp_path / "o", "--label_fraction", 0.34, "--local_scale", 4, *one_schedule()]
    line = error_of(capsys, *words, "--local_weight", 0.1)
    assert "--local_scale 4 takes points of the network's level 3, of which there are 2" in line
    assert run_command(*words) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"local_warm_up": 3}, "local_warm_up takes less than the number of epochs"), ({"mixup": 0.4}, "beside mixup")],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _options(local_queue=1, **changes)


def _former_step(self: Segmentation, mix: Mix) -> Tensor:
    """A step as it was before the term had a start, a scale or a queue."""
    features = self.network.decoder(self.network.encoder(mix.images))
    scores = self.network.classifier(features)
    loss = mix.loss(lambda labels: self._loss(scores, labels[:, None]))
    if self.local_weight > 0:
        points = self.projection(features)[:, None]
        loss = loss + self.local_weight * mix.loss(lambda labels: self._local_loss(points, labels[:, None]))
    return loss


@pytest.mark.parametrize(
    "options",
    [[], ["--local_weight", 0.1, "--loss.block_size", 16], ["--local_weight", 0.1, "--mixup", 0.4]],
    ids=["plain", "local term", "mixup"],
)
def test_without_the_options_a_stage_trains_to_the_same_bits_as_before(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[object]
) -> None:
    words = ["finetune", *TINY, *one_schedule(2), "--prepared", prepared.folder, "--label_fraction", 0.2, *options]
    assert run_command(*words, "--output", tmp_path / "now") == 0
    monkeypatch.setattr(Segmentation, "training_step", _former_step)
    assert run_command(*words, "--output", tmp_path / "former") == 0
    assert same_weights(tmp_path / "now" / "model.ckpt", tmp_path / "former" / "model.ckpt")
