"""Cells share what they have in common, and whatever decides a result decides where it lies."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from semicl.data.file_states import place_in
from semicl.data.prepared import Prepared, read_prepared
from semicl.errors import SemiclError
from semicl.files import write_json
from semicl.options import (
    ExperimentOptions,
    GlobalContrastOptions,
    LocalContrastOptions,
    LocalLossOptions,
    MachineOptions,
    MethodOptions,
    NetworkOptions,
    ScheduleOptions,
    SegmentationOptions,
    StudyOptions,
)
from semicl.study.plan import BEST, Cell, distinct, plan

BOTH = ("pretrain_global", "pretrain_local")
STAGES: dict[str, Any] = {
    "pretrain_global": GlobalContrastOptions(),
    "pretrain_local": LocalContrastOptions(),
    "finetune": SegmentationOptions(),
}
METHODS = {
    "random": MethodOptions(),
    "global": MethodOptions(("pretrain_global",)),
    "global + local(stride)": MethodOptions(BOTH, pretrain_local={"loss": {"stride": 4}}),
    "global + local(full)": MethodOptions(BOTH),
    "global + local(full), local term": MethodOptions(BOTH, finetune={"local_weight": 0.1}),
    "global + local(self)": MethodOptions(BOTH, pretrain_local={"loss": {"supervised": False}}),
}
EXPERIMENT = ExperimentOptions(0.2)


@pytest.fixture
def planned(prepared: Prepared) -> Callable[..., list[Cell]]:
    """A plan of all methods, with what the test changes."""

    def make(
        methods: dict[str, MethodOptions] = METHODS,
        fractions: tuple[float, ...] | None = (0.2, 0.4),
        splits: tuple[int, ...] = (0, 1),
        experiment: ExperimentOptions = EXPERIMENT,
        stages: dict[str, Any] = STAGES,
        data: Prepared = prepared,
        rates: tuple[float, ...] | None = None,
        output: Path = Path("o"),
        only: tuple[str, ...] | None = None,
    ) -> list[Cell]:
        return plan(data, experiment, StudyOptions(output, methods, fractions, splits, rates, only=only), stages)

    return make


def _folders(cells: list[Cell], command: str) -> set[Path]:
    return {job.folder for cell in cells for job in cell.training if job.command == command}


def test_some_methods_alone(planned: Callable[..., list[Cell]]) -> None:
    some = planned(only=("global", "random"))
    assert list(dict.fromkeys(cell.method for cell in some)) == ["random", "global"]
    assert some == [cell for cell in planned() if cell.method in ("random", "global")]


def test_a_cell_for_every_method_fraction_and_split(planned: Callable[..., list[Cell]]) -> None:
    cells = planned()
    assert len({(cell.method, cell.label_fraction, cell.split) for cell in cells}) == len(cells) == 6 * 2 * 2
    assert [cell.label_fraction for cell in planned(fractions=None, splits=(0,))] == [EXPERIMENT.label_fraction] * 6


def test_global_pretraining_is_shared_by_all_methods_and_fractions_of_a_split(
    planned: Callable[..., list[Cell]],
) -> None:
    assert len(_folders(planned(), "pretrain-global")) == 2


def test_local_pretraining_is_shared_where_it_is_equal(planned: Callable[..., list[Cell]]) -> None:
    # Two supervised forms on two fractions, one self-supervised form without a fraction; all on two splits.
    assert len(_folders(planned(), "pretrain-local")) == (2 * 2 + 1) * 2
    assert len(_folders(planned(), "finetune")) == 6 * 2 * 2


def test_a_job_names_its_fraction_only_where_it_sees_labels(planned: Callable[..., list[Cell]]) -> None:
    fractions = {
        (job.command, job.config["loss"]["supervised"] if job.command == "pretrain-local" else None): job.config.get(
            "label_fraction"
        )
        for job in distinct([job for cell in planned(fractions=(0.4,)) for job in cell.training])
    }
    assert fractions == {
        ("pretrain-global", None): None,
        ("pretrain-local", True): 0.4,
        ("pretrain-local", False): None,
        ("finetune", None): 0.4,
    }


def test_a_stage_starts_from_the_one_before_it(planned: Callable[..., list[Cell]]) -> None:
    by_method = {cell.method: cell for cell in planned(fractions=(0.2,), splits=(0,))}
    first, second, third = by_method["global + local(full)"].training
    assert (first.after, second.after, third.after) == (None, first, second)
    assert third.call[-1].start == second.folder / "model.ckpt"
    (alone,) = by_method["random"].training
    assert alone.call[-1].start is None


@pytest.mark.parametrize(
    "changed",
    [
        {"experiment": replace(EXPERIMENT, seed=1)},
        {"experiment": replace(EXPERIMENT, network=NetworkOptions((8, 16), None))},
        {"experiment": replace(EXPERIMENT, machine=MachineOptions(precision="bf16-mixed"))},
        {"stages": STAGES | {"pretrain_global": GlobalContrastOptions(ScheduleOptions(3, 120, 1e-4))}},
    ],
    ids=["seed", "network", "precision", "first stage"],
)
def test_what_decides_the_first_stage_moves_every_stage_after_it(
    planned: Callable[..., list[Cell]], changed: dict[str, Any]
) -> None:
    methods = {"global + local(full)": METHODS["global + local(full)"]}
    before, after = (
        {job.folder for cell in planned(methods, **more) for job in (*cell.training, *cell.tests)}
        for more in ({}, changed)
    )
    assert before & after == set()
    assert len(before) == len(after)


def test_what_decides_a_later_stage_leaves_the_earlier_ones(planned: Callable[..., list[Cell]]) -> None:
    other = planned(stages=STAGES | {"finetune": SegmentationOptions(mixup=0.4)})
    for command, same in (("pretrain-global", True), ("pretrain-local", True), ("finetune", False)):
        assert (_folders(planned(), command) == _folders(other, command)) is same


def test_where_it_runs_decides_nothing(planned: Callable[..., list[Cell]]) -> None:
    elsewhere = planned(experiment=replace(EXPERIMENT, machine=MachineOptions(accelerator="cpu", workers=2)))
    assert _folders(elsewhere, "finetune") == _folders(planned(), "finetune")


def test_an_edited_split_moves_its_own_cells_alone(planned: Callable[..., list[Cell]], own_prepared: Path) -> None:
    before = planned(data=read_prepared(own_prepared))
    path = own_prepared / "splits" / "0.json"
    content = json.loads(path.read_text())
    content["training"] = dict(reversed(content["training"].items()))
    path.write_text(json.dumps(content))
    for old, new in zip(before, planned(data=read_prepared(own_prepared)), strict=True):
        assert (old.tunings[0].folder == new.tunings[0].folder) is (old.split == 1)


def test_a_method_changes_what_it_names_and_nothing_else(planned: Callable[..., list[Cell]]) -> None:
    base = LocalContrastOptions(channels=7, loss=LocalLossOptions(temperature=0.2))
    methods = {"m": MethodOptions(BOTH, pretrain_local={"loss": {"stride": 4}})}
    (cell,) = planned(methods, (0.2,), (0,), stages=STAGES | {"pretrain_local": base})
    config = cell.training[1].config
    assert (config["channels"], config["loss"]["temperature"], config["loss"]["stride"]) == (7, 0.2, 4)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("finetune", {"mixap": 1}, ".mixap is unknown; did you mean mixup?"),
        ("finetune", {"loss": {"strid": 2}}, ".loss.strid is unknown; did you mean loss.stride?"),
        (
            "finetune",
            {"mixup": "much"},
            '.mixup: Input should be a valid number, unable to parse string as a number, got "much"',
        ),
        ("pretrain_local", {"loss": {"stride": 0}}, ".loss.stride: Input should be greater than 0, got 0"),
        ("pretrain_global", {"schedule": {"epochs": "many"}}, ".schedule.epochs: Input should be a valid integer, "),
        (
            "pretrain_global",
            {"schedule": None},
            ".schedule: Input should be a mapping of options, as {name: value}, got null",
        ),
    ],
)
def test_a_mistaken_change_is_named_with_its_method(
    planned: Callable[..., list[Cell]], section: str, changes: dict[str, Any], message: str
) -> None:
    methods = {"mine": MethodOptions(BOTH, **{section: changes})}
    with pytest.raises(SemiclError) as caught:
        planned(methods)
    assert str(caught.value).startswith(f"--methods.mine.{section}{message}")


def test_a_learning_rate_of_a_methods_own_is_not_lost_beside_those_of_all(planned: Callable[..., list[Cell]]) -> None:
    own = {"mine": MethodOptions(finetune={"schedule": {"learning_rate": 1e-3}})}
    assert planned(own)[0].tunings[0].learning_rate == 1e-3
    with pytest.raises(SemiclError, match=r"--methods\.mine\.finetune\.schedule\.learning_rate has no effect beside"):
        planned(own, rates=(1e-4, 1e-5))
    with pytest.raises(SemiclError, match=r"schedule: Input should be a mapping of options"):
        planned({"mine": MethodOptions(finetune={"schedule": None})}, rates=(1e-4, 1e-5))


def test_every_method_tries_every_learning_rate_and_validation_picks(
    planned: Callable[..., list[Cell]], tmp_path: Path
) -> None:
    methods = {"random": METHODS["random"], "global": METHODS["global"]}
    for cell in planned(methods, (0.2,), (0,), rates=(1e-5, 1e-4, 1e-3), output=tmp_path):
        assert [job.config["schedule"]["learning_rate"] for job in cell.tunings] == [1e-5, 1e-4, 1e-3]
        for job, dice in zip(cell.tunings, (0.5, 0.7, 0.6), strict=True):
            assert cell.test is None
            write_json(job.folder / "summary.json", {BEST: dice})
            (job.folder / "model.ckpt").touch()
        assert cell.test is cell.tests[1]


def test_several_devices_are_refused(planned: Callable[..., list[Cell]]) -> None:
    with pytest.raises(SemiclError, match=r"--machine\.devices takes 1 in a study, got 2"):
        planned(experiment=replace(EXPERIMENT, machine=MachineOptions(devices=2)))


def test_a_corrected_label_leads_to_other_folders_of_the_stages_that_see_it(
    planned: Callable[..., list[Cell]], prepared: Prepared
) -> None:
    case = prepared.split(0).labelled(0.2)[0]
    assert case.label is not None
    place = place_in(prepared.source, case.label)
    other = replace(prepared.states[place], sha256="other")
    corrected = replace(prepared, states=prepared.states | {place: other})
    before, now = (planned(splits=(0,), fractions=(0.2,), data=data) for data in (prepared, corrected))
    assert _folders(now, "pretrain-global") == _folders(before, "pretrain-global")
    assert not _folders(now, "finetune") & _folders(before, "finetune")
    assert [cell.tests[0].cases for cell in now] == [cell.tests[0].cases for cell in before]


def test_where_the_data_lie_and_how_many_splits_there_are_changes_no_folder(
    planned: Callable[..., list[Cell]], prepared: Prepared
) -> None:
    told = prepared.options | {"data": "elsewhere", "repeats": "7"}
    for old, new in zip(planned(), planned(data=replace(prepared, options=told)), strict=True):
        assert [job.folder for job in old.training] == [job.folder for job in new.training]


def test_a_fraction_without_a_case_is_told_before_any_training(planned: Callable[..., list[Cell]]) -> None:
    with pytest.raises(SemiclError, match=r"--label_fraction 0\.01 of 6 labelled training subjects yields no volume"):
        planned(fractions=(0.01,))
