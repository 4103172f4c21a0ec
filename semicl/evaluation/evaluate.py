"""Judging a checkpoint: Dice, HD95 and surface distance per case and class, and what the result depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from semicl.console import WIDTH, conclude, say, show
from semicl.data.cases import Case, CaseFolder, find_cases
from semicl.data.checks import CheckedCase, check_files, problems, unit_note
from semicl.data.classes import ABSENT, Values, absent, held_values, unknown_classes, values_by_name, without
from semicl.data.file_states import cases_hash, file_states
from semicl.data.prepared import Prepared, read_prepared
from semicl.data.subjects import subject_rule
from semicl.errors import SemiclError
from semicl.files import output_folder, read_json, require_checkpoint
from semicl.models.lineage import known_test_images, split_to_judge, trained_on
from semicl.options import EvaluateOptions

if TYPE_CHECKING:
    from semicl.evaluation.measures import Evaluation
    from semicl.models.checkpoint import ModelCard

FILES = ("cases.csv", "results.json")


def evaluate(options: EvaluateOptions) -> Evaluation:
    """Judge a checkpoint on a part of a split, or on any folder of labelled cases; write cases.csv and results.json.

    Classes are matched by name, and those that no label holds are left out of means.

    Raises:
        SemiclError: the checkpoint, the folder or one of its files cannot be used, no label holds a class of the
            checkpoint, the checkpoint was trained on another split, or the results may not be written; nothing has then
            been written.
    """
    require_checkpoint(options.checkpoint)
    source = _source(options)
    cases: Sequence[Case] = _labelled(source.cases)
    inputs = [options.checkpoint, *(file for case in cases for file in case.files)]
    output_folder(options.output, [*inputs, options.data or options.prepared], files=FILES, overwrite=options.overwrite)
    checked = [check_files(case) for case in cases] if isinstance(source, CaseFolder) else []
    _require_sound(checked)

    from semicl.evaluation.inference import to_device
    from semicl.evaluation.measures import evaluate_cases
    from semicl.models.checkpoint import load_segmentation

    network, card = load_segmentation(options.checkpoint)
    where = str(options.data)
    if isinstance(source, Prepared):
        where, cases = _part(source, options, card)
        checked = [check_files(case) for case in cases]
    # Values of a folder that names its classes itself are its own.
    of_names = source.merged if isinstance(source, Prepared) else {}
    merged = card.merged if source.classes is None else of_names
    values = _values(checked, card, source.classes, options.data or options.prepared, merged)
    if options.data is not None:
        _warn_of_training_cases(cases, card, where)
    known_images = len(known_test_images(card.seen, cases))
    if known_images:
        say(f"TRANSDUCTIVE: pre-training saw the images, not the labels, of {known_images} of the {len(cases)} cases.")
    folder, known = (source.source, source.states) if isinstance(source, Prepared) else (Path(options.data or ""), None)
    files = file_states([file for case in cases for file in case.files], folder, known)
    depends = judged(options.checkpoint, cases_hash(cases, folder, files))
    network = to_device(network, options.machine)
    evaluation = evaluate_cases(network, card, tqdm(cases, desc="evaluate", unit="case", ncols=WIDTH), values, merged)
    evaluation.write(options.output, checkpoint=options.checkpoint, cases_of=where, depends_on=depends)
    show(evaluation.table(f"{len(evaluation.names)} cases of {where}"))
    rows = {"mean Dice": evaluation.mean_dice(), "checkpoint": options.checkpoint, "files": options.output}
    conclude("Evaluated", rows)
    return evaluation


def _source(options: EvaluateOptions) -> CaseFolder | Prepared:
    """Where the cases are."""
    if options.data is not None:
        return find_cases(options.data, subject_rule)
    prepared = read_prepared(options.prepared)
    if options.split is not None:
        prepared.split(options.split)
    return prepared


def _part(prepared: Prepared, options: EvaluateOptions, card: ModelCard) -> tuple[str, Sequence[Case]]:
    """The labelled cases of the part of the split, and what they are called."""
    split = split_to_judge(card.seen, prepared, options.split, options.checkpoint)
    return f"{prepared.name}, split {split}, {options.part}", _labelled(getattr(prepared.split(split), options.part))


def _labelled(cases: Sequence[Case]) -> Sequence[Case]:
    labelled = [case for case in cases if case.label is not None]
    if not labelled:
        raise SemiclError("no case has a label file to compare with; give a folder with labels")
    return labelled


def _values(
    checked: Sequence[CheckedCase],
    card: ModelCard,
    described: Mapping[str, int] | None,
    where: Path,
    merged: Mapping[int, int],
) -> Values:
    """The value of each class in the label files; None for one that none of them holds, which is said.

    Raises:
        SemiclError: a file cannot be used, holds a class that the checkpoint does not know, or none holds one that it
            knows.
    """
    held = {merged.get(value, value) for case in checked for value in case.values}
    values = values_by_name(card.classes, described, where)
    foreign = unknown_classes(values, described, held)
    if foreign:
        raise SemiclError(
            f"{where}: its label files hold {', '.join(foreign)}, which the checkpoint does not know; it knows "
            f"{', '.join(list(card.classes)[1:])}; give both the same names, or labels of these classes alone"
        )
    _require_sound(checked, card, values, merged)
    note = unit_note(checked)
    if note is not None:
        say(note)
    values = held_values(values, held)
    lacking = absent(values)
    if len(lacking) == len(values) - 1:
        raise SemiclError(f"{where}: no label file holds {', '.join(lacking)}; give labels of these classes")
    if lacking:
        say(without(lacking, f"the means, shown as {ABSENT}"))
    return values


def _warn_of_training_cases(cases: Sequence[Case], card: ModelCard, where: str) -> None:
    """Say where results tell less than they seem to; to judge training data may be wanted."""
    known = trained_on(card.seen, cases)
    if known:
        say(
            f"WARNING: by their names, the checkpoint was trained on {len(known)} of the {len(cases)} cases of {where}."
        )


def _require_sound(
    checked: Sequence[CheckedCase],
    card: ModelCard | None = None,
    values: Values | None = None,
    merged: Mapping[int, int] | None = None,
) -> None:
    """Raise where a file has something wrong, its values and its size on the grid included where a card is given."""
    known = {name: value for name, value in (values or {}).items() if value is not None}
    for case in checked:
        for problem in case.problems if card is None else problems(case, known, card.grid, card.channels, merged):
            raise SemiclError(str(problem))


CASES = "cases of hash"
"""The content of the cases."""


def judged(checkpoint: Path, cases: str) -> dict[str, str]:
    """What an evaluation depends on.

    Args:
        checkpoint: whose weights are judged.
        cases: the content of the cases, as `semicl.data.file_states.cases_hash` tells it.

    Raises:
        SemiclError: the checkpoint cannot be read.
    """
    from semicl.models.checkpoint import weights_hash

    return {"weights of hash": weights_hash(checkpoint), CASES: cases}


def evaluated_on(folder: Path) -> dict[str, str] | None:
    """What the evaluation in a folder depended on; None where there is none that tells."""
    try:
        return dict(read_json(folder / "results.json")["depends_on"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
