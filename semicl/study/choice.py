"""What `semicl run` chooses where no config says: by the data's sizes, number and channels, and by the device.

The rule is the table of docs/run.md.
"""

import math
from ast import literal_eval
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]

from semicl.config import load_yaml
from semicl.console import conclude, say
from semicl.data.cases import find_cases
from semicl.data.checks import stored_image
from semicl.data.geometry import affine_in_mm
from semicl.data.grid import Grid, resampled_shape, resampled_voxel_size
from semicl.data.prepare import PHANTOM
from semicl.data.prepared import DESCRIPTION, read_prepared
from semicl.data.subjects import subject_rule
from semicl.errors import SemiclError
from semicl.files import laid_over, replacing
from semicl.options import PrepareOptions, SourceOptions

CHOSEN = "chosen.yaml"
"""In an experiment's folder: its choices, which later calls keep."""

LOOKED_AT = 50
"""Cases, at most, whose headers are read."""

STAGES = ("pretrain_global", "pretrain_local", "finetune")
LENGTH = ("epochs", "steps_per_epoch", "batch_size")
SMALLEST_MAP, MOST_LEVELS = 4, 5
THICK, ANISOTROPIC = 32, 3
"""Voxels along each axis, and the ratio of a voxel's sides, from which a GPU takes patches."""

EPOCHS = 10
"""Of each stage where none are told, and validations of fine-tuning."""

RATES = (1e-3, 1e-3, 2e-3)
"""Of one cycle; the last was the best of those that `semicl search` tried on the hippocampus task."""


@dataclass(frozen=True)
class Budget:
    """What a device can do; batches and steps are those of the three stages.

    Args:
        name: of the device.
        slices: longest side of a slice.
        patches: longest side of a patch; None: slices alone.
        width: channels of the first level, which double from level to level.
        widest: channels of a level, at most.
        slice_batches: slices in a batch.
        patch_batches: patches in a batch.
        steps: of each stage.
        precision: of its arithmetic.
    """

    name: str
    slices: int
    patches: int | None
    width: int
    widest: int
    slice_batches: tuple[int, int, int]
    patch_batches: tuple[int, int, int]
    steps: tuple[int, int, int]
    precision: str


CPU = Budget("CPU", 96, None, 16, 256, (32, 4, 8), (8, 2, 2), (200, 400, 800), "32-true")
GPU = Budget("GPU", 256, 96, 32, 512, (64, 8, 16), (8, 2, 2), (1000, 4000, 8000), "bf16-mixed")


@dataclass(frozen=True)
class Facts:
    """What the rule knows of the data.

    Args:
        shapes: voxels along superior, right and anterior of the cases that were looked at.
        voxel_size: in mm along the same, the median.
        cases: how many there are.
        labelled: how many have a label.
        subjects: whose they are.
    """

    shapes: tuple[tuple[int, int, int], ...]
    voxel_size: tuple[float, float, float]
    cases: int
    labelled: int
    subjects: int


