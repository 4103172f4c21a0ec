"""Where voxels lie is read from the header, in millimeters; a header that does not tell it is named."""

import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from semicl.data.cases import Case
from semicl.data.checks import Problem, check_files, problems, read_nifti, unit_note
from semicl.data.geometry import affine_in_mm, tells_unit, voxel_size
from semicl.data.grid import Grid, resampled_shape
from semicl.data.volumes import read_image, read_label
from semicl.errors import SemiclError
from tests.semicl.data.nifti_bytes import alter, write_placed

VOLUME = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
OBLIQUE = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -5], [0, 0, 3.0, 7], [0, 0, 0, 1]])
GRID = Grid((8, 8))

DAMAGED_SFORM = {
    "zero": {f"srow_{axis}": [0, 0, 0, 0] for axis in "xyz"},
    "a zero column": {"srow_x": [0, 0, 0, 10], "srow_y": [1.5, 0, 0, -5], "srow_z": [0, 0, 3, 7]},
    "dependent columns": {"srow_x": [1, 2, 0, 0], "srow_y": [2, 4, 0, 0], "srow_z": [0, 0, 3, 7]},
    "nearly dependent columns": {"srow_x": [1, 1, 0, 0], "srow_y": [1, 1.0001, 0, 0], "srow_z": [0, 0, 3, 7]},
    "NaN": {"srow_y": [math.nan, 0, 0, 0]},
    "infinity": {"srow_z": [0, 0, math.inf, 0]},
    "a translation that is NaN": {"srow_x": [0, -2, 0, math.nan]},
    "a translation without end": {"srow_x": [0, -2, 0, 1e30]},
    "voxels of kilometers": {"srow_z": [0, 0, 3e6, 0]},
    "an unknown code": {"sform_code": 77},
}


def _file(folder: Path, **fields: Any) -> Path:
    return alter(write_placed(folder / "a.nii", VOLUME, OBLIQUE), **fields)


@pytest.mark.parametrize("damage", DAMAGED_SFORM.values(), ids=DAMAGED_SFORM)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_damaged_sform_is_named_where_there_is_no_qform(tmp_path: Path, damage: dict[str, Any], suffix: str) -> None:
    path = alter(write_placed(tmp_path / f"a{suffix}", VOLUME, OBLIQUE), **damage, qform_code=0)
    (problem,) = check_files(Case("a", "a", path, None)).problems
    assert problem.file == path
    assert problem.what.startswith("its sform ")
    with pytest.raises(SemiclError, match=r"a\.nii.*: its sform .*; export it again, or set its sform"):
        read_image(path, GRID)


@pytest.mark.parametrize("damage", DAMAGED_SFORM.values(), ids=DAMAGED_SFORM)
def test_the_qform_is_used_where_the_sform_is_damaged(tmp_path: Path, damage: dict[str, Any]) -> None:
    path = _file(tmp_path, **damage)
    sound = write_placed(tmp_path / "b.nii", VOLUME, OBLIQUE)
    np.testing.assert_allclose(read_nifti(path)[1].affine, OBLIQUE, atol=1e-5)
    assert read_image(path, GRID).image.equal(read_image(sound, GRID).image)
    assert list(problems(check_files(Case("a", "a", path, sound)), {str(k): k for k in range(120)}, GRID)) == []


@pytest.mark.parametrize(
    "damage",
    [
        {"pixdim": [1, 0, 2, 3, 0, 0, 0, 0]},
        {"pixdim": [1, math.nan, 2, 3, 0, 0, 0, 0]},
        {"pixdim": [1, 1, math.inf, 3, 0, 0, 0, 0]},
        {"pixdim": [5, 1.5, 2, 3, 0, 0, 0, 0]},
        {"pixdim": [1, 1e-30, 2, 3, 0, 0, 0, 0]},
        {"quatern_b": math.nan},
        {"quatern_b": 3.0},
        {"qoffset_x": math.inf},
        {"qform_code": 99},
    ],
    ids=str,
)
def test_a_damaged_qform_is_named_where_it_is_all_there_is(tmp_path: Path, damage: dict[str, Any]) -> None:
    path = _file(tmp_path, **damage, sform_code=0)
    (problem,) = check_files(Case("a", "a", path, None)).problems
    assert problem.file == path
    assert "\n" not in str(problem)
    path = _file(tmp_path, **damage)  # the sform counts
    np.testing.assert_allclose(read_nifti(path)[1].affine, OBLIQUE)


