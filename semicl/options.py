"""Typed options of every command; each field is an option of the command line and a key of a config."""

import os
from collections.abc import Hashable
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from typing_extensions import Self

from semicl.config import Place, mapping, options

Values = TypeVar("Values", bound=tuple[Hashable, ...])

Rate = Annotated[float, Field(gt=0, le=1e30)]
"""A learning rate; far beyond the largest the steps of Adam are no float32 numbers."""

Fraction = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""scikit-learn takes no larger one."""


def _each_once(values: Values) -> Values:
    if len(values) > len(set(values)):
        raise ValueError(f"takes each value once, got {' '.join(map(str, values))}")
    return values


def _no_background(values: tuple[int, ...]) -> tuple[int, ...]:
    if 0 in values:
        raise ValueError("takes values other than 0, which is the background")
    return values


def _positive(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    if values is not None and min(values) <= 0:
        raise ValueError(f"takes positive numbers, got {' '.join(map(str, values))}")
    return values


def _patch_size(sides: tuple[int, ...]) -> tuple[int, ...]:
    if len(sides) not in (2, 3) or min(sides) < 2 or max(sides) < 4 or any(side % 2 for side in sides):
        raise ValueError(
            f"takes two or three even numbers, one of them 4 or more, since the network halves every side at least "
            f"once; volumes that are smaller are padded; got {' '.join(map(str, sides))}"
        )
    return sides


def _png(path: Path) -> Path:
    if path.suffix != ".png":
        raise ValueError(f"takes the name of a .png file, got {path}")
    return path


Checkpoints = Annotated[
    tuple[Place, ...],
    Field(min_length=1),
    BeforeValidator(lambda given: (given,) if isinstance(given, (str, Path)) else given),
    AfterValidator(_each_once),
]
PatchSize = Annotated[tuple[int, ...], AfterValidator(_patch_size)]
Starts = Annotated[
    tuple[Literal["random", "global", "pretrained"], ...], Field(min_length=1), AfterValidator(_each_once)
]
Loggers = Annotated[tuple[Literal["tensorboard", "csv", "wandb", "mlflow"], ...], AfterValidator(_each_once)]
Splits = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1), AfterValidator(_each_once)]


# ---- data ------------------------------------------------------------------------------------------------------------


@options
class SourceOptions:
    """Where cases come from and where they are made ready.

    Args:
        data: folder of cases: a Medical Segmentation Decathlon task or a raw folder of nnU-Net (dataset.json), MMWHS
            (*_image.nii.gz), or plain images/ and labels/; or "phantom" for synthetic volumes. Default: what the
            variable SEMICL_DATA of the environment names.
        prepared: folder for splits and cache, read by every training command.
    """

    data: str | None = field(default_factory=lambda: os.environ.get("SEMICL_DATA") or None)
    prepared: Place = Path("prepared")


@options
class PrepareOptions:
    """How cases are made ready.

    Args:
        download: a Decathlon task to fetch first; it is put beside the folder given as prepared.
        patch_size: two numbers: axial slices of this size; three: patches of (depth, height, width). What is smaller is
            padded; of what is larger training takes random patches, half of them around foreground, and prediction
            goes over it with a sliding window.
        resize: shrink slices that are larger than the patch, as in the paper.
        spacing: voxel size in mm, along right, anterior and superior, that volumes are resampled to; default: as is.
        shares: training, validation and test subjects, as a proportion.
        repeats: how many splits are made, each with another shuffle.
        seed: of the splits and of the phantom.
        scans_per_subject: cases whose number i gives the same ceil(i / scans_per_subject) are one subject. Default: 2
            for the Decathlon's Hippocampus and for the phantom, else 1.
        subject_pattern: regular expression whose first group that is found in a case's name names its subject.
        classes: names of a plain folder's classes and their values in the label files, of which several may be one
            class; default: the values found.
        rest_is_background: take the values that no class has for background.
        ignore: values in the label files whose voxels no loss and no measure regards, as 255.
        leave_out_damaged: go on without the cases that have something wrong.
        phantom_subjects: subjects of the phantom, two scans each.
        phantom_channels: channels of its images.
        overwrite: prepare anew although the folder holds prepared data already.
    """

    download: Literal["hippocampus"] | None = None
    patch_size: PatchSize = (64, 64)
    resize: bool = False
    spacing: Annotated[tuple[float, float, float] | None, AfterValidator(_positive)] = None
    shares: Annotated[tuple[int, int, int], AfterValidator(_positive)] = (3, 1, 1)
    repeats: PositiveInt = 4
    seed: Seed = 0
    scans_per_subject: PositiveInt | None = None
    subject_pattern: str | None = None
    classes: Annotated[dict[str, int | list[int]] | None, mapping('{"liver": 1, "spleen": [4, 5]}')] = None
    rest_is_background: bool = False
    ignore: Annotated[tuple[int, ...], AfterValidator(_each_once), AfterValidator(_no_background)] = ()
    leave_out_damaged: bool = False
    phantom_subjects: PositiveInt = 40
    phantom_channels: PositiveInt = 1
    overwrite: bool = False

    @model_validator(mode="after")
    def _resizes_slices(self) -> Self:
        if self.resize and len(self.patch_size) == 3:
            raise ValueError("--resize is for slices, and a patch size of three numbers makes none; leave it out")
        return self


# ---- what the stages share -------------------------------------------------------------------------------------------


@options
class NetworkOptions:
    """The U-Net. The defaults are the paper's widths and the authors' centre: 31.1 M parameters in two dimensions.

    Args:
        widths: channels of each level, from full resolution down; the last layer has as many as the first level.
        centre: channels of one more level below; none without it.
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 128, 256, 512)
    centre: PositiveInt | None = 1024

    @model_validator(mode="after")
    def _two_levels(self) -> Self:
        if len(self.levels) < 2:
            raise ValueError(f"widths takes two levels or more, the centre included, got {len(self.levels)}")
        return self

    @property
    def levels(self) -> tuple[int, ...]:
        """Channels of every level, the centre included."""
        return self.widths if self.centre is None else (*self.widths, self.centre)


