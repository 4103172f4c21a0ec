"""Slices and patches cover the volumes, and come with their own labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from semicl.pieces import ImagePieces, LabelledPieces, Volumes, has_foreground
from semicl.prepared import Prepared
from semicl.volumes import Grid


def test_every_axial_slice_is_there_once(prepared: Prepared) -> None:
    cases = prepared.cases[:3]
    pieces = LabelledPieces(prepared, cases)
    volumes = Volumes(prepared, cases)
    images = torch.cat([volumes[k].image for k in range(3)])
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
