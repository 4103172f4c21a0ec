"""`semicl run` again: what changed is trained again, what did not is not, and what cannot be done is told first."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from semicl.data.phantom import write_phantom
from semicl.data.prepared import read_prepared
from tests.semicl.conftest import error_of, run_command

CONFIG = """
network: {widths: [2, 4], centre: null}
label_fraction: 0.34
prepare: {patch_size: [16, 16], resize: true, repeats: 2}
pretrain_global: {schedule: {epochs: 1, batch_size: 60}, channels: 4}
pretrain_local: {schedule: {epochs: 1, batch_size: 20}, channels: 4, loss: {stride: 2}}
finetune: {schedule: {epochs: 1, batch_size: 20}}
"""
STAGES = ("pretrain-global", "pretrain-local", "finetune-random", "finetune-pretrained")
EVALUATIONS = {"finetune-random/test", "finetune-pretrained/test"}
ALL = {*STAGES, *EVALUATIONS}


def _words(folder: Path) -> list[Any]:
    (folder / "config.yaml").write_text(CONFIG)
    places = ["--data", folder / "data", "--prepared", folder / "p", "--output", folder / "o"]
    return ["run", "--config", folder / "config.yaml", *places]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, prepared folder and output of an experiment that is finished, not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    write_phantom(folder / "data", 5, seed=0)
    assert run_command(*_words(folder)) == 0
    return folder


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> Path:
    """A copy of it in another place."""
    return shutil.copytree(finished, tmp_path / "moved")


def _done_by(action: Callable[[], int], folder: Path) -> set[str]:
    """Stages that are trained, and evaluations that are made, by an action."""
    split = folder / "o" / "split-0"
    results = [file for file in split.rglob("*") if file.name in ("model.ckpt", "results.json")]
    before = {file: file.stat().st_ino for file in results}
    assert action() == 0
    return {str(file.parent.relative_to(split)) for file in results if file.stat().st_ino != before[file]}


def _correct(file: Path) -> None:
    """Change a few voxels of a label file, or of an image."""
    volume = nibabel.load(file)
    array = np.asarray(volume.dataobj).copy()
    array[:4, :4, :4] = array.max()
    nibabel.save(nibabel.Nifti1Image(array, volume.affine), file)


def _again(folder: Path, *more: Any) -> Callable[[], int]:
    return lambda: run_command(*_words(folder), *more)


def test_in_another_place_nothing_is_done_again(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _done_by(_again(own), own) == set()
    text = capsys.readouterr().out
    assert f"To do, split 0: {', '.join(f'{stage} done' for stage in STAGES)}." in text
    assert text.count("finished already, nothing to do") == 4
    assert str(own / "data") in str(read_prepared(own / "p").cases[0].image)


@pytest.mark.parametrize("by_hand", [False, True])
def test_corrected_labels_are_learned_and_images_are_not_learned_again(
    own: Path, capsys: pytest.CaptureFixture[str], by_hand: bool
) -> None:
    prepared = read_prepared(own / "p")
    (case, *_) = prepared.split(0).labelled(0.34)
    _correct(own / "data" / "labelsTr" / f"{case.name}.nii.gz")
    if by_hand:
        config = ["--config", own / "config.yaml", "--data", own / "data", "--prepared", own / "p"]
        assert run_command("prepare", *config, "--overwrite") == 0
    assert _done_by(_again(own), own) == ALL - {"pretrain-global"}
    text = capsys.readouterr().out
    assert (f"changed since it was prepared: labelsTr/{case.name}.nii.gz. It is prepared again." in text) != by_hand
    assert "pretrain-global done, pretrain-local anew (changed since it was trained: labels)" in text
    assert _done_by(_again(own), own) == set()


def test_a_corrected_image_is_learned_by_every_stage(own: Path) -> None:
    case = read_prepared(own / "p").split(0).training[-1]
    _correct(own / "data" / "imagesTr" / f"{case.name}.nii.gz")
    # Fine-tuning from random weights never saw it.
    assert _done_by(_again(own), own) == ALL - {"finetune-random", "finetune-random/test"}


def test_a_corrected_test_label_is_judged_again(own: Path) -> None:
    case = read_prepared(own / "p").split(0).test[0]
    _correct(own / "data" / "labelsTr" / f"{case.name}.nii.gz")
    assert _done_by(_again(own), own) == EVALUATIONS


def test_a_file_that_was_only_touched_is_the_same(own: Path) -> None:
    for file in (own / "data").rglob("*.nii.gz"):
        file.touch()
    assert _done_by(_again(own, "--machine.workers", 1), own) == set()


def test_a_stage_alone_refuses_what_it_was_not_trained_on(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = read_prepared(own / "p").split(0).validation[0]
    _correct(own / "data" / "labelsTr" / f"{case.name}.nii.gz")
    config = ["--config", own / "config.yaml", "--prepared", own / "p"]
    assert run_command("prepare", *config, "--data", own / "data", "--overwrite") == 0
    stage = ["--output", own / "o" / "split-0" / "finetune-random", "--resume"]
    assert "trained on data with validation of hash" in error_of(capsys, "finetune", *config, *stage)


def _add_a_case(data: Path) -> None:
    """Give a Decathlon folder one case more, of a subject of its own."""
    description = json.loads((data / "dataset.json").read_text())
    entry = {kind: Path(file) for kind, file in description["training"][0].items()}
    added = {kind: file.with_name("phantom_099.nii.gz") for kind, file in entry.items()}
    for kind, file in entry.items():
        shutil.copy(data / file, data / added[kind])
    description["training"].append({kind: str(file) for kind, file in added.items()})
    (data / "dataset.json").write_text(json.dumps(description))


@pytest.mark.parametrize("more", [[], ["--prepare.overwrite"]], ids=["again", "overwrite"])
def test_a_case_added_is_refused_before_the_splits_are_made_anew(
    own: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    assert run_command(*_words(own)) == 0  # which notes where the data are now
    _add_a_case(own / "data")
    before = {file: file.stat().st_mtime_ns for part in ("p", "o") for file in (own / part).rglob("*")}
    error = error_of(capsys, *_words(own), *more)
    assert "the stage was trained on data with split of hash" in error
    assert {file: file.stat().st_mtime_ns for part in ("p", "o") for file in (own / part).rglob("*")} == before
    assert _done_by(_again(own, "--overwrite", *more), own) == ALL
    assert len(read_prepared(own / "p").cases) == 11


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--splits", "0", "7"],
            "--splits takes numbers of splits, from 0 to 1, got [7]; give others, or --prep",
        ),
        (["--label_fraction", "0.05"], "--label_fraction 0.05 of 3 labelled training subjects yields no volume"),
        (["--network.widths", "2", "2", "2", "2", "2", "2"], "patch size 16 x 16 does not fit 6 levels"),
        (["--output", "config.yaml"], "config.yaml: is no folder; give another --output"),
        (["--output", "config.yaml/o"], "config.yaml: is no folder; give another --output"),
    ],
)
def test_what_cannot_be_done_is_told_before_the_first_step(
    tmp_path: Path,
    finished: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[Any],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*_words(tmp_path), "--data", finished / "data", *options]
    assert message in error_of(capsys, *words)
    assert not (tmp_path / "o").exists()


def test_what_was_advised_is_then_taken(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stage in STAGES[1:]:
        shutil.rmtree(own / "o" / "split-0" / stage)
    (own / "o" / "results.json").unlink()
    line = error_of(capsys, *_words(own), "--starts", "global", "--label_fraction", 0.05)
    assert "give 0.17 or more" in line
    more = ["--starts", "global", "--label_fraction", 0.17]
    assert _done_by(_again(own, *more), own) == set()
    text = capsys.readouterr().out
    assert "To do, split 0: pretrain-global done, finetune-global from the start." in text
    assert "--prepare.repeats 4" in error_of(capsys, *_words(own), *more, "--splits", "0", "3")
    before = (own / "p" / "splits" / "0.json").read_text()
    assert run_command(*_words(own), *more, "--splits", "0", "3", "--prepare.repeats", 4) == 0
    assert (
        "split 0: pretrain-global done, finetune-global done; split 3: pretrain-global from" in capsys.readouterr().out
    )
    assert (own / "p" / "splits" / "0.json").read_text() == before
    assert len(json.loads((own / "o" / "results.json").read_text())["test_dice"]["global"]) == 2


def test_labels_without_foreground_are_told_before_the_first_step(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for case in read_prepared(own / "p").split(0).labelled(0.34):
        file = own / "data" / "labelsTr" / f"{case.name}.nii.gz"
        volume = nibabel.load(file)
        nibabel.save(nibabel.Nifti1Image(np.zeros(volume.shape, np.uint8), volume.affine), file)
    before = {file: file.stat().st_mtime_ns for file in (own / "o").rglob("*")}
    assert "hold no foreground" in error_of(capsys, *_words(own))
    assert {file: file.stat().st_mtime_ns for file in (own / "o").rglob("*")} == before
