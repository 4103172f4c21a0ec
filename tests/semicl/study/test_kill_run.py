"""A part of `python -m tests.semicl.study.kill_run`: a killed run goes on to the bits of one left alone."""

import random
from pathlib import Path

import pytest
import torch

from tests.semicl.study.kill_run import Reference, content, new_experiment, torn_files, trial


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """A run that is left alone."""
    return Reference(tmp_path_factory.mktemp("runs") / "reference")


def test_a_run_that_is_killed_twice_comes_to_the_same(tmp_path: Path, reference: Reference) -> None:
    assert trial(tmp_path / "run", reference, random.Random(3), 2, by_clock=False) > 0


def test_what_is_torn_or_other_is_found(tmp_path: Path, reference: Reference) -> None:
    folder = tmp_path / "run"
    new_experiment(folder)
    found = []
    for value in (0.0, 1.0):
        torch.save({"state_dict": {"weight": torch.full((100,), value)}}, folder / "model.ckpt")
        found.append(content(folder))
        assert list(torn_files(folder)) == []
    assert found[0] != found[1]
    assert len(reference.content) > 30
    (folder / "model.ckpt").write_bytes((folder / "model.ckpt").read_bytes()[:500])
    (folder / "a.json").write_text('{"a": ')
    assert [line.split(":")[0] for line in torn_files(folder)] == [f"{folder}/a.json", f"{folder}/model.ckpt"]