@options
class MachineOptions:
    """What it runs on.

    Args:
        accelerator: "auto", "cpu", "gpu" or another of Lightning's.
        devices: how many; more than one train together (DDP), started by torchrun, each on a batch of its own.
        precision: "32-true", or mixed: "bf16-mixed", "16-mixed" (GPU).
        workers: processes that read the cache; 0 reads in the training process, enough for memory-mapped slices.
        compile: compile the network with torch.compile.
        deterministic: refuse operations whose result differs from run to run.
    """

    accelerator: str = "auto"
    devices: PositiveInt = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    workers: NonNegativeInt = 0
    compile: bool = False
    deterministic: bool = False


@options
class ExperimentOptions:
    """What all stages of an experiment must agree on.

    Args:
        label_fraction: fraction of the training subjects that have labels whose labels may be used, in (0, 1].
        seed: of the initial weights, the order of the batches and the views.
        transductive: let stages without labels see the images, never the labels, of the test volumes.
        network: the U-Net.
        machine: what it runs on.
        logger: where losses and the validation Dice are logged; wandb and mlflow must be installed.
    """

    label_fraction: Fraction = 0.05
    seed: Seed = 0
    transductive: bool = False
    network: NetworkOptions = NetworkOptions()
    machine: MachineOptions = MachineOptions()
    logger: Loggers = ("tensorboard", "csv")


@options
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

    prepared: Place = Path("prepared")
    split: NonNegativeInt = 0
    output: Place = Path("runs/stage")
    start: Place | None = None
    resume: bool = False
    overwrite: bool = False

    @model_validator(mode="after")
    def _one_way_to_begin(self) -> Self:
        if self.resume and self.overwrite:
            raise ValueError("--resume goes on and --overwrite starts anew; give one of them")
        return self


@options
class ScheduleOptions:
    """How long and how fast a stage trains, with Adam. The defaults are those of local contrast.

    Args:
        epochs: how often each slice or patch is seen.
        batch_size: slices or patches in a batch, on each device.
        learning_rate: of Adam; the highest one where it follows a cycle.
        decay: "none", or "one-cycle" over all steps.
        steps_per_epoch: steps of an epoch. Where there are more slices or patches than they take, each epoch takes
            others; where there are fewer, they are repeated. Default: as many as it takes to see each once.
    """

    epochs: PositiveInt = 70
    batch_size: PositiveInt = 4
    learning_rate: Rate = 1e-4
    decay: Literal["none", "one-cycle"] = "none"
    steps_per_epoch: PositiveInt | None = None