def choose(facts: Facts, budget: Budget, told: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every option that is chosen, by its place.

    Args:
        facts: of the data.
        budget: of the device.
        told: options that are given, which are kept, and followed by the other choices.
    """
    chosen: dict[str, Any] = {}

    def settle(place: str, value: Any) -> Any:
        chosen[place] = told.get(place, value)
        return chosen[place]

    settle("machine.precision", budget.precision)
    settle("label_fraction", 1.0)
    few = {3: (1, 1, 1), 4: (2, 1, 1)}
    settle("prepare.shares", few.get(facts.subjects, (3, 1, 1)))
    patch = tuple(settle("prepare.patch_size", _patch_size(facts, budget)))
    settle("prepare.resize", False)
    levels = min(_levels(min(patch)), Grid(patch).most_levels)
    centre = settle("network.centre", None)
    widths = [min(budget.width * 2**level, budget.widest) for level in range(levels)]
    settle("network.widths", tuple(widths if centre is None else widths[:-1]))
    batches = budget.slice_batches if len(patch) == 2 else budget.patch_batches
    for stage, rate, batch, steps in zip(STAGES, RATES, batches, budget.steps, strict=True):
        settle(f"{stage}.schedule.batch_size", batch)
        settle(f"{stage}.schedule.learning_rate", rate)
        settle(f"{stage}.schedule.decay", "one-cycle")
        # Epochs that are told pass over all slices.
        in_passes = f"{stage}.schedule.epochs" in told
        an_epoch = settle(f"{stage}.schedule.steps_per_epoch", None if in_passes else steps // EPOCHS)
        epochs = settle(f"{stage}.schedule.epochs", EPOCHS if an_epoch is None else math.ceil(steps / an_epoch))
    settle("finetune.validate_every", max(1, epochs // EPOCHS))
    settle("finetune.validation_volumes", 20)
    settle("pretrain_local.channels", 64)
    settle("pretrain_local.loss.block_size", 16)
    return chosen


def _has_larger_slices(facts: Facts, patch: Sequence[int]) -> bool:
    return len(patch) == 2 and any(shape[1] > patch[0] or shape[2] > patch[1] for shape in facts.shapes)


def _patch_size(facts: Facts, budget: Budget) -> tuple[int, ...]:
    """Slices, or patches of thick volumes of about cubic voxels on a GPU; each side as long as the data need."""
    sides = [int(side) for side in np.median(facts.shapes, axis=0)]
    cubic = max(facts.voxel_size) <= ANISOTROPIC * min(facts.voxel_size)
    if budget.patches is not None and cubic and min(sides) >= THICK:
        sides = [min(side, budget.patches) for side in sides]
    else:
        longest = (max(shape[axis] for shape in facts.shapes) for axis in (1, 2))
        sides = [min(side, budget.slices) for side in longest]
    factor = 2 ** (_levels(min(sides)) - 1)
    return tuple(max(2 * factor, math.ceil(side / factor) * factor) for side in sides)


def _levels(side: int) -> int:
    """Levels of a network whose smallest map has sides of `SMALLEST_MAP` or more."""
    return min(MOST_LEVELS, max(2, int(math.log2(max(1, side / SMALLEST_MAP))) + 1))


def look_at(source: SourceOptions, prepare: PrepareOptions) -> Facts:
    """What the rule knows of the data, by the headers of some files.

    Raises:
        SemiclError: there are no cases.
    """
    if source.data == PHANTOM:
        from semicl.data.phantom import SCANS_PER_SUBJECT, SHAPE

        right, anterior, superior = SHAPE
        scans = SCANS_PER_SUBJECT * prepare.phantom_subjects
        return Facts(((superior, right, anterior),), (1.0, 1.0, 1.0), scans, scans, prepare.phantom_subjects)
    folder = Path(str(source.data)).expanduser()
    if prepare.download is not None:
        from semicl.data.download import download

        folder = download(prepare.download, source.prepared.parent)
    rule = partial(subject_rule, scans_per_subject=prepare.scans_per_subject, subject_pattern=prepare.subject_pattern)
    cases = find_cases(folder, rule).cases
    grid = Grid(prepare.patch_size, prepare.spacing)
    shapes, voxels = [], []
    for case in cases[:: math.ceil(len(cases) / LOOKED_AT)]:
        try:
            image: Any = stored_image(case.image)
            affine = affine_in_mm(image)
            shapes.append(resampled_shape(image.shape[:3], affine, grid))
            voxels.append(resampled_voxel_size(affine, grid))
        except Exception:  # whatever damage leads to, which is told when the files are checked
            continue
    if not shapes:  # all are told then
        shapes, voxels = [(1, 64, 64)], [(1.0, 1.0, 1.0)]
    depth, width, height = (float(side) for side in np.median(voxels, axis=0))
    labelled = [case for case in cases if case.label is not None]
    subjects = len({case.subject for case in labelled})
    return Facts(tuple(shapes), (depth, width, height), len(cases), len(labelled), subjects)


def prepared_as(folder: Path) -> dict[str, Any]:
    """The options, by their places, of a folder that is prepared already; none where there is no such folder.

    Raises:
        SemiclError: it is damaged.
    """
    if not (folder / DESCRIPTION).is_file():
        return {}
    prepared = read_prepared(folder)
    of_grid = {field.name for field in fields(Grid)} & {field.name for field in fields(PrepareOptions)}
    found = {f"prepare.{name}": getattr(prepared.grid, name) for name in of_grid}
    return found | {"prepare.shares": literal_eval(prepared.options["shares"])}


CHOICES = frozenset(choose(Facts(((64, 64, 64),), (1.0, 1.0, 1.0), 5, 5, 5), CPU, {}))
"""Places of the options that are chosen."""


def choices(
    source: SourceOptions,
    prepare: PrepareOptions,
    accelerator: str,
    output: Path,
    as_prepared: dict[str, Any],
    told: dict[str, Any],
    anew: bool,
) -> dict[str, Any]:
    """What is chosen for an experiment, as a config: what its folder tells, else what the rule does, which is shown.

    Args:
        source: the data.
        prepare: how they are made ready.
        accelerator: what trains.
        output: the experiment's folder.
        as_prepared: options, by their places, with which the data are prepared already.
        told: the options that are given; they win.
        anew: whether to choose although the folder tells choices.

    Raises:
        SemiclError: the data cannot be used, or what the folder tells.
    """
    path = output / CHOSEN
    if path.is_file() and not anew:
        try:
            kept = flat(load_yaml(path.read_text()))
        except (ValueError, AttributeError, yaml.YAMLError) as error:
            raise SemiclError(f"{path}: damaged ({error}); remove it, and the choices are made again") from error
        say(f"Choices: those of {path}.")
        return nested({place: value for place, value in kept.items() if place in CHOICES} | told)
    facts = look_at(source, prepare)

    import torch

    budget = GPU if torch.cuda.is_available() and accelerator != "cpu" else CPU
    chosen = choose(facts, budget, as_prepared | told)
    content = nested(told | chosen)
    patch = chosen["prepare.patch_size"]
    rows = {
        "cases": f"{facts.cases}, {facts.labelled} with labels, of {_sizes(facts)}",
        "pieces": f"{'slices' if len(patch) == 2 else 'patches'} of {_times(patch)}"
        + (", larger ones in patches" if _has_larger_slices(facts, patch) and not chosen["prepare.resize"] else ""),
        "network": f"{_times(chosen['network.widths'])} channels",
        "labels": f"{100 * chosen['label_fraction']:.3g} % of the training subjects",
        **{stage: _length({name: chosen[f"{stage}.schedule.{name}"] for name in LENGTH}) for stage in STAGES},
        "will be written to": path,
    }
    conclude(f"Chosen by the data and the {budget.name}; what is typed wins", rows)
    return content


def write_choices(content: Mapping[str, Any], output: Path) -> None:
    """Note the choices of an experiment in its folder, as a config."""
    text = yaml.safe_dump(dict(content), default_flow_style=None, sort_keys=False, width=100)
    with replacing(output / CHOSEN) as partial_file:
        partial_file.write_text(f"# Chosen by semicl run; docs/run.md has the rule.\n{text}", encoding="utf-8")


def _length(schedule: Mapping[str, Any]) -> str:
    """How long a stage is, in words."""
    steps = schedule["steps_per_epoch"]
    of = "" if steps is None else f" of {steps} steps"
    return f"{schedule['epochs']} epochs{of}, batches of {schedule['batch_size']}"


def _sizes(facts: Facts) -> str:
    depth, *plane = (round(side) for side in np.median(facts.shapes, axis=0))
    return f"{_times([depth, *plane])} voxels" if depth > 1 else f"{_times(plane)} pixels"


def _times(numbers: Sequence[int]) -> str:
    return " x ".join(map(str, numbers))


def nested(places: Mapping[str, Any]) -> dict[str, Any]:
    """Options by their places as a config holds them."""
    content: dict[str, Any] = {}
    for place, value in places.items():
        *above, name = place.split(".")
        inner = {name: [*value] if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value}
        for group in reversed(above):
            inner = {group: inner}
        content = laid_over(content, inner)
    return content


def flat(content: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The options of a config by their places."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        found |= flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return found
