"""`semicl run` does everything once, and what is done not again."""

import json
from pathlib import Path
from typing import Any

import pytest

from semicl.data.prepared import read_prepared
from tests.semicl.conftest import error_of, run_command

CONFIG = """
data: phantom
network: {widths: [4, 6, 8], centre: null}
label_fraction: 0.34
prepare: {patch_size: [32, 32], resize: true, phantom_subjects: 5, repeats: 2}
pretrain_global: {schedule: {epochs: 1, batch_size: 32, learning_rate: 1e-3}}
pretrain_local: {schedule: {epochs: 1, batch_size: 8, learning_rate: 1e-3}}
finetune: {schedule: {epochs: 2, batch_size: 8, learning_rate: 1e-3}}
"""


@pytest.fixture
def words(tmp_path: Path) -> list[Any]:
    (tmp_path / "config.yaml").write_text(CONFIG)
    return ["run", "--config", tmp_path / "config.yaml", "--prepared", tmp_path / "p", "--output", tmp_path / "o"]


def test_everything_is_done_once(words: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(*words, "--splits", "0", "1") == 0
    text = capsys.readouterr().out
    for word in ("test Dice, random start", "test Dice, pre-trained", "Pre-training ", "±"):
        assert word in text
    output = tmp_path / "o"
    (following,) = [line for line in text.splitlines() if line.startswith("Next: ")]
    tuned = output / "split-0" / "finetune-pretrained" / "model.ckpt"
    assert following == f"Next: semicl predict --checkpoint {tuned} --input FILE_OR_FOLDER"
    assert tuned.is_file()
    for split in ("split-0", "split-1"):
        stages = {path.name for path in (output / split).iterdir()}
        assert stages == {"pretrain-global", "pretrain-local", "finetune-random", "finetune-pretrained"}
        assert (output / split / "finetune-random" / "test" / "cases.csv").is_file()
    assert (output / "predictions.png").read_bytes().endswith(b"IEND\xaeB`\x82")
    results = json.loads((output / "results.json").read_text())
    assert [len(values) for values in results["test_dice"].values()] == [2, 2]
    for start, values in results["test_dice"].items():
        folders = [output / split / f"finetune-{start}" / "test" for split in ("split-0", "split-1")]
        judged = [json.loads((folder / "results.json").read_text())["summary"]["mean"]["dice"] for folder in folders]
        assert values == [measured["mean"] for measured in judged]
    assert len(results["seconds"]) == 8

    before = {path: path.stat().st_mtime_ns for path in output.rglob("model.ckpt")}
    (output / "split-1" / "pretrain-local" / "summary.json").unlink()
    assert run_command(*words, "--splits", "0", "1") == 0
    text = capsys.readouterr().out
    assert text.count("finished already, nothing to do") == 7
    assert text.count("evaluated already, nothing to do") == 4
    again = {path for path in output.rglob("model.ckpt") if path.stat().st_mtime_ns != before[path]}
    assert again == {output / "split-1" / "pretrain-local" / "model.ckpt"}

    line = error_of(capsys, *words)
    assert "o/results.json: is there already, of other splits or starts; give another --output, or --overwrite" in line
    words += ["--splits", "0", "1"]
    line = error_of(capsys, *words, "--finetune.schedule.epochs", "3")
    assert "finetune-random/options.json: the stage was told --finetune.schedule.epochs 2, now 3" in line
    line = error_of(capsys, *words, "--prepare.seed", "5")
    assert "was prepared with seed 0, now 5" in line


def test_what_was_trained_on_other_data_is_not_taken_for_done(
    words: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words += ["--starts", "random"]
    assert run_command(*words) == 0
    test = tmp_path / "o" / "split-0" / "finetune-random" / "test" / "results.json"
    before = test.read_text()
    config = ["--config", tmp_path / "config.yaml", "--prepared", tmp_path / "p"]
    assert run_command("prepare", *config, "--seed", "1", "--overwrite") == 0
    line = error_of(capsys, *words, "--prepare.seed", "1")
    assert "finetune-random/options.json: the stage was trained on data with split of hash" in line
    assert test.read_text() == before
    assert run_command(*words, "--prepare.seed", "1", "--overwrite") == 0
    held_out = {case.name for case in read_prepared(tmp_path / "p").split(0).test}
    assert set(json.loads(test.read_text())["cases"]) == held_out

    path = tmp_path / "p" / "splits" / "0.json"
    split = json.loads(path.read_text())
    split["validation"], split["test"] = split["test"], split["validation"]
    path.write_text(json.dumps(split))
    assert "trained on data with split of hash" in error_of(capsys, *words, "--prepare.seed", "1")


def test_one_start_alone(words: list[Any], tmp_path: Path) -> None:
    assert run_command(*words, "--starts", "global") == 0
    assert {path.name for path in (tmp_path / "o" / "split-0").iterdir()} == {"pretrain-global", "finetune-global"}
    assert list(json.loads((tmp_path / "o" / "results.json").read_text())["test_dice"]) == ["global"]


@pytest.mark.parametrize("command", ["run", "table"])
def test_options_of_a_stage_are_named_by_their_place(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    words = [command, "--prepared", tmp_path / "p", "--output", tmp_path / "o"]
    if command == "table":
        words += ["--methods", "{random: {}}"]
    assert "--prepare.download hippocampus" in error_of(capsys, *words)
    few = ["--data", "phantom", "--prepare.phantom_subjects", "2"]
    assert "give at least 5 subjects, or 3 and --prepare.shares 1 1 1" in error_of(capsys, *words, *few)


def test_a_missing_folder_is_one_line(words: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere: no such folder" in error_of(capsys, *words, "--data", "nowhere")
    assert not (tmp_path / "o").exists()
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("", []),
        ("network: {widths: [4, 8]}", []),
        ("network: {widths: [64, 128, 256, 512], centre: 1024}", []),
        ("", ["--network.centre", 1024]),
    ],
)
def test_a_config_without_a_network_is_told_to_take_the_papers(
    network: str, words: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "own.yaml"
    config.write_text(f"data: {tmp_path / 'none'}\n{network}\n")
    assert run_command("run", "--config", config, "--prepared", tmp_path / "p", "--output", tmp_path / "o", *words) == 1
    told = "Network: the paper's, 64 x 128 x 256 x 512 x 1024 channels, for a GPU" in capsys.readouterr().out
    assert told == (network == "" and words == [])


def test_a_missing_accelerator_is_one_line(
    words: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (words, ["table", *words[1:], "--methods", '{"random": {}}']):
        assert "tpu: not found here" in error_of(capsys, *command, "--machine.accelerator", "tpu")
    assert not (tmp_path / "o").exists()
    assert not (tmp_path / "p").exists()