@options
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

    rotation: NonNegativeFloat = 15.0
    shift: NonNegativeFloat = 0.08
    scale: Annotated[tuple[float, float], AfterValidator(_positive)] = (0.85, 1.15)
    elastic: NonNegativeFloat = 0.0
    intensity: BelowOne = 0.25
    noise: NonNegativeFloat = 0.05

    @model_validator(mode="after")
    def _low_to_high(self) -> Self:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale takes a low and a high value, got {self.scale[0]} {self.scale[1]}")
        return self


# ---- the stages ------------------------------------------------------------------------------------------------------


@options
class GlobalContrastOptions:
    """Stage 1, NT-Xent on the encoder.

    The defaults are the authors' temperature and batch.

    Args:
        schedule: how long and how fast.
        augmentation: what changes each view.
        temperature: of NT-Xent.
        channels: of the projected vectors.
    """

    schedule: ScheduleOptions = ScheduleOptions(batch_size=120)
    augmentation: AugmentationOptions = AugmentationOptions(20.0, 0.1, (0.8, 1.2), 0.02, 0.4, 0.05)
    temperature: PositiveFloat = 0.5
    channels: PositiveInt = 128

    @model_validator(mode="after")
    def _has_negatives(self) -> Self:
        if self.schedule.batch_size < 2:
            raise ValueError("schedule.batch_size takes 2 or more here: other slices of the batch are the negatives")
        return self


@options
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
    temperature: PositiveFloat = 0.1
    block_size: PositiveInt | None = None
    stride: PositiveInt = 1
    scope: Literal["batch", "image"] = "batch"
    denominator: Literal["all", "negatives"] = "all"


@options
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

    schedule: ScheduleOptions = ScheduleOptions()
    augmentation: AugmentationOptions = AugmentationOptions()
    loss: LocalLossOptions = LocalLossOptions()
    channels: PositiveInt = 128
    layers: PositiveInt = 2


@options
class TcsmOptions:
    """Transformation-consistent self-ensembling, on the images of all training volumes.

    Args:
        weight: what the inconsistency of student and teacher is multiplied by, once grown; 0 leaves it out.
        decay: of the teacher, the moving average of the student.
        ramp_up: share of all steps in which the weight grows.
    """

    weight: NonNegativeFloat = 0.0
    decay: BelowOne = 0.99
    ramp_up: Share = 0.4


@options
class FixMatchOptions:
    """FixMatch with CutMix, on the images of the training volumes that have no label in use.

    Args:
        weight: what the loss on pseudo-labels is multiplied by, once grown; 0 leaves it out.
        confidence: a pseudo-label counts where the probability of its class is at least this.
        decay: of the teacher that gives the pseudo-labels, the moving average of the network; 0: the network itself.
        ramp_up: share of all steps in which the weight grows.
        batch_size: unlabelled slices or patches in a batch, on each device; default: as many as labelled ones.
        cutmix: how likely a box of another image is pasted into a strong view.
        intensity: spread of gamma, brightness and contrast of the strong view; the weak one keeps its own.
        noise: standard deviation of the strong view's Gaussian noise.
        unsure: points below the confidence in the local term: "ignored", or "weighed", as all pseudo-labelled ones then
            are: each counts as an anchor by the probability of its class.
    """

    weight: NonNegativeFloat = 0.0
    confidence: BelowOne = 0.95
    decay: BelowOne = 0.99
    ramp_up: Share = 0.4
    batch_size: PositiveInt | None = None
    cutmix: Share = 0.5
    intensity: BelowOne = 0.5
    noise: NonNegativeFloat = 0.1
    unsure: Literal["ignored", "weighed"] = "ignored"


