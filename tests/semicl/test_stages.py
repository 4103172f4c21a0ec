"""Each stage trains its own part, by its own loss, and the best validation picks the weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from semicl.checkpoints import load_weights
from semicl.networks import PixelProjection, SliceProjection, new_unet
from semicl.options import Schedule
from semicl.stages import GlobalContrast, LocalContrast, Segmentation
from semicl.training import finetune, pretrain
from semicl.volumes import LabelledVolume

WIDTHS = (4, 4, 8, 8, 16, 4)
SCHEDULE = Schedule(steps=4, batch_size=4, learning_rate=1e-3)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def slices() -> TensorDataset:
    """Noise with a bright square of class 1, 12 slices of 32 x 32."""
    labels = torch.zeros(12, 32, 32, dtype=torch.int64)
    labels[:, 8:20, 10:24] = 1
    return TensorDataset(0.3 * torch.rand(12, 1, 32, 32) + 0.6 * labels[:, None], labels)


def _without_gradient(stage: nn.Module) -> list[str]:
    return [name for name, p in stage.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_global_contrast_needs_no_label_and_trains_the_encoder(slices: TensorDataset) -> None:
    stage = GlobalContrast(new_unet(WIDTHS, 2, 0).encoder, SliceProjection(16), 0.5, SCHEDULE)
    stage.training_step([slices.tensors[0]]).backward()
    # A convolution's bias before instance norm has no effect; its gradient is rounding, or none at all.
    assert [name for name in _without_gradient(stage) if not name.endswith("conv.bias")] == []
    assert {name.split(".")[0] for name, _ in stage.named_parameters()} == {"encoder", "projection"}


def test_local_contrast_trains_encoder_and_decoder(slices: TensorDataset) -> None:
    network = new_unet(WIDTHS, 2, 0)
    stage = LocalContrast(network.encoder, network.decoder, PixelProjection(4), 0.1, 16, SCHEDULE)
    stage.training_step([tensor[:4] for tensor in slices.tensors]).backward()
    assert [name for name in _without_gradient(stage) if not name.endswith("conv.bias")] == []
    assert {name.split(".")[0] for name, _ in stage.named_parameters()} == {"encoder", "decoder", "projection"}


def test_local_contrast_passes_two_views_and_their_own_labels(
    slices: TensorDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def loss(features: torch.Tensor, labels: torch.Tensor, **options: float) -> torch.Tensor:
        seen.update(features=features, labels=labels, options=options)
        return features.sum()

    monkeypatch.setattr("semicl.stages.local_contrastive_loss", loss)
    network = new_unet(WIDTHS, 2, 0)
    stage = LocalContrast(network.encoder, network.decoder, PixelProjection(4, 6), 0.2, 8, SCHEDULE)
    images, labels = (tensor[:3] for tensor in slices.tensors)
    views = iter([(images, labels), (images.flip(3), labels.flip(2))])
    stage.views = lambda *_: next(views)  # type: ignore[assignment,return-value]
    stage.training_step([images, labels])
    assert seen["features"].shape == (3, 2, 6, 32, 32)
    assert torch.equal(seen["labels"], torch.stack([labels, labels.flip(2)], dim=1))
    assert seen["options"] == {"temperature": 0.2, "block_size": 8}
    torch.testing.assert_close(seen["features"][:, 0], stage.projection(network.decoder(network.encoder(images))))


def test_a_stage_learns_and_writes_what_it_learned(slices: TensorDataset, tmp_path: Path) -> None:
    network = new_unet(WIDTHS, 2, 0)
    before = {name: value.clone() for name, value in network.encoder.state_dict().items()}
    stage = GlobalContrast(network.encoder, SliceProjection(16), 0.5, SCHEDULE)
    pretrain(stage, TensorDataset(slices.tensors[0]), tmp_path / "global.ckpt", "test")
    assert [path.name for path in tmp_path.iterdir()] == ["global.ckpt"]
    weight = "stem.conv_0.conv.weight"
    assert not torch.equal(network.encoder.state_dict()[weight], before[weight])
    fresh = new_unet(WIDTHS, 2, 1)
    load_weights(fresh, tmp_path / "global.ckpt")
    assert torch.equal(fresh.encoder.state_dict()[weight], network.encoder.state_dict()[weight])


@pytest.mark.parametrize(("dice", "best_step"), [([0.9, 0.1, 0.2], 2), ([0.1, 0.9, 0.2], 4), ([0.1, 0.2, 0.9], 6)])
def test_validation_picks_the_checkpoint(
    slices: TensorDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dice: list[float], best_step: int
) -> None:
    given = iter(dice)
    monkeypatch.setattr("semicl.stages.volume_dice", lambda *_: torch.tensor([next(given)]))
    stage = Segmentation(new_unet(WIDTHS, 2, 0), Schedule(steps=6, batch_size=4, learning_rate=1e-2))
    volume = LabelledVolume("validation", *slices.tensors)
    finetune(stage, slices, [volume], 3, tmp_path / "random.ckpt", "test")
    assert [path.name for path in tmp_path.iterdir()] == ["random.ckpt"]
    assert torch.load(tmp_path / "random.ckpt", weights_only=True)["global_step"] == best_step
    assert [step for step, _ in stage.history] == [2, 4, 6]
    assert [found for _, found in stage.history] == pytest.approx(dice)
    picked = new_unet(WIDTHS, 2, 1)
    load_weights(picked, tmp_path / "random.ckpt")
    last = stage.network.state_dict()["classifier.weight"]
    assert torch.equal(picked.state_dict()["classifier.weight"], last) == (best_step == 6)
