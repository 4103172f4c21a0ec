"""Nobody sees what they must not: each forbidden array is damaged so that reading it would fail."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from semicl.data.cases import Case
from semicl.data.prepared import Prepared, read_prepared
from semicl.data.splits import Split
from semicl.errors import SemiclError
from semicl.evaluation.inference import predict_file
from semicl.models.checkpoint import ModelCard, read_card
from semicl.models.unet import UNet
from tests.semicl.conftest import TINY, error_of, one_schedule, run_command, same_weights

FRACTION = 0.34
GLOBAL = ("pretrain-global",)
LOCAL = ("pretrain-local", "--label_fraction", FRACTION, "--loss.block_size", 8)
SELF_SUPERVISED = (*LOCAL, "--loss.no_supervised", "--loss.stride", "8")
FINE_TUNE = ("finetune", "--label_fraction", FRACTION)
TCSM = (*FINE_TUNE, "--tcsm.weight", 1)
FIXMATCH = (*FINE_TUNE, "--fixmatch.weight", 1, "--fixmatch.confidence", 0.5)
STAGES = pytest.mark.parametrize(
    "stage",
    [GLOBAL, LOCAL, SELF_SUPERVISED, FINE_TUNE, TCSM, FIXMATCH],
    ids=["global", "local", "self-supervised", "fine-tune", "tcsm", "fixmatch"],
)


def _words(stage: tuple[object, ...], prepared: Path, output: Path) -> list[object]:
    return [*stage, *TINY, *one_schedule(batch_size=32), "--prepared", prepared, "--output", output]


def _files(prepared: Path, kind: str, cases: Iterable[Case]) -> set[Path]:
    return {prepared / "cache" / f"{case.name}.{kind}.npy" for case in cases}


def _allowed(prepared: Path, split: Split, stage: tuple[object, ...]) -> set[Path]:
    """The arrays that a stage may read."""
    labelled = split.labelled(FRACTION)
    if stage == LOCAL:
        return _files(prepared, "image", labelled) | _files(prepared, "label", labelled)
    if stage in (FINE_TUNE, TCSM, FIXMATCH):
        seen = (*labelled, *split.validation)
        unlabelled = () if stage == FINE_TUNE else split.training
        return _files(prepared, "image", (*seen, *unlabelled)) | _files(prepared, "label", seen)
    return _files(prepared, "image", split.training)


def _poison(files: Iterable[Path]) -> None:
    for file in files:
        file.write_bytes(b"poison")


@STAGES
def test_a_stage_reads_what_it_may_and_nothing_else(
    prepared: Prepared, own_prepared: Path, tmp_path: Path, stage: tuple[object, ...]
) -> None:
    split = prepared.split(0)
    allowed = _allowed(own_prepared, split, stage)
    forbidden = set((own_prepared / "cache").iterdir()) - allowed
    assert _files(own_prepared, "image", split.test) <= forbidden
    assert _files(own_prepared, "label", split.test) <= forbidden
    _poison(forbidden)
    poisoned = read_prepared(own_prepared)
    with pytest.raises(SemiclError):
        poisoned.image(split.test[0])
    assert run_command(*_words(stage, own_prepared, tmp_path / "poisoned")) == 0
    assert run_command(*_words(stage, prepared.folder, tmp_path / "clean")) == 0
    assert same_weights(tmp_path / "poisoned" / "model.ckpt", tmp_path / "clean" / "model.ckpt")


@STAGES
def test_a_stage_does_read_what_it_may(
    own_prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: tuple[object, ...]
) -> None:
    allowed = _allowed(own_prepared, read_prepared(own_prepared).split(0), stage)
    for file in sorted(allowed)[:: max(1, len(allowed) // 4)]:
        content = file.read_bytes()
        _poison([file])
        assert str(file) in error_of(capsys, *_words(stage, own_prepared, tmp_path / "o"))
        file.write_bytes(content)


def test_no_training_command_opens_the_users_files(
    prepared: Prepared, own_prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(*_: object) -> None:
        raise AssertionError("a NIfTI file was opened")

    monkeypatch.setattr("semicl.data.checks.nibabel.load", poisoned)
    for stage in (GLOBAL, LOCAL, FINE_TUNE):
        assert run_command(*_words(stage, own_prepared, tmp_path / str(stage[0]))) == 0


@pytest.mark.parametrize("stage", [GLOBAL, SELF_SUPERVISED], ids=["global", "self-supervised"])
def test_transductive_adds_test_images_says_so_and_opens_no_label(
    prepared: Prepared,
    own_prepared: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stage: tuple[object, ...],
) -> None:
    split = prepared.split(0)
    _poison(_files(own_prepared, "label", prepared.cases))
    _poison(_files(own_prepared, "image", split.validation))
    words = _words(stage, own_prepared, tmp_path / "o")
    assert run_command(*words, "--transductive") == 0
    text = capsys.readouterr().out
    assert f"TRANSDUCTIVE: pre-training sees the images, not the labels, of {len(split.test)} test cases" in text
    _poison(_files(own_prepared, "image", split.test[:1]))
    assert split.test[0].name in error_of(capsys, *words, "--transductive", "--overwrite")


def test_evaluation_on_validation_leaves_the_test_alone(
    prepared: Prepared, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    def recorded(network: UNet, card: ModelCard, image: Path, more: Sequence[Path]) -> Tensor:
        opened.append(image)
        return predict_file(network, card, image, more)

    monkeypatch.setattr("semicl.evaluation.measures.predict_file", recorded)
    words = ["evaluate", "--checkpoint", checkpoint, "--prepared", prepared.folder, "--output", tmp_path / "e"]
    split = prepared.split(0)
    for part, cases in (("validation", split.validation), ("test", split.test)):
        opened.clear()
        assert run_command(*words, "--part", part, "--overwrite") == 0
        assert opened == [case.image for case in cases]


def test_stages_two_and_three_share_one_fraction(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both open the same training labels, those that the split hands out, and the checkpoint names them."""
    opened: set[str] = set()
    label = Prepared.label

    def recorded(self: Prepared, case: Case) -> np.ndarray:
        opened.add(case.name)
        return label(self, case)

    monkeypatch.setattr(Prepared, "label", recorded)
    split = prepared.split(0)
    labelled = {case.name for case in split.labelled(FRACTION)}
    for stage in (LOCAL, FINE_TUNE):
        opened.clear()
        output = tmp_path / str(stage[0])
        assert run_command(*_words(stage, prepared.folder, output)) == 0
        assert opened - {case.name for case in split.validation} == labelled
        (seen,) = read_card(output / "model.ckpt").seen
        assert set(seen.labelled) == labelled
