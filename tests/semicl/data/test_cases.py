"""Cases are found in all three layouts."""

import json
from pathlib import Path

import pytest

from semicl.data.cases import MMWHS_CLASSES, find_cases
from semicl.data.subjects import subject_rule
from semicl.errors import SemiclError
from tests.semicl.conftest import write_nifti

VOLUME = [[[0.0, 1.0]]]


def test_decathlon(phantom: Path) -> None:
    folder = find_cases(phantom, subject_rule)
    assert folder.name == "Phantom"
    assert folder.classes == {"background": 0, "large organ": 1, "small organ": 2, "paired organ": 3}
    assert len(folder.cases) == 20
    assert len({case.subject for case in folder.cases}) == 10


def test_real_cases(hippocampus: Path) -> None:
    folder = find_cases(hippocampus, subject_rule)
    assert folder.classes == {"background": 0, "Anterior": 1, "Posterior": 2}
    assert len(folder.cases) == 200
    assert len({case.subject for case in folder.cases}) == 132


def test_mmwhs(tmp_path: Path) -> None:
    for name in ("ct_train_1001_image", "ct_train_1001_label", "ct_test_2001_image"):
        write_nifti(tmp_path / f"{name}.nii.gz", VOLUME)
    folder = find_cases(tmp_path, subject_rule)
    assert folder.classes == {"background": 0} | MMWHS_CLASSES
    assert list(folder.classes.values()) == [0, 500, 600, 420, 550, 205, 820, 850]
    unlabelled, labelled = folder.cases
    assert (labelled.name, labelled.label) == ("ct_train_1001", tmp_path / "ct_train_1001_label.nii.gz")
    assert (unlabelled.name, unlabelled.label) == ("ct_test_2001", None)


def test_plain_folders_with_some_labels_missing(tmp_path: Path) -> None:
    for name in ("images/a.nii.gz", "images/b.nii", "labels/b.nii.gz"):
        write_nifti(tmp_path / name, VOLUME)
    folder = find_cases(tmp_path, subject_rule)
    assert folder.classes is None
    assert [(case.name, case.label) for case in folder.cases] == [
        ("a", None),
        ("b", tmp_path / "labels" / "b.nii.gz"),
    ]


@pytest.mark.parametrize("suffix", [".nii", ".NII.GZ", ".Nii"])
def test_the_suffix_of_a_label_is_its_own(tmp_path: Path, suffix: str) -> None:
    for folder, image, label in (("plain", "images/a", "labels/a"), ("mmwhs", "a_image", "a_label")):
        write_nifti(tmp_path / folder / f"{image}.nii.gz", VOLUME)
        file = write_nifti(tmp_path / folder / f"{label}.nii", VOLUME).rename(tmp_path / folder / f"{label}{suffix}")
        (case,) = find_cases(tmp_path / folder, subject_rule).cases
        assert (case.name, case.label) == ("a", file)


@pytest.mark.parametrize(
    "names", [("images/a.nii.gz", "labels/stray.nii.gz"), ("a_image.nii", "stray_label.nii.gz")], ids=["plain", "mmwhs"]
)
def test_a_label_without_an_image_is_named(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write_nifti(tmp_path / name, VOLUME)
    with pytest.raises(SemiclError, match=r"stray.*\.nii\.gz: no image has this name"):
        find_cases(tmp_path, subject_rule)
    write_nifti(tmp_path / names[1].replace("stray", "t"), VOLUME)
    with pytest.raises(SemiclError, match=r"stray.*\.nii\.gz \(and 1 more\): no image has .*; name it as its"):
        find_cases(tmp_path, subject_rule)


@pytest.mark.parametrize(
    "names",
    [
        ("images/a.nii.gz", "images/a.nii"),
        ("images/a.nii", "labels/a.nii", "labels/a.nii.gz"),
        ("a_image.nii.gz", "a_image.nii"),
        ("a_image.nii", "a_label.nii", "a_label.nii.gz"),
    ],
    ids=["plain image", "plain label", "mmwhs image", "mmwhs label"],
)
def test_a_case_that_is_there_twice_is_named(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write_nifti(tmp_path / name, VOLUME)
    with pytest.raises(SemiclError, match=r"a.*\.nii.*: case a is there twice"):
        find_cases(tmp_path, subject_rule)


def _description(**changes: object) -> str:
    whole = {"labels": {"0": "background", "1": "organ"}, "training": [{"image": "i.nii.gz", "label": "l.nii.gz"}]}
    return json.dumps(whole | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a Decathlon description"),
        (json.dumps({"labels": {"0": "background", "1": "organ"}}), "'training'"),
        (json.dumps({"labels": {"background": 0, "organ": [1, 2]}}), "a region of nnU-Net's, is not taken"),
        (json.dumps([1, 2]), "not a Decathlon description"),
        (_description(labels={"background": "0"}), "not a Decathlon description"),
        (_description(labels={"0": "background", "7": "organ"}), r"labels must be 0 .* found \[0, 7\]"),
        (_description(training=["i.nii.gz"]), "not a Decathlon description"),
        (_description(training=[]), "lists no training case"),
    ],
)
def test_an_unusable_description_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(SemiclError, match=message) as caught:
        find_cases(tmp_path, subject_rule)
    assert str(tmp_path / "dataset.json") in str(caught.value)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_raw_folder_of_nnunet(tmp_path: Path, version: int, channels: int) -> None:
    for name in ("a", "b"):
        for channel in range(channels):
            write_nifti(tmp_path / "imagesTr" / f"{name}_{channel:04d}.nii.gz", VOLUME)
        write_nifti(tmp_path / "labelsTr" / f"{name}.nii.gz", VOLUME)
    listed = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in "ab"]
    content: dict[str, object] = {"labels": {"background": 0, "organ": 1}, "channel_names": {"0": "T1", "1": "T2"}}
    if version == 1:
        content = {"labels": {"0": "background", "1": "organ"}, "modality": {"0": "MRI"}, "training": listed}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    found = find_cases(tmp_path, subject_rule)
    assert found.classes == {"background": 0, "organ": 1}
    assert [case.name for case in found.cases] == ["a", "b"]
    for case in found.cases:
        names = [f"{case.name}_{channel:04d}.nii.gz" for channel in range(channels)]
        assert [file.name for file in case.files] == [*names, f"{case.name}.nii.gz"]


