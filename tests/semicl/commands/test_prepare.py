"""`semicl prepare` takes all three layouts, names every problem, and leaves nothing half-done."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from semicl.data.phantom import SHAPE as PHANTOM_SHAPE
from semicl.data.prepare import prepare, prepared_before
from semicl.data.prepared import read_prepared
from semicl.errors import SemiclError
from semicl.options import PrepareOptions, SourceOptions
from tests.semicl.conftest import box_of, cut_off, error_of, run_command, write_colours, write_nifti

SHAPE = (12, 14, 5)
SIZE = ("--patch_size", "16", "16")


def _volume(number: int) -> np.ndarray:
    return np.random.default_rng(number).random(SHAPE).astype(np.float32)


def _label(*values: int) -> np.ndarray:
    label = np.zeros(SHAPE, np.int16)
    for place, value in enumerate(values):
        label[2 * place : 2 * place + 2, 3:9, 1:4] = value
    return label


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """images/ and labels/ of seven cases, two without a label."""
    folder = tmp_path / "plain"
    for number in range(7):
        write_nifti(folder / "images" / f"scan{number}.nii.gz", _volume(number))
        if number < 5:
            write_nifti(folder / "labels" / f"scan{number}.nii.gz", _label(1, 4))
    return folder


def test_decathlon(own_phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("prepare", "--data", own_phantom, "--prepared", tmp_path / "p", *SIZE) == 0
    prepared = read_prepared(tmp_path / "p")
    assert len(prepared.cases) == 20
    assert sorted(path.name for path in (tmp_path / "p" / "splits").iterdir()) == [
        "0.json",
        "1.json",
        "2.json",
        "3.json",
    ]
    text = capsys.readouterr().out
    assert "Phantom" in text
    assert "Next: semicl run --data" in text


def test_mmwhs(tmp_path: Path) -> None:
    for number in range(1001, 1005):
        write_nifti(tmp_path / "m" / f"ct_train_{number}_image.nii.gz", _volume(number))
        write_nifti(tmp_path / "m" / f"ct_train_{number}_label.nii.gz", _label(500, 600, 420, 550, 205, 820))
    write_nifti(tmp_path / "m" / "ct_test_2001_image.nii.gz", _volume(1))
    words = ["prepare", "--data", tmp_path / "m", "--prepared", tmp_path / "p", *SIZE, "--shares", "2", "1", "1"]
    assert run_command(*words) == 0
    prepared = read_prepared(tmp_path / "p")
    split = prepared.split(0)
    assert [len(split.training), len(split.validation), len(split.test)] == [3, 1, 1]
    assert np.unique(prepared.label(split.test[0])).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert not list((tmp_path / "p" / "cache").glob("ct_test_2001.label*"))


def test_plain_folders_with_some_labels_missing(plain: Path, tmp_path: Path) -> None:
    assert run_command("prepare", "--data", plain, "--prepared", tmp_path / "p", *SIZE) == 0
    prepared = read_prepared(tmp_path / "p")
    assert prepared.classes == {"background": 0, "class 1": 1, "class 4": 4}
    split = prepared.split(0)
    assert len(split.training) == 5
    assert len(split.labelled(1.0)) == 3
    assert np.unique(prepared.label(split.labelled(1.0)[0])).tolist() == [0, 1, 2]


def test_a_plain_folders_classes_can_be_named(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("classes: {liver: 4, spleen: 1}\n")
    words = ["prepare", "--config", tmp_path / "c.yaml", "--data", plain, "--prepared", tmp_path / "p", *SIZE]
    assert run_command(*words) == 0
    assert read_prepared(tmp_path / "p").classes == {"background": 0, "liver": 4, "spleen": 1}
    (tmp_path / "c.yaml").write_text("classes: {liver: 1}\n")
    assert "label 4 is unknown, known are 0, 1" in error_of(capsys, *words, "--overwrite")


def test_a_class_that_no_label_file_holds_is_refused(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", "--data", plain, "--prepared", tmp_path / "p", *SIZE, "--classes", '{"a": 1, "b": 4, "c": 7}']
    line = error_of(capsys, *words)
    assert '--classes takes values that label files hold, got {"c": 7}, which no undamaged one holds' in line
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.linspace(-3.2, 2, np.prod(SHAPE)).reshape(SHAPE), "label -3.2 is not a whole number"),
        (_label(7)[:, :, :3], "shape (12, 14, 3) differs"),
    ],
    ids=["not whole", "other shape"],
)
def test_classes_are_not_taken_from_damaged_files(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], label: np.ndarray, message: str
) -> None:
    write_nifti(plain / "images" / "scan7.nii.gz", _volume(7))
    write_nifti(plain / "labels" / "scan7.nii.gz", label)
    words = ["prepare", "--data", plain, "--prepared", tmp_path / "p", *SIZE]
    assert message in error_of(capsys, *words)
    assert run_command(*words, "--leave_out_damaged") == 0
    assert read_prepared(tmp_path / "p").classes == {"background": 0, "class 1": 1, "class 4": 4}


def test_a_class_that_only_a_left_out_file_holds_is_refused(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = _label(7)
    label[0, 0, :2] = 7, 9  # one is wanted, the other unknown
    write_nifti(plain / "images" / "scan7.nii.gz", _volume(7))
    write_nifti(plain / "labels" / "scan7.nii.gz", label)
    words = ["prepare", "--data", plain, "--prepared", tmp_path / "p", *SIZE, "--leave_out_damaged"]
    assert 'got {"c": 7}' in error_of(capsys, *words, "--classes", '{"a": 1, "b": 4, "c": 7}')


def test_classes_that_lack_values_are_told_with_those_to_add(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", "--data", plain, "--prepared", tmp_path / "p", *SIZE]
    for more in ((), ("--leave_out_damaged",)):
        line = error_of(capsys, *words, "--classes", '{"liver": 1}', *more)
        assert "label 4 is unknown, known are 0, 1; mend the file or the classes" in line
        assert line.endswith("""more, see the table); or --classes '{"liver": 1, "class 4": 4}'""")
    assert run_command(*words, "--classes", '{"liver": 1, "class 4": 4}') == 0


def _store_with_slope(path: Path, slope: float) -> None:
    """Store a label file's values as integers times a slope, which NIfTI holds as float32."""
    label = np.asarray(nibabel.load(path).dataobj)
    stored = nibabel.Nifti1Image(np.round(label / slope).astype(np.int16), np.eye(4))
    stored.header.set_slope_inter(slope, 0)
    nibabel.save(stored, path)
    read = np.asarray(nibabel.load(path).dataobj)
    assert (read != np.round(read)).any()


