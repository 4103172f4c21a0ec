"""A teacher beside the network that is trained: the moving average of its weights.

Source: Tarvainen and Valpola, NeurIPS 2017. Validation judges the teacher, and the teacher is what is kept.
"""

from copy import deepcopy
from typing import Any

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from semicl.models.checkpoint import ModelCard
from semicl.models.unet import UNet
from semicl.options import SegmentationOptions
from semicl.training.stages import Segmentation


class WithTeacher(Segmentation):
    """Stage 3 with a teacher; `network` is the teacher, so that it is what is validated, kept and predicted with.

    Args:
        network: its initial weights.
        options: of the stage.
        card: of its checkpoints.
        seed: of the views.
        decay: of the moving average; with 0 the teacher is the student.
    """

    def __init__(self, network: UNet, options: SegmentationOptions, card: ModelCard, seed: int, decay: float) -> None:
        super().__init__(network, options, card, seed)
        self.student = network
        self.network = deepcopy(network).requires_grad_(False)
        self._decay = decay

    @property
    def trained(self) -> UNet:
        return self.student

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        follow(self.network, self.student, self._decay, self.global_step)


def follow(teacher: nn.Module, student: nn.Module, decay: float, steps: int) -> None:
    """Move the teacher towards the student: the moving average of its weights, a plain average in the first steps.

    So the teacher leaves the random start as soon as the student does.
    """
    early = 1 - 1 / (steps + 1)
    average = get_ema_multi_avg_fn(min(decay, early))
    average(list(teacher.parameters()), list(student.parameters()), steps)
