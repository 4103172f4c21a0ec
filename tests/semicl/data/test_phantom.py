"""The phantom is the same for the same seed, and hard in the ways it promises."""

from pathlib import Path

import torch

from semicl.data.cases import find_cases
from semicl.data.checks import check_files, problems
from semicl.data.grid import Grid
from semicl.data.phantom import CLASSES, SHAPE, phantom_scan
from semicl.data.subjects import subject_rule
from tests.semicl.conftest import SUBJECTS


def test_the_seed_decides_everything() -> None:
    image, label = phantom_scan(3, 5)
    same_image, same_label = phantom_scan(3, 5)
    other_image, other_label = phantom_scan(4, 5)
    assert torch.equal(image, same_image)
    assert torch.equal(label, same_label)
    assert not torch.equal(image, other_image)
    assert not torch.equal(label, other_label)


def test_every_scan_holds_every_class_and_no_other() -> None:
    for number in range(1, 21):
        image, label = phantom_scan(0, number)
        assert label.unique().tolist() == list(range(len(CLASSES)))
        assert image.shape == label.shape == SHAPE
        assert image.isfinite().all()


def test_two_scans_of_a_subject_share_the_anatomy_and_not_the_image() -> None:
    (first, label), (second, same_label), (_, next_label) = (phantom_scan(0, number) for number in (1, 2, 3))
    assert torch.equal(label, same_label)
    assert not torch.equal(label, next_label)
    assert not torch.allclose(first / first.max(), second / second.max(), atol=0.05)


def test_intensity_scales_differ_by_orders_of_magnitude() -> None:
    maxima = torch.stack([phantom_scan(0, number)[0].max() for number in range(1, 21)])
    assert maxima.max() / maxima.min() > 100


def test_a_written_phantom_is_a_sound_folder(phantom: Path) -> None:
    folder = find_cases(phantom, subject_rule)
    assert folder.classes is not None
    assert tuple(folder.classes) == CLASSES
    assert len(folder.cases) == 2 * SUBJECTS
    assert len({case.subject for case in folder.cases}) == SUBJECTS
    assert [
        problem for case in folder.cases for problem in problems(check_files(case), folder.classes, Grid((32, 32)))
    ] == []