def test_labels_with_a_scale_in_their_header_are_the_whole_numbers_meant(plain: Path, tmp_path: Path) -> None:
    whole, scaled = tmp_path / "p", tmp_path / "q"
    for folder in (whole, scaled):
        assert run_command("prepare", "--data", plain, "--prepared", folder, *SIZE) == 0
        for path in (plain / "labels").iterdir():
            _store_with_slope(path, 0.1)
    assert read_prepared(scaled).classes == {"background": 0, "class 1": 1, "class 4": 4}
    for case in read_prepared(scaled).split(0).labelled(1.0):
        np.testing.assert_array_equal(read_prepared(scaled).label(case), read_prepared(whole).label(case))


@pytest.mark.parametrize(("value", "shown"), [(1.0015, "1.0015"), (0.5, "0.5")])
def test_a_label_that_is_not_whole_is_shown_with_all_digits(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float, shown: str
) -> None:
    for path in (plain / "labels").iterdir():
        write_nifti(path, value * (_label(1) > 0))
    line = error_of(capsys, "prepare", "--data", plain, "--prepared", tmp_path / "p", *SIZE)
    assert f"scan0.nii.gz: label {shown} is not a whole number" in line
    assert not (tmp_path / "p").exists()


def test_nothing_but_background_is_one_line(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "--data", plain, "--prepared", tmp_path / "p", *SIZE]
    for path in (plain / "labels").iterdir():
        write_nifti(path, _label())
    assert "plain: the label files hold only background (0); give label files with" in error_of(capsys, *words)
    for path in (plain / "labels").iterdir():
        path.unlink()
    (plain / "labels").rename(plain / "Masks")
    line = error_of(capsys, *words)
    assert f"{plain}: labels/ holds no label file that can be used; put some there, named as the images" in line
    assert ": rename Masks to labels, or add the task's dataset.json" in line
    assert not (tmp_path / "p").exists()


