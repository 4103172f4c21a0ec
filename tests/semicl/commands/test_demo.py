"""The demo from the command line, as a new user runs it."""

import json
from pathlib import Path
from typing import Any

import pytest

from semicl.data.phantom import CLASSES
from semicl.options import PrepareOptions, RunOptions
from tests.semicl.conftest import run_command


def _demo(capsys: pytest.CaptureFixture[str], output: Path, *arguments: object) -> tuple[str, dict[str, Any]]:
    """Run `semicl demo --quick`, check what every run must leave, return its text and results."""
    assert run_command("demo", "--quick", "--output", output, *arguments) == 0
    written = capsys.readouterr()
    for bar in ("1 global contrast", "2 local contrast", "3 fine-tune random start", "3 fine-tune pre-trained"):
        assert f"{bar}: 100%" in written.err
    picture = (output / "predictions.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert picture.endswith(b"IEND\xaeB`\x82")
    assert list(output.rglob(".partial-*")) == []
    return written.out, json.loads((output / "results.json").read_text())


def test_on_the_phantom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, results = _demo(capsys, tmp_path / "run", "--data", "phantom")
    assert "PHANTOM" in text
    assert "not patients" in text or "says nothing about patients" in text
    assert "pretrain-local/model.ckpt: took 80 tensors (encoder 40, decoder 40)" in text
    assert results["verdict"] in text
    assert text.count("Next: ") == 1
    tuned = tmp_path / "run" / "split-0" / "finetune-pretrained" / "model.ckpt"
    assert text.endswith(f"Next: semicl predict --checkpoint {tuned} --input FILE_OR_FOLDER\n")
    for start in ("random", "pretrained"):
        assert len(results["validation_dice_by_step"][start]) == 2
        (mean,) = results["test_dice"][start]
        assert 0 <= mean <= 1
        cases = json.loads((tmp_path / "run" / "split-0" / f"finetune-{start}" / "test" / "results.json").read_text())
        assert cases["classes"] == list(CLASSES[1:])
        assert f"{cases['summary']['mean']['dice']['mean']:.3f}" in text


@pytest.mark.slow
def test_on_real_cases(hippocampus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, results = _demo(capsys, tmp_path / "run", "--data", hippocampus)
    assert "PHANTOM" not in text
    assert results["data"] == "Hippocampus"


def test_an_experiment_in_its_folder_is_replaced_only_when_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[bool, bool]] = []

    def run(source: object, experiment: object, options: RunOptions, prepare: PrepareOptions, *_: object) -> None:
        told.append((options.overwrite, prepare.overwrite))

    monkeypatch.setattr("semicl.study.experiment.run", run)
    for words, overwrite in ((), False), (("--overwrite",), True):
        assert run_command("demo", "--output", tmp_path, *words) == 0
        assert told[-1] == (overwrite, overwrite)


def test_without_other_data_it_takes_the_phantom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("semicl.study.experiment.run", lambda source, *_: seen.append(source))
    assert run_command("demo", "--output", tmp_path / "run") == 0
    assert (seen[-1].data, seen[-1].prepared) == ("phantom", tmp_path / "run" / "prepared")
    monkeypatch.setenv("SEMICL_DATA", str(tmp_path))
    assert run_command("demo") == 0
    assert seen[-1].data == str(tmp_path)
    assert run_command("demo", "--data", "elsewhere") == 0
    assert seen[-1].data == "elsewhere"
