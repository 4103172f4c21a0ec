"""`semicl evaluate`: Dice, HD95 and surface distance of a checkpoint, per case and class."""

from collections.abc import Sequence

from tqdm import tqdm

from semicl.cases import Case, find_cases
from semicl.checkpoints import load_segmentation
from semicl.checks import check_files, problems
from semicl.console import WIDTH, conclude, say, show
from semicl.errors import SemiclError
from semicl.evaluation import Evaluation, evaluate_cases
from semicl.model_card import ModelCard
from semicl.options import EvaluateOptions
from semicl.prediction import to_device
from semicl.prepared import read_prepared
from semicl.seen import known_test_images, split_to_judge, trained_on
from semicl.subjects import subject_rule


def evaluate(options: EvaluateOptions) -> Evaluation:
    """Judge a checkpoint on a part of a split, or on any folder of labelled cases; write cases.csv and results.json.

    Raises:
        SemiclError: the checkpoint, the folder or one of its files cannot be used, or the checkpoint was trained on
            another split; nothing has then been written.
    """
    network, card = load_segmentation(options.checkpoint)
    where, cases = _cases(options, card)
    _require_sound(cases, card)
    if options.data is not None:
        _warn_of_training_cases(cases, card, where)
    known_images = len(known_test_images(card.seen, cases))
    if known_images:
        say(f"TRANSDUCTIVE: pre-training saw the images, not the labels, of {known_images} of the {len(cases)} cases.")
    network = to_device(network, options.machine)
    evaluation = evaluate_cases(network, card, tqdm(cases, desc="evaluate", unit="case", ncols=WIDTH))
    evaluation.write(options.output, checkpoint=options.checkpoint, cases_of=where)
    show(evaluation.table(f"{len(evaluation.names)} cases of {where}"))
    rows = {"mean Dice": evaluation.mean_dice(), "checkpoint": options.checkpoint, "files": options.output}
    conclude("Evaluated", rows)
    return evaluation


def _cases(options: EvaluateOptions, card: ModelCard) -> tuple[str, Sequence[Case]]:
    if options.data is not None:
        found = find_cases(options.data, subject_rule)
        return str(options.data), [case for case in found.cases if case.label is not None]
    prepared = read_prepared(options.prepared)
    split = split_to_judge(card.seen, prepared, options.split, options.checkpoint)
    cases = getattr(prepared.split(split), options.part)
    return f"{prepared.name}, split {split}, {options.part}", [case for case in cases if case.label is not None]


def _warn_of_training_cases(cases: Sequence[Case], card: ModelCard, where: str) -> None:
    """Say where results tell less than they seem to; to judge training data may be wanted."""
    known = trained_on(card.seen, cases)
    if known:
        say(
            f"WARNING: by their names, the checkpoint was trained on {len(known)} of the {len(cases)} cases of {where}."
        )


def _require_sound(cases: Sequence[Case], card: ModelCard) -> None:
    for case in cases:
        for problem in problems(check_files(case), card.classes):
            raise SemiclError(str(problem))
