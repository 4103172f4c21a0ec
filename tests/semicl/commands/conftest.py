"""Checkpoints that commands leave behind, made once."""

from pathlib import Path

import pytest

from semicl.data.prepared import Prepared
from tests.semicl.conftest import TINY, one_schedule, run_command


@pytest.fixture(scope="session")
def tuned(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that `semicl finetune` wrote, not to be changed."""
    output = tmp_path_factory.mktemp("runs") / "finetune"
    words = ["finetune", *TINY, *one_schedule(2), "--label_fraction", "0.2", "--prepared", prepared.folder]
    assert run_command(*words, "--output", output) == 0
    return output / "model.ckpt"