def test_a_description_with_two_images_of_one_name_is_refused(tmp_path: Path) -> None:
    pairs = [{"image": f"{part}/i.nii", "label": f"{part}/l.nii"} for part in "ab"]
    (tmp_path / "dataset.json").write_text(_description(training=pairs))
    with pytest.raises(SemiclError, match=r"b/i\.nii: case i is there twice"):
        find_cases(tmp_path, subject_rule)


def test_a_missing_or_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SemiclError, match=r"nowhere: no such folder; give --data a folder of cases$"):
        find_cases(tmp_path / "nowhere", subject_rule)
    with pytest.raises(SemiclError, match=r"holds no cases; give a folder with dataset\.json"):
        find_cases(tmp_path, subject_rule)
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).mkdir()
    with pytest.raises(
        SemiclError, match=r": rename imagesTr to images and labelsTr to labels, or add the task's dataset\.json$"
    ):
        find_cases(tmp_path, subject_rule)
    (tmp_path / "images").mkdir()
    with pytest.raises(SemiclError, match=r"images: holds no \.nii"):
        find_cases(tmp_path, subject_rule)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_description_of_any_unicode_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    text = _description(labels={"0": "fond", "1": "oreillette gauche (dilat\u00e9e)"})
    (tmp_path / "dataset.json").write_bytes(_raw(text).encode(encoding))
    assert find_cases(tmp_path, subject_rule).classes == {"fond": 0, "oreillette gauche (dilat\u00e9e)": 1}


def _raw(text: str) -> str:
    """JSON with its letters as they are, which `json.dumps` would escape."""
    return json.dumps(json.loads(text), ensure_ascii=False)


def test_a_description_in_no_unicode_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_bytes(_raw(_description(labels={"0": "b", "1": "\u00e9"})).encode("latin-1"))
    with pytest.raises(SemiclError, match=r"dataset\.json: not a Decathlon description \(UnicodeDecodeError"):
        find_cases(tmp_path, subject_rule)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ('{"0": "b", "1": "a", "1": "c"}', "'1' is given twice"),
        ('{"0": "b", "1": "a", "01": "c"}', r"labels must be 0 .* found \[0, 1, 1\]"),
        ('{"0": "b", "1": "organ", "2": "organ"}', "'labels' takes names that differ, and 'organ' and 'organ' do not"),
        ('{"0": "b", "1": "Organ", "2": "organ "}', "names that differ, and 'Organ' and 'organ ' do not"),
        ('{"0": "b", "1": "Jos\\u00e9", "2": "Jose\\u0301"}', "names that differ"),
        ('{"0": "b", "1": "Stra\\u00dfe", "2": "STRASSE"}', "names that differ"),
        ('{"0": "b", "1": "Background"}', "'labels' takes no class named 'Background'"),
        ('{"0": "other", "1": "Other"}', "'labels' takes no class named 'Other'"),
        ('{"0": "b", "1": ""}', "a name for each class, also for the one of value 1"),
        ('{"0": "b", "1": null}', "a name for each class"),
        ('{"0": "b", "1": "  "}', "a name for each class"),
    ],
)
def test_classes_that_one_name_or_value_would_stand_for_are_refused(tmp_path: Path, labels: str, message: str) -> None:
    text = _description(labels={}).replace('"labels": {}', f'"labels": {labels}')
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(SemiclError, match=message):
        find_cases(tmp_path, subject_rule)


def test_image_and_label_may_write_an_accent_in_two_ways(tmp_path: Path) -> None:
    write_nifti(tmp_path / "images" / "Jos\u00e9.nii", VOLUME)
    label = write_nifti(tmp_path / "labels" / "Jose\u0301.nii", VOLUME)
    (case,) = find_cases(tmp_path, subject_rule).cases
    assert (case.name, case.label) == ("Jos\u00e9", label)
    pair = {"image": "images/Jose\u0301.nii", "label": "labels/Jos\u00e9.nii"}
    (tmp_path / "dataset.json").write_text(_description(training=[pair]))
    (case,) = find_cases(tmp_path, subject_rule).cases
    assert case.image.is_file()
    assert case.label == label
