"""What can be told without torch is told before torch, or anything as slow, is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from semicl.cli import COMMANDS
from semicl.data.prepared import Prepared
from tests.semicl.conftest import REPOSITORY, cut_off

SLOW = ("torch", "monai", "pytorch_lightning", "lightning_fabric", "kornia", "matplotlib", "sklearn", "torchmetrics")

PROGRAM = """
import contextlib, io, json, sys
from semicl.__main__ import main

told = []
for words in json.loads(sys.argv[1]):
    sys.argv[1:], errors = words, io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main()
        except SystemExit as left:
            code = left.code
    told.append([code, errors.getvalue(), sorted(set(sys.modules) & set(%r))])
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def lines(prepared: Prepared, phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[list[Any], str]]:
    """Command lines with something wrong, and what must be told."""
    here = tmp_path_factory.mktemp("wrong")
    (here / "text.ckpt").write_text("no checkpoint")
    (here / "text.nii.gz").write_text("no image")
    (here / "empty").mkdir()
    (here / "broken").mkdir()
    (here / "broken" / "prepared.json").write_text("{")
    scan = here / "scan.nii.gz"
    scan.write_bytes((phantom / "imagesTr" / "phantom_001.nii.gz").read_bytes())
    (here / "cut.nii.gz").write_bytes(scan.read_bytes())
    cut_off(here / "cut.nii.gz")
    for kind in ("images", "labels"):
        (here / "cases" / kind).mkdir(parents=True)
        (here / "cases" / kind / "a.nii.gz").write_bytes((here / "cut.nii.gz").read_bytes())
    with (here / "zip.ckpt").open("wb") as file:
        file.write(b"PK\5\6" + bytes(18))  # an empty archive: whether there is a network in it takes torch to see
    done = here / "done"
    done.mkdir()
    for name in ("summary.json", "last.ckpt", "model.ckpt", "results.json", "e.png"):
        (done / name).write_text("{}")
    ckpt, ready = ["--checkpoint", here / "zip.ckpt"], ["--prepared", prepared.folder]
    start, output = ["--start", here / "none.ckpt"], ["--output", here / "o"]
    source = ["--data", phantom, "--prepared", here / "p"]
    method = ["--methods", "{random: {}}"]
    wrong: list[tuple[list[Any], str]] = [
        (["finetun"], "no such command"),
        (["finetune", "--epochs", "3"], "--schedule.epochs INT"),
        (["finetune", "--config", here / "none.yaml"], "no such file"),
        (["finetune", "--seed", "x"], "invalid literal"),
        (["finetune", "--label_fraction", "2"], "label_fraction: Input should"),
        (["prepare", "--data", here / "none"], "no such folder"),
        (["prepare", "--data", here / "empty"], "holds no cases"),
        (["prepare"], "--data is missing"),
        (["prepare", "--data", phantom, *ready], "is there already"),
        (["prepare", "--data", phantom, "--prepared", phantom], "which is read"),
        (["run", "--data", here / "none", *output], "no such folder"),
        (["run", *source, "--output", done], "of other splits or starts"),
        (["table", *method, "--data", here / "none", *output], "no such folder"),
        (["search", *method, "--data", here / "none", *output], "no such folder"),
        (
            ["table", "--methods", "{a: {finetune: {mixup: -1}}}", *source, *output],
            "mixup: Input should",
        ),
        (["demo", "--data", here / "none", *output], "no such folder"),
    ]
    for stage in ("pretrain-global", "pretrain-local", "finetune"):
        wrong += [
            ([stage, "--prepared", here / "none"], "run `semicl prepare"),
            ([stage, "--prepared", here / "broken"], "damaged"),
            ([stage, *ready, "--split", "9"], "no such split"),
            ([stage, *ready, "--label_fraction", "0.3", *start, *output], "no such checkpoint"),
            ([stage, *ready, "--label_fraction", "0.3", "--output", done], "holds a finished stage"),
            ([stage, *ready, "--label_fraction", "0.3", "--output", scan], "is no folder"),
            ([stage, *ready, "--label_fraction", "0.3", "--output", prepared.folder], "which is read"),
            (
                [stage, *ready, "--label_fraction", "0.3", "--network.widths", "4", "8", "8", "8", "8", "8"],
                "does not fit",
            ),
        ]
    wrong += [(["finetune", *ready, "--label_fraction", "0.01"], "yields no volume")]
    for command in (["evaluate"], ["embed"], ["predict", "--input", scan]):
        wrong += [
            ([*command, "--checkpoint", here / "none.ckpt"], "no such checkpoint"),
            ([*command, "--checkpoint", here / "text.ckpt"], "not readable as a checkpoint"),
        ]
    wrong += [
        (["evaluate", *ckpt, "--data", here / "none"], "no such folder"),
        (["evaluate", *ckpt, "--data", here / "cases", *output], "not readable as NIfTI"),
        (["prepare", "--data", here / "cases", "--prepared", here / "p"], "not readable as NIfTI"),
        (["evaluate", *ckpt, "--prepared", here / "none"], "run `semicl prepare"),
        (["evaluate", *ckpt, *ready, "--split", "9"], "no such split"),
        (["evaluate", *ckpt, *ready, "--output", done], "results.json: is there already"),
        (["embed", *ckpt, "--prepared", here / "none"], "run `semicl prepare"),
        (["embed", *ckpt, *ready, "--output", done / "e.png"], "is there already"),
        (["embed", *ckpt, *ready, "--output", "e.txt"], "the name of a .png file"),
        (["predict", *ckpt, "--input", here / "none"], "no such file or folder"),
        (["predict", *ckpt, "--input", here / "empty"], "holds no .nii"),
        (["predict", *ckpt, "--input", here / "text.ckpt"], "not a NIfTI file"),
        (["predict", *ckpt, "--input", here / "text.nii.gz", *output], "not readable as NIfTI"),
        (["predict", *ckpt, "--input", here / "cut.nii.gz", *output], "not readable as NIfTI"),
        (["predict", *ckpt, "--input", scan, "--output", here], "which is read"),
    ]
    return wrong


def test_mistakes_and_help_need_no_torch(lines: list[tuple[list[Any], str]]) -> None:
    asked: list[tuple[list[Any], str]] = [([command, "--help"], "") for command in COMMANDS]
    asked += [(["--help"], ""), (["--version"], ""), ([], "demo")]
    words = json.dumps([[str(word) for word in line] for line, _ in asked + lines])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM % (SLOW,), words],
        cwd=REPOSITORY,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for (line, message), (code, said, imported) in zip(asked + lines, json.loads(done.stdout), strict=True):
        assert imported == [], line
        assert message in said, (line, said)
        assert code == (0 if line[-1:] in (["--help"], ["--version"]) else code or 1), line
