"""`semicl predict` writes labels in the geometry of each image, whatever it is."""

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from semicl.errors import SemiclError
from semicl.evaluation import inference
from semicl.models.checkpoint import load_segmentation
from tests.semicl.conftest import TINY, box_of, cut_off, error_of, one_schedule, run_command, write_colours, write_nifti
from tests.semicl.data.nifti_bytes import alter, write_placed

GEOMETRIES = {
    "oblique": ((33, 41, 9), np.array([[1.1, 0.2, 0, -20], [-0.2, 0.9, 0.3, 7], [0, -0.3, 2.4, 3], [0, 0, 0, 1]])),
    "anisotropic": ((20, 20, 3), np.diag([0.7, 0.7, 5.0, 1])),
    "permuted": ((5, 31, 17), np.array([[0, 0, -1.5, 20], [-0.8, 0, 0, 29], [0, 2.0, 0, 0], [0, 0, 0, 1]])),
    "large": ((90, 61, 4), np.eye(4)),
    "tiny": ((3, 1, 2), np.eye(4)),
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for name, (shape, affine) in GEOMETRIES.items():
        write_nifti(folder / f"{name}.nii.gz", np.random.default_rng(0).random(shape), affine)
    return folder


def test_a_folder(tuned: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("predict", "--checkpoint", tuned, "--input", images, "--output", tmp_path / "o") == 0
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == sorted(f"{name}.nii.gz" for name in GEOMETRIES)
    for name, (shape, affine) in GEOMETRIES.items():
        written = nibabel.load(tmp_path / "o" / f"{name}.nii.gz")
        assert written.shape == shape
        np.testing.assert_allclose(written.affine, affine, atol=1e-6)
        orientation = nibabel.aff2axcodes(nibabel.load(images / f"{name}.nii.gz").affine)
        assert nibabel.aff2axcodes(written.affine) == orientation
        assert set(np.unique(written.dataobj)) <= {0, 1, 2, 3}
    assert "Next: semicl evaluate" in capsys.readouterr().out


def test_the_same_anatomy_gets_the_same_labels_however_it_is_stored(tuned: Path, phantom: Path, tmp_path: Path) -> None:
    source = nibabel.load(phantom / "imagesTr" / "phantom_001.nii.gz")
    stored = nibabel.as_closest_canonical(source)
    turned = stored.as_reoriented(nibabel.orientations.axcodes2ornt(("P", "S", "L")))
    found = []
    for name, image in (("a", stored), ("b", turned)):
        nibabel.save(image, tmp_path / f"{name}.nii.gz")
        words = ["predict", "--checkpoint", tuned, "--input", tmp_path / f"{name}.nii.gz", "--output", tmp_path / "o"]
        assert run_command(*words) == 0
        found.append(nibabel.as_closest_canonical(nibabel.load(tmp_path / "o" / f"{name}.nii.gz")).get_fdata())
    np.testing.assert_array_equal(found[0], found[1])
    assert len(np.unique(found[0])) > 1


def test_unusable_input_is_one_line_and_nothing_is_written(
    tuned: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", "--checkpoint", tuned, "--output", tmp_path / "o", "--input"]
    assert "no such file or folder" in error_of(capsys, *words, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "holds no .nii" in error_of(capsys, *words, tmp_path / "empty")
    (tmp_path / "text.txt").write_text("text")
    assert "not a NIfTI file" in error_of(capsys, *words, tmp_path / "text.txt")
    write_colours(tmp_path / "colours.nii.gz")
    assert "colours.nii.gz: holds colours" in error_of(capsys, *words, tmp_path / "colours.nii.gz")
    assert not (tmp_path / "o").exists()


def test_of_many_images_those_that_cannot_be_used_are_told_and_the_others_predicted(
    tuned: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", "--checkpoint", tuned, "--output", tmp_path / "o", "--input"]
    write_colours(images / "oblique.nii.gz")
    cut_off(images / "large.nii.gz")
    line = error_of(capsys, *words, images)
    assert "2 of 5 images could not be predicted (" in line
    assert "large.nii.gz: not readable" in line
    assert "oblique.nii.gz: holds colours" in line
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "o").iterdir()}
    assert sorted(written) == ["anisotropic.nii.gz", "permuted.nii.gz", "tiny.nii.gz"]
    write_nifti(images / "large.nii.gz", np.zeros((5, 5, 5), np.float32))
    assert "1 of 5 images could not be predicted (" in error_of(capsys, *words, images, "--skip_existing")
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "o").iterdir()}
    assert now.keys() - written.keys() == {"large.nii.gz"}
    assert {name: now[name] for name in written} == written
    for path in images.iterdir():
        cut_off(path)
    assert "5 of 5 images could not" in error_of(capsys, *words, images, "--overwrite")


def test_of_two_images_of_one_name_neither_is_predicted_but_all_others(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.nii", "a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / "images" / name, np.random.default_rng(0).random((5, 6, 4)))
    words = ["predict", "--checkpoint", tuned, "--input", tmp_path / "images", "--output", tmp_path / "o"]
    for more in ((), ("--skip_existing",)):
        line = error_of(capsys, *words, *more)
        assert "2 of 3 images could not be predicted (" in line
        assert "a.nii.gz: case a is there twice; leave one file of it out" in line
        assert [path.name for path in (tmp_path / "o").iterdir()] == ["b.nii.gz"]


def test_an_image_that_fails_while_it_is_predicted_stops_no_other(
    tuned: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = inference.file_probabilities

    def fail(models: Sequence[inference.Model], image: Path, more: Sequence[Path], flips: bool) -> torch.Tensor:
        if image.name == "anisotropic.nii.gz":
            raise SemiclError(f"{image}: turned out to be unusable")
        return real(models, image, more, flips)

    monkeypatch.setattr(inference, "file_probabilities", fail)
    line = error_of(capsys, "predict", "--checkpoint", tuned, "--input", images, "--output", tmp_path / "o")
    assert "1 of 5 images could not be predicted" in line
    assert "turned out to be unusable" in line
    assert len(list((tmp_path / "o").iterdir())) == 4


def test_images_are_never_replaced(
    tuned: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", "--checkpoint", tuned, "--input"]
    before = {path: path.read_bytes() for path in images.iterdir()}
    (tmp_path / "links").mkdir()
    for path in images.iterdir():
        (tmp_path / "links" / path.name).symlink_to(path)
    for read, written in ((images, images), (tmp_path / "links", images), (images, tmp_path / "links")):
        line = error_of(capsys, *words, read, "--output", written, "--overwrite")
        assert "which is read and would be" in line
    single = images / "tiny.nii.gz"
    for written in (single, tmp_path / "links" / "tiny.nii.gz", images):
        assert "which is read" in error_of(capsys, *words, single, "--output", written, "--overwrite")
    assert {path: path.read_bytes() for path in images.iterdir()} == before


def test_a_file_of_another_format_is_not_written(
    tuned: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", "--checkpoint", tuned, "--input", images / "tiny.nii.gz", "--output"]
    assert "one.mgz: is named as a file of another format" in error_of(capsys, *words, tmp_path / "one.mgz")
    assert not (tmp_path / "one.mgz").exists()
    (tmp_path / "one.mgz").mkdir()
    assert run_command(*words, tmp_path / "one.mgz") == 0


def test_the_label_of_one_image_can_be_given_its_name(
    tuned: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", "--checkpoint", tuned, "--input", images / "tiny.nii.gz", "--output"]
    assert run_command(*words, tmp_path / "o" / "x.nii.gz") == 0
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["x.nii.gz"]
    assert nibabel.load(tmp_path / "o" / "x.nii.gz").shape == GEOMETRIES["tiny"][0]
    assert "x.nii.gz: is there already" in error_of(capsys, *words, tmp_path / "o" / "x.nii.gz")
    for name in ("y.nii", "z.NII.GZ"):
        assert run_command(*words, tmp_path / "o" / name) == 0
        assert nibabel.load(tmp_path / "o" / name).shape == GEOMETRIES["tiny"][0]
    assert "mixes capitals" in error_of(capsys, *words, tmp_path / "x.Nii")
    (tmp_path / "folder.nii").mkdir()
    assert run_command(*words, tmp_path / "folder.nii") == 0
    assert [path.name for path in (tmp_path / "folder.nii").iterdir()] == ["tiny.nii.gz"]
    words[4] = images
    line = error_of(capsys, *words, tmp_path / "all.nii.gz")
    assert "all.nii.gz: is one file for 5 images; give --output a folder" in line
    assert not (tmp_path / "all.nii.gz").exists()


def test_label_files_are_replaced_only_when_that_is_asked_for(
    tuned: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", "--checkpoint", tuned, "--input", images, "--output", tmp_path / "o"]
    for name in ("large", "tiny"):
        write_nifti(tmp_path / "o" / f"{name}.nii.gz", np.ones((2, 2, 2), np.uint8))
    before = (tmp_path / "o" / "large.nii.gz").read_bytes()
    line = error_of(capsys, *words)
    assert f"{tmp_path / 'o' / 'large.nii.gz'} (and 1 more): is there already; give another --output, --over" in line
    assert "--skip_existing" in line
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["large.nii.gz", "tiny.nii.gz"]
    assert run_command(*words, "--skip_existing") == 0
    assert len(list((tmp_path / "o").iterdir())) == len(GEOMETRIES)
    assert (tmp_path / "o" / "large.nii.gz").read_bytes() == before
    assert run_command(*words, "--overwrite") == 0
    assert nibabel.load(tmp_path / "o" / "large.nii.gz").shape == GEOMETRIES["large"][0]
    assert "--skip_existing leaves what is there and" in box_of(capsys, *words, "--overwrite", "--skip_existing")


def test_hidden_images_are_told_to_be_left_out(
    tuned: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (".hid.nii.gz", "..a.nii.gz", ".notes"):
        (images / name).write_bytes((images / "tiny.nii.gz").read_bytes())
    assert run_command("predict", "--checkpoint", tuned, "--input", images, "--output", tmp_path / "o") == 0
    assert f"{images}: hidden files are left out: ..a.nii.gz, .hid.nii.gz." in capsys.readouterr().out
    assert len(list((tmp_path / "o").iterdir())) == len(GEOMETRIES)


@pytest.mark.parametrize(
    "there",
    [np.ones((3, 4, 5), np.float32), np.full((3, 4, 5), 7, np.uint8), np.ones((3, 4, 5, 2), np.float32)],
    ids=["image", "other values", "4-D"],
)
def test_only_labels_are_replaced(
    tuned: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], there: np.ndarray
) -> None:
    words = ["predict", "--checkpoint", tuned, "--overwrite"]
    other = write_nifti(images / "other.nii.gz", there)
    before = other.read_bytes()
    line = error_of(capsys, *words, "--input", images / "tiny.nii.gz", "--output", other)
    assert f"{other}: would be replaced, and is no label map of the checkpoint's classes" in line
    other = write_nifti(tmp_path / "o" / "tiny.nii.gz", there)
    line = error_of(capsys, *words, "--input", images / "tiny.nii.gz", "--output", tmp_path / "o")
    assert f"{other}: would be replaced" in line
    assert (images / "other.nii.gz").read_bytes() == other.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"half"])
def test_a_label_that_cannot_be_read_is_not_done(
    tuned: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    label = tmp_path / "o" / "tiny.nii.gz"
    label.parent.mkdir()
    label.write_bytes(content)
    words = ["predict", "--checkpoint", tuned, "--input", images, "--output", tmp_path / "o", "--skip_existing"]
    assert run_command(*words) == 0
    assert nibabel.load(label).shape == GEOMETRIES["tiny"][0]
    assert f"{label}: not readable, so that it is predicted again." in capsys.readouterr().out
    label.write_bytes(content)
    assert run_command(*words[:-1], "--overwrite") == 0
    assert nibabel.load(label).shape == GEOMETRIES["tiny"][0]


@pytest.mark.parametrize("values", [(0, -1, 1), (0, 1, 70000), (0, 200, 40000)])
def test_every_value_of_the_training_labels_is_written(tmp_path: Path, values: tuple[int, ...]) -> None:
    place = np.indices((16, 16, 2))[1] // 6
    for number in range(4):
        write_nifti(tmp_path / "d" / "images" / f"{number}.nii.gz", place.astype(np.float32))
        write_nifti(tmp_path / "d" / "labels" / f"{number}.nii.gz", np.array(values)[place].astype(np.int32))
    words = ["prepare", "--data", tmp_path / "d", "--prepared", tmp_path / "p", "--patch_size", "16", "16"]
    assert run_command(*words, "--shares", "2", "1", "1") == 0
    words = ["finetune", *TINY, *one_schedule(), "--prepared", tmp_path / "p", "--label_fraction", "1"]
    assert run_command(*words, "--output", tmp_path / "r") == 0
    checkpoint, image = tmp_path / "r" / "model.ckpt", tmp_path / "d" / "images" / "0.nii.gz"
    for number, value in enumerate(values):
        trained = torch.load(checkpoint, weights_only=True)
        trained["state_dict"]["network.classifier.bias"][number] += 1000  # it will see this class everywhere
        torch.save(trained, tmp_path / "sure.ckpt")
        words = ["predict", "--checkpoint", tmp_path / "sure.ckpt", "--input", image, "--output", tmp_path / "o"]
        assert run_command(*words, "--overwrite") == 0
        assert np.unique(nibabel.load(tmp_path / "o" / "0.nii.gz").dataobj).tolist() == [value]


def test_names_in_capitals(tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, capitals in (("a.nii.gz", "a.nii.gz"), ("b.nii.gz", "b.NII.GZ"), ("c.nii", "c.NII")):
        write_nifti(tmp_path / "i" / name, np.random.default_rng(0).random((9, 8, 3))).rename(tmp_path / "i" / capitals)
    words = ["predict", "--checkpoint", tuned, "--input", tmp_path / "i", "--output", tmp_path / "o"]
    assert run_command(*words) == 0
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["a.nii.gz", "b.nii.gz", "c.nii"]
    assert all(nibabel.load(path).shape == (9, 8, 3) for path in (tmp_path / "o").iterdir())
    write_nifti(tmp_path / "i" / "b.nii", np.random.default_rng(0).random((9, 8, 3)))
    assert "case b is there twice" in error_of(capsys, *words, "--skip_existing")


def test_an_image_whose_sform_is_damaged_is_named_and_the_others_predicted(
    tuned: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_placed(images / "zzz.nii", np.ones((4, 5, 6), np.float32), np.eye(4), qform=0)
    words = ["predict", "--checkpoint", tuned, "--input", images, "--output", tmp_path / "o"]
    for fields in ({"srow_x": [0, 0, 0, 0]}, {"srow_x": [0, 1, 0, 0]}, {"srow_x": [np.nan, 0, 0, 0]}):
        alter(path, **fields)
        line = error_of(capsys, *words, "--overwrite")
        assert f"{path}: its sform has " in line or f"{path}: its sform holds" in line
        assert len(list((tmp_path / "o").iterdir())) == len(list(images.iterdir())) - 1


def test_a_label_lies_where_the_qform_puts_its_image(tuned: Path, tmp_path: Path) -> None:
    affine = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -5], [0, 0, 3.0, 7], [0, 0, 0, 1]])
    path = write_placed(tmp_path / "a.nii.gz", np.random.default_rng(0).random((9, 8, 7, 1, 1)), affine)
    alter(path, **{f"srow_{axis}": [0, 0, 0, 0] for axis in "xyz"})
    assert run_command("predict", "--checkpoint", tuned, "--input", path, "--output", tmp_path / "o") == 0
    written = nibabel.load(tmp_path / "o" / "a.nii.gz")
    assert written.shape == (9, 8, 7, 1, 1)
    np.testing.assert_allclose(written.affine, affine, atol=1e-5)


def test_patches_of_slices_are_trained_and_predicted_at_full_resolution(phantom: Path, tmp_path: Path) -> None:
    words = ["prepare", "--data", phantom, "--prepared", tmp_path / "p", "--repeats", "1", "--patch_size", "32", "16"]
    assert run_command(*words) == 0
    words = ["finetune", *TINY, *one_schedule(1, 64), "--label_fraction", "0.2", "--prepared", tmp_path / "p"]
    assert run_command(*words, "--validation_volumes", "1", "--output", tmp_path / "r") == 0
    image = phantom / "imagesTr" / "phantom_001.nii.gz"
    words = ["predict", "--checkpoint", tmp_path / "r" / "model.ckpt", "--input", image, "--output", tmp_path / "o"]
    assert run_command(*words) == 0
    assert nibabel.load(tmp_path / "o" / "phantom_001.nii.gz").shape == nibabel.load(image).shape
    assert load_segmentation(tmp_path / "r" / "model.ckpt")[1].grid.sliding_window
