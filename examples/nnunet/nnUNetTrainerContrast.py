"""nnU-Net with contrast among the last features of its decoder, beside its own loss. One device.

    export nnUNet_extTrainer=examples/nnunet nnUNet_compile=f
    nnUNetv2_train DATASET 2d 0 -tr nnUNetTrainerContrast

The projection is thrown away after training: checkpoints are those of nnU-Net, and `nnUNetv2_predict` takes them.
"""

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from semicl_kernels import LocalContrastiveLoss


class LossWithContrast(nn.Module):
    """nnU-Net's loss, and while it trains the contrast among the features that a module of the network gave last.

    Args:
        loss: nnU-Net's.
        stage: the module.
        projection: a convolution of size 1, of the features.
        weight: of the contrast.
    """

    def __init__(self, loss: nn.Module, stage: nn.Module, projection: nn.Module, weight: float = 0.1) -> None:
        super().__init__()
        self.loss, self.projection, self.weight = loss, projection, weight
        self.contrast = LocalContrastiveLoss(temperature=0.1, scope="image")  # label 0 is the background
        self.features = torch.empty(0)
        stage.register_forward_hook(self.keep)

    def keep(self, stage: nn.Module, inputs: tuple[Tensor, ...], features: Tensor) -> None:
        self.features = features

    def forward(self, output: list[Tensor] | Tensor, target: list[Tensor] | Tensor) -> Tensor:
        loss = self.loss(output, target)
        if not torch.is_grad_enabled():  # validation
            return loss
        labels = target[0] if isinstance(target, list) else target  # (B, 1, *space), the finest of deep supervision
        points = self.projection(self.features)[:, None]  # one view: (B, 1, C, *space)
        return loss + self.weight * self.contrast(points, labels.long())


class nnUNetTrainerContrast(nnUNetTrainer):  # noqa: N801
    """The trainer; everything else is nnU-Net's."""

    def initialize(self) -> None:
        super().initialize()
        if self.is_ddp:
            raise RuntimeError("got several processes, which do not share the projection: train with -num_gpus 1")
        decoder = self.network.decoder
        convolution = decoder.seg_layers[-1]  # 2-D or 3-D, of the features that are segmented
        projection = type(convolution)(convolution.in_channels, 32, 1).to(self.device)
        self.optimizer.add_param_group({"params": [*projection.parameters()]})
        self.loss = LossWithContrast(self.loss, decoder.stages[-1], projection)
