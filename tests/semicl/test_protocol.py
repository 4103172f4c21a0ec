"""Nobody sees what they must not: each forbidden file is damaged so that reading it would fail."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from semicl import demo
from semicl.cases import Case, find_cases
from semicl.demo import pretrain_globally, pretrain_locally
from semicl.errors import SemiclError
from semicl.options import QUICK, DemoOptions, Schedule
from semicl.phantom import CLASSES
from semicl.splits import Split, split_by_subject
from semicl.volumes import LabelledVolume, read_image, read_label, read_volume
from tests.semicl.conftest import cut_off


def _options(output: Path) -> DemoOptions:
    return replace(
        QUICK,
        output=output,
        widths=(4, 4, 8, 8, 8, 4),
        global_contrast=Schedule(3, 8, 1e-3),
        local_contrast=Schedule(3, 2, 1e-3),
        segmentation=Schedule(4, 2, 1e-3),
    )


def _split(folder: Path) -> Split:
    return split_by_subject(find_cases(folder).cases, 0.2, seed=0)


def _pretrain(folder: Path, output: Path) -> dict[str, dict[str, torch.Tensor]]:
    options, split = _options(output), _split(folder)
    pretrain_globally(options, split, len(CLASSES))
    pretrain_locally(options, split, len(CLASSES))
    names = ("global", "local")
    return {name: torch.load(output / f"{name}.ckpt", weights_only=True)["state_dict"] for name in names}


def _poison(files: Iterable[Path]) -> None:
    for file in files:
        cut_off(file)


def test_pretraining_reads_no_held_out_volume_and_no_label_outside_the_fraction(
    phantom: Path, own_phantom: Path, tmp_path: Path
) -> None:
    split = _split(own_phantom)
    held_out = [*split.validation, *split.test]
    unlabelled = [case for case in split.training if case not in split.labelled]
    assert held_out
    assert unlabelled
    _poison(path for case in held_out for path in (case.image, case.label))
    _poison(case.label for case in unlabelled)
    with pytest.raises(SemiclError):
        read_image(held_out[0], 64)
    with pytest.raises(SemiclError):
        read_label(unlabelled[0], 64)

    poisoned = _pretrain(own_phantom, tmp_path / "poisoned")
    clean = _pretrain(phantom, tmp_path / "clean")
    for stage, weights in clean.items():
        assert all(torch.equal(poisoned[stage][name], weights[name]) for name in weights)


def test_global_contrast_reads_no_label_at_all(own_phantom: Path, tmp_path: Path) -> None:
    split = _split(own_phantom)
    _poison(case.label for case in split.training)
    pretrain_globally(_options(tmp_path), split, len(CLASSES))
    with pytest.raises(SemiclError, match="not readable"):
        pretrain_locally(_options(tmp_path), split, len(CLASSES))


def test_fine_tuning_reads_the_fractions_labels_and_the_test_comes_last(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(_options(tmp_path), data=str(phantom), label_fraction=0.2)
    split = _split(phantom)
    events: list[str] = []
    read: list[Case] = []

    def record_read(case: Case, slice_size: int) -> LabelledVolume:
        read.append(case)
        events.append("test" if case in split.test else "other")
        return read_volume(case, slice_size)

    def record_tuning(*arguments: object) -> list[tuple[int, float]]:
        events.append("tuned")
        return tune(*arguments)  # type: ignore[arg-type]

    tune = demo.fine_tune
    monkeypatch.setattr(demo, "read_volume", record_read)
    monkeypatch.setattr(demo, "fine_tune", record_tuning)
    demo.run_demo(options)
    assert events.count("tuned") == 2
    last_tuning = len(events) - 1 - events[::-1].index("tuned")
    assert set(events[:last_tuning]) == {"other", "tuned"}
    assert events[last_tuning + 1 :] == ["test"] * len(split.test)
    labelled_training = {case for case in read if case in split.training}
    assert labelled_training == set(split.labelled)
