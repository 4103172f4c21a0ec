"""An evaluation judges files in their own geometry, sums up, and is read back as it was written."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from semicl.data.cases import Case
from semicl.errors import SemiclError
from semicl.evaluation.inference import predict_file, write_labels
from semicl.evaluation.measures import Evaluation, evaluate_cases, read_evaluation, unit_of_distances
from semicl.models.checkpoint import ModelCard
from semicl.models.unet import UNet
from tests.semicl.conftest import cut_off, write_case, write_nifti
from tests.semicl.data.nifti_bytes import alter

EVALUATION = Evaluation(
    ("a", "b"),
    ("front", "back"),
    np.array([[0.5, 1.0], [0.1, 0.2]]),
    np.array([[1.0, 2.0], [3.0, 4.0]]),
    np.array([[0.5, 0.5], [1.5, 1.5]]),
)


def test_summary(tmp_path: Path) -> None:
    EVALUATION.write(tmp_path, checkpoint=Path("model.ckpt"))
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["checkpoint"] == "model.ckpt"
    assert content["summary"]["front"]["dice"] == pytest.approx({"mean": 0.3, "deviation": 0.2})
    assert content["summary"]["mean"]["hd95"] == {"mean": 2.5, "deviation": 1.0}
    assert EVALUATION.mean_dice() == pytest.approx(0.45)


def test_one_case_has_no_deviation(tmp_path: Path) -> None:
    one = Evaluation(("a",), ("front", "back"), *(np.array([[0.5, 1.0]]) for _ in range(3)))
    one.write(tmp_path)
    summary = json.loads((tmp_path / "results.json").read_text())["summary"]
    assert summary["front"]["dice"] == {"mean": 0.5, "deviation": None}
    columns = list(one.table("one", "mm").columns)
    assert [list(map(str, column.cells)) for column in columns[1:]] == [["0.500 ± -", "1.000 ± -", "0.750 ± -"]] * 3


@pytest.mark.parametrize(
    ("files", "unit"),
    [(["a.nii"], "mm"), (["a.png", "b.tif"], "pixels"), (["a.png", "b.nii.gz"], "mm, pixels of pictures")],
)
def test_the_unit_is_that_of_the_files(files: list[str], unit: str) -> None:
    cases = [Case(name, name, Path(name), None) for name in files]
    assert unit_of_distances(cases) == unit
    headings = [str(column.header) for column in EVALUATION.table("all", unit).columns]
    assert headings == ["class", "Dice", f"HD95 ({unit})", f"ASD ({unit})"]


def test_csv_holds_a_row_a_case_and_class(tmp_path: Path) -> None:
    EVALUATION.write(tmp_path)
    with (tmp_path / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert rows[3] == {"case": "b", "class": "back", "dice": "0.2", "hd95": "4.0", "surface": "1.5"}


def test_it_is_read_back(tmp_path: Path) -> None:
    EVALUATION.write(tmp_path)
    read = read_evaluation(tmp_path)
    assert (read.names, read.classes) == (EVALUATION.names, EVALUATION.classes)
    for measure in ("dice", "hd95", "surface"):
        np.testing.assert_array_equal(getattr(read, measure), getattr(EVALUATION, measure))


def test_what_is_read_back_shows_the_same_numbers(tmp_path: Path) -> None:
    dice = np.array([[0.77846, 0.00006], [0.77855, 0.00006]])
    found = replace(EVALUATION, dice=dice)
    found.write(tmp_path)
    assert read_evaluation(tmp_path).mean_dice() == found.mean_dice()
    summary = json.loads((tmp_path / "results.json").read_text())["summary"]
    assert summary["mean"]["dice"]["mean"] == found.mean_dice()
    with (tmp_path / "cases.csv").open(newline="") as file:
        assert [float(row["dice"]) for row in csv.DictReader(file)] == dice.ravel().tolist()


def test_a_missing_or_damaged_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(SemiclError, match=r"results\.json: not readable"):
        read_evaluation(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(SemiclError, match=r"results\.json: not readable"):
        read_evaluation(tmp_path)


def _case(folder: Path, network: UNet, card: ModelCard, spacing: float = 1.0) -> Case:
    """A case whose label is what the network predicts, written as `semicl predict` writes it."""
    image = np.random.default_rng(0).random((21, 30, 5)).astype(np.float32)
    affine = np.diag([spacing, spacing, spacing, 1])
    case = write_case(folder, image, np.zeros(image.shape), affine)
    assert case.label is not None
    write_labels(case.label, predict_file(network.eval(), card, case.image), card, nibabel.load(case.image))
    return case


def test_a_networks_own_predictions_are_perfect(network: UNet, card: ModelCard, tmp_path: Path) -> None:
    card = replace(card, classes={"background": 0, "a": 205, "b": 500, "c": 7})
    found = evaluate_cases(network, card, [_case(tmp_path, network, card)])
    assert found.classes == ("a", "b", "c")
    assert found.dice.tolist() == [[1, 1, 1]]
    assert found.surface.tolist() == [[0, 0, 0]]
    found.write(tmp_path)
    np.testing.assert_array_equal(read_evaluation(tmp_path).dice, found.dice)
    assert read_evaluation(tmp_path).dice.dtype == found.dice.dtype


def test_distances_follow_the_files_voxel_size(network: UNet, card: ModelCard, tmp_path: Path) -> None:
    found = []
    for spacing in (1.0, 3.0):
        case = _case(tmp_path / str(spacing), network, card, spacing)
        assert case.label is not None
        affine = np.diag([spacing, spacing, spacing, 1])
        numbers = torch.roll(predict_file(network, card, case.image), 1, 0).numpy().astype(np.uint8)
        write_nifti(case.label, numbers, affine)
        found.append(evaluate_cases(network, card, [case]))
    np.testing.assert_allclose(found[1].hd95, 3 * found[0].hd95)
    assert (found[0].hd95 > 0).any()


def test_cases_without_a_label_are_left_out(network: UNet, card: ModelCard, tmp_path: Path) -> None:
    case = _case(tmp_path, network, card)
    assert evaluate_cases(network, card, [replace(case, label=None), case]).names == (case.name,)
    with pytest.raises(SemiclError, match="no case has a label"):
        evaluate_cases(network, card, [replace(case, label=None)])


def test_damaged_and_misfit_labels_are_named(network: UNet, card: ModelCard, tmp_path: Path) -> None:
    case = _case(tmp_path, network, card)
    assert case.label is not None
    write_nifti(case.label, np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(SemiclError, match=r"label\.nii\.gz: shape \(3, 4, 5\) differs"):
        evaluate_cases(network, card, [case])
    cut_off(case.label)
    with pytest.raises(SemiclError, match=r"label\.nii\.gz: not readable"):
        evaluate_cases(network, card, [case])


@pytest.mark.parametrize(("unit", "factor"), [(3, 1e-3), (1, 1e3), (0, 1.0)])
def test_distances_are_in_millimeters_whatever_the_headers_unit_is(
    network: UNet, card: ModelCard, tmp_path: Path, unit: int, factor: float
) -> None:
    case = _case(tmp_path, network, card)
    assert case.label is not None
    numbers = torch.roll(predict_file(network, card, case.image), 1, 0).numpy().astype(np.uint8)
    write_nifti(case.label, numbers)
    expected = evaluate_cases(network, card, [case])
    alter(case.image, xyzt_units=unit)
    for of_label in (0, unit):
        alter(case.label, xyzt_units=of_label)
        found = evaluate_cases(network, card, [case])
        np.testing.assert_allclose(found.hd95, factor * expected.hd95, rtol=1e-5)
        np.testing.assert_allclose(found.surface, factor * expected.surface, rtol=1e-5)


def test_a_class_that_no_label_holds_is_no_merit(network: UNet, card: ModelCard, tmp_path: Path) -> None:
    case = _case(tmp_path, network, card)
    assert case.label is not None
    label = np.asarray(nibabel.load(case.label).dataobj)
    write_nifti(case.label, np.where(label == 2, 0, label).astype(np.uint8))
    found = evaluate_cases(network, card, [case])
    assert found.held.tolist() == [True, False, True]
    assert np.isnan(found.dice[:, 1]).all()
    assert found.mean_dice() == pytest.approx((found.dice[0, 0] + found.dice[0, 2]) / 2)
    write_nifti(case.label, np.zeros_like(label))
    with pytest.raises(SemiclError, match="no label file holds large organ, small organ, paired organ"):
        evaluate_cases(network, card, [case])


def test_a_class_that_some_label_holds_counts_in_every_case(network: UNet, card: ModelCard, tmp_path: Path) -> None:
    cases = [_case(tmp_path / name, network, card) for name in "ab"]
    assert cases[1].label is not None
    write_nifti(cases[1].label, np.zeros((21, 30, 5), np.uint8))
    found = evaluate_cases(network, card, cases)
    assert found.held.all()
    assert found.dice[1].tolist() == [0, 0, 0]  # invented
