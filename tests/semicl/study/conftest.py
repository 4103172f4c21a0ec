"""A small study that is run once, and the words that run one."""

import json
import multiprocessing.forkserver
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from semicl.data.prepared import Prepared
from tests.semicl.conftest import run_command

CONFIG: dict[str, Any] = {
    "network": {"widths": [4, 6, 8], "centre": None},
    "label_fractions": [0.34],
    "prepare": {"patch_size": [32, 32], "resize": True, "repeats": 2},
    "pretrain_global": {"schedule": {"epochs": 1, "batch_size": 32, "learning_rate": 1e-3}, "channels": 8},
    "finetune": {
        "schedule": {"epochs": 8, "batch_size": 8, "learning_rate": 1e-3},
        "validation_volumes": 2,
        "keep_last": True,
    },
    "methods": {"random": {}, "global": {"stages": ["pretrain_global"]}},
}

Words = Callable[..., list[Any]]


@pytest.fixture(scope="session")
def words(phantom: Path, prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Words:
    """The command line of the study into an output folder, with changes of its config."""

    def make(output: Path, **changes: Any) -> list[Any]:
        data = ["--data", changes.pop("data", phantom), "--prepared", changes.pop("prepared", prepared.folder)]
        config = tmp_path_factory.mktemp("configs") / "study.yaml"
        config.write_text(json.dumps(CONFIG | changes))
        return ["table", "--config", config, *data, "--output", output]

    return make


@pytest.fixture(scope="session", autouse=True)
def _own_forkserver() -> Iterator[None]:
    """A process has one server to fork from, with what was imported when it began: other tests' must not serve here.

    With theirs, every stage would import everything anew.
    """
    multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]
    yield
    multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def study(words: Words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that came to its end, not to be changed."""
    output = tmp_path_factory.mktemp("studies") / "whole"
    assert run_command(*words(output)) == 0
    return output
