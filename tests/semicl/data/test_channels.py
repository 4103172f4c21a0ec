"""Images of several channels, as the last axis of a file or as a file each, go from prepare to predict."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from semicl.data.cases import by_channel, find_cases
from semicl.data.checks import read_channels
from semicl.data.phantom import CLASSES, write_phantom
from semicl.data.prepared import read_prepared
from semicl.data.subjects import subject_rule
from semicl.data.volumes import read_image
from semicl.errors import SemiclError
from tests.semicl.conftest import error_of, run_command, same_weights, weights, write_nifti

CONFIG = """
network: {widths: [4, 6, 8], centre: null}
label_fraction: 0.34
prepare: {patch_size: [32, 32], resize: true, repeats: 1}
pretrain_global: {schedule: {epochs: 1, batch_size: 60, learning_rate: 1e-3}, channels: 4}
pretrain_local: {schedule: {epochs: 1, batch_size: 20, learning_rate: 1e-3}, channels: 4, loss: {stride: 2}}
finetune: {schedule: {epochs: 1, batch_size: 20, learning_rate: 1e-3}}
"""


@pytest.fixture(scope="module")
def two_channels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of the Decathlon whose images have two modalities, the last axis."""
    folder = tmp_path_factory.mktemp("channels") / "task"
    write_phantom(folder, 5, seed=0, channels=2)
    return folder


