"""With one device, the variables of SLURM and other launchers do not matter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pytorch_lightning.utilities import rank_zero_only

from semicl.data.prepared import Prepared
from tests.semicl.conftest import TINY, one_schedule, run_command

SLURM = {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "7"}
LAUNCHERS = {
    "sbatch": SLURM,
    "srun": SLURM | {"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0"},
    "torchrun": {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "none",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
    },
    "LSF": {"LSB_JOBID": "7", "LSB_DJOB_RANKFILE": "none", "JSM_NAMESPACE_LOCAL_RANK": "1", "JSM_NAMESPACE_SIZE": "4"}
    | {"JSM_NAMESPACE_RANK": "1"},
}


def test_a_rank_that_is_no_number_is_ignored(prepared: Prepared, tmp_path: Path) -> None:
    ranks = {"RANK": "x", "LOCAL_RANK": "", "SLURM_PROCID": "1.5", "JSM_NAMESPACE_RANK": "x", "WORLD_SIZE": "x"}
    words = ["finetune", *TINY, *one_schedule(1, 40), "--label_fraction", "0.2", "--prepared", str(prepared.folder)]
    command = [sys.executable, "-m", "semicl", *words, "--output", str(tmp_path / "o")]
    done = subprocess.run(command, env=os.environ | ranks, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o" / "summary.json").is_file()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_one_device_trains_as_if_they_were_unset(
    prepared: Prepared,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    launcher: str,
) -> None:
    for name, value in LAUNCHERS[launcher].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_zero_only, "rank", 0 if launcher == "sbatch" else 1)  # as Lightning's import finds them
    words = ["finetune", *TINY, *one_schedule(1, 40), "--label_fraction", "0.2", "--prepared", prepared.folder]
    assert run_command(*words, "--output", tmp_path / "o") == 0
    text = capsys.readouterr().out
    assert "best validation Dice" in text
    assert "Next: semicl evaluate" in text
    assert (tmp_path / "o" / "summary.json").is_file()