def test_a_value_of_one_label_file_is_said(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "--data", plain, "--prepared", tmp_path / "p", *SIZE]
    assert run_command(*words) == 0
    assert "WARNING" not in capsys.readouterr().out
    write_nifti(plain / "labels" / "scan1.nii.gz", _label(1, 4, 77))
    assert run_command(*words, "--overwrite") == 0
    told = f"WARNING: in one label file alone: 77 (77 in {plain / 'labels' / 'scan1.nii.gz'}). Where that is no class, "
    assert told in capsys.readouterr().out
    assert run_command(*words, "--overwrite", "--classes", '{"a": 1, "b": 4, "c": 77}') == 0
    assert "WARNING" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 300, "300 classes with the background, at most 255"),
        (_label(1).astype(np.int32) * (2**24 + 1), "label value 16777217, at most 16777216 can be read"),
    ],
    ids=["many", "large"],
)
def test_classes_that_cannot_be_told_apart_are_one_line(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], label: np.ndarray, message: str
) -> None:
    write_nifti(plain / "labels" / "scan0.nii.gz", label.astype(np.int32))
    assert message in error_of(capsys, "prepare", "--data", plain, "--prepared", tmp_path / "p", *SIZE)
    assert not (tmp_path / "p").exists()


def test_files_are_found_from_other_working_directories(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(plain.parent)
    assert run_command("prepare", "--data", plain.name, "--prepared", tmp_path / "p", *SIZE) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "p").rename(tmp_path / "moved")
    files = [file for case in read_prepared(tmp_path / "moved").cases for file in (case.image, case.label) if file]
    assert len(files) == 12
    assert all(file.is_file() for file in files)


