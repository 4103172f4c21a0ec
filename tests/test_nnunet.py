"""The trainer of examples/nnunet in nnU-Net itself: small pictures are planned, preprocessed and trained on."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """
import json, os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
from nnUNetTrainerContrast import nnUNetTrainerContrast

if __name__ == "__main__":  # its workers import this file again
    raw = Path(os.environ["nnUNet_raw"]) / "Dataset001_Squares"
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "labelsTr").mkdir()
    random = np.random.default_rng(0)
    for number in range(10):
        label = np.zeros((64, 64), np.uint8)
        top, left = random.integers(4, 20, 2)
        label[top : top + 16, left : left + 16], label[top + 24 : top + 40, left + 20 : left + 36] = 1, 2
        values = np.array([100, 180, 30])[label] + random.normal(0, 20, label.shape)
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(raw / "imagesTr" / f"case{number}_0000.png")
        Image.fromarray(label).save(raw / "labelsTr" / f"case{number}.png")
    described = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "one": 1, "two": 2}}
    described |= {"numTraining": 10, "file_ending": ".png"}
    (raw / "dataset.json").write_text(json.dumps(described))
    extract_fingerprints([1], num_processes=1)
    plan_experiments([1])
    preprocess([1], configurations=("2d",), num_processes=(1,))
    made = Path(os.environ["nnUNet_preprocessed"]) / raw.name
    plans = {**json.loads((made / "nnUNetPlans.json").read_text()), "continue_training": False}
    trainer = nnUNetTrainerContrast(plans, "2d", 0, described, device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 2, 1
    trainer.initialize()
    before = trainer.loss.projection.weight.clone()
    trainer.run_training()
    assert not torch.equal(trainer.loss.projection.weight, before), "the projection has learned"
    kept = torch.load(trainer.output_folder + "/checkpoint_final.pth", weights_only=False)
    assert kept["trainer_name"] == "nnUNetTrainerContrast"
    assert {*kept["network_weights"]} == {*trainer.network.state_dict()}
    print("trained", trainer.logger.get_value("train_losses", step=-1))
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("nnunetv2") is None, reason="nnunetv2 is not installed: `pip install nnunetv2`")
def test_nnunet_trains_with_it(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    folders = {name: str(tmp_path / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    path = os.pathsep.join(filter(None, [str(ROOT / "examples" / "nnunet"), os.environ.get("PYTHONPATH")]))
    own = {"PYTHONPATH": path, "nnUNet_compile": "f", "nnUNet_n_proc_DA": "1"}
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=600,
        env={**os.environ, **folders, **own, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "trained" in done.stdout
