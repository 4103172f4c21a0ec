"""Typed options of the demo; every field is also an option of the command line."""

from dataclasses import dataclass, field
from pathlib import Path

from semicl.errors import SemiclError

DOWNSAMPLING = 16
"""The U-Net halves a slice four times, so its sides must be multiples of this."""


def _require(condition: bool, option: str, got: object, takes: str) -> None:
    if not condition:
        raise SemiclError(f"--{option} takes {takes}, got {got}")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast one stage trains.

    Args:
        steps: optimiser steps; the learning rate follows one cycle over them.
        batch_size: slices in a batch.
        learning_rate: highest learning rate of Adam.
    """

    steps: int = 100
    batch_size: int = 8
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        _require(self.steps >= 1, "*.steps", self.steps, "a number of 1 or more")
        _require(self.batch_size >= 2, "*.batch_size", self.batch_size, "a number of 2 or more")
        _require(self.learning_rate > 0, "*.learning_rate", self.learning_rate, "a positive number")


@dataclass(frozen=True)
class DemoOptions:
    """Everything the demo can be told.

    Args:
        data: folder in the layout of the Medical Segmentation Decathlon, or "phantom" for synthetic volumes. Default:
            the hippocampus cases in ../shared/data when they are there, else the phantom.
        output: folder for checkpoints, picture and results.
        seed: of the split, the networks, the augmentation and the phantom.
        label_fraction: fraction of the training subjects whose labels may be used, in (0, 1]; rounded up.
        slice_size: height and width of the slices in pixels; a multiple of 16.
        widths: channels of the five levels of the U-Net and of its last layer.
        global_contrast: schedule of stage 1.
        local_contrast: schedule of stage 2.
        segmentation: schedule of stage 3, the same for both starts.
        global_temperature: temperature of the NT-Xent loss.
        local_temperature: temperature of the local contrastive loss.
        block_size: side in pixels of the blocks of the local contrastive loss.
        validations: how often stage 3 looks at the validation volumes, evenly spread; divides its steps.
        validation_volumes: at most so many validation volumes are used, to keep the demo short.
        phantom_subjects: subjects of the phantom.
    """

    data: str | None = None
    output: Path = Path("runs/demo")
    seed: int = 0
    label_fraction: float = 0.05
    slice_size: int = 64
    widths: tuple[int, int, int, int, int, int] = (16, 32, 64, 128, 256, 16)
    global_contrast: Schedule = field(default_factory=lambda: Schedule(150, 32, 1e-3))
    local_contrast: Schedule = field(default_factory=lambda: Schedule(250, 4, 1e-3))
    segmentation: Schedule = field(default_factory=lambda: Schedule(400, 8, 1e-3))
    global_temperature: float = 0.5
    local_temperature: float = 0.1
    block_size: int = 16
    validations: int = 4
    validation_volumes: int = 10
    phantom_subjects: int = 40

    def __post_init__(self) -> None:
        _require(0 < self.label_fraction <= 1, "label_fraction", self.label_fraction, "a number in (0, 1]")
        _require(
            self.slice_size > 0 and self.slice_size % DOWNSAMPLING == 0,
            "slice_size",
            self.slice_size,
            f"a positive multiple of {DOWNSAMPLING}",
        )
        _require(min(self.widths) >= 1, "widths", self.widths, "six numbers of 1 or more")
        _require(self.block_size >= 1, "block_size", self.block_size, "a number of 1 or more")
        for name in ("global_temperature", "local_temperature"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "a positive number")
        _require(self.validation_volumes >= 1, "validation_volumes", self.validation_volumes, "a number of 1 or more")
        _require(
            self.validations >= 1 and self.segmentation.steps % self.validations == 0,
            "validations",
            self.validations,
            f"a divisor of --segmentation.steps ({self.segmentation.steps})",
        )


QUICK = DemoOptions(
    widths=(8, 8, 16, 16, 32, 8),
    global_contrast=Schedule(10, 16, 1e-3),
    local_contrast=Schedule(10, 4, 1e-3),
    segmentation=Schedule(30, 8, 2e-3),
    validations=2,
    validation_volumes=3,
    phantom_subjects=15,
)
"""A few steps of a tiny network: shows that everything runs, trains nothing worth having."""