def test_the_same_folder_may_be_typed_in_another_way(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(plain.parent)
    options = PrepareOptions(patch_size=(16, 16))
    prepare(SourceOptions(plain.name, tmp_path / "p"), options)
    prepare(SourceOptions(str(plain), tmp_path / "p"), replace(options, overwrite=True))
    assert prepared_before(SourceOptions(str(plain), tmp_path / "p"), options) is not None
    assert prepared_before(SourceOptions(f"./{plain.name}/", tmp_path / "p"), options) is not None
    other = shutil.copytree(plain, tmp_path / "other")
    assert prepared_before(SourceOptions(str(other), tmp_path / "p"), options) is not None
    next((plain / "labels").iterdir()).unlink()
    with pytest.raises(SemiclError, match=r"was prepared from .*other, and .*plain holds other files .*; give another"):
        prepared_before(SourceOptions(str(plain), tmp_path / "p"), options)


def test_other_images_of_the_same_names_are_another_data_set(plain: Path, tmp_path: Path) -> None:
    """Although the labels are the same: two folders whose files are 001, 002, ... are easily so."""
    options = PrepareOptions(patch_size=(16, 16))
    prepare(SourceOptions(str(plain), tmp_path / "p"), options)
    other = shutil.copytree(plain, tmp_path / "other")
    for number in range(7):
        write_nifti(other / "images" / f"scan{number}.nii.gz", _volume(number + 10))
    with pytest.raises(SemiclError, match=r"was prepared from .*plain, and .*other holds other files .*; give another"):
        prepared_before(SourceOptions(str(other), tmp_path / "p"), options)
    shutil.copy(plain / "images" / "scan0.nii.gz", other / "images")
    assert prepared_before(SourceOptions(str(other), tmp_path / "p"), options) is None  # of the same, six corrected


@pytest.mark.parametrize("kind", ["picture", "volume"])
def test_smoothed_masks_are_no_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    values = np.arange(40, dtype=np.uint8).repeat(40).reshape(40, 40)
    for number in range(5):
        picture = np.random.default_rng(number).integers(0, 255, (40, 40), dtype=np.uint8)
        for folder, array in (("images", picture), ("labels", values)):
            path = tmp_path / "data" / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "picture":
                Image.fromarray(array).save(path)
            else:
                write_nifti(path.with_suffix(".nii.gz"), array[..., None])
    words = ["prepare", "--data", tmp_path / "data", "--prepared", tmp_path / "p", "--patch_size", "32", "32"]
    if kind == "volume":  # an atlas may have so many
        assert run_command(*words) == 0
        return
    told = "the masks hold 39 values besides 0 (1, 2, 3, ...), as smoothed or compressed ones do"
    assert told in error_of(capsys, *words)
    assert not (tmp_path / "p").exists()
    assert run_command(*words, "--classes", '{"organ": [30, 31]}', "--rest_is_background") == 0
    assert read_prepared(tmp_path / "p").classes == {"background": 0, "organ": 30}


def test_images_that_lie_in_the_folder_itself_are_told_to_move(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", "--prepared", tmp_path / "p", "--data"]
    assert error_of(capsys, *words, plain / "images").endswith(f"; give --data the folder above, {plain}")
    (plain / "images").rename(tmp_path / "alone")
    assert error_of(capsys, *words, tmp_path / "alone").endswith("; move its images into images/ in it")


def test_a_seed_below_zero_is_refused(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "--data", plain, "--prepared", tmp_path / "p", "--seed", "-1"]
    assert "seed: Input should be greater than or equal to 0, got -1" in box_of(capsys, *words)
    assert not (tmp_path / "p").exists()


def test_the_phantom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "--data", "phantom", "--phantom_subjects", "5", "--prepared", tmp_path / "p", *SIZE]
    assert run_command(*words) == 0
    assert len({case.subject for case in read_prepared(tmp_path / "p").cases}) == 5
    assert "PHANTOM" in capsys.readouterr().out


def test_real_cases_are_split_by_subject(hippocampus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "few"
    description = json.loads((hippocampus / "dataset.json").read_text())
    description["training"] = description["training"][:16]
    folder.mkdir()
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).symlink_to(hippocampus / kind)
    (folder / "dataset.json").write_text(json.dumps(description))
    assert run_command("prepare", "--data", folder, "--prepared", tmp_path / "p") == 0
    prepared = read_prepared(tmp_path / "p")
    for number in range(4):
        split = prepared.split(number)
        owners = [{case.subject for case in part} for part in (split.training, split.validation, split.test)]
        assert sum(map(len, owners)) == len(set.union(*owners))


def _first(folder: Path, kind: str) -> Path:
    return folder / kind / "phantom_001.nii.gz"


def _keep_four_subjects(folder: Path) -> None:
    description = json.loads((folder / "dataset.json").read_text())
    description["training"] = description["training"][:8]
    (folder / "dataset.json").write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: cut_off(_first(folder, "imagesTr")), "imagesTr/phantom_001.nii.gz: not readable as NIfTI"),
        (lambda folder: cut_off(_first(folder, "labelsTr")), "labelsTr/phantom_001.nii.gz: not readable as NIfTI"),
        (
            lambda folder: write_nifti(_first(folder, "labelsTr"), np.zeros((3, 4, 5), np.uint8)),
            "labelsTr/phantom_001.nii.gz: shape (3, 4, 5) differs",
        ),
        (
            lambda folder: write_nifti(_first(folder, "labelsTr"), np.full(PHANTOM_SHAPE, 9, np.uint8)),
            "labelsTr/phantom_001.nii.gz: label 9 is unknown",
        ),
        (lambda folder: write_colours(_first(folder, "imagesTr")), "imagesTr/phantom_001.nii.gz: holds colours"),
        (lambda folder: write_colours(_first(folder, "labelsTr")), "labelsTr/phantom_001.nii.gz: holds colours"),
        (_keep_four_subjects, "4 labelled subjects (8 labelled cases) are too few"),
        (lambda folder: (folder / "dataset.json").unlink(), "holds no cases"),
    ],
    ids=[
        "image cut off",
        "label cut off",
        "other shape",
        "unknown label",
        "colour image",
        "colour label",
        "few subjects",
        "no cases",
    ],
)
def test_unusable_data_is_one_line_and_nothing_is_written(
    own_phantom: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
    message: str,
) -> None:
    damage(own_phantom)
    assert message in error_of(capsys, "prepare", "--data", own_phantom, "--prepared", tmp_path / "p", *SIZE)
    assert not (tmp_path / "p").exists()


