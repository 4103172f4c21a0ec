"""What a stage's result depends on tells images that fit the patch, larger ones and shrunk ones apart."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DistributedSampler

from semicl.data.datasets import Draw, LabelledPieces
from semicl.data.prepare import prepare
from semicl.data.prepared import Prepared
from semicl.options import PrepareOptions, SourceOptions
from semicl.training.inputs import StageInputs, data_seen
from semicl.training.trainer import Draws
from tests.semicl.conftest import TINY, one_schedule, run_command, same_weights


def _prepared(phantom: Path, folder: Path, **options: Any) -> Prepared:
    return prepare(SourceOptions(str(phantom), folder), PrepareOptions(repeats=1, **options))


def _seen(prepared: Prepared) -> dict[str, Any]:
    split = prepared.split(0)
    return data_seen(prepared, split, StageInputs(split.training), labels=False)


@pytest.mark.parametrize("resize", [False, True])
def test_images_that_fit_the_patch_have_the_names_they_had_before(phantom: Path, tmp_path: Path, resize: bool) -> None:
    seen = _seen(_prepared(phantom, tmp_path, patch_size=(64, 64), resize=resize))
    assert set(seen) == {"patch_size", "spacing", "sliding_window", "split of hash", "files"}
    assert (seen["patch_size"], seen["spacing"], seen["sliding_window"]) == ((64, 64), None, False)


def test_larger_images_tell_whether_they_are_cut_or_shrunk(phantom: Path, tmp_path: Path) -> None:
    shrunk = _seen(_prepared(phantom, tmp_path / "shrunk", patch_size=(32, 32), resize=True))
    slices = _seen(_prepared(phantom, tmp_path / "slices", patch_size=(32, 32)))
    space = _seen(_prepared(phantom, tmp_path / "space", patch_size=(16, 32, 32)))
    assert (shrunk["sliding_window"], "patches" in shrunk) == (False, False)
    assert (slices["sliding_window"], slices["patches"]) == (True, "random")
    assert (space["sliding_window"], space["patches"]) == (True, "random")


def test_images_that_fit_the_patch_are_drawn_as_before_there_were_patches(prepared: Prepared) -> None:
    pieces = LabelledPieces(prepared, prepared.cases[:2])
    draws = Draws(pieces, 1, 0, shuffle=True, seed=3)
    before: DistributedSampler[Any] = DistributedSampler(pieces, 1, 0, shuffle=True, seed=3)
    for epoch in (0, 1):
        draws.set_epoch(epoch)
        before.set_epoch(epoch)
        assert list(draws) == [Draw(number, (3, epoch)) for number in before]
    state = torch.get_rng_state()
    volume = torch.tensor(prepared.image(prepared.cases[1]))
    assert torch.equal(pieces[Draw(27, (3, 1))][0], volume[:, 7])
    assert torch.equal(torch.get_rng_state(), state)


def test_to_shrink_changes_nothing_where_all_images_fit(phantom: Path, tmp_path: Path) -> None:
    for resize in (False, True):
        folder = _prepared(phantom, tmp_path / f"p{resize}", patch_size=(64, 64), resize=resize).folder
        words = ["finetune", *TINY, *one_schedule(1, 16), "--label_fraction", "0.2", "--validation_volumes", "1"]
        assert run_command(*words, "--prepared", folder, "--output", tmp_path / f"t{resize}") == 0
    assert same_weights(tmp_path / "tTrue" / "model.ckpt", tmp_path / "tFalse" / "model.ckpt")
