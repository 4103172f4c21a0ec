"""What `semicl run` chooses without a config: the rule of docs/run.md, under what is told."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from semicl.cli import parsed
from semicl.commands.run import Run
from semicl.config import structured
from semicl.data.grid import Grid, require_fit
from semicl.options import ExperimentOptions, NetworkOptions, PrepareOptions, SourceOptions
from semicl.study import experiment
from semicl.study.choice import CPU, GPU, STAGES, Facts, choices, choose, flat, look_at, nested
from tests.semicl.conftest import error_of, run_command, write_nifti

HIPPOCAMPUS = Facts(((36, 35, 51), (36, 34, 50), (40, 38, 48)), (1.0, 1.0, 1.0), 200, 200, 100)
CT = Facts(((150, 512, 512),), (5.0, 0.8, 0.8), 30, 30, 30)
PICTURES = Facts(((1, 300, 200),), (1.0, 1.0, 1.0), 2000, 500, 500)
TINY = Facts(((1, 9, 7),), (1.0, 1.0, 1.0), 3, 3, 3)


@pytest.mark.parametrize(
    ("facts", "budget", "patch", "widths"),
    [
        (HIPPOCAMPUS, CPU, (40, 56), (16, 32, 64, 128)),
        (HIPPOCAMPUS, GPU, (40, 40, 56), (32, 64, 128, 256)),
        (CT, CPU, (96, 96), (16, 32, 64, 128, 256)),
        (CT, GPU, (256, 256), (32, 64, 128, 256, 512)),
        (replace(CT, voxel_size=(2.0, 0.8, 0.8)), GPU, (96, 96, 96), (32, 64, 128, 256, 512)),
        (PICTURES, CPU, (96, 96), (16, 32, 64, 128, 256)),
        (PICTURES, GPU, (256, 208), (32, 64, 128, 256, 512)),
        (TINY, CPU, (10, 8), (16, 32)),
    ],
)
def test_the_network_fits_the_data_and_the_device(
    facts: Facts, budget: Any, patch: tuple[int, ...], widths: tuple[int, ...]
) -> None:
    chosen = choose(facts, budget, {})
    assert chosen["prepare.patch_size"] == patch
    assert chosen["prepare.resize"] is False
    assert chosen["network.widths"] == widths
    taken = structured(Run, nested(chosen))
    require_fit(Grid(taken.prepare.patch_size), len(taken.network.levels))


@pytest.mark.parametrize("facts", [HIPPOCAMPUS, CT, PICTURES, TINY])
@pytest.mark.parametrize("budget", [CPU, GPU])
def test_a_stage_has_the_steps_of_its_device_however_many_cases_there_are(facts: Facts, budget: Any) -> None:
    chosen = choose(facts, budget, {})
    for stage, steps in zip(("pretrain_global", "pretrain_local", "finetune"), budget.steps, strict=True):
        assert chosen[f"{stage}.schedule.epochs"] == 10
        assert chosen[f"{stage}.schedule.steps_per_epoch"] * 10 == steps
    assert chosen["finetune.validate_every"] == 1


def test_few_subjects_are_split_all_the_same() -> None:
    shares = {number: choose(replace(TINY, subjects=number), CPU, {})["prepare.shares"] for number in (3, 4, 5, 9)}
    assert shares == {3: (1, 1, 1), 4: (2, 1, 1), 5: (3, 1, 1), 9: (3, 1, 1)}


def test_what_is_told_wins_and_is_followed() -> None:
    chosen = choose(CT, CPU, {"prepare.patch_size": (40, 40), "finetune.schedule.epochs": 3})
    assert chosen["network.widths"] == (16, 32, 64, 128)
    assert chosen["finetune.schedule.epochs"] == 3
    assert chosen["finetune.schedule.steps_per_epoch"] is None
    assert chosen["finetune.validate_every"] == 1
    chosen = choose(CT, CPU, {"finetune.schedule.steps_per_epoch": None})
    assert chosen["finetune.schedule.epochs"] == 10
    chosen = choose(CT, CPU, {"network.centre": 7})
    assert chosen["network.widths"] == (16, 32, 64, 128)
    chosen = choose(TINY, CPU, {"label_fraction": 0.5, "prepare.shares": (1, 1, 1)})
    assert (chosen["label_fraction"], chosen["prepare.shares"]) == (0.5, (1, 1, 1))


@pytest.mark.parametrize("facts", [HIPPOCAMPUS, CT, TINY])
@pytest.mark.parametrize("length", [5, 400])
def test_epochs_follow_a_length_that_is_told(facts: Facts, length: int) -> None:
    chosen = choose(facts, CPU, {f"{stage}.schedule.steps_per_epoch": length for stage in STAGES})
    assert [chosen[f"{stage}.schedule.epochs"] * length for stage in STAGES] == [
        max(length, each) for each in CPU.steps
    ]


def test_places_of_options_and_configs_are_the_same() -> None:
    chosen = choose(CT, CPU, {})
    assert flat(nested(chosen)) == {place: [*v] if isinstance(v, tuple) else v for place, v in chosen.items()}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What experiments are told, which are not run but begun."""
    seen: list[tuple[Any, ...]] = []

    def run(*told: Any) -> None:
        if told[-1] is not None:
            told[-1]()
        seen.append(told)

    monkeypatch.setattr(experiment, "run", run)
    return seen


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for number in range(4):
        write_nifti(tmp_path / "d" / "images" / f"{number}.nii.gz", generator.random((34, 20, 6)))
        write_nifti(tmp_path / "d" / "labels" / f"{number}.nii.gz", np.ones((34, 20, 6), np.uint8))
    return tmp_path / "d"