def test_a_header_without_a_form_goes_by_its_voxel_size(tmp_path: Path) -> None:
    path = _file(tmp_path, sform_code=0, qform_code=0)
    assert voxel_size(read_nifti(path)[1].affine) == pytest.approx((1.5, 2, 3))
    alter(path, pixdim=[1, 0, 2, 3, 0, 0, 0, 0])
    with pytest.raises(SemiclError, match=r"a\.nii: its pixdim has voxels of 0 x 2 x 3; "):
        read_nifti(path)


@pytest.mark.parametrize("slope", [0.0, math.nan])
def test_a_scale_that_is_none_is_none(tmp_path: Path, slope: float) -> None:
    np.testing.assert_array_equal(read_nifti(_file(tmp_path, scl_slope=slope))[0], VOLUME)


@pytest.mark.parametrize("fields", [{"scl_slope": math.inf}, {"scl_slope": 1.0, "scl_inter": math.nan}], ids=str)
def test_a_damaged_scale_is_named(tmp_path: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(SemiclError, match=r"a\.nii: .*(scl_slope|intercept)"):
        read_nifti(_file(tmp_path, **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"dim": [3, 400, 5, 6, 1, 1, 1, 1]},
        {"dim": [3, -4, 5, 6, 1, 1, 1, 1]},
        {"dim": [3, 0, 5, 6, 1, 1, 1, 1]},
        {"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]},
        {"dim": [2, 20, 6, 1, 1, 1, 1, 1]},
        {"dim": [5, 2, 2, 5, 3, 2, 1, 1]},
        {"datatype": 32},
        {"datatype": 1},
        {"datatype": 12345},
        {"vox_offset": 1e9},
        {"vox_offset": math.nan},
        {"magic": b"nope"},
    ],
    ids=str,
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_other_damage_of_a_header_is_one_line(tmp_path: Path, fields: dict[str, Any], suffix: str) -> None:
    path = alter(write_placed(tmp_path / f"a{suffix}", VOLUME, OBLIQUE), **fields)
    (problem,) = check_files(Case("a", "a", path, None)).problems
    assert "\n" not in str(problem)
    assert str(problem).startswith(f"{path}: ")


def test_a_label_of_four_axes_is_refused(tmp_path: Path) -> None:
    path = alter(write_placed(tmp_path / "a.nii", VOLUME, OBLIQUE), dim=[4, 2, 2, 5, 6, 1, 1, 1])
    with pytest.raises(SemiclError, match=r"a\.nii: has 4 dimensions, of lengths \(2, 2, 5, 6\), not 3; give one 3-D"):
        read_nifti(path)


@pytest.mark.parametrize(("unit", "millimeters"), [(1, 1000.0), (2, 1.0), (3, 0.001)])
@pytest.mark.parametrize("time", [0, 8, 24])
def test_the_headers_unit_is_used(tmp_path: Path, unit: int, millimeters: float, time: int) -> None:
    volume = read_nifti(_file(tmp_path, xyzt_units=unit + time))[1]
    assert tells_unit(volume)
    assert voxel_size(affine_in_mm(volume)) == pytest.approx([millimeters * side for side in (1.5, 2, 3)])


@pytest.mark.parametrize("unit", [0, 8, 5])
def test_an_absent_unit_is_said(tmp_path: Path, unit: int) -> None:
    path = _file(tmp_path, xyzt_units=unit)
    assert voxel_size(affine_in_mm(read_nifti(path)[1])) == pytest.approx((1.5, 2, 3))
    note = unit_note([check_files(Case("left", "a", path, None))])
    assert note == (
        "1 of 1 images name no unit of their voxel size (xyzt_units), as left: it is taken for millimeters."
    )
    alter(path, xyzt_units=2)
    assert unit_note([check_files(Case("left", "a", path, None))]) is None


def test_a_label_without_a_unit_has_its_images(tmp_path: Path) -> None:
    image = write_placed(tmp_path / "i.nii", VOLUME, np.diag([500, 500, 1000, 1]))
    label = write_placed(tmp_path / "l.nii", (VOLUME > 60).astype(np.uint8), np.diag([500, 500, 1000, 1]))
    alter(image, xyzt_units=3)
    alter(label, xyzt_units=0)
    grid = Grid((8, 8), spacing=(0.5, 0.5, 0.5))
    assert list(problems(check_files(Case("a", "a", image, label)), {"b": 0, "o": 1}, grid)) == []
    assert read_image(image, grid).image[0].shape == read_label(label, grid, (0, 1), image).shape == (11, 8, 8)
    alter(label, xyzt_units=2)
    (problem,) = check_files(Case("a", "a", image, label)).problems
    assert problem.what == "affine differs from its image's"


def test_a_small_shift_is_seen_where_voxels_are_microns(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1.0, 1.0, 1])
    image = write_placed(tmp_path / "i.nii", VOLUME, affine)
    affine[0, 3] = 1.0  # a whole voxel, a thousandth of a millimeter
    label = write_placed(tmp_path / "l.nii", (VOLUME > 60).astype(np.uint8), affine)
    for path in (image, label):
        alter(path, xyzt_units=3)
    (problem,) = check_files(Case("a", "a", image, label)).problems
    assert problem.what == "affine differs from its image's"


@pytest.mark.parametrize(
    ("unit", "what"),
    [
        (3, "resampling would leave 1 x 1 x 1 of its 6 x 4 x 5 voxels"),
        (1, "resampling would make 15001 x 4501 x 8001 voxels of it, more than 2147483648"),
    ],
    ids=["microns", "meters"],
)
def test_a_spacing_that_does_not_suit_a_volume_is_named(tmp_path: Path, unit: int, what: str) -> None:
    path = alter(write_placed(tmp_path / "a.nii", VOLUME, np.diag([1.5, 2, 3, 1])), xyzt_units=unit)
    grid = Grid((8, 8), (1.0, 1.0, 1.0))
    way_out = "give another spacing, or mend the file's voxel size or unit (xyzt_units)"
    assert list(problems(check_files(Case("a", "a", path, None)), {"b": 0}, grid)) == [Problem(path, what, way_out)]
    with pytest.raises(SemiclError, match=r"a\.nii: resampling would "):
        read_image(path, grid)


@pytest.mark.parametrize("spacing", [(1.1, 1.3, 0.9), (0.7, 2.0, 3.3)])
def test_the_shape_after_resampling_is_known_before(tmp_path: Path, spacing: tuple[float, float, float]) -> None:
    path = write_placed(tmp_path / "a.nii", VOLUME, OBLIQUE)
    shape = resampled_shape(VOLUME.shape, OBLIQUE, Grid((2, 2, 2), spacing))
    assert read_image(path, Grid((2, 2, 2), spacing)).image[0].shape == shape


def test_axes_of_length_1_after_the_third_are_left_out(tmp_path: Path) -> None:
    sound = write_placed(tmp_path / "a.nii", VOLUME, OBLIQUE)
    for axes in (1, 2, 4):
        path = write_placed(tmp_path / f"{axes}.nii.gz", VOLUME.reshape(*VOLUME.shape, *(1,) * axes), OBLIQUE)
        np.testing.assert_array_equal(read_nifti(path)[0], VOLUME)
        assert read_image(path, GRID).image.equal(read_image(sound, GRID).image)
        assert check_files(Case("a", "a", path, sound)).problems == ()
        assert check_files(Case("a", "a", sound, path)).problems == ()
    path = write_placed(tmp_path / "2.nii", VOLUME.reshape(2, 2, 5, 6), OBLIQUE)
    with pytest.raises(SemiclError, match=r"2\.nii: has 4 dimensions, of lengths \(2, 2, 5, 6\), not 3"):
        read_nifti(path)


def test_a_folder_named_as_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.nii").mkdir()
    with pytest.raises(SemiclError, match=r"x\.nii: is a folder, not a file"):
        read_nifti(tmp_path / "x.nii")


def test_nibabel_says_nothing_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = _file(tmp_path, pixdim=[0, -1, 0, 3, 0, 0, 0, 0])
    assert nibabel.load(path).shape == VOLUME.shape
    read_nifti(path)
    assert capfd.readouterr() == ("", "")
