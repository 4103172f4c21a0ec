"""The three training commands, one after the other, and what each refuses."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from semicl.data.cases import Case
from semicl.data.datasets import Volumes
from semicl.data.prepared import Prepared, read_prepared
from semicl.evaluation.inference import class_probabilities
from semicl.evaluation.metrics import dice_per_class
from semicl.models.checkpoint import load_segmentation, read_card
from semicl.options import STAGES
from tests.semicl.conftest import TINY, error_of, one_schedule, run_command, weights

FRACTION = ("--label_fraction", "0.2")


def _words(command: str, prepared: Path, output: Path, *more: object) -> list[object]:
    return [command, *TINY, *one_schedule(), "--prepared", prepared, "--output", output, *more]


def test_one_after_the_other(prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = (tmp_path / name for name in ("pretrain-global", "pretrain-local", "finetune"))
    assert run_command(*_words("pretrain-global", prepared.folder, first)) == 0
    text = capsys.readouterr().out
    assert f"Next: semicl pretrain-local --prepared {prepared.folder} --start {first}/model.ckpt" in text
    assert "images a second" in text
    assert (
        run_command(*_words("pretrain-local", prepared.folder, second, *FRACTION, "--start", first / "model.ckpt")) == 0
    )
    text = capsys.readouterr().out
    assert "took 24 tensors (encoder 24)" in text
    assert "Next: semicl finetune" in text
    assert run_command(*_words("finetune", prepared.folder, third, *FRACTION, "--start", second / "model.ckpt")) == 0
    text = capsys.readouterr().out
    assert "took 44 tensors (encoder 24, decoder 20), kept 2 as they were (classifier 2)" in text
    assert "Next: semicl evaluate" in text
    assert "best validation Dice" in text
    assert "[[" not in text
    for folder in (first, second, third):
        assert {"model.ckpt", "options.json", "summary.json", "logs"} == {path.name for path in folder.iterdir()}
    parts = [{name.split(".")[0] for name in weights(folder / "model.ckpt")} for folder in (first, second, third)]
    assert parts == [{"encoder", "projection"}, {"encoder", "decoder", "projection"}, {"network"}]
    assert read_card(third / "model.ckpt").classes == prepared.classes
    summary = json.loads((third / "summary.json").read_text())
    assert summary["volumes"] == len(prepared.split(0).labelled(0.2))
    assert summary["validation"] == [[summary["steps"], summary["best validation Dice"]]]


def test_the_line_that_a_stage_names_runs_as_it_stands(
    prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = (
        "--network.widths",
        "4",
        "6",
        "8",
        "--network.centre",
        "None",
        "--split",
        "1",
        "--label_fraction",
        "0.34",
    )
    config = tmp_path / "run.yaml"
    config.write_text("".join(f"{stage}: {{schedule: {{epochs: 1}}}}\n" for stage in STAGES if stage != "prepare"))
    words: list[object] = ["pretrain-global", "--config", config, "--prepared", prepared.folder, *network]
    words += ["--output", tmp_path / "pretrain-global"]
    for command in ("pretrain-local", "finetune", "evaluate", "predict"):
        assert run_command(*words) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Next: ")]
        words = list(shlex.split(line)[2:])
        assert words[0] == command
    results = json.loads((tmp_path / "finetune-pretrained" / "test" / "results.json").read_text())
    assert list(results["cases"]) == [case.name for case in prepared.split(1).test]


def test_a_start_of_another_split_is_refused(
    prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(*_words("pretrain-global", prepared.folder, tmp_path / "global", "--split", "1")) == 0
    start = ("--start", tmp_path / "global" / "model.ckpt")
    for command in ("pretrain-local", "finetune"):
        line = error_of(capsys, *_words(command, prepared.folder, tmp_path / "o", *FRACTION, *start))
        assert "model.ckpt: was trained on split 1 of Phantom" in line
        assert "split 0 of Phantom now" in line
    assert not (tmp_path / "o").exists()
    assert run_command(*_words("finetune", prepared.folder, tmp_path / "o", *FRACTION, *start, "--split", "1")) == 0


def test_a_start_that_saw_the_labels_of_another_fraction_is_refused(
    prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _words("pretrain-local", prepared.folder, tmp_path / "local", "--label_fraction", "1")
    assert run_command(*words) == 0
    start = ("--start", tmp_path / "local" / "model.ckpt")
    line = error_of(capsys, *_words("finetune", prepared.folder, tmp_path / "o", *FRACTION, *start))
    assert "has seen the labels of 12 cases (--label_fraction 1), this stage may see those of 2 (--label_fr" in line
    assert not (tmp_path / "o").exists()
    unlabelled = ("--loss.no_supervised", "--loss.stride", "8")
    assert run_command(*_words("pretrain-local", prepared.folder, tmp_path / "self", *unlabelled, *start)) == 0
    start = ("--start", tmp_path / "self" / "model.ckpt")
    assert "has seen the labels of 12" in error_of(
        capsys, *_words("finetune", prepared.folder, tmp_path / "o", *FRACTION, *start)
    )


@pytest.mark.parametrize("card", [None, "older"])
def test_a_start_that_tells_not_what_it_saw_is_taken(prepared: Prepared, tmp_path: Path, card: str | None) -> None:
    assert run_command(*_words("pretrain-global", prepared.folder, tmp_path / "global", "--split", "1")) == 0
    path = tmp_path / "global" / "model.ckpt"
    content = torch.load(path, weights_only=True)
    del content["semicl"]["seen"]
    if card is None:
        del content["semicl"]
    torch.save(content, path)
    assert run_command(*_words("finetune", prepared.folder, tmp_path / "o", *FRACTION, "--start", path)) == 0


@pytest.mark.parametrize(
    "options",
    [
        ["--loss.block_size", "8"],
        ["--loss.stride", "2"],
        ["--loss.block_size", "8", "--loss.stride", "2"],
        ["--loss.no_supervised", "--loss.stride", "8"],
    ],
)
def test_forms_of_local_contrast(prepared: Prepared, tmp_path: Path, options: list[str]) -> None:
    words = _words("pretrain-local", prepared.folder, tmp_path / "local", *FRACTION, *options)
    assert run_command(*words) == 0
    assert any(name.startswith("decoder.") for name in weights(tmp_path / "local" / "model.ckpt"))


@pytest.mark.parametrize(
    "options",
    [
        ["--local_weight", "0.1", "--loss.block_size", "16"],
        ["--mixup", "0.4"],
        ["--tcsm.weight", "1"],
        ["--fixmatch.weight", "1"],
        ["--local_weight", "0.1", "--local_scale", "4", "--local_queue", "8"],
        ["--tcsm.weight", "1", "--local_weight", "0.1", "--local_scale", "2", "--local_queue", "8"],
    ],
    ids=["local term", "mixup", "tcsm", "fixmatch", "local term with a queue", "tcsm and local term"],
)
def test_forms_of_fine_tuning(prepared: Prepared, tmp_path: Path, options: list[str]) -> None:
    outputs = [tmp_path / "plain", tmp_path / "other"]
    for output, more in zip(outputs, ([], options), strict=True):
        assert run_command(*_words("finetune", prepared.folder, output, *FRACTION, *more)) == 0
    plain, other = (weights(output / "model.ckpt")["network.classifier.weight"] for output in outputs)
    assert not torch.equal(plain, other)


def test_patches(tmp_path: Path) -> None:
    words = ["prepare", "--data", "phantom", "--phantom_subjects", "5", "--prepared", tmp_path / "p"]
    assert run_command(*words, "--patch_size", "8", "24", "24", "--spacing", "2", "2", "2") == 0
    start: list[object] = []
    pseudo = (*FRACTION, "--fixmatch.weight", "1", "--local_weight", "0.1", "--local_scale", "2")
    for command, fraction in (("pretrain-global", ()), ("pretrain-local", FRACTION), ("finetune", pseudo)):
        assert run_command(*_words(command, tmp_path / "p", tmp_path / command, *fraction, *start)) == 0
        start = ["--start", tmp_path / command / "model.ckpt"]
    checkpoint = tmp_path / "finetune" / "model.ckpt"
    words = ["evaluate", "--checkpoint", checkpoint, "--prepared", tmp_path / "p", "--output", tmp_path / "test"]
    assert run_command(*words) == 0
    assert len(json.loads((tmp_path / "test" / "results.json").read_text())["cases"]) == 2


def test_a_taken_folder_is_refused_resumed_or_overwritten(
    prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _words("pretrain-global", prepared.folder, tmp_path / "o")
    assert run_command(*words) == 0
    before = (tmp_path / "o" / "model.ckpt").stat().st_mtime_ns
    assert "holds a finished stage; give --overwrite" in error_of(capsys, *words)
    assert run_command(*words, "--resume") == 0
    assert "finished already, nothing to do" in capsys.readouterr().out
    assert (tmp_path / "o" / "model.ckpt").stat().st_mtime_ns == before
    assert "told --seed 0, now 1" in error_of(capsys, *words, "--resume", "--seed", "1")
    assert run_command(*words, "--overwrite", "--seed", "1") == 0
    assert (tmp_path / "o" / "model.ckpt").stat().st_mtime_ns != before


def test_a_folder_of_a_version_with_fewer_options_is_resumed(
    prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _words("pretrain-local", prepared.folder, tmp_path / "o", *FRACTION)
    assert run_command(*words) == 0
    told = json.loads((tmp_path / "o" / "options.json").read_text())
    del told["layers"], told["loss"]["scope"]
    (tmp_path / "o" / "options.json").write_text(json.dumps(told))
    capsys.readouterr()
    assert run_command(*words, "--resume") == 0
    assert "finished already, nothing to do" in capsys.readouterr().out
    assert "told --layers 2, now 1" in error_of(capsys, *words, "--resume", "--layers", "1")


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("finetune", ["--label_fraction", "0.01"], "--label_fraction 0.01 of 6 labelled training subjects yields no"),
        ("finetune", ["--split", "7"], "splits/7.json: no such split"),
        ("finetune", [*FRACTION, "--start", "none.ckpt"], "none.ckpt: no such checkpoint"),
        (
            "pretrain-global",
            ["--network.widths", *"444444"],
            "patch size 32 x 32 does not fit 6 levels",
        ),
        (
            "finetune",
            [*FRACTION, "--machine.accelerator", "tpu"],
            "accelerator tpu: not found here; give auto or cpu",
        ),
        (
            "pretrain-local",
            [*FRACTION, "--machine.accelerator", "bogus"],
            "--machine.accelerator bogus: not found",
        ),
        ("pretrain-global", ["--prepared", "nowhere"], "nowhere/prepared.json: no such file; run `semicl prepare"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_nothing_is_written(
    prepared: Prepared,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    options: list[str],
    message: str,
) -> None:
    assert message in error_of(capsys, *_words(command, prepared.folder, tmp_path / "o", *options))
    assert not (tmp_path / "o").exists()


def test_a_checkpoint_of_another_architecture_is_one_line(
    prepared: Prepared, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = (*FRACTION, "--network.widths", "8", "8", "8")
    words = _words("finetune", prepared.folder, tmp_path / "o", "--start", checkpoint, *other)
    line = error_of(capsys, *words)
    assert f"{checkpoint}: encoder." in line
    assert "give the --network" in line
    assert not (tmp_path / "o").exists()


def test_a_labelled_fraction_without_foreground_is_one_line(
    own_prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = read_prepared(own_prepared)
    for case in prepared.split(0).labelled(0.2):
        path = own_prepared / "cache" / f"{case.name}.label.npy"
        np.save(path, np.zeros_like(np.load(path)))
    assert "hold no foreground" in error_of(capsys, *_words("pretrain-local", own_prepared, tmp_path / "o", *FRACTION))
    assert not (tmp_path / "o").exists()


def _without_class(prepared: Prepared, number: int, cases: Sequence[Case] | None = None) -> None:
    """Take a class out of cases, of the validation volumes by default."""
    for case in prepared.split(0).validation if cases is None else cases:
        path = prepared.folder / "cache" / f"{case.name}.label.npy"
        label = np.load(path)
        np.save(path, np.where(label == number, 0, label))


def test_validation_picks_by_the_classes_that_its_volumes_hold(
    own_prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = read_prepared(own_prepared)
    _without_class(prepared, 2)
    assert run_command(*_words("finetune", own_prepared, tmp_path / "o", *FRACTION)) == 0
    line = "No label holds small organ: left out of the validation Dice, which picks the weights."
    assert capsys.readouterr().out.count(line) == 1
    network, card = load_segmentation(tmp_path / "o" / "model.ckpt")
    dice = []
    for volume in (Volumes(prepared, prepared.split(0).validation)[number] for number in range(4)):
        predicted = class_probabilities(network, volume.image, card.grid.patch_size).argmax(0)
        found = dice_per_class(predicted, volume.label, len(card.classes))
        dice.append((found[0] + found[2]) / 2)
    summary = json.loads((tmp_path / "o" / "summary.json").read_text())
    assert summary["best validation Dice"] == pytest.approx(float(torch.stack(dice).mean()), abs=1e-6)
    for number in (1, 3):
        _without_class(prepared, number)
    words = _words("finetune", own_prepared, tmp_path / "p", *FRACTION)
    assert "hold no foreground; give another --split or --validation_volumes" in error_of(capsys, *words)
    assert not (tmp_path / "p").exists()


def test_a_class_that_no_labelled_case_holds_is_told(
    own_prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = read_prepared(own_prepared)
    assert run_command(*_words("finetune", own_prepared, tmp_path / "o", *FRACTION)) == 0
    text = capsys.readouterr().out
    assert "2 labelled cases: large organ in 2, small organ in 2, paired organ in 2." in text
    assert "cannot be learned" not in text
    for number in (1, 3):
        _without_class(prepared, number, prepared.split(0).labelled(0.2))
    assert run_command(*_words("finetune", own_prepared, tmp_path / "p", *FRACTION)) == 0
    line = (
        "WARNING: no labelled training case holds large organ, paired organ, which so cannot be learned; give another"
    )
    text = capsys.readouterr().out
    assert "2 labelled cases: large organ in 0, small organ in 2, paired organ in 0." in text
    assert text.count(line) == 1


def test_a_classifier_of_other_classes_is_refused(
    tuned: Path, own_prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _words("finetune", own_prepared, tmp_path / "o", *FRACTION, "--start", tuned)
    description = json.loads((own_prepared / "prepared.json").read_text())
    background, first, *others = description["classes"].items()
    description["classes"] = dict([background, *others, first])
    (own_prepared / "prepared.json").write_text(json.dumps(description))
    line = error_of(capsys, *words)
    assert "its classifier knows background, large organ, small organ, paired organ" in line
    assert f"{own_prepared} holds background, small organ, paired organ, large organ" in line


def test_a_classifier_of_classes_spelled_in_another_way_is_taken(
    tuned: Path, own_prepared: Path, tmp_path: Path
) -> None:
    description = json.loads((own_prepared / "prepared.json").read_text())
    description["classes"] = {"Background": 0, "Large organ ": 1, " small organ": 2, "PAIRED ORGAN": 3}
    (own_prepared / "prepared.json").write_text(json.dumps(description))
    assert run_command(*_words("finetune", own_prepared, tmp_path / "o", *FRACTION, "--start", tuned)) == 0


def test_a_stage_does_not_write_over_what_it_reads(
    tuned: Path, own_prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tuned.read_bytes()
    (tmp_path / "alias").symlink_to(tuned.parent)
    images = read_prepared(own_prepared).cases[0].image.parent
    for output in (tuned.parent, tmp_path / "alias", own_prepared, own_prepared / "cache" / "..", images):
        words = _words("finetune", own_prepared, output, *FRACTION, "--start", tuned, "--overwrite")
        assert "which is read and would be written to; give another --output" in error_of(capsys, *words)
    assert tuned.read_bytes() == before
