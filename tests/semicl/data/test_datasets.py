"""Slices and patches cover the volumes, and come with their own labels."""

import os
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from semicl.data import datasets
from semicl.data.datasets import Draw, ImagePieces, LabelledPieces, Volumes, has_foreground
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


@pytest.mark.parametrize("kind", [ImagePieces, LabelledPieces])
def test_pieces_that_fit_the_patch_follow_from_their_numbers_alone(
    prepared: Prepared, kind: type[ImagePieces] | type[LabelledPieces]
) -> None:
    pieces = kind(prepared, prepared.cases[:2])
    for number in (0, 7, 39):
        torch.testing.assert_close(pieces[Draw(number, (3, 5))], pieces[number], rtol=0, atol=0)


def _cut(prepared: Prepared, patch_size: tuple[int, ...]) -> Prepared:
    """Prepared volumes of 20 x 32 x 32, of which patches are taken."""
    return replace(prepared, grid=Grid(patch_size, sliding_window=len(patch_size) == 2))


@pytest.mark.parametrize(("patch_size", "count"), [((8, 16, 24), 3 * 2 * 2), ((16, 20), 20 * 2 * 2)])
@pytest.mark.parametrize("kind", [ImagePieces, LabelledPieces])
def test_random_patches_cover_every_voxel(
    prepared: Prepared, patch_size: tuple[int, ...], count: int, kind: type[ImagePieces] | type[LabelledPieces]
) -> None:
    case = prepared.cases[0]
    volume, label = np.array(prepared.image(case)[0]), np.array(prepared.label(case))
    pieces = kind(_cut(prepared, patch_size), [case])
    assert len(pieces) == count
    seen = set()
    for epoch in range(40):
        for number in range(count):
            piece = pieces[Draw(number, (0, epoch))]
            image = piece if isinstance(piece, torch.Tensor) else piece[0]
            assert image.shape == (1, *patch_size)
            seen |= set(np.unique(image))
            if epoch == 0 and not isinstance(piece, torch.Tensor):
                assert _is_at_one_place(image[0].numpy(), piece[1].numpy(), volume, label)
    assert len(seen) > 0.99 * len(np.unique(volume))


def _is_at_one_place(image: np.ndarray, numbers: np.ndarray, volume: np.ndarray, label: np.ndarray) -> bool:
    """Whether image and class numbers are the same part of a volume and its label."""
    if image.ndim == 2:
        image, numbers = image[None], numbers[None]
    corners = np.argwhere(volume == image.flat[0])
    parts = [tuple(slice(c, c + side) for c, side in zip(corner, image.shape, strict=True)) for corner in corners]
    return any(np.array_equal(volume[part], image) and np.array_equal(label[part], numbers) for part in parts)


@pytest.mark.parametrize("patch_size", [(8, 16, 16), (16, 16)])
def test_a_draw_is_a_patch_whatever_was_drawn_before(prepared: Prepared, patch_size: tuple[int, ...]) -> None:
    first, second = (LabelledPieces(_cut(prepared, patch_size), prepared.cases[:2]) for _ in range(2))
    draws = [Draw(number, (4, epoch)) for epoch in range(2) for number in range(0, len(first), 7)]
    found = {draw: first[draw] for draw in draws}
    for draw in reversed(draws):
        torch.testing.assert_close(second[draw], found[draw], rtol=0, atol=0)
    assert not torch.equal(first[Draw(7, (4, 0))][0], first[Draw(7, (4, 1))][0])
    assert not torch.equal(first[Draw(7, (4, 0))][0], first[Draw(7, (5, 0))][0])
    batches = DataLoader(first, batch_size=2, sampler=draws[:6], num_workers=1)  # type: ignore[arg-type]
    for number, (images, _) in enumerate(batches):
        assert torch.equal(images, torch.stack([found[draw][0] for draw in draws[2 * number : 2 * number + 2]]))


@pytest.mark.parametrize("patch_size", [(4, 8, 8), (8, 8)])
def test_half_of_the_patches_are_laid_around_foreground(prepared: Prepared, patch_size: tuple[int, ...]) -> None:
    shares = {}
    for share in (0.0, 0.5, 1.0):
        pieces = LabelledPieces(_cut(prepared, patch_size), prepared.cases[:2], around_foreground=share)
        pieces.keep(has_foreground)
        drawn = [pieces[Draw(number, (0,))][1] for number in range(len(pieces))]
        shares[share] = np.mean([has_foreground(label) for label in drawn])
    assert shares[1.0] == 1
    assert shares[0.5] == pytest.approx((shares[0.0] + 1) / 2, abs=0.12)
    assert shares[0.0] < 0.75


def test_only_what_holds_foreground_is_cut(prepared: Prepared) -> None:
    slices = LabelledPieces(prepared, prepared.cases[:2])
    slices.keep(has_foreground)
    patches = LabelledPieces(_cut(prepared, (16, 16)), prepared.cases[:2])
    patches.keep(has_foreground)
    assert len(patches) == 4 * len(slices)


def test_foreground_of_any_size_is_found_evenly(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "MIDDLES", 50)
    monkeypatch.setattr(datasets, "KEPT", 1)
    pieces = LabelledPieces(_cut(prepared, (4, 4, 4)), prepared.cases[:2], around_foreground=1.0)
    labels = [pieces[Draw(number, (epoch,))][1] for epoch in range(4) for number in range(0, len(pieces), 5)]
    assert all(has_foreground(label) for label in labels)
    assert set(torch.stack(labels).unique().tolist()) == {0, 1, 2, 3}


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
