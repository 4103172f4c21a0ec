"""`semicl embed` draws the features of validation pixels, class by class, before and after."""

import json
from pathlib import Path

import numpy as np
import pytest

from semicl.data.datasets import Volumes
from semicl.data.prepared import Prepared
from semicl.evaluation import embedding as module
from semicl.options import EmbedOptions
from tests.semicl.conftest import box_of, error_of, run_command


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_a_picture(tuned: Path, prepared: Prepared, tmp_path: Path, method: str) -> None:
    output = tmp_path / "e.png"
    words = ["embed", "--checkpoint", tuned, "--prepared", prepared.folder, "--output", output, "--points", "20"]
    assert run_command(*words, "--method", method) == 0
    assert output.read_bytes().startswith(b"\x89PNG")


def test_what_was_trained_on_is_not_drawn(
    tuned: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["embed", "--checkpoint", tuned, "--prepared", prepared.folder, "--output", tmp_path / "e.png"]
    assert "was trained on split 0 of Phantom" in error_of(capsys, *words, "--split", "1")


def test_every_class_has_about_its_share(prepared: Prepared) -> None:
    volumes = Volumes(prepared, prepared.split(0).validation)
    chosen = module._choose(volumes, 4, EmbedOptions(Path("c"), points=40))
    labels = np.concatenate([volumes[k].label.flatten().numpy()[places] for k, places in enumerate(chosen)])
    assert np.bincount(labels).tolist() == [40] * 4


def test_unusable_input_is_one_line(tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["embed", "--checkpoint", tuned, "--output", tmp_path / "e.png"]
    assert "prepared.json: no such file" in error_of(capsys, *words, "--prepared", tmp_path)
    assert "output: takes the name of a .png file" in box_of(capsys, "embed", "--checkpoint", tuned, "--output", "e")
    prepare = ["prepare", "--data", "phantom", "--phantom_subjects", "5", "--prepared", tmp_path / "p"]
    assert run_command(*prepare, "--patch_size", "16", "16") == 0
    capsys.readouterr()
    assert "was trained on Grid" in error_of(capsys, *words, "--prepared", tmp_path / "p")


def test_what_becomes_of_larger_slices_counts_where_there_are_any(
    tuned: Path, own_prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["embed", "--checkpoint", tuned, "--prepared", own_prepared, "--output", tmp_path / "e.png"]
    path = own_prepared / "prepared.json"
    content = json.loads(path.read_text()) | {"sliding_window": True}
    path.write_text(json.dumps(content | {"is_cut": True}))
    assert "was trained on Grid" in error_of(capsys, *words)
    path.write_text(json.dumps(content | {"is_cut": False}))
    assert run_command(*words, "--method", "pca", "--points", "4", "--volumes", "1") == 0


def test_a_picture_is_replaced_only_when_that_is_asked_for(
    tuned: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "e.png"
    output.write_text("mine")
    words = ["embed", "--checkpoint", tuned, "--prepared", prepared.folder, "--output", output]
    assert "e.png: is there already; give another --output, or --overwrite" in error_of(capsys, *words)
    assert output.read_text() == "mine"
    few = ["--method", "pca", "--points", "4", "--volumes", "1"]
    assert run_command(*words, *few, "--overwrite") == 0
    for read in (tuned, prepared.folder / "prepared.json", prepared.cases[0].image):
        output.unlink()
        output.symlink_to(read)
        assert "which is read and would be replaced" in error_of(capsys, *words, "--overwrite")
