"""Names of any letters, in every locale: files are UTF-8, and what a terminal cannot show is no error."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from semicl.config import read_config
from semicl.data.prepared import read_prepared
from semicl.evaluation.measures import Evaluation, read_evaluation
from semicl.files import read_json
from tests.semicl.conftest import error_of, run_command, write_nifti

ORGAN = "Vorh\u00f6fe \u5fc3\u81d3"


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A Decathlon folder whose files, classes and name are not ASCII, its description with a byte-order mark."""
    folder = tmp_path / "\u00e9tude"
    training = []
    for number in range(5):
        for kind in ("images", "labels"):
            values = np.random.default_rng(number).integers(0, 2, (4, 5, 3)).astype(np.uint8)
            write_nifti(folder / kind / f"caf\u00e9{number}.nii.gz", values)
        training.append({kind[:-1]: f"{kind}/caf\u00e9{number}.nii.gz" for kind in ("images", "labels")})
    content = {"name": "\u00e9tude", "labels": {"0": "b", "1": ORGAN}, "training": training}
    (folder / "dataset.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8-sig")
    return folder


def _ascii_stdout(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    return written


def test_prepare_prints_to_an_ascii_terminal(letters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = _ascii_stdout(monkeypatch)
    words = ["prepare", "--data", letters, "--prepared", tmp_path / "p", "--patch_size", "16", "16"]
    assert run_command(*words) == 0
    assert b"Prepared" in written.getvalue()
    assert b"Vorh\\xf6fe" in written.getvalue()
    assert read_prepared(tmp_path / "p").classes == {"b": 0, ORGAN: 1}


def test_a_mean_and_its_deviation_are_printed_to_an_ascii_terminal(
    prepared_checkpoint: Path, letters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = _ascii_stdout(monkeypatch)
    words = ["evaluate", "--checkpoint", prepared_checkpoint, "--data", letters, "--output", tmp_path / "o"]
    assert run_command(*words) == 0
    assert b"mean Dice" in written.getvalue()
    assert "caf\u00e90" in (tmp_path / "o" / "cases.csv").read_text(encoding="utf-8")


@pytest.fixture
def prepared_checkpoint(tmp_path: Path) -> Path:
    """A checkpoint for the classes of `letters`."""
    import torch

    from semicl.data.grid import Grid
    from semicl.models.checkpoint import ModelCard

    card = ModelCard("finetune", (4, 6), {"b": 0, ORGAN: 1}, Grid((16, 16)))
    state = {f"network.{name}": value for name, value in card.new_network(0).state_dict().items()}
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": state, "semicl": card.to_dict()}, path)
    return path


def test_a_command_works_in_the_c_locale(letters: Path, tmp_path: Path) -> None:
    """The file system's names, too, are ASCII there: what is read and written must not depend on it."""
    code = f"""
import sys
from pathlib import Path
from semicl.data.cases import find_cases
from semicl.config import read_config
from semicl.files import write_json
from semicl.data.subjects import subject_rule
assert sys.getfilesystemencoding() == "ascii", sys.getfilesystemencoding()
folder = Path({str(tmp_path)!r}.encode("utf-8").decode("ascii", "surrogateescape"))
found = find_cases(next(folder.iterdir()), subject_rule)
assert all(case.image.is_file() and case.label.is_file() for case in found.cases)
write_json(folder / "out.json", {{"names": [case.name for case in found.cases], "classes": found.classes}})
"""
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    content = json.loads((tmp_path / "out.json").read_bytes())
    assert list(content["classes"]) == ["b", ORGAN]
    names = [os.fsencode(name.encode("ascii", "surrogateescape").decode("utf-8")) for name in content["names"]]
    assert names == [f"caf\u00e9{number}".encode() for number in range(5)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_config_is_utf_8(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "c.yaml").write_text(f"classes: {{{ORGAN}: 1}}\n", encoding=encoding)
    assert read_config(str(tmp_path / "c.yaml")) == {"classes": {ORGAN: 1}}


def test_a_config_of_another_encoding_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_bytes("classes: {Vorh\u00f6fe: 1}\n".encode("latin-1"))
    assert f"--config {tmp_path / 'c.yaml'}: not readable as YAML" in error_of(
        capsys, "prepare", "--config", tmp_path / "c.yaml", code=2
    )


def test_files_of_our_own_may_be_saved_with_a_byte_order_mark(own_prepared: Path, tmp_path: Path) -> None:
    before = read_prepared(own_prepared)
    splits = before.split(0)
    for file in own_prepared.rglob("*.json"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert read_prepared(own_prepared) == before
    assert read_prepared(own_prepared).split(0) == splits
    ones = np.ones((1, 1))
    Evaluation(("caf\udce9",), (ORGAN,), ones, ones, ones).write(tmp_path)  # a name that is no UTF-8 on the disk
    path = tmp_path / "results.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_evaluation(tmp_path).classes == (ORGAN,)
    assert b"caf\xe9" in (tmp_path / "cases.csv").read_bytes()
    assert read_json(path)["classes"] == [ORGAN]