@pytest.fixture(scope="module")
def file_each(two_channels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images and labels in a plain folder, each channel a file of its own."""
    folder = tmp_path_factory.mktemp("files")
    for image in sorted((two_channels / "imagesTr").iterdir()):
        name, volume = image.name.removesuffix(".nii.gz"), nibabel.load(image)
        for channel in range(2):
            array = np.asarray(volume.dataobj)[..., channel]
            write_nifti(folder / "images" / f"{name}_{channel:04d}.nii.gz", array, volume.affine)
        label = nibabel.load(two_channels / "labelsTr" / image.name)
        write_nifti(folder / "labels" / image.name, np.asarray(label.dataobj), label.affine)
    return folder


@pytest.fixture(scope="module")
def nnunet(file_each: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a raw folder of nnU-Net's version 2."""
    folder = tmp_path_factory.mktemp("nnunet")
    shutil.copytree(file_each / "images", folder / "imagesTr")
    shutil.copytree(file_each / "labels", folder / "labelsTr")
    labels = {name: value for value, name in enumerate(CLASSES)}
    description = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": labels,
        "numTraining": 10,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture(scope="module")
def experiment(two_channels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment on the task, of all stages."""
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "config.yaml").write_text(CONFIG)
    words = ["run", "--config", folder / "config.yaml", "--data", two_channels]
    assert run_command(*words, "--prepared", folder / "p", "--output", folder / "o") == 0
    return folder


def test_an_experiment_sees_both_channels(experiment: Path) -> None:
    prepared = read_prepared(experiment / "p")
    assert prepared.channels == 2
    assert prepared.image(prepared.cases[0]).shape[0] == 2
    assert prepared.label(prepared.cases[0]).shape == prepared.image(prepared.cases[0]).shape[1:]
    for stage in ("pretrain-global", "pretrain-local", "finetune-random", "finetune-pretrained"):
        found = weights(experiment / "o" / "split-0" / stage / "model.ckpt")
        (stem,) = (value for name, value in found.items() if name.endswith("stem.conv_0.conv.weight"))
        assert stem.shape[1] == 2
    assert (experiment / "o" / "predictions.png").is_file()


def test_both_forms_are_predicted_alike_in_the_geometry_of_their_files(
    experiment: Path, two_channels: Path, file_each: Path, tmp_path: Path
) -> None:
    words = ["predict", "--checkpoint", experiment / "o" / "split-0" / "finetune-pretrained" / "model.ckpt"]
    assert run_command(*words, "--input", two_channels / "imagesTr", "--output", tmp_path / "one") == 0
    assert run_command(*words, "--input", file_each / "images", "--output", tmp_path / "each") == 0
    names = sorted(path.name for path in (two_channels / "imagesTr").iterdir())
    for form in ("one", "each"):
        assert sorted(path.name for path in (tmp_path / form).iterdir()) == names
    for name in names:
        one, each = (nibabel.load(tmp_path / form / name) for form in ("one", "each"))
        assert one.shape == each.shape == nibabel.load(two_channels / "labelsTr" / name).shape
        assert np.array_equal(one.affine, nibabel.load(two_channels / "imagesTr" / name).affine)
        assert np.array_equal(one.dataobj, each.dataobj)


def test_all_forms_are_judged_alike(
    experiment: Path, two_channels: Path, file_each: Path, nnunet: Path, tmp_path: Path
) -> None:
    words = ["evaluate", "--checkpoint", experiment / "o" / "split-0" / "finetune-random" / "model.ckpt"]
    found = []
    for data in (two_channels, file_each, nnunet):
        assert run_command(*words, "--data", data, "--output", tmp_path / data.name) == 0
        found.append(json.loads((tmp_path / data.name / "results.json").read_text())["cases"])
    assert found[0] == found[1] == found[2]


def test_a_raw_folder_of_nnunet_gives_the_weights_of_the_same_task(
    experiment: Path, nnunet: Path, tmp_path: Path
) -> None:
    words = ["run", "--config", experiment / "config.yaml", "--data", nnunet, "--starts", "random"]
    assert (
        run_command(*words, "--prepare.scans_per_subject", 2, "--prepared", tmp_path / "p", "--output", tmp_path) == 0
    )
    model = Path("split-0") / "finetune-random" / "model.ckpt"
    assert same_weights(tmp_path / model, experiment / "o" / model)
    words = ["predict", "--checkpoint", tmp_path / model, "--input", nnunet / "imagesTr", "--output", tmp_path / "o"]
    assert run_command(*words) == 0
    assert {path.name for path in (tmp_path / "o").iterdir()} == {path.name for path in (nnunet / "labelsTr").iterdir()}


def test_a_checkpoint_takes_no_other_number_of_channels(
    experiment: Path, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = experiment / "o" / "split-0" / "finetune-random" / "model.ckpt"
    image = phantom / "imagesTr" / "phantom_001.nii.gz"
    words = ["predict", "--checkpoint", checkpoint, "--input", image, "--output", tmp_path / "o"]
    assert "phantom_001.nii.gz: has 1 channels, the checkpoint takes 2; give them as" in error_of(capsys, *words)
    words = ["evaluate", "--checkpoint", checkpoint, "--data", phantom, "--output", tmp_path / "e"]
    assert "image of 1 channels, beside others of 2; give all cases the same" in error_of(capsys, *words)


def test_a_case_of_other_channels_is_told_by_prepare(
    file_each: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("images", "labels"):
        for file in (file_each / kind).iterdir():
            write_nifti(tmp_path / "d" / kind / file.name, np.asarray(nibabel.load(file).dataobj))
    (tmp_path / "d" / "images" / "phantom_003_0001.nii.gz").unlink()
    words = ["prepare", "--data", tmp_path / "d", "--prepared", tmp_path / "p"]
    assert "phantom_003_0000.nii.gz: image of 1 channels, beside others of 2" in error_of(capsys, *words)


def test_files_of_channels_make_a_case_where_the_labels_say_so(file_each: Path, tmp_path: Path) -> None:
    found = find_cases(file_each, subject_rule)
    assert len(found.cases) == 10
    assert [file.name for file in found.cases[0].files] == [
        "phantom_001_0000.nii.gz",
        "phantom_001_0001.nii.gz",
        "phantom_001.nii.gz",
    ]
    for kind in ("images", "labels"):  # cases with numbers that begin at 0
        for number in range(3):
            write_nifti(tmp_path / kind / f"scan_{number:04d}.nii.gz", np.zeros((2, 2, 2), np.uint8))
    assert [case.name for case in find_cases(tmp_path, subject_rule).cases] == ["scan_0000", "scan_0001", "scan_0002"]


@pytest.mark.parametrize("names", [["a_0001"], ["a_0000", "a_0002"], ["a_0000", "b"], ["_0000"], ["a_0000", "b_1"]])
def test_other_names_are_no_channels(names: list[str]) -> None:
    assert by_channel({name: Path(name) for name in names}) is None


def test_each_channel_is_on_its_own_scale(tmp_path: Path) -> None:
    first = np.random.default_rng(0).random((8, 9, 5))
    path = write_nifti(tmp_path / "a.nii.gz", np.stack([first, 1000 * first + 7], -1))
    from semicl.data.grid import Grid

    image = read_image(path, Grid((16, 16))).image
    assert image.shape == (2, 5, 16, 16)
    np.testing.assert_allclose(image[0], image[1], atol=1e-6)


def test_channels_in_other_places_are_told(tmp_path: Path) -> None:
    first = write_nifti(tmp_path / "a_0000.nii.gz", np.random.default_rng(0).random((8, 9, 5)))
    for other in (
        write_nifti(tmp_path / "b_0001.nii.gz", np.zeros((8, 9, 4))),
        write_nifti(tmp_path / "c_0001.nii.gz", np.zeros((8, 9, 5)), 2 * np.eye(4)),
    ):
        with pytest.raises(SemiclError, match=r"_0001.nii.gz: shape or affine differs from a_0000.nii.gz's; export"):
            read_channels(first, [other])


def test_a_phantom_of_several_channels(tmp_path: Path) -> None:
    words = ["prepare", "--data", "phantom", "--prepared", tmp_path / "p", "--phantom_subjects", "5"]
    assert run_command(*words, "--phantom_channels", "3") == 0
    assert read_prepared(tmp_path / "p").channels == 3