@options
class SegmentationOptions:
    """Stage 3, cross entropy + Dice on the labelled fraction.

    Args:
        schedule: how long and how fast.
        augmentation: what changes the training slices.
        local_weight: what the supervised local contrastive term is multiplied by; 0 leaves it out. With FixMatch it
            compares labelled and pseudo-labelled points.
        local_warm_up: epochs before the term begins.
        local_scale: side in pixels of the term's points: 1 takes them of the decoder's last map, 2 or 4 of the one at a
            half or a quarter of the resolution.
        local_queue: class means of past labelled slices or patches that its points meet too, as many of each class; 0:
            none.
        loss: the supervised local contrastive term.
        channels: of the projected points of that term.
        layers: of their projection.
        mixup: alpha of Mixup's Beta(alpha, alpha); 0 mixes nothing.
        tcsm: a teacher that must agree however an image is turned.
        fixmatch: pseudo-labels of a weak view, by which a strong view of unlabelled images is trained.
        validate_every: epochs between two looks at the validation volumes.
        validation_volumes: at most so many of them are used; default: all.
        keep_last: keep the weights of the last epoch too, in model-last.ckpt, beside those that validation picked.
    """

    schedule: ScheduleOptions = ScheduleOptions(120, 8, 1e-5)
    augmentation: AugmentationOptions = AugmentationOptions()
    local_weight: NonNegativeFloat = 0.0
    local_warm_up: NonNegativeInt = 0
    local_scale: Literal[1, 2, 4] = 1
    local_queue: NonNegativeInt = 0
    loss: LocalLossOptions = LocalLossOptions()
    channels: PositiveInt = 128
    layers: PositiveInt = 2
    mixup: NonNegativeFloat = 0.0
    tcsm: TcsmOptions = TcsmOptions()
    fixmatch: FixMatchOptions = FixMatchOptions()
    validate_every: PositiveInt = 1
    validation_volumes: PositiveInt | None = None
    keep_last: bool = False

    @model_validator(mode="after")
    def _fits_the_stage(self) -> Self:
        if self.validate_every > self.schedule.epochs:
            raise ValueError(
                f"validate_every takes at most the number of epochs ({self.schedule.epochs}), or no checkpoint would "
                f"be picked, got {self.validate_every}; give another validate_every or schedule.epochs"
            )
        if not self.loss.supervised:
            raise ValueError("loss.supervised takes true in this stage: its slices have labels")
        if self.local_weight > 0 and self.local_warm_up >= self.schedule.epochs:
            raise ValueError(
                f"local_warm_up takes less than the number of epochs ({self.schedule.epochs}), or the local term would "
                f"never begin, got {self.local_warm_up}; give another local_warm_up or schedule.epochs"
            )
        if self.local_queue > 0 and self.mixup > 0:
            raise ValueError(
                f"local_queue takes 0 beside mixup, got {self.local_queue}: the points of a blended slice have no "
                "class of their own; leave one of them out"
            )
        for name, given in (("tcsm.weight", self.tcsm.weight), ("mixup", self.mixup)):
            if self.fixmatch.weight > 0 and given > 0:
                raise ValueError(
                    f"fixmatch.weight takes 0 beside {name}, got {self.fixmatch.weight}; leave one of them out"
                )
        return self

    @property
    def local_level(self) -> int:
        """The decoder's level whose points the local term compares, from full resolution down."""
        return self.local_scale.bit_length() - 1


# ---- the other commands ----------------------------------------------------------------------------------------------


@options
class RunOptions:
    """An experiment.

    Args:
        output: folder of the experiment; every stage has a folder of its own in it.
        splits: numbers of the splits to run; results are their mean.
        starts: what fine-tuning starts from: "random" weights, "global" contrast alone, or "pretrained": global, then
            local contrast.
        overwrite: start anew although the output folder holds an experiment already.
    """

    output: Place = Path("runs/experiment")
    splits: Splits = (0,)
    starts: Starts = ("random", "pretrained")
    overwrite: bool = False


PRETRAINING = ("pretrain_global", "pretrain_local")
"""Sections of the stages that may go before fine-tuning, in their order."""

STAGES = ("prepare", *PRETRAINING, "finetune")
"""Sections of an experiment, one for each command it consists of."""


@options
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

    @model_validator(mode="after")
    def _fits_its_stages(self) -> Self:
        if self.stages != tuple(stage for stage in PRETRAINING if stage in self.stages):
            raise ValueError(f"stages takes {' and '.join(PRETRAINING)}, in this order, one of them, or none")
        for stage in PRETRAINING:
            if getattr(self, stage) and stage not in self.stages:
                raise ValueError(f"{stage} takes options only where it is one of the method's stages")
        return self


