"""Each stage trains its own part, by its own loss, on views of its own."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semicl.models.checkpoint import ModelCard
from semicl.models.unet import UNet
from semicl.options import (
    AugmentationOptions,
    GlobalContrastOptions,
    LocalContrastOptions,
    LocalLossOptions,
    SegmentationOptions,
)
from semicl.training.augment import mixed
from semicl.training.losses import local_contrast
from semicl.training.stages import (
    GlobalContrast,
    Segmentation,
    SelfSupervisedLocalContrast,
    Stage,
    SupervisedLocalContrast,
)
from semicl_kernels import local_contrastive_loss, nt_xent_loss


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps outside a trainer: one process, nothing logged."""
    trainer = SimpleNamespace(world_size=1, training=True, global_step=0, global_rank=0)
    monkeypatch.setattr(Stage, "trainer", property(lambda _: trainer))
    monkeypatch.setattr(Stage, "log", lambda *_, **__: None)
    torch.manual_seed(0)


@pytest.fixture
def images() -> Tensor:
    """Noise with a bright square, (6, 1, 32, 32)."""
    return 0.3 * torch.rand(6, 1, 32, 32) + 0.6 * _square()[:, None]


@pytest.fixture
def labels() -> Tensor:
    """The square, of class 1."""
    return _square().to(torch.uint8)


def _square() -> Tensor:
    square = torch.zeros(6, 32, 32)
    square[:, 8:20, 10:24] = 1
    return square


def _untrained(stage: nn.Module) -> list[str]:
    """Parameters without a gradient. A bias before instance norm has no effect; its gradient is rounding, or none."""
    without = [name for name, p in stage.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    return [name for name in without if not name.endswith("conv.bias")]


def _parts(stage: nn.Module) -> set[str]:
    return {name.split(".")[0] for name, _ in stage.named_parameters()}


def test_global_contrast_needs_no_label_and_trains_the_encoder(network: UNet, card: ModelCard, images: Tensor) -> None:
    stage = GlobalContrast(network, GlobalContrastOptions(), card, seed=0)
    stage.training_step(stage.views(images)).backward()
    assert _untrained(stage) == []
    assert _parts(stage) == {"encoder", "projection"}


def test_global_contrast_is_nt_xent_of_the_two_views(network: UNet, card: ModelCard, images: Tensor) -> None:
    stage = GlobalContrast(network, GlobalContrastOptions(temperature=0.2), card, seed=0)
    views = stage.views(images)
    z1, z2 = (stage.projection(network.encoder(view)[-1]) for view in (views[:6], views[6:]))
    torch.testing.assert_close(stage.training_step(views), nt_xent_loss(z1, z2, temperature=0.2))


@pytest.mark.parametrize("kind", [SupervisedLocalContrast, SelfSupervisedLocalContrast])
def test_local_contrast_trains_encoder_and_decoder(
    network: UNet, card: ModelCard, images: Tensor, labels: Tensor, kind: type[Stage]
) -> None:
    stage: Any = kind(network, LocalContrastOptions(loss=LocalLossOptions(block_size=16)), card, 0)  # type: ignore[call-arg,arg-type]
    batch: Any = (images, labels) if kind is SupervisedLocalContrast else images
    stage.training_step(stage.views(batch)).backward()
    assert _untrained(stage) == []
    assert _parts(stage) == {"encoder", "decoder", "projection"}


def test_local_contrast_gets_each_views_own_labels(
    network: UNet, card: ModelCard, images: Tensor, labels: Tensor
) -> None:
    options = LocalContrastOptions(
        augmentation=AugmentationOptions(intensity=0, noise=0),
        loss=LocalLossOptions(block_size=8, stride=2, temperature=0.2),
    )
    stage = SupervisedLocalContrast(network, options, card, seed=0)
    views, moved = stage.views((images, labels))
    assert views.shape == (12, 1, 32, 32)
    assert moved.shape == (6, 2, 32, 32)
    assert not torch.equal(moved[:, 0], moved[:, 1])
    bright = (views[:, 0] > 0.5).view(2, 6, 32, 32).transpose(0, 1)
    assert ((bright == (moved == 1)).flatten(2).float().mean(2) > 0.97).all()
    features = stage.features(views)
    first = stage.projection(network.decoder(network.encoder(views[:6])))
    torch.testing.assert_close(features[:, 0], first)
    expected = local_contrastive_loss(features, moved, temperature=0.2, block_size=8, stride=2)
    torch.testing.assert_close(stage.training_step((views, moved)), expected)


def test_the_self_supervised_form_contrasts_places(network: UNet, card: ModelCard, images: Tensor) -> None:
    stage = SelfSupervisedLocalContrast(network, LocalContrastOptions(loss=LocalLossOptions(stride=4)), card, seed=0)
    views = stage.views(images)
    expected = local_contrastive_loss(stage.features(views), None, temperature=0.1, stride=4)
    torch.testing.assert_close(stage.training_step(views), expected)


def test_the_loss_has_the_options_that_were_given(images: Tensor) -> None:
    features, labels = torch.rand(2, 2, 4, 16, 16), torch.randint(0, 3, (2, 2, 16, 16))
    options = LocalLossOptions(True, 0.3, 4, 2, "image", "negatives")
    expected = local_contrastive_loss(
        features, labels, temperature=0.3, block_size=4, stride=2, scope="image", denominator="negatives"
    )
    torch.testing.assert_close(local_contrast(options)(features, labels), expected)


def test_segmentation_trains_the_whole_network(network: UNet, card: ModelCard, images: Tensor, labels: Tensor) -> None:
    stage = Segmentation(network, SegmentationOptions(), card, seed=0)
    loss = stage.training_step(stage.views((images, labels)))
    loss.backward()
    assert _untrained(stage) == []
    assert _parts(stage) == {"network"}


def test_the_local_term_is_added_with_its_weight(
    network: UNet, card: ModelCard, images: Tensor, labels: Tensor
) -> None:
    mix = mixed(images, labels.long(), alpha=0)
    losses = []
    for weight in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        losses.append(Segmentation(network, SegmentationOptions(local_weight=weight), card, 0).training_step(mix))
    assert losses[1] > losses[0]
    torch.testing.assert_close(losses[2] - losses[0], 2 * (losses[1] - losses[0]))


def test_mixup_changes_the_batch(network: UNet, card: ModelCard, images: Tensor, labels: Tensor) -> None:
    stage = Segmentation(network, SegmentationOptions(mixup=1.0), card, seed=0)
    mix = stage.views((images, labels))
    assert 0 < mix.share < 1
    assert stage.training_step(mix).isfinite()


def test_what_is_random_follows_from_seed_step_and_process(
    network: UNet, card: ModelCard, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def views(seed: int, step: int, rank: int) -> Tensor:
        stage = GlobalContrast(network, GlobalContrastOptions(), card, seed)
        monkeypatch.setattr(Stage, "global_step", step)
        monkeypatch.setattr(Stage, "global_rank", rank)
        torch.rand(step + rank + 1)  # whatever was drawn before does not matter
        return stage.on_after_batch_transfer(images, 0)

    first = views(1, 5, 0)
    assert torch.equal(first, views(1, 5, 0))
    assert not any(torch.equal(first, other) for other in (views(2, 5, 0), views(1, 6, 0), views(1, 5, 1)))


def test_compiling_keeps_the_names_of_the_weights(network: UNet, card: ModelCard) -> None:
    stage = Segmentation(network, SegmentationOptions(), card, seed=0)
    names = list(stage.state_dict())
    stage.compile_network()
    assert list(stage.state_dict()) == names
