"""Slices and patches cover the volumes, and come with their own labels."""

import itertools
import os
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from semicl.data.datasets import ImagePieces, LabelledPieces, Volumes, has_foreground
from semicl.data.grid import Grid
from semicl.data.prepared import Prepared


def test_every_axial_slice_is_there_once(prepared: Prepared) -> None:
    cases = prepared.cases[:3]
    pieces = LabelledPieces(prepared, cases)
    volumes = Volumes(prepared, cases)
    images = torch.cat([volumes[k].image[0] for k in range(3)])
    labels = torch.cat([volumes[k].label for k in range(3)])
    assert len(pieces) == len(images)
    assert torch.equal(torch.stack([pieces[k][0] for k in range(len(pieces))])[:, 0], images)
    assert torch.equal(torch.stack([pieces[k][1] for k in range(len(pieces))]), labels)
    unlabelled = ImagePieces(prepared, cases)
    assert torch.equal(torch.stack([unlabelled[k] for k in range(len(unlabelled))])[:, 0], images)


def test_patches_overlap_by_half_and_cover_every_voxel(prepared: Prepared) -> None:
    patches = replace(prepared, grid=Grid((8, 16, 16)))
    pieces = LabelledPieces(patches, prepared.cases[:1])
    assert all(pieces[k][0].shape == (1, 8, 16, 16) and pieces[k][1].shape == (8, 16, 16) for k in range(len(pieces)))
    assert len(pieces) == 4 * 3 * 3
    seen = np.unique(np.concatenate([pieces[k][0].flatten() for k in range(len(pieces))]))
    assert np.array_equal(seen, np.unique(prepared.image(prepared.cases[0])))


def test_only_pieces_with_foreground_are_kept(prepared: Prepared) -> None:
    pieces = LabelledPieces(prepared, prepared.cases[:2])
    with_foreground = sum(has_foreground(pieces[k][1]) for k in range(len(pieces)))
    pieces.keep(has_foreground)
    assert len(pieces) == with_foreground < 40
    assert all((pieces[k][1] > 0).any() for k in range(len(pieces)))


def test_a_piece_is_a_copy(prepared: Prepared) -> None:
    pieces = ImagePieces(prepared, prepared.cases[:1])
    pieces[3].fill_(7)
    assert pieces[3].max() <= 1


def test_volumes_leave_out_cases_without_a_label(prepared: Prepared) -> None:
    cases = [replace(prepared.cases[0], label=None), prepared.cases[1]]
    assert [volume.name for volume in (Volumes(prepared, cases)[k] for k in range(1))] == [prepared.cases[1].name]
    assert len(Volumes(prepared, cases)) == 1


@pytest.mark.parametrize("kind", [ImagePieces, LabelledPieces])
def test_no_case_is_no_piece(prepared: Prepared, kind: type[ImagePieces]) -> None:
    assert len(kind(prepared, [])) == 0


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files by Linux's /proc")
@pytest.mark.parametrize("workers", [0, 1])
def test_any_number_of_cases_needs_few_open_files(prepared: Prepared, workers: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_open_files() + 24, hard))
    try:
        pieces = LabelledPieces(prepared, prepared.cases * 3)
        assert len(pieces) == 3 * 20 * 20
        batches = DataLoader(Subset(pieces, range(0, len(pieces), 20)), batch_size=16, num_workers=workers)
        assert sum(len(images) for images, _ in batches) == 60
        pieces.keep(has_foreground)
        assert len(ImagePieces(prepared, prepared.cases * 3)) == 3 * 20 * 20
        volumes = Volumes(prepared, prepared.cases * 3)
        kept = [volumes[number] for number in range(len(volumes))]
        assert len(kept) == 60
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_patches_of_slices_cover_every_pixel(prepared: Prepared) -> None:
    slices = LabelledPieces(prepared, prepared.cases[:1])
    patches = LabelledPieces(replace(prepared, grid=Grid((16, 16), sliding_window=True)), prepared.cases[:1])
    assert len(patches) == 9 * len(slices)
    for number in (0, 7, 19):
        image, label = slices[number]
        for place, (top, left) in enumerate(itertools.product((0, 8, 16), (0, 8, 16))):
            found = patches[9 * number + place]
            assert torch.equal(found[0], image[:, top : top + 16, left : left + 16])
            assert torch.equal(found[1], label[top : top + 16, left : left + 16])
