"""Judging a checkpoint: Dice, HD95 and surface distance per case and class, and what the result depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semicl.console import conclude, progress_bar, say, show
from semicl.data.cases import DECATHLON, Case, CaseFolder, find_cases
from semicl.data.checks import (
    CheckedCase,
    check_files,
    problems,
    read_nifti,
    require_same_place,
    unit_note,
    whole_values,
)
from semicl.data.classes import (
    ABSENT,
    BACKGROUND,
    Merged,
    Values,
    absent,
    held_values,
    unknown_classes,
    values_by_name,
    without,
)
from semicl.data.file_states import cases_hash, file_states, place_in
from semicl.data.nifti_names import by_case, case_name, image_files
from semicl.data.prepared import Prepared, read_prepared
from semicl.data.subjects import subject_rule
from semicl.errors import SemiclError, UsageError
from semicl.files import output_folder, read_json, require_checkpoint, short_hash
from semicl.models.lineage import known_test_images, split_to_judge, trained_on
from semicl.options import EvaluateOptions

if TYPE_CHECKING:
    from semicl.evaluation.measures import Evaluation
    from semicl.models.checkpoint import ModelCard

FILES = ("cases.csv", "results.json")


def evaluate(options: EvaluateOptions) -> Evaluation:
    """Judge a checkpoint on a part of a split, or on any folder of labelled cases; write cases.csv and results.json.

    Classes are matched by name, and those that no label holds are left out of means. Where there are predictions, they
    are judged instead of a checkpoint.

    Raises:
        SemiclError: the checkpoint, the folder or one of its files cannot be used, no label holds a class of the
            checkpoint, the checkpoint was trained on another split, predictions are missing or not those of the cases,
            or the results may not be written; nothing has then been written.
    """
    if options.predictions is not None:
        return _evaluate_files(options, options.predictions)
    if options.checkpoint is None:
        raise UsageError("--checkpoint is missing; give a model.ckpt, or --predictions and --data, folders of labels")
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
        where, cases = _part(source, options, options.checkpoint, card)
        checked = [check_files(case) for case in cases]
    merged = _merged(source, card)
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
    evaluation = evaluate_cases(network, card, progress_bar(cases, desc="evaluate", unit="case"), values, merged)
    _finish(evaluation, options, where, cases, depends, {"checkpoint": options.checkpoint})
    return evaluation


def _finish(
    evaluation: Evaluation,
    options: EvaluateOptions,
    where: str,
    cases: Sequence[Case],
    depends: Mapping[str, str],
    judged_is: dict[str, Path],
) -> None:
    """Write and show measures, and what was judged on which cases."""
    from semicl.evaluation.measures import unit_of_distances

    unit = unit_of_distances(cases)
    evaluation.write(options.output, **judged_is, cases_of=where, distances_in=unit, depends_on=depends)
    show(evaluation.table(f"{len(evaluation.names)} cases of {where}", unit))
    conclude("Evaluated", {"mean Dice": f"{evaluation.mean_dice():.3f}", **judged_is, "files": options.output})


def _evaluate_files(options: EvaluateOptions, folder: Path) -> Evaluation:
    """Judge label files by those of the cases that they are named as."""
    if options.checkpoint is not None or options.split is not None:
        other = "--split" if options.checkpoint is None else "--checkpoint"
        raise UsageError(f"{other} has no effect beside --predictions, whose files are judged; leave it out")
    if options.data is None:
        raise UsageError("--data is missing; give the folder of the labelled cases that --predictions are of")
    if not folder.is_dir():
        raise SemiclError(f"{folder}: no such folder; give --predictions a folder of label files")
    source = find_cases(options.data, subject_rule)
    cases = _labelled(source.cases)
    pairs = _paired(folder, source, cases)
    inputs = [folder, options.data, *pairs.values(), *(file for case in cases for file in case.files)]
    output_folder(options.output, inputs, files=FILES, overwrite=options.overwrite)
    checked = [check_files(case) for case in progress_bar(cases, desc="check files", unit="case")]
    _require_sound(checked)
    held = set().union(*(case.values for case in checked))
    classes = source.classes or {BACKGROUND: 0} | {f"class {value}": value for value in sorted(held - {0})}
    if not held & {*classes.values()} - {0}:
        raise SemiclError(f"{options.data}: the label files hold only background; give labels of a class")
    known = ", ".join(f"{name} ({value})" for name, value in classes.items())
    for file in [*(case.label for case in cases if case.label is not None), *pairs.values()]:
        unknown = [int(value) for value in whole_values(read_nifti(file)[0])[0] if value not in classes.values()]
        if unknown:
            raise SemiclError(
                f"{file}: holds label {unknown[0]}, known are {known}; mend the file, or name the class in the "
                f"{DECATHLON} of --data"
            )
    for case, file in pairs.items():
        require_same_place(file, case)

    from semicl.evaluation.measures import evaluate_files

    states = file_states([*pairs.values(), *(file for case in cases for file in case.files)], options.data)
    files = [states[place_in(options.data, file)].sha256 for file in pairs.values()]
    depends = {"predictions of hash": short_hash(files), CASES: cases_hash(cases, options.data, states)}
    lacking = absent(held_values(classes, held))
    if lacking:
        say(without(lacking, f"the means, shown as {ABSENT}"))
    evaluation = evaluate_files(progress_bar(pairs.items(), desc="evaluate", unit="case"), classes)
    _finish(evaluation, options, str(options.data), cases, depends, {"predictions": folder})
    return evaluation


def _paired(folder: Path, source: CaseFolder, cases: Sequence[Case]) -> dict[Case, Path]:
    """The label file of each labelled case in a folder, which is named as the case or as its image or label.

    Raises:
        SemiclError: a case has none, or a file is of no case.
    """
    files = by_case(image_files(folder))
    names = {
        name: case
        for case in source.cases
        for name in (case.name, case_name(case.image), *([case_name(case.label)] if case.label else []))
    }
    extra = [file.name for name, file in files.items() if name not in names]
    if extra:
        raise SemiclError(
            f"{folder / extra[0]}{_others(extra)}: no case of {source.name} has this name; rename or remove it, or "
            "give the --data that it is of"
        )
    found = {names[name]: file for name, file in files.items()}
    missing = [case.name for case in cases if case not in found]
    if missing:
        raise SemiclError(
            f"{folder}: has no label file of case {missing[0]}{_others(missing)}; predict it, or take the case out of "
            "--data"
        )
    if len(found) < len(files):
        raise SemiclError(f"{folder}: holds several label files of one case; leave one of each in it")
    unlabelled = len(found) - len(cases)
    if unlabelled:
        say(f"{unlabelled} of {len(found)} predictions are of cases without a label, and left out.")
    return {case: found[case] for case in cases}


def _others(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _source(options: EvaluateOptions) -> CaseFolder | Prepared:
    """Where the cases are."""
    if options.data is not None:
        return find_cases(options.data, subject_rule)
    prepared = read_prepared(options.prepared)
    if options.split is not None:
        prepared.split(options.split)
    return prepared


def _merged(source: CaseFolder | Prepared, card: ModelCard) -> Merged:
    """The values of the label files that count as others, or are ignored."""
    if isinstance(source, Prepared):
        return source.merged
    # Values of a folder that names its classes itself are its own, but for those that are ignored and none of them.
    named = None if source.classes is None else {*source.classes.values()}
    kept = {
        value: other for value, other in card.merged.items() if named is None or (other is None and value not in named)
    }
    return kept | dict.fromkeys(source.ignored)


def _part(
    prepared: Prepared, options: EvaluateOptions, checkpoint: Path, card: ModelCard
) -> tuple[str, Sequence[Case]]:
    """The labelled cases of the part of the split, and what they are called."""
    split = split_to_judge(card.seen, prepared, options.split, checkpoint)
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
    merged: Merged,
) -> Values:
    """The value of each class in the label files; None for one that none of them holds, which is said.

    Raises:
        SemiclError: a file cannot be used, holds a class that the checkpoint does not know, or none holds one that it
            knows.
    """
    counted = {merged.get(value, value) for case in checked for value in case.values}
    held = {value for value in counted if value is not None}
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
    merged: Merged | None = None,
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