@options
class StudyOptions:
    """A study.

    Args:
        output: folder of the study; every stage has a folder of its own in it, named by a hash of its options.
        methods: by name, in the order of the table.
        label_fractions: the table's columns; default: the label_fraction alone.
        splits: numbers of the splits; a cell of the table is their mean.
        learning_rates: of fine-tuning; every method tries them all, and validation picks for each cell the one that is
            judged. Default: that of finetune.schedule alone.
        jobs: stages trained at once, each in a process of its own; default: one for each GPU, else for each core.
        executor: address of a dask scheduler, as tcp://host:8786, whose workers do the jobs; default: this machine.
        only: names of the methods to take; default: all of them.
        overwrite: replace tables of other cells that the output folder holds; stages are kept.
    """

    output: Place = Path("runs/study")
    methods: Annotated[
        dict[str, MethodOptions], mapping('{"random": {}, "TCSM": {"finetune": {"tcsm": {"weight": 1}}}}')
    ] = field(default_factory=dict)
    label_fractions: Annotated[tuple[Fraction, ...], Field(min_length=1)] | None = None
    splits: Splits = (0,)
    learning_rates: Annotated[tuple[Rate, ...], Field(min_length=1)] | None = None
    jobs: PositiveInt | None = None
    executor: str | None = None
    only: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    overwrite: bool = False

    @model_validator(mode="after")
    def _knows_its_methods(self) -> Self:
        for name in self.only or ():
            if name not in self.methods:
                known = ", ".join(f'"{each}"' for each in self.methods)
                raise ValueError(f'only takes one or more of {known}, got "{name}"')
        return self

    @property
    def taken(self) -> dict[str, MethodOptions]:
        """The methods that are not left out by `only`."""
        return {name: method for name, method in self.methods.items() if self.only is None or name in self.only}


@options
class EvaluateOptions:
    """What is judged.

    Args:
        checkpoint: a model.ckpt of `semicl finetune`, whose predictions are judged.
        prepared: folder that `semicl prepare` wrote, where no data is given.
        split: number of the split; default: the one that the checkpoint was trained on.
        part: which part of the split.
        data: any folder of labelled cases, in the layouts of `semicl prepare`, instead of a split.
        predictions: folder of label files of these cases, of any origin, that are judged instead of a checkpoint; each
            is named as its case.
        output: folder for cases.csv and results.json.
        overwrite: replace these files where the output folder holds them already.
        machine: what it runs on.
    """

    checkpoint: Place | None = None
    prepared: Place = Path("prepared")
    split: NonNegativeInt | None = None
    part: Literal["test", "validation"] = "test"
    data: Place | None = None
    predictions: Place | None = None
    output: Place = Path("runs/evaluation")
    overwrite: bool = False
    machine: MachineOptions = MachineOptions()


@options
class PredictOptions:
    """What is predicted.

    Args:
        checkpoint: a model.ckpt of `semicl finetune`; of several, whose classes must be the same, the class
            probabilities are averaged.
        input: a NIfTI file or a picture, or a folder of them.
        output: folder for the label files, each named as its image; or, for one image, the name of the label file.
        overwrite: replace label files that are there already.
        skip_existing: leave label files that are there already as they are, and write the others.
        probabilities: write the class probabilities too, as NAME.npz beside each label file.
        tta: average the class probabilities over all flips of the image along the axes of the patch.
        largest_component: of each class keep the largest connected component in an image, and take the rest for
            background.
        machine: what it runs on.
    """

    checkpoint: Checkpoints = tyro.MISSING
    input: Place = tyro.MISSING
    output: Place = Path("predictions")
    overwrite: bool = False
    skip_existing: bool = False
    probabilities: bool = False
    tta: bool = False
    largest_component: bool = False
    machine: MachineOptions = MachineOptions()

    @model_validator(mode="after")
    def _one_way_to_replace(self) -> Self:
        if self.overwrite and self.skip_existing:
            raise ValueError("--skip_existing leaves what is there and --overwrite replaces it; give one of them")
        return self


@options
class ExportOptions:
    """What is exported.

    Args:
        checkpoint: a model.ckpt of `semicl finetune`.
        bundle: folder that becomes a MONAI bundle, which predicts without semicl.
        overwrite: replace the files of a bundle that the folder holds already.
    """

    checkpoint: Place = tyro.MISSING
    bundle: Place = tyro.MISSING
    overwrite: bool = False


@options
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

    checkpoint: Place = tyro.MISSING
    prepared: Place = Path("prepared")
    split: NonNegativeInt | None = None
    method: Literal["tsne", "pca"] = "tsne"
    points: Annotated[int, Field(ge=2)] = 500
    volumes: PositiveInt = 10
    seed: Seed = 0
    output: Annotated[Place, AfterValidator(_png)] = Path("runs/embedding.png")
    overwrite: bool = False
    machine: MachineOptions = MachineOptions()
