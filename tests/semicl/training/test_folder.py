"""A stage's folder is not overwritten unasked, and goes on only with the options it was begun with."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from semicl.errors import SemiclError
from semicl.training.folder import StageFolder

TOLD = {"stage": "finetune", "schedule": {"epochs": 3}}
DEFAULTS = {"schedule": {"epochs": 70}}


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    """A folder of an unfinished stage."""
    folder = StageFolder(tmp_path / "stage")
    folder.open(TOLD, DEFAULTS, resume=False, overwrite=False)
    folder.last.write_bytes(b"state")
    return folder


def _finish(folder: StageFolder) -> None:
    folder.model.write_bytes(b"weights")
    folder.finish({"seconds": 3})


def test_a_finished_stage_keeps_no_state(folder: StageFolder) -> None:
    assert not folder.finished
    _finish(folder)
    assert folder.finished
    assert not folder.last.exists()
    assert folder.summary() == {"seconds": 3}


def test_a_stage_that_was_killed_in_its_last_moment_keeps_no_state_either(folder: StageFolder) -> None:
    _finish(folder)
    for file in (folder.last, folder.progress):
        file.touch()
    folder.open(TOLD, DEFAULTS, resume=True, overwrite=False)
    assert folder.finished
    assert {file.name for file in folder.path.iterdir()} == {"model.ckpt", "options.json", "summary.json"}


def test_a_stage_whose_weights_are_gone_is_not_finished_by_the_first_that_it_writes_again(folder: StageFolder) -> None:
    _finish(folder)
    folder.model.unlink()
    folder.open(TOLD, DEFAULTS, resume=True, overwrite=False)
    folder.model.write_bytes(b"weights of the first validation")
    folder.last.write_bytes(b"state")
    assert not folder.finished
    folder.open(TOLD, DEFAULTS, resume=True, overwrite=False)
    assert folder.last.read_bytes() == b"state"


@pytest.mark.parametrize(
    ("finish", "told"),
    [
        (False, "holds an unfinished stage; give --resume to go on with it, --overwrite to start anew, or another"),
        (True, "holds a finished stage; give --overwrite to start anew, or another --output"),
    ],
)
def test_a_taken_folder_is_refused(folder: StageFolder, finish: bool, told: str) -> None:
    if finish:
        _finish(folder)
    with pytest.raises(SemiclError, match=told):
        folder.open(TOLD, DEFAULTS, resume=False, overwrite=False)


def test_a_stage_begun_with_the_same_options_is_resumed(folder: StageFolder) -> None:
    folder.open(TOLD, DEFAULTS, resume=True, overwrite=False)
    assert folder.last.read_bytes() == b"state"


def test_a_stage_begun_with_other_options_is_not_resumed(folder: StageFolder) -> None:
    other = TOLD | {"schedule": {"epochs": 4}}
    with pytest.raises(SemiclError, match=r"told --schedule\.epochs 3, now 4"):
        folder.open(other, DEFAULTS, resume=True, overwrite=False)


def test_an_option_that_there_was_not_yet_had_its_default(folder: StageFolder) -> None:
    defaults = {"schedule": {"epochs": 70, "decay": "none"}, "layers": 2}
    now = TOLD | {"schedule": {"epochs": 3, "decay": "none"}, "layers": 2}
    folder.open(now, defaults, resume=True, overwrite=False)
    (folder.path / "options.json").write_text('{"stage": "finetune", "schedule": {"epochs": 3}}')
    with pytest.raises(SemiclError, match=r"told --layers 2, now 1"):
        folder.open(now | {"layers": 1}, defaults, resume=True, overwrite=False)


@pytest.mark.parametrize("name", ["seed", "split of hash"])
def test_a_stage_begun_on_other_data_is_not_resumed(tmp_path: Path, name: str) -> None:
    folder = StageFolder(tmp_path / "stage")
    data = {"seed": "0", "split of hash": "0"}
    folder.open(TOLD | {"data": data}, DEFAULTS, resume=False, overwrite=False)
    _finish(folder)
    folder.open(TOLD | {"data": data}, DEFAULTS, resume=True, overwrite=False)
    with pytest.raises(SemiclError, match=rf"trained on data with {name} 0, now 1; .* --overwrite"):
        folder.open(TOLD | {"data": data | {name: "1"}}, DEFAULTS, resume=True, overwrite=False)


def test_a_stage_that_did_not_note_its_data_is_resumed(folder: StageFolder) -> None:
    folder.open(TOLD | {"data": {"seed": "0"}}, DEFAULTS, resume=True, overwrite=False)
    assert folder.last.read_bytes() == b"state"


@pytest.mark.parametrize("text", ["", '{"stage": ', "[]"])
def test_damaged_options_are_named(folder: StageFolder, text: str) -> None:
    (folder.path / "options.json").write_text(text)
    with pytest.raises(SemiclError, match=r"options\.json: damaged \(.*\); give --overwrite to start anew"):
        folder.open(TOLD, DEFAULTS, resume=True, overwrite=False)


WRITTEN_BELOW = (
    "test/cases.csv",
    "test/results.json",
    "test-last/cases.csv",
    "test-last/results.json",
    "model-last.ckpt",
    "logs/tensorboard/version_0/events.out.tfevents.1.host.2.0",
    "logs/tensorboard/version_0/hparams.yaml",
    "logs/csv/version_0/hparams.yaml",
    "logs/csv/version_0/metrics.csv",
)


def _touch(files: Iterable[Path]) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_to_overwrite_is_to_start_anew(folder: StageFolder) -> None:
    _finish(folder)
    folder.last.write_bytes(b"state")
    _touch(folder.path / name for name in WRITTEN_BELOW)
    folder.open(TOLD, DEFAULTS, resume=False, overwrite=True)
    assert [path.name for path in folder.path.iterdir()] == ["options.json"]


def test_overwriting_a_stage_leaves_what_others_put_beside_it(folder: StageFolder) -> None:
    theirs = [folder.path / "test/images/scan.nii.gz", folder.path / "logs/mine.txt"]
    _touch([*theirs, *(folder.path / name for name in WRITTEN_BELOW)])
    folder.open(TOLD, DEFAULTS, resume=False, overwrite=True)
    assert all(file.is_file() for file in theirs)
    assert sorted(file.name for file in folder.path.rglob("*.*")) == ["mine.txt", "options.json", "scan.nii.gz"]


def test_overwriting_a_stage_does_not_follow_links(folder: StageFolder, tmp_path: Path) -> None:
    theirs = tmp_path / "elsewhere" / "results.json"
    _touch([theirs])
    folder.test.symlink_to(theirs.parent)
    folder.open(TOLD, DEFAULTS, resume=False, overwrite=True)
    assert theirs.is_file()


def test_what_a_killed_process_left_is_removed(folder: StageFolder) -> None:
    (folder.path / ".partial-123-last.ckpt").write_bytes(b"hal")
    folder.open(TOLD, DEFAULTS, resume=True, overwrite=False)
    assert sorted(path.name for path in folder.path.iterdir()) == ["last.ckpt", "options.json"]


def test_resuming_nothing_begins(tmp_path: Path) -> None:
    folder = StageFolder(tmp_path / "new")
    folder.open(TOLD, DEFAULTS, resume=True, overwrite=False)
    assert (folder.path / "options.json").is_file()


def test_overwriting_leaves_alone_what_no_stage_wrote(tmp_path: Path) -> None:
    for file in ("test/scan.nii.gz", "logs/mine.txt", "model.ckpt"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("mine")
    StageFolder(tmp_path).open(TOLD, DEFAULTS, resume=False, overwrite=True)
    assert {path.name for path in tmp_path.rglob("*.*")} == {"scan.nii.gz", "mine.txt", "model.ckpt", "options.json"}
