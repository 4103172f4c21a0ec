"""Typed options of every command; each field is an option of the command line and a key of a config."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from semicl.data.classes import needed_of_classes
from semicl.errors import OptionError

LARGEST_LEARNING_RATE = 1e30
"""Far beyond it Adam's steps are no float32 numbers."""


def _require(condition: bool, option: str, got: object, takes: str, beside: str | None = None) -> None:
    if not condition:
        raise OptionError(option, takes, got, beside)


def _require_positive(options: object, *names: str) -> None:
    for name in names:
        _require(getattr(options, name) > 0, name, getattr(options, name), "a positive number")


def _require_seed(seed: int) -> None:
    _require(0 <= seed < 2**32, "seed", seed, "a number from 0 to 4294967295")  # scikit-learn takes no larger one


def _require_splits(splits: tuple[int, ...]) -> None:
    _require(
        len(splits) == len(set(splits)) > 0 and min(splits) >= 0,
        "splits",
        list(splits),
        "one or more numbers of splits, from 0, each once",
    )


# ---- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SourceOptions:
    """Where cases come from and where they are made ready.

    Args:
        data: folder of cases: a Medical Segmentation Decathlon task (dataset.json), MMWHS (*_image.nii.gz), or plain
            images/ and labels/; or "phantom" for synthetic volumes.
        prepared: folder for splits and cache, read by every training command.
    """

    data: str | None = None
    prepared: Path = Path("prepared")


@dataclass(frozen=True)
class PrepareOptions:
    """How cases are made ready.

    Args:
        download: a Decathlon task to fetch first; it is put beside the folder given as prepared.
        patch_size: two numbers: axial slices of this size; three: patches of (depth, height, width). Volumes that are
            smaller are padded; slices that are larger are shrunk, unless there is a sliding window.
        sliding_window: keep slices that are larger at full resolution: train on patches of them, which overlap by half,
            and predict them by a sliding window. Patches of three numbers always do.
        spacing: voxel size in mm, along right, anterior and superior, that volumes are resampled to; default: as is.
        shares: training, validation and test subjects, as a proportion.
        repeats: how many splits are made, each with another shuffle.
        seed: of the splits and of the phantom.
        scans_per_subject: cases whose number i gives the same ceil(i / scans_per_subject) are one subject. Default: 2
            for the Decathlon's Hippocampus and for the phantom, else 1.
        subject_pattern: regular expression whose first group that is found in a case's name names its subject.
        classes: names of a plain folder's classes and their values in the label files; default: the values found.
        leave_out_damaged: go on without the cases that have something wrong.
        phantom_subjects: subjects of the phantom, two scans each.
        overwrite: prepare anew although the folder holds prepared data already.
    """

    download: Literal["hippocampus"] | None = None
    patch_size: tuple[int, ...] = (64, 64)
    sliding_window: bool = False
    spacing: tuple[float, float, float] | None = None
    shares: tuple[int, int, int] = (3, 1, 1)
    repeats: int = 4
    seed: int = 0
    scans_per_subject: int | None = None
    subject_pattern: str | None = None
    classes: dict[str, int] | None = None
    leave_out_damaged: bool = False
    phantom_subjects: int = 40
    overwrite: bool = False

    def __post_init__(self) -> None:
        _require(
            len(self.patch_size) in (2, 3)
            and min(self.patch_size) >= 2
            and max(self.patch_size) >= 4
            and not any(side % 2 for side in self.patch_size),
            "patch_size",
            list(self.patch_size),
            "two or three even numbers, one of them 4 or more, since the network halves every side at least once; "
            "volumes that are smaller are padded",
        )
        _require(
            not (self.sliding_window and len(self.patch_size) == 3),
            "sliding_window",
            True,
            "false with a patch size of three numbers, whose patches are at full resolution always",
            beside="patch_size",
        )
        _require(min(self.shares) >= 1, "shares", list(self.shares), "three numbers of 1 or more, as '[3,1,1]'")
        if self.spacing is not None:
            _require(min(self.spacing) > 0, "spacing", list(self.spacing), "three positive numbers")
        if self.scans_per_subject is not None:
            _require_positive(self, "scans_per_subject")
        if self.classes is not None:
            _require(
                len(self.classes) > 0 and 0 not in self.classes.values(),
                "classes",
                self.classes,
                "names of one or more values other than 0, which is the background",
            )
            needed = needed_of_classes(self.classes.items())
            _require(needed is None, "classes", json.dumps(self.classes, ensure_ascii=False), str(needed))
        _require_positive(self, "repeats", "phantom_subjects")
        _require_seed(self.seed)