def test_every_problem_is_in_the_table_and_damaged_cases_can_be_left_out(
    own_phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_off(_first(own_phantom, "imagesTr"))
    write_nifti(own_phantom / "labelsTr" / "phantom_003.nii.gz", np.zeros((3, 4, 5), np.uint8))
    words = ["prepare", "--data", own_phantom, "--prepared", tmp_path / "p", *SIZE]
    assert run_command(*words) == 1
    written = capsys.readouterr()
    assert "phantom_001" in written.out
    assert "phantom_003" in written.out
    assert "(and 1 more, see the table); or --leave_out_damaged" in written.err
    assert run_command(*words, "--leave_out_damaged") == 0
    names = {case.name for case in read_prepared(tmp_path / "p").cases}
    assert len(names) == 18
    assert not names & {"phantom_001", "phantom_003"}


def test_the_table_of_problems_tells_images_from_labels(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("images", "labels"):
        cut_off(plain / kind / "scan0.nii.gz")
    assert run_command("prepare", "--data", plain, "--prepared", tmp_path / "p", *SIZE) == 1
    table = capsys.readouterr().out
    assert "images/scan0.nii.gz" in table
    assert "labels/scan0.nii.gz" in table


def test_no_data_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "--data is missing" in error_of(capsys, "prepare", "--prepared", tmp_path / "p")
    assert "no such folder" in error_of(capsys, "prepare", "--data", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "holds no cases" in error_of(capsys, "prepare", "--data", tmp_path / "empty")


def test_an_edited_split_is_not_replaced(own_prepared: Path, phantom: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "--data", phantom, "--prepared", own_prepared, *SIZE, "--repeats", "2", "--overwrite"]
    assert run_command(*words) == 0
    (own_prepared / "splits" / "7.json").write_text("{}")  # one that is the user's alone
    assert run_command(*words) == 0
    path = own_prepared / "splits" / "1.json"
    content = json.loads(path.read_text())
    content["validation"], content["test"] = content["test"], content["validation"]
    edited = json.dumps(content)
    path.write_text(edited)
    files = {file: file.stat().st_mtime_ns for file in own_prepared.rglob("*")}
    line = error_of(capsys, *words, "--seed", "1")
    assert f"{path}: was edited, and preparing the folder again would replace it; give another --prepared, or" in line
    assert {file: file.stat().st_mtime_ns for file in own_prepared.rglob("*")} == files
    path.rename(path.with_suffix(".mine"))
    assert run_command(*words, "--seed", "1") == 0
    assert path.read_text() != edited


def test_a_killed_preparation_is_not_taken_for_a_whole_one(
    own_prepared: Path, phantom: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("semicl.data.prepared.np.save", full_disk)
    assert "No space left" in error_of(capsys, "prepare", "--data", phantom, "--prepared", own_prepared, "--overwrite")
    assert not (own_prepared / "prepared.json").exists()
    assert list(own_prepared.rglob(".partial-*")) == []


def test_the_splits_of_another_preparation_are_never_taken(plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    words = ["prepare", "--data", plain, "--prepared", folder, *SIZE]
    assert run_command(*words, "--repeats", "4") == 0
    left = {number: (folder / "splits" / f"{number}.json").read_text() for number in (2, 3)}
    assert run_command(*words, "--repeats", "2", "--seed", "1", "--overwrite") == 0
    assert sorted(file.name for file in (folder / "splits").iterdir()) == ["0.json", "1.json"]
    for number, text in left.items():  # as versions before this one left them behind
        (folder / "splits" / f"{number}.json").write_text(text)
    with pytest.raises(SemiclError, match=r"3\.json: was left behind by an earlier preparation; give a --split below"):
        read_prepared(folder).split(3)
    assert run_command(*words, "--repeats", "3", "--seed", "1", "--overwrite") == 0
    assert json.loads((folder / "splits" / "2.json").read_text())["seed"] == 1
    assert not (folder / "splits" / "3.json").exists()


def test_a_split_that_a_person_added_is_taken_and_kept(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", "--data", plain, "--prepared", tmp_path / "p", *SIZE, "--seed", "5", "--overwrite", "--repeats"]
    assert run_command(*words, "2") == 0
    own = tmp_path / "p" / "splits" / "2.json"
    own.write_bytes(b"\xef\xbb\xbf" + (tmp_path / "p" / "splits" / "0.json").read_bytes())  # as Notepad does
    assert read_prepared(tmp_path / "p").split(2) == read_prepared(tmp_path / "p").split(0)
    assert run_command(*words, "1") == 0
    assert own.is_file()
    assert f"{own}: was edited, and preparing the folder again would replace it" in error_of(capsys, *words, "3")


def test_an_edited_split_is_not_removed_by_fewer_repeats(
    own_prepared: Path, phantom: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = own_prepared / "splits" / "1.json"
    content = json.loads(path.read_text())
    content["validation"], content["test"] = content["test"], content["validation"]
    path.write_text(json.dumps(content))
    words = ["prepare", "--data", phantom, "--prepared", own_prepared, *SIZE, "--repeats", "1", "--overwrite"]
    assert f"{path}: was edited" in error_of(capsys, *words)


def test_more_cases_do_not_make_splits_edited(plain: Path, tmp_path: Path) -> None:
    words = ["prepare", "--data", plain, "--prepared", tmp_path / "p", *SIZE]
    assert run_command(*words) == 0
    for number in range(7, 12):
        write_nifti(plain / "images" / f"scan{number}.nii.gz", _volume(number))
        write_nifti(plain / "labels" / f"scan{number}.nii.gz", _label(1, 4))
    assert run_command(*words, "--overwrite", "--repeats", "2") == 0
    assert run_command(*words, "--overwrite", "--repeats", "4") == 0


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            {"a": 1, "b": 4, "c": 4},
            "takes a value of its own for each class, and 'b' and 'c' both have 4; leave one out",
        ),
        ({"background": 1, "b": 4}, "takes no class named 'background', which is the name of value 0; rename it"),
        ({" BackGround ": 1, "b": 4}, "takes no class named ' BackGround '"),
        ({"a": 0, "b": 4}, "takes names of one or more values other than 0"),
        ({"": 1, "b": 4}, "takes a name for each class, also for the one of value 1"),
        ({"Liver": 1, "liver": 4}, "takes names that differ, and 'Liver' and 'liver' do not; rename one, or merge"),
        ({"Jos\u00e9": 1, "Jose\u0301": 4}, "takes names that differ"),
    ],
    ids=["value", "background", "capitals", "zero", "empty", "case", "accent"],
)
def test_classes_that_cannot_be_told_apart_are_refused(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], classes: dict[str, int], message: str
) -> None:
    words = ["prepare", "--data", plain, "--prepared", tmp_path / "p", *SIZE, "--classes", json.dumps(classes)]
    assert message in error_of(capsys, *words)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("size", ["1 256 256", "2 2", "64 63", "0 64", "64", "8 8 8 8"])
def test_a_patch_that_no_network_takes_is_refused_at_once(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    line = box_of(capsys, "prepare", "--data", plain, "--prepared", tmp_path / "p", "--patch_size", *size.split())
    assert "patch_size: takes two or three even numbers, one of them 4 or more, since the network halves" in line
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(("size", "levels"), [("24 40", 4), ("2 64 64", 2), ("16 16", 4), ("32 32", None)])
def test_a_patch_that_the_default_network_does_not_take_is_said(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str, levels: int | None
) -> None:
    assert run_command("prepare", "--data", plain, "--prepared", tmp_path / "p", "--patch_size", *size.split()) == 0
    text = capsys.readouterr().out
    assert (f"fit networks of at most {levels} levels; the default one has 5: give training fewer" in text) == (
        levels is not None
    )


def test_slices_that_are_shrunk_are_said_with_what_it_costs(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = np.zeros((240, 200, 3), np.uint8)
    label[::2, :, 1] = 1
    label[100:180, 60:160, 2] = 4
    write_nifti(plain / "images" / "scan4.nii.gz", np.random.default_rng(0).random(label.shape))
    write_nifti(plain / "labels" / "scan4.nii.gz", label)
    words = ["prepare", "--data", plain, "--prepared", tmp_path / "p", "--patch_size", "64", "64"]
    assert run_command(*words, "--resize") == 0
    text = capsys.readouterr().out
    (line,) = [line for line in text.splitlines() if line.startswith("WARNING")]
    assert line.startswith("WARNING: slices of 240 x 200 are shrunk to fit 64 x 64, by a factor of 0.27. A perfect ")
    found = re.search(r"label keeps a Dice of class 1 ([\d.]+), class 4 ([\d.]+) \(scan4\)\. ", line)
    assert found is not None
    of_lines, of_block = map(float, found.groups())
    assert 0.3 < of_lines < 0.7
    assert 0.95 < of_block < 1
    assert line.endswith("Give a larger --patch_size, or leave out --resize for patches at full resolution.")
    assert "5 x 12 x 14 to 3 x 240 x 200" in text
    assert not read_prepared(tmp_path / "p").grid.sliding_window
    assert run_command(*words, "--overwrite") == 0
    text = capsys.readouterr().out
    assert "are shrunk" not in text
    assert "Slices of 240 x 200 are larger than patches of 64 x 64: training takes random patches of them, " in text
    prepared = read_prepared(tmp_path / "p")
    assert prepared.grid.sliding_window
    (case,) = [case for case in prepared.cases if case.name == "scan4"]
    assert prepared.image(case).shape == (1, 3, 240, 200)
    assert int((prepared.label(case) > 0).sum()) == int((label > 0).sum())


def test_what_resampling_costs_is_said(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "--data", plain, "--prepared", tmp_path / "p", *SIZE]
    assert run_command(*words, "--spacing", "3", "3", "1") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Volumes are resampled")]
    found = re.search(r"to voxels of 3 x 3 x 1 mm\. A perfect label keeps a Dice of class 1 ([\d.]+), class 4 ", line)
    assert found is not None
    assert 0.2 < float(found[1]) < 0.95


def test_to_shrink_is_for_slices(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "--data", plain, "--prepared", tmp_path / "p", "--patch_size", "8", "16", "16"]
    assert "a patch size of three numbers makes none" in box_of(capsys, *words, "--resize")


def test_units_and_images_of_one_value_are_said(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_nifti(plain / "images" / "scan2.nii.gz", np.full(SHAPE, 7.0))
    assert run_command("prepare", "--data", plain, "--prepared", tmp_path / "p", *SIZE) == 0
    text = capsys.readouterr().out
    assert "7 of 7 images name no unit of their voxel size (xyzt_units), as scan0: it is taken for millimeters." in text
    assert "WARNING: of one value alone, in which a network sees nothing: scan2." in text


def test_the_median_voxel_size_is_noted(plain: Path, tmp_path: Path) -> None:
    for number in range(7):
        affine = np.diag([1, 2, 3 if number < 4 else 9, 1])
        write_nifti(plain / "images" / f"scan{number}.nii.gz", _volume(number), affine)
        if number < 5:
            write_nifti(plain / "labels" / f"scan{number}.nii.gz", _label(1, 4), affine)
    prepared = prepare(SourceOptions(str(plain), tmp_path / "p"), PrepareOptions(patch_size=(16, 16)))
    assert prepared.grid.voxel_size == (3, 1, 2)
    options = PrepareOptions(patch_size=(16, 16), spacing=(1.0, 1.5, 2.0), overwrite=True)
    prepared = prepare(SourceOptions(str(plain), tmp_path / "p"), options)
    assert prepared.grid.voxel_size == (2, 1, 1.5)
    assert read_prepared(tmp_path / "p").grid == prepared.grid


def test_a_folder_of_before_there_was_an_option_is_taken(plain: Path, tmp_path: Path) -> None:
    source, options = SourceOptions(str(plain), tmp_path / "p"), PrepareOptions(patch_size=(16, 16))
    prepare(source, options)
    content = json.loads((tmp_path / "p" / "prepared.json").read_text())
    for name in ("sliding_window", "voxel_size", "is_cut"):
        del content[name]
    for name in ("resize", "ignore"):
        del content["options"][name]
    for resize in (False, True):  # as all were
        (tmp_path / "p" / "prepared.json").write_text(json.dumps(content))
        before = prepared_before(source, replace(options, resize=resize))
        assert before is not None
        assert (before.grid.sliding_window, before.grid.voxel_size) == (False, None)
    (tmp_path / "p" / "prepared.json").write_text(json.dumps(content | {"sliding_window": True}))
    with pytest.raises(SemiclError, match="was prepared with resize False, now True"):
        prepared_before(source, replace(options, resize=True))


def test_a_tilde_is_the_home_folder(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "c.yaml").write_text("data: ~/plain\nprepared: ~/p\npatch_size: [16, 16]\n")
    assert run_command("prepare", "--config", "~/c.yaml") == 0
    assert (tmp_path / "p" / "prepared.json").is_file()
    assert run_command("prepare", "--data=~/plain", "--prepared=~/q", *SIZE) == 0
    assert (tmp_path / "q" / "prepared.json").is_file()
    assert list((tmp_path / "work").iterdir()) == []
    options = PrepareOptions(patch_size=(16, 16))
    assert prepared_before(SourceOptions(str(plain), tmp_path / "q"), options) is not None


def test_a_folder_named_as_an_image_is_said(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (plain / "images" / "scan9.nii").mkdir()
    line = error_of(capsys, "prepare", "--data", plain, "--prepared", tmp_path / "p", *SIZE)
    assert f"{plain}/images/scan9.nii: is a folder, not a file; move the file out of it" in line


def test_a_class_of_the_description_that_no_label_holds_is_told(
    own_phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description = json.loads((own_phantom / "dataset.json").read_text())
    description["labels"]["4"] = "liver"
    (own_phantom / "dataset.json").write_text(json.dumps(description))
    assert run_command("prepare", "--data", own_phantom, "--prepared", tmp_path / "p", *SIZE) == 0
    line = "No label holds liver: left out of means and of what validation picks by."
    assert capsys.readouterr().out.count(line) == 1
    assert list(read_prepared(tmp_path / "p").classes)[-1] == "liver"


def test_prepared_data_are_replaced_only_when_that_is_asked_for(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", "--data", plain, "--prepared", tmp_path / "p", *SIZE]
    assert run_command(*words) == 0
    before = (tmp_path / "p" / "prepared.json").read_text()
    line = error_of(capsys, *words, "--repeats", "1")
    assert "prepared.json: is there already; give another --prepared, or --overwrite to replace" in line
    assert (tmp_path / "p" / "prepared.json").read_text() == before
    assert run_command(*words, "--seed", "1", "--overwrite") == 0
    assert (tmp_path / "p" / "prepared.json").read_text() != before


@pytest.mark.parametrize("place", ["", "images", "labels", "../alias", "../list/.."])
def test_the_data_are_not_prepared_into_themselves(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (tmp_path / "alias").symlink_to(plain)
    (plain / "labels" / "list").mkdir()
    (tmp_path / "list").symlink_to(plain / "labels" / "list")  # whose parent is the labels' folder
    line = error_of(capsys, "prepare", "--data", plain, "--prepared", plain / place, *SIZE)
    assert "which is read and would be written to; give another --prepared" in line


def test_a_phantom_does_not_replace_other_cases(
    own_phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description = json.loads((own_phantom / "dataset.json").read_text()) | {"name": "Mine"}
    (own_phantom / "dataset.json").write_text(json.dumps(description))
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "phantom").symlink_to(own_phantom)
    line = error_of(capsys, "prepare", "--data", "phantom", "--prepared", tmp_path / "p", *SIZE)
    assert "p/phantom: holds other cases; give another --prepared" in line
    assert json.loads((own_phantom / "dataset.json").read_text()) == description
