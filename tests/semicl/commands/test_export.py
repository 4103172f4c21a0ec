"""A MONAI bundle predicts what `semicl predict` does, without semicl."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from semicl.data.grid import Grid
from semicl.evaluation.bundle import FILES
from semicl.models.checkpoint import ModelCard
from tests.semicl.commands.test_predict import GEOMETRIES
from tests.semicl.conftest import error_of, run_command, write_nifti

SLICES = {"grid": Grid((32, 32), sliding_window=True), "classes": {"background": 0, "heart": 4, "lesion": 300}}
AFFINE = np.diag([2.0, 2, 1.5, 1])
PATCHES = {"grid": Grid((8, 16, 16), (2.0, 1.0, 1.5)), "channels": 2}


def _checkpoint(folder: Path, card: ModelCard) -> Path:
    """A network of random weights whose classes are sure."""
    network = card.new_network(seed=0)
    with torch.no_grad():
        network.classifier.weight *= 20
    path = folder / "model.ckpt"
    torch.save({"state_dict": network.state_dict(), "semicl": card.to_dict()}, path)
    return path


@pytest.mark.parametrize("changed", [SLICES, PATCHES], ids=["slices", "patches"])
def test_a_bundle_predicts_what_predict_does(changed: dict, card: ModelCard, tmp_path: Path) -> None:
    card = replace(card, **changed)
    random, images = np.random.default_rng(0), tmp_path / "images [1]"
    for name, (shape, affine) in GEOMETRIES.items():
        if name != "tiny" or card.grid.spacing is None:
            write_nifti(
                images / f"{name}.nii.gz",
                random.normal(random.integers(0, 9, 1), 1e3, (*shape, *([2] if card.channels == 2 else []))),
                affine,
            )
    channels = [card.channels] if card.channels > 1 else [1]
    write_nifti(images / "a slice v1.2.nii", random.normal(0, 1, (33, 41, 1, *channels)))
    vessel = np.zeros((40, 40, 20, *channels))  # the two percentiles of its scale are one value
    vessel[20, 20] = random.normal(1e3, 2e2, (20, *channels))
    write_nifti(images / "vessel.nii.gz", vessel)
    told_twice = write_nifti(images / "pixdim.nii", random.normal(0, 1, (33, 41, 9, *channels)), AFFINE)
    content = bytearray(told_twice.read_bytes())
    content[80:92] = np.array([1, 1, 1], np.float32).tobytes()  # its pixdim
    told_twice.write_bytes(content)
    (images / "vessel.nii.json").write_text("{}")
    (images / "notes.txt").write_text("none")
    checkpoint, bundle = _checkpoint(tmp_path, card), tmp_path / "my bundle"
    assert run_command("export", "--checkpoint", checkpoint, "--bundle", bundle) == 0
    written = sorted(str(file.relative_to(bundle)) for file in bundle.rglob("*") if file.is_file())
    assert written == sorted(FILES)
    words = ["--checkpoint", checkpoint, "--input", images, "--output", tmp_path / "expected"]
    assert run_command("predict", *words) == 0
    words = ["run", "--config_file", "configs/inference.json", "--dataset_dir", images]
    found = _monai(bundle, *words, "--output_dir", tmp_path / "found")
    assert found.returncode == 0, found.stderr
    names = sorted(file.name for file in (images).glob("*.nii*") if file.suffix != ".json")
    assert sorted(file.name for file in (tmp_path / "found").iterdir()) == names
    seen = set()
    for name in names:
        expected, own = (nibabel.load(tmp_path / folder / name) for folder in ("expected", "found"))
        assert own.get_data_dtype() == expected.get_data_dtype()
        np.testing.assert_allclose(own.affine, expected.affine, atol=1e-5)
        labels = np.asanyarray(own.dataobj)
        assert labels.ndim == 3
        assert (labels == np.asanyarray(expected.dataobj).reshape(labels.shape)).mean() > 0.999, name
        seen |= set(np.unique(labels).tolist())
    assert seen == set(card.classes.values())


def _monai(bundle: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Call MONAI in a bundle's folder, where semicl cannot be imported."""
    hidden = "import sys; sys.modules['semicl'] = None; sys.argv[0] = 'bundle'; import runpy; "
    command = [sys.executable, "-c", f"{hidden}runpy.run_module('monai.bundle', run_name='__main__')"]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *map(str, words)], cwd=bundle, env=environment, capture_output=True, text=True, timeout=300
    )


def test_a_folder_without_images_and_one_whose_images_would_be_replaced_are_refused(
    card: ModelCard, tmp_path: Path
) -> None:
    bundle, images = tmp_path / "bundle", tmp_path / "images[1]"
    assert (
        run_command("export", "--checkpoint", _checkpoint(tmp_path, replace(card, **SLICES)), "--bundle", bundle) == 0
    )
    images.mkdir()
    words = ["run", "--config_file", bundle / "configs" / "inference.json", "--bundle_root", bundle]
    words += ["--dataset_dir", images, "--output_dir"]
    found = _monai(tmp_path, *words, tmp_path / "o")
    assert found.returncode == 1
    assert "images[1]: holds no .nii or .nii.gz file" in found.stderr
    image = write_nifti(images / "x.nii.gz", np.random.default_rng(0).random((20, 20, 3)))
    before = image.read_bytes()
    found = _monai(tmp_path, *words, images)
    assert found.returncode == 1
    assert "images[1]: its images would be replaced" in found.stderr
    assert image.read_bytes() == before


def test_the_metadata_are_those_of_the_network(card: ModelCard, tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path, replace(card, **SLICES))
    assert run_command("export", "--checkpoint", checkpoint, "--bundle", tmp_path / "bundle") == 0
    words = ["verify_net_in_out", "--net_id", "network_def", "--meta_file", "configs/metadata.json"]
    found = _monai(tmp_path / "bundle", *words, "--config_file", "configs/inference.json", "--device", "cpu")
    assert found.returncode == 0, found.stderr
    metadata = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())
    classes = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert classes == {"0": "background", "1": "heart", "2": "lesion"}
    readme = (tmp_path / "bundle" / "docs" / "README.md").read_text()
    assert "heart (4), lesion (300)" in readme


def test_a_bundle_is_replaced_only_when_asked(
    card: ModelCard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "--checkpoint", _checkpoint(tmp_path, replace(card, **SLICES)), "--bundle", tmp_path / "bundle"]
    assert run_command(*words) == 0
    assert "is there already; give another --bundle, or --overwrite" in error_of(capsys, *words)
    assert run_command(*words, "--overwrite") == 0


def test_a_checkpoint_that_shrinks_its_slices_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "--checkpoint", checkpoint, "--bundle", tmp_path / "bundle"]
    assert "shrinks slices that are larger than its patch" in error_of(capsys, *words)
    assert not (tmp_path / "bundle").exists()