# ---- what the stages share -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NetworkOptions:
    """The U-Net. The defaults are the paper's widths and the authors' centre: 31.1 M parameters in two dimensions.

    Args:
        widths: channels of each level, from full resolution down; the last layer has as many as the first level.
        centre: channels of one more level below; none without it.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    centre: int | None = 1024

    def __post_init__(self) -> None:
        _require(len(self.levels) >= 2, "widths", list(self.widths), "two levels or more, the centre included")
        _require(min(self.widths, default=1) >= 1, "widths", list(self.widths), "numbers of 1 or more")
        _require(self.centre is None or self.centre >= 1, "centre", self.centre, "a number of 1 or more, or null")

    @property
    def levels(self) -> tuple[int, ...]:
        """Channels of every level, the centre included."""
        return self.widths if self.centre is None else (*self.widths, self.centre)


@dataclass(frozen=True)
class MachineOptions:
    """What it runs on.

    Args:
        accelerator: "auto", "cpu", "gpu" or another of Lightning's.
        devices: how many; more than one train together (DDP), each on a batch of its own.
        precision: "32-true", or mixed: "bf16-mixed", "16-mixed" (GPU).
        workers: processes that read the cache; 0 reads in the training process, enough for memory-mapped slices.
        compile: compile the network with torch.compile.
        deterministic: refuse operations whose result differs from run to run.
    """

    accelerator: str = "auto"
    devices: int = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    workers: int = 0
    compile: bool = False
    deterministic: bool = False

    def __post_init__(self) -> None:
        _require(self.devices >= 1, "devices", self.devices, "a number of 1 or more")
        _require(self.workers >= 0, "workers", self.workers, "a number of 0 or more")


@dataclass(frozen=True)
class ExperimentOptions:
    """What all stages of an experiment must agree on.

    Args:
        label_fraction: fraction of the training subjects that have labels whose labels may be used, in (0, 1].
        seed: of the initial weights, the order of the batches and the views.
        transductive: let stages without labels see the images, never the labels, of the test volumes.
        network: the U-Net.
        machine: what it runs on.
    """

    label_fraction: float = 0.05
    seed: int = 0
    transductive: bool = False
    network: NetworkOptions = field(default_factory=NetworkOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)

    def __post_init__(self) -> None:
        _require(0 < self.label_fraction <= 1, "label_fraction", self.label_fraction, "a number in (0, 1]")
        _require_seed(self.seed)


@dataclass(frozen=True)
class StageOptions:
    """Where one stage reads and writes.

    Args:
        prepared: folder that `semicl prepare` wrote.
        split: number of the split.
        output: folder of this stage: model.ckpt, summary.json, logs.
        start: checkpoint whose weights the network starts with; default: random weights of the seed.
        resume: go on with an unfinished stage in the output folder.
        overwrite: start anew although the output folder holds this stage already.
    """

    prepared: Path = Path("prepared")
    split: int = 0
    output: Path = Path("runs/stage")
    start: Path | None = None
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        takes = "false beside --resume: one starts anew, the other goes on; give one of them"
        _require(not (self.resume and self.overwrite), "overwrite", True, takes)


@dataclass(frozen=True)
class ScheduleOptions:
    """How long and how fast a stage trains, with Adam. The defaults are those of local contrast.

    Args:
        epochs: how often each slice or patch is seen.
        batch_size: slices or patches in a batch, on each device.
        learning_rate: of Adam; the highest one where it follows a cycle.
        decay: "none", or "one-cycle" over all steps.
    """

    epochs: int = 70
    batch_size: int = 4
    learning_rate: float = 1e-4
    decay: Literal["none", "one-cycle"] = "none"

    def __post_init__(self) -> None:
        _require_positive(self, "epochs", "batch_size")
        told = f"a number in (0, {LARGEST_LEARNING_RATE:g}]"
        _require(0 < self.learning_rate <= LARGEST_LEARNING_RATE, "learning_rate", self.learning_rate, told)


@dataclass(frozen=True)
class AugmentationOptions:
    """How much the views of a slice or patch differ from it.

    Args:
        rotation: largest angle in degrees, about every axis of the patch; where one is anisotropic (3-D), within the
            plane of the others.
        shift: largest shift as a fraction of the size.
        scale: smallest and largest magnification.
        elastic: spread of a smooth random displacement, as a fraction of the size.
        intensity: spread of gamma, brightness and contrast.
        noise: standard deviation of Gaussian noise, where images lie in [0, 1].
    """

    rotation: float = 15.0
    shift: float = 0.08
    scale: tuple[float, float] = (0.85, 1.15)
    elastic: float = 0.0
    intensity: float = 0.25
    noise: float = 0.05

    def __post_init__(self) -> None:
        for name in ("rotation", "shift", "elastic", "noise"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "a number of 0 or more")
        _require(0 < self.scale[0] <= self.scale[1], "scale", list(self.scale), "0 < low <= high")
        _require(0 <= self.intensity < 1, "intensity", self.intensity, "a number in [0, 1)")


# ---- the stages ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GlobalContrastOptions:
    """Stage 1, NT-Xent on the encoder.

    The defaults are the authors' temperature and batch.

    Args:
        schedule: how long and how fast.
        augmentation: what changes each view.
        temperature: of NT-Xent.
        channels: of the projected vectors.
    """

    schedule: ScheduleOptions = field(default_factory=lambda: ScheduleOptions(batch_size=120))
    augmentation: AugmentationOptions = field(
        default_factory=lambda: AugmentationOptions(20.0, 0.1, (0.8, 1.2), 0.02, 0.4, 0.05)
    )
    temperature: float = 0.5
    channels: int = 128

    def __post_init__(self) -> None:
        _require_positive(self, "temperature", "channels")
        _require(
            self.schedule.batch_size >= 2,
            "schedule.batch_size",
            self.schedule.batch_size,
            "2 or more here: other slices of the batch are the negatives",
        )


@dataclass(frozen=True)
class LocalLossOptions:
    """The local contrastive loss.

    Args:
        supervised: attract the points of one class, on the labelled fraction; false: attract a point of one view and
            the same point of the other, on all training images, without labels.
        temperature: what similarities are divided by.
        block_size: side of the blocks that contrast within themselves, in strided points; default: one block.
        stride: take every n-th point of each axis.
        scope: a block contrasts with the same block of the whole "batch", or with that of its own "image".
        denominator: "all" points of the block but the anchor itself, or the "negatives" alone.
    """

    supervised: bool = True
    temperature: float = 0.1
    block_size: int | None = None
    stride: int = 1
    scope: Literal["batch", "image"] = "batch"
    denominator: Literal["all", "negatives"] = "all"

    def __post_init__(self) -> None:
        _require(self.temperature > 0, "temperature", self.temperature, "a positive number")
        _require(self.stride >= 1, "stride", self.stride, "a number of 1 or more")
        _require(self.block_size is None or self.block_size >= 1, "block_size", self.block_size, "1 or more")


@dataclass(frozen=True)
class LocalContrastOptions:
    """Stage 2, local contrast.

    The defaults are the authors' temperature and batch.

    Args:
        schedule: how long and how fast.
        augmentation: what changes each view; in the self-supervised form its intensities alone, since a point must
            stay in place.
        loss: the contrast.
        channels: of the projected points.
        layers: of the projection; 1 makes it linear.
    """

    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    loss: LocalLossOptions = field(default_factory=LocalLossOptions)
    channels: int = 128
    layers: int = 2

    def __post_init__(self) -> None:
        _require_positive(self, "channels", "layers")


@dataclass(frozen=True)
class TcsmOptions:
    """Transformation-consistent self-ensembling, on the images of all training volumes.

    Args:
        weight: what the inconsistency of student and teacher is multiplied by, once grown; 0 leaves it out.
        decay: of the teacher, the moving average of the student.
        ramp_up: share of all steps in which the weight grows.
    """

    weight: float = 0.0
    decay: float = 0.99
    ramp_up: float = 0.4

    def __post_init__(self) -> None:
        _require(self.weight >= 0, "weight", self.weight, "a number of 0 or more")
        _require(0 <= self.decay < 1, "decay", self.decay, "a number in [0, 1)")
        _require(0 <= self.ramp_up <= 1, "ramp_up", self.ramp_up, "a number in [0, 1]")


@dataclass(frozen=True)
class SegmentationOptions:
    """Stage 3, cross entropy + Dice on the labelled fraction.

    Args:
        schedule: how long and how fast.
        augmentation: what changes the training slices.
        local_weight: what the supervised local contrastive term is multiplied by; 0 leaves it out.
        loss: the supervised local contrastive term.
        channels: of the projected points of that term.
        layers: of their projection.
        mixup: alpha of Mixup's Beta(alpha, alpha); 0 mixes nothing.
        tcsm: a teacher that must agree however an image is turned.
        validate_every: epochs between two looks at the validation volumes.
        validation_volumes: at most so many of them are used; default: all.
    """

    schedule: ScheduleOptions = field(default_factory=lambda: ScheduleOptions(120, 8, 1e-5))
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    local_weight: float = 0.0
    loss: LocalLossOptions = field(default_factory=LocalLossOptions)
    channels: int = 128
    layers: int = 2
    mixup: float = 0.0
    tcsm: TcsmOptions = field(default_factory=TcsmOptions)
    validate_every: int = 1
    validation_volumes: int | None = None

    def __post_init__(self) -> None:
        for name in ("local_weight", "mixup"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "a number of 0 or more")
        _require_positive(self, "validate_every", "channels", "layers")
        _require(
            self.validate_every <= self.schedule.epochs,
            "validate_every",
            self.validate_every,
            f"at most the number of epochs ({self.schedule.epochs}), or no checkpoint would be picked",
            beside="schedule.epochs",
        )
        _require(self.loss.supervised, "loss.supervised", False, "true in this stage: its slices have labels")
        if self.validation_volumes is not None:
            _require_positive(self, "validation_volumes")


# ---- the other commands ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunOptions:
    """An experiment.

    Args:
        output: folder of the experiment; every stage has a folder of its own in it.
        splits: numbers of the splits to run; results are their mean.
        starts: what fine-tuning starts from: "random" weights, "global" contrast alone, or "pretrained": global, then
            local contrast.
        overwrite: start anew although the output folder holds an experiment already.
    """

    output: Path = Path("runs/experiment")
    splits: tuple[int, ...] = (0,)
    starts: tuple[Literal["random", "global", "pretrained"], ...] = ("random", "pretrained")
    overwrite: bool = False

    def __post_init__(self) -> None:
        _require_splits(self.splits)
        _require(
            len(self.starts) == len(set(self.starts)) > 0,
            "starts",
            list(self.starts),
            "one or more of 'random', 'global', 'pretrained', each once",
        )


PRETRAINING = ("pretrain_global", "pretrain_local")
"""Sections of the stages that may go before fine-tuning, in their order."""

STAGES = ("prepare", *PRETRAINING, "finetune")
"""Sections of an experiment, one for each command it consists of."""


@dataclass(frozen=True)
class MethodOptions:
    """A method of a study: which pre-training goes before fine-tuning, and what it changes of the stages' options.

    Args:
        stages: of pre-training: pretrain_global, pretrain_local, both in this order, or none for a random start.
        pretrain_global: options of that stage that differ from the study's.
        pretrain_local: options of that stage that differ from the study's.
        finetune: options of that stage that differ from the study's.
    """

    stages: tuple[Literal["pretrain_global", "pretrain_local"], ...] = ()
    pretrain_global: dict[str, Any] = field(default_factory=dict)
    pretrain_local: dict[str, Any] = field(default_factory=dict)
    finetune: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(
            self.stages == tuple(stage for stage in PRETRAINING if stage in self.stages),
            "methods.*.stages",
            list(self.stages),
            f"{' and '.join(PRETRAINING)}, in this order, one of them, or none",
        )
        for stage in PRETRAINING:
            _require(
                stage in self.stages or not getattr(self, stage),
                f"methods.*.{stage}",
                getattr(self, stage),
                f"options only where {stage} is one of the method's stages",
            )


@dataclass(frozen=True)
class StudyOptions:
    """A study.

    Args:
        output: folder of the study; every stage has a folder of its own in it, named by a hash of its options.
        methods: by name, in the order of the table.
        label_fractions: the table's columns; default: the label_fraction alone.
        splits: numbers of the splits; a cell of the table is their mean.
        learning_rates: of fine-tuning; every method tries them all, and validation picks for each cell the one that is
            judged. Default: that of finetune.schedule alone.
        jobs: stages trained at once, each in a process of its own; default: as many as cores and free memory allow.
        only: names of the methods to take; default: all of them.
        overwrite: replace tables of other cells that the output folder holds; stages are kept.
    """

    output: Path = Path("runs/study")
    methods: dict[str, MethodOptions] = field(default_factory=dict)
    label_fractions: tuple[float, ...] | None = None
    splits: tuple[int, ...] = (0,)
    learning_rates: tuple[float, ...] | None = None
    jobs: int | None = None
    only: tuple[str, ...] | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        _require(
            len(self.methods) > 0, "methods", self.methods, "one or more, as in the config hippocampus-small-study"
        )
        if self.only is not None:
            unknown = [name for name in self.only if name not in self.methods]
            known = ", ".join(f'"{name}"' for name in self.methods)
            _require(len(self.only) > 0 and not unknown, "only", json.dumps(unknown), f"one or more of {known}")
        _require_splits(self.splits)
        if self.label_fractions is not None:
            _require(
                len(self.label_fractions) > 0 and all(0 < fraction <= 1 for fraction in self.label_fractions),
                "label_fractions",
                list(self.label_fractions),
                "one or more numbers in (0, 1]",
            )
        if self.learning_rates is not None:
            _require(
                len(self.learning_rates) > 0 and all(0 < rate <= LARGEST_LEARNING_RATE for rate in self.learning_rates),
                "learning_rates",
                list(self.learning_rates),
                f"one or more numbers in (0, {LARGEST_LEARNING_RATE:g}]",
            )
        _require(self.jobs is None or self.jobs >= 1, "jobs", self.jobs, "a number of 1 or more")

    @property
    def taken(self) -> dict[str, MethodOptions]:
        """The methods that are not left out by `only`."""
        return {name: method for name, method in self.methods.items() if self.only is None or name in self.only}


@dataclass(frozen=True)
class EvaluateOptions:
    """What is judged.

    Args:
        checkpoint: a model.ckpt of `semicl finetune`.
        prepared: folder that `semicl prepare` wrote, where no data is given.
        split: number of the split; default: the one that the checkpoint was trained on.
        part: which part of the split.
        data: any folder of labelled cases, in the layouts of `semicl prepare`, instead of a split.
        output: folder for cases.csv and results.json.
        overwrite: replace these files where the output folder holds them already.
        machine: what it runs on.
    """

    checkpoint: Path
    prepared: Path = Path("prepared")
    split: int | None = None
    part: Literal["test", "validation"] = "test"
    data: Path | None = None
    output: Path = Path("runs/evaluation")
    overwrite: bool = False
    machine: MachineOptions = field(default_factory=MachineOptions)


@dataclass(frozen=True)
class PredictOptions:
    """What is predicted.

    Args:
        checkpoint: a model.ckpt of `semicl finetune`.
        input: a NIfTI file, or a folder of them.
        output: folder for the label files, each named as its image; or, for one image, the name of a .nii.gz file.
        overwrite: replace label files that are there already.
        skip_existing: leave label files that are there already as they are, and write the others.
        machine: what it runs on.
    """

    checkpoint: Path
    input: Path
    output: Path = Path("predictions")
    overwrite: bool = False
    skip_existing: bool = False
    machine: MachineOptions = field(default_factory=MachineOptions)

    def __post_init__(self) -> None:
        takes = "false beside --overwrite: one leaves what is there, the other replaces it; give one of them"
        _require(not (self.overwrite and self.skip_existing), "skip_existing", True, takes)


@dataclass(frozen=True)
class EmbedOptions:
    """Which pixels are drawn, and how.

    Args:
        checkpoint: the network after pre-training (or fine-tuning); the picture's other side is its random start.
        prepared: folder that `semicl prepare` wrote.
        split: number of the split, whose validation volumes are drawn; default: that of the checkpoint.
        method: "tsne" or "pca".
        points: pixels of each class, at most.
        volumes: validation volumes, at most.
        seed: of the random start and of the choice of pixels.
        output: the picture, a PNG file.
        overwrite: replace a picture of this name.
        machine: what it runs on.
    """

    checkpoint: Path
    prepared: Path = Path("prepared")
    split: int | None = None
    method: Literal["tsne", "pca"] = "tsne"
    points: int = 500
    volumes: int = 10
    seed: int = 0
    output: Path = Path("runs/embedding.png")
    overwrite: bool = False
    machine: MachineOptions = field(default_factory=MachineOptions)

    def __post_init__(self) -> None:
        _require_seed(self.seed)
        _require(self.points >= 2, "points", self.points, "a number of 2 or more")
        _require_positive(self, "volumes")
        _require(self.output.suffix == ".png", "output", self.output, "the name of a .png file")