def _told(asked: list[tuple[Any, ...]]) -> tuple[ExperimentOptions, PrepareOptions, Any]:
    (_, shared, _, prepare, *_, finetune, _) = asked.pop()
    return shared, prepare, finetune


def test_a_folder_alone_is_enough_and_choices_are_kept(
    asked: list[tuple[Any, ...]], cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--data", cases, "--output", tmp_path / "o", "--prepared", tmp_path / "p"]
    words += ["--machine.accelerator", "cpu"]
    assert run_command(*words, "--finetune.mixup", "0.4", "--prepare.seed=3") == 0
    shared, prepare, finetune = _told(asked)
    assert (shared.label_fraction, shared.network) == (1.0, NetworkOptions((16, 32, 64), None))
    assert (prepare.patch_size, prepare.shares, prepare.seed) == ((36, 20), (2, 1, 1), 3)
    assert (finetune.mixup, finetune.schedule.epochs, finetune.schedule.steps_per_epoch) == (0.4, 10, 80)
    assert "Chosen by the data and the CPU" in capsys.readouterr().out

    file = tmp_path / "o" / "chosen.yaml"
    before = file.read_bytes()
    assert run_command("run", "--config", file, "--seed", "1") == 0
    assert _told(asked)[2].mixup == 0.4
    write_nifti(cases / "images" / "large.nii.gz", np.random.default_rng(1).random((90, 90, 3)))
    assert run_command(*words, "--prepare.resize", "--network.widths", "4", "8") == 0
    shared, prepare, finetune = _told(asked)
    assert (prepare.patch_size, shared.network.levels, finetune.mixup) == ((36, 20), (4, 8), 0.0)
    assert f"Choices: those of {file}." in capsys.readouterr().out
    assert run_command(*words, "--overwrite") == 0
    assert _told(asked)[1].patch_size == (96, 96)
    assert file.read_bytes() != before
    file.write_text("[")
    assert "chosen.yaml: damaged" in error_of(capsys, *words)


def test_a_config_is_taken_as_it_is(asked: list[tuple[Any, ...]], cases: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("label_fraction: 0.2\n")
    words = ["run", "--data", cases, "--output", tmp_path / "o", "--config", tmp_path / "c.yaml"]
    assert run_command(*words) == 0
    shared, prepare, _ = _told(asked)
    assert (shared.network, prepare.patch_size) == (NetworkOptions(), PrepareOptions().patch_size)
    assert not (tmp_path / "o").exists()


def test_a_prepared_folder_stays_as_it_is(asked: list[tuple[Any, ...]], cases: Path, tmp_path: Path) -> None:
    source = ["--data", cases, "--prepared", tmp_path / "p"]
    assert run_command("prepare", *source, "--patch_size", "16", "16", "--shares", "1", "1", "2") == 0
    assert run_command("run", *source, "--output", tmp_path / "o", "--machine.accelerator", "cpu") == 0
    shared, prepare, _ = _told(asked)
    assert (prepare.patch_size, prepare.shares, shared.network.levels) == ((16, 16), (1, 1, 2), (16, 32, 64))


def test_a_damaged_file_is_told_when_files_are_checked(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (cases / "images" / "0.nii.gz").write_text("damage")
    assert look_at(SourceOptions(str(cases)), PrepareOptions()).shapes == ((6, 34, 20),) * 3
    for file in (cases / "images").iterdir():
        write_nifti(file, np.zeros((5, 6)))
    words = ["run", "--data", cases, "--output", tmp_path / "o", "--prepared", tmp_path / "p"]
    assert "0.nii.gz: has 2 dimensions, of lengths (5, 6), not 3" in error_of(capsys, *words)
    assert not (tmp_path / "o").exists()


def test_words_of_the_command_line_are_told_from_their_values() -> None:
    command = parsed(["run", "--data=d", "--prepare.resize", "--finetune.schedule.epochs", "3"])
    assert isinstance(command, Run)
    assert set(command.typed or ()) == {"data", "prepare.resize", "finetune.schedule.epochs"}


def test_a_config_of_choices_is_plain(cases: Path, tmp_path: Path) -> None:
    told = {"prepared": tmp_path / "p", "prepare.classes": {"a": 1}}
    content = choices(SourceOptions(str(cases)), PrepareOptions(), "cpu", tmp_path, {}, told, False)
    assert yaml.safe_load(yaml.safe_dump(content)) == content
