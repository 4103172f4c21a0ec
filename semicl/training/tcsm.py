"""TCSM: fine-tuning with a teacher whose answers must turn as the images turn (Li et al., BMVC 2018 and TNNLS 2020).

Beside its labelled batch, every step takes images of all training volumes, labelled or not. The student sees each
turned and flipped, the teacher as it is, both with intensities of their own; the squared difference of the student's
probabilities and the teacher's, turned likewise, is added to the loss, by a weight that grows to its full value. The
teacher is the moving average of the student, and what is kept.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from semicl.models.checkpoint import ModelCard
from semicl.models.unet import UNet
from semicl.options import SegmentationOptions
from semicl.training.augment import Intensities, Mix
from semicl.training.losses import grown
from semicl.training.teacher import WithTeacher

SAME_SIDE = 0.01
"""Sides of a voxel that differ by a smaller share are the same: a turn by a quarter exchanges them."""


class Turn(NamedTuple):
    """A change of position in the axial plane that moves no point off the grid."""

    quarters: int
    flipped: bool


class Pair(NamedTuple):
    """Images (N, channels, *space) as student and teacher see them, and what turns the latter into the former."""

    for_student: Tensor
    for_teacher: Tensor
    turns: tuple[Turn, ...]


class SelfEnsembling(WithTeacher):
    """Stage 3 with a teacher that must agree with the network that is trained."""

    def __init__(self, network: UNet, options: SegmentationOptions, card: ModelCard, seed: int) -> None:
        super().__init__(network, options, card, seed, options.tcsm.decay)
        self._options = options.tcsm
        self._intensities = Intensities(options.augmentation)
        self._voxel_size = card.grid.voxel_size

    def views(self, batch: Any) -> Any:
        """The labelled batch as in `Segmentation`, and a pair of views of the other images (N, channels, *space)."""
        labelled, images = batch
        turns = random_turns(images, self._voxel_size)
        pair = Pair(turned(self._intensities(images), turns), self._intensities(images), turns)
        return super().views(labelled), pair

    def training_step(self, batch: tuple[Mix, Pair]) -> Tensor:
        mix, pair = batch
        answers = self.student(pair.for_student)
        with torch.no_grad():
            expected = self.network(pair.for_teacher)
        weight = self._options.weight * grown(self.done, self._options.ramp_up)
        return self.logged(self.supervised_loss(mix) + weight * inconsistency(answers, expected, pair.turns))


def random_turns(images: Tensor, voxel_size: Sequence[float] | None = None) -> tuple[Turn, ...]:
    """A turn for each image (N, channels, *space); by half circles only where the axial plane is no square.

    Args:
        images: whose number and shape count.
        voxel_size: along each axis of space; None where voxels are cubes.
    """
    height, width = (1.0, 1.0) if voxel_size is None else voxel_size[-2:]
    square = images.shape[-1] == images.shape[-2] and math.isclose(height, width, rel_tol=SAME_SIDE)
    step = 1 if square else 2
    quarters = step * torch.randint(4 // step, (len(images),))
    flips = torch.rand(len(images)) < 0.5
    return tuple(Turn(int(number), bool(flip)) for number, flip in zip(quarters, flips, strict=True))


def turned(maps: Tensor, turns: Sequence[Turn]) -> Tensor:
    """Maps (N, channels, *space), each flipped and turned in its last two axes."""
    flipped = (each.flip(-1) if turn.flipped else each for each, turn in zip(maps, turns, strict=True))
    return torch.stack([each.rot90(turn.quarters, (-2, -1)) for each, turn in zip(flipped, turns, strict=True)])


def inconsistency(student: Tensor, teacher: Tensor, turns: Sequence[Turn]) -> Tensor:
    """Mean squared difference of class probabilities, from scores (N, classes, *space); the teacher's are turned."""
    return mse_loss(student.float().softmax(1), turned(teacher.float().softmax(1), turns))
