"""Voxels of ignored values change no loss, no measure and no weights, from the label files to the predictions."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.losses.dice import DiceCELoss

from semicl.data.cases import find_cases
from semicl.data.classes import IGNORED
from semicl.data.datasets import LabelledPieces, Volumes, is_known
from semicl.data.grid import Grid
from semicl.data.prepared import read_prepared
from semicl.data.subjects import subject_rule
from semicl.data.volumes import class_numbers, shrunk_and_back
from semicl.evaluation.figures import predictions_figure
from semicl.evaluation.metrics import agreement, dice_per_class
from semicl.models.checkpoint import load_segmentation
from semicl.options import AugmentationOptions, LocalLossOptions
from semicl.training.augment import LabelledViews
from semicl.training.losses import local_contrast, segmentation_loss
from tests.semicl.conftest import (
    TINY,
    box_of,
    error_of,
    one_schedule,
    preparing,
    run_command,
    same_weights,
    write_nifti,
)


@pytest.fixture
def plain(phantom: Path, tmp_path: Path) -> Path:
    """The phantom as a plain folder; every label is known in its rear part, in all but its first four slices."""
    for kind in ("images", "labels"):
        for file in (phantom / f"{kind}Tr").iterdir():
            volume = nibabel.load(file)
            array = np.asarray(volume.dataobj).copy()
            if kind == "labels":
                array[:, 36:] = array[:, :, :4] = 255
            write_nifti(tmp_path / "d" / kind / file.name, array, volume.affine)
    return tmp_path / "d"


def _scores_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (4, 1, 16, 16), generator=generator)
    labels[:, :, 10:] = IGNORED
    return torch.randn(4, 3, 16, 16, generator=generator), labels


def test_class_numbers_of_ignored_values() -> None:
    label = np.array([0, 1, 2, 255, 7])
    assert class_numbers(label, [0, 1, 2], {255: None, 7: 2}).tolist() == [0, 1, 2, IGNORED, 2]


def test_scores_of_ignored_points_change_no_loss() -> None:
    scores, labels = _scores_and_labels()
    other = scores.clone()
    other[:, :, 10:] = 100 * torch.randn(4, 3, 6, 16)
    loss = segmentation_loss(ignores=True)
    assert torch.equal(loss(scores, labels), loss(other, labels))
    of_known = DiceCELoss(to_onehot_y=True, softmax=True)(scores[:, :, :10], labels[:, :, :10])
    torch.testing.assert_close(loss(scores, labels), of_known)
    known = labels.where(labels != IGNORED, 0)
    torch.testing.assert_close(loss(scores, known), segmentation_loss(ignores=False)(scores, known))


def test_ignored_points_have_no_gradient() -> None:
    scores, labels = _scores_and_labels()
    labels[0] = IGNORED
    scores.requires_grad_()
    segmentation_loss(ignores=True)(scores, labels).backward()
    assert scores.grad is not None
    assert not scores.grad[:, :, 10:].any()
    assert not scores.grad[0].any()
    assert scores.grad[1:, :, :10].any(1).all()
    loss = segmentation_loss(ignores=True)(scores, torch.full_like(labels, IGNORED))
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, scores)
    assert not gradient.any()


def test_features_of_ignored_points_change_no_contrast() -> None:
    features, labels = _scores_and_labels()
    other = features.clone()
    other[:, :, 10:] = torch.randn(4, 3, 6, 16)
    loss = local_contrast(LocalLossOptions(), ignores=True)
    assert torch.equal(loss(features[:, None], labels), loss(other[:, None], labels))
    torch.testing.assert_close(
        loss(features[:, None], labels),
        local_contrast(LocalLossOptions())(features[:, None, :, :10], labels[:, :, :10]),
    )


def test_predictions_of_ignored_voxels_change_no_measure() -> None:
    generator = torch.Generator().manual_seed(0)
    label, prediction = (torch.randint(0, 3, (12, 12, 6), generator=generator) for _ in range(2))
    label[8:] = IGNORED
    other = prediction.clone()
    other[8:] = torch.randint(0, 3, (4, 12, 6), generator=generator)
    assert not torch.equal(prediction, other)
    one, two = (agreement(each, label, 3, (1.0, 1.0, 2.0)) for each in (prediction, other))
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(one.dice, dice_per_class(prediction, label, 3).numpy())
    np.testing.assert_array_equal(one.dice, dice_per_class(prediction[:8], label[:8], 3).numpy())


def test_views_move_ignored_points_and_invent_no_class() -> None:
    torch.manual_seed(0)
    labels = torch.zeros(8, 32, 32, dtype=torch.uint8)
    labels[:, 8:24, 8:16], labels[:, 8:24, 16:24] = 2, IGNORED
    options = AugmentationOptions(rotation=45.0)
    moved = LabelledViews(options)(torch.rand(8, 1, 32, 32), labels)[1]
    assert moved.unique().tolist() == [0, 2, IGNORED]
    assert not torch.equal(moved == IGNORED, labels == IGNORED)
    inside = LabelledViews(options, outside=IGNORED)(torch.rand(8, 1, 32, 32), torch.zeros_like(labels))[1]
    assert inside.unique().tolist() == [0, IGNORED]


def test_what_is_ignored_is_grey_in_pictures() -> None:
    label = torch.zeros(2, 8, 8, dtype=torch.uint8)
    label[0, :4], label[1, 0, 0] = IGNORED, 1
    figure = predictions_figure({"a": torch.rand(2, 8, 8)}, {"truth": {"a": label}}, ["background", "one"])
    assert "slice 2" in figure.axes[0].get_ylabel()


def test_a_shrunk_label_is_judged_where_it_is_known(tmp_path: Path) -> None:
    label = np.zeros((32, 32, 1), np.uint8)
    label[4:12], label[16:] = 1, 255
    path = write_nifti(tmp_path / "a.nii.gz", label)
    truth, back = shrunk_and_back(path, Grid((16, 16)), (0, 1), path, {255: None})
    assert (truth == IGNORED).sum() == 16 * 32
    assert back.unique().tolist() == [0, 1]


def test_ignored_voxels_from_the_files_to_the_predictions(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = error_of(capsys, *preparing(plain, "--classes", '{"a": [1, 2], "b": 3}'))
    assert "label 255 is unknown, known are 0, 1, 3; mend the file or the classes, or prepare with --rest_is_" in line
    assert "background or --ignore 255" in line
    assert run_command(*preparing(plain, "--classes", '{"a": [1, 2], "b": 3}', "--ignore", 255, 9)) == 0
    text = capsys.readouterr().out
    assert "WARNING: no label file holds 9, to be ignored." in text
    prepared = read_prepared(tmp_path / "p")
    assert (prepared.classes, prepared.merged) == ({"background": 0, "a": 1, "b": 3}, {255: None, 9: None, 2: 1})
    pieces = LabelledPieces(prepared, prepared.cases[:2])
    pieces.keep(is_known)
    assert len(pieces) == 2 * 16
    assert pieces[0][1].unique().tolist()[-1] == IGNORED
    assert set(Volumes(prepared, prepared.cases).classes()) == {1, 2}
    tune = ["finetune", *TINY, *one_schedule(2, 16), "--label_fraction", 0.5, "--local_weight", 0.1]
    assert run_command(*tune, "--prepared", tmp_path / "p", "--output", tmp_path / "t") == 0
    model = tmp_path / "t" / "model.ckpt"
    assert load_segmentation(model)[1].ignores
    judged = []
    for source in (["--prepared", tmp_path / "p"], ["--data", plain]):
        output = tmp_path / source[0][2:]
        assert run_command("evaluate", "--checkpoint", model, *source, "--output", output) == 0
        judged.append(json.loads((output / "results.json").read_text())["cases"])
    assert all(judged[1][name] == found for name, found in judged[0].items())
    words = ["predict", "--checkpoint", model, "--input", plain / "images", "--output", tmp_path / "o"]
    assert run_command(*words) == 0
    for name, found in judged[0].items():
        predicted, label = (
            np.asarray(nibabel.load(folder / f"{name}.nii.gz").dataobj) for folder in (tmp_path / "o", plain / "labels")
        )
        assert set(np.unique(predicted)) <= {0, 1, 3}
        for values, dice in zip(([1, 2], [3]), found["dice"], strict=True):
            one, other = ((np.isin(each, values) & (label != 255)) for each in (predicted, label))
            assert dice == pytest.approx(2 * (one & other).sum() / (one.sum() + other.sum()), abs=1e-6)


def test_any_ignored_value_trains_to_the_same_weights(plain: Path, tmp_path: Path) -> None:
    other = shutil.copytree(plain, tmp_path / "other" / "d")
    for file in (other / "labels").iterdir():
        label = nibabel.load(file)
        array = np.asarray(label.dataobj).copy()
        array[array == 255] = 77
        write_nifti(file, array, label.affine)
    for folder, value in ((plain, 255), (other, 77)):
        assert run_command(*preparing(folder, "--ignore", value)) == 0
        for stage in ("pretrain-local", "finetune"):
            words = [stage, *TINY, *one_schedule(1, 16), "--label_fraction", 0.5, "--prepared", folder.parent / "p"]
            assert run_command(*words, "--output", folder.parent / stage) == 0
    for stage in ("pretrain-local", "finetune"):
        assert same_weights(plain.parent / stage / "model.ckpt", other.parent / stage / "model.ckpt")


def test_a_stage_is_not_resumed_with_other_ignored_values(plain: Path, tmp_path: Path) -> None:
    for more, code in ((["--ignore", 255], 0), (["--ignore", 255, 3], 1)):
        assert run_command(*preparing(plain, *more, "--overwrite")) == 0
        tune = ["finetune", *TINY, *one_schedule(1, 40), "--label_fraction", 0.5, "--prepared", tmp_path / "p"]
        assert run_command(*tune, "--output", tmp_path / "t", "--resume") == code


def test_a_class_of_a_description_that_is_named_ignore_is_none(own_phantom: Path, tmp_path: Path) -> None:
    description = json.loads((own_phantom / "dataset.json").read_text())
    description["labels"]["3"] = "ignore"
    (own_phantom / "dataset.json").write_text(json.dumps(description))
    found = find_cases(own_phantom, subject_rule)
    assert (list((found.classes or {}).values()), found.ignored) == ([0, 1, 2], (3,))
    assert (
        run_command("prepare", "--data", own_phantom, "--prepared", tmp_path / "p", "--patch_size", 32, 32, "--resize")
        == 0
    )
    prepared = read_prepared(tmp_path / "p")
    assert prepared.merged == {3: None}
    assert np.unique(prepared.label(prepared.cases[0])).tolist() == [0, 1, 2, IGNORED]


def test_values_that_cannot_be_ignored_are_told(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "takes values other than 0, which is the background" in box_of(capsys, *preparing(plain, "--ignore", 0))
    line = error_of(capsys, *preparing(plain, "--classes", '{"a": 1, "b": 255}', "--ignore", 255))
    assert "--classes takes no value that --ignore 255 takes, got " in line
