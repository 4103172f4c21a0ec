"""A prepared folder is read back as it was written; damage is named."""

import json
from pathlib import Path

import numpy as np
import pytest

from semicl.data.prepared import Prepared, read_prepared
from semicl.errors import SemiclError


def test_it_is_read_back(prepared: Prepared) -> None:
    read = read_prepared(prepared.folder)
    assert read == prepared
    assert read.split(1) != read.split(0)


def test_arrays(prepared: Prepared) -> None:
    case = prepared.cases[0]
    image, label = prepared.image(case), prepared.label(case)
    assert image.shape == (1, *label.shape) == (1, 20, 32, 32)
    assert (image.dtype, label.dtype) == (np.float32, np.uint8)
    assert isinstance(image, np.memmap)


def test_a_split_is_text_that_a_person_can_read(prepared: Prepared) -> None:
    content = json.loads((prepared.folder / "splits" / "0.json").read_text())
    assert (content["seed"], content["repeat"], content["shares"]) == (0, 0, [3, 1, 1])
    assert set(content["test"]) == {case.subject for case in prepared.split(0).test}


def test_a_missing_folder_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(SemiclError, match=r"prepared\.json: no such file; run `semicl prepare"):
        read_prepared(tmp_path)


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_damaged_description_is_named(own_prepared: Path, text: str) -> None:
    (own_prepared / "prepared.json").write_text(text)
    with pytest.raises(SemiclError, match=r"prepared\.json: damaged"):
        read_prepared(own_prepared)


@pytest.mark.parametrize("content", [None, b"", b"no array"])
def test_a_damaged_array_is_named(own_prepared: Path, content: bytes | None) -> None:
    read = read_prepared(own_prepared)
    path = own_prepared / "cache" / f"{read.cases[0].name}.image.npy"
    path.write_bytes(path.read_bytes()[:500] if content is None else content)
    with pytest.raises(SemiclError, match=r"image\.npy: not readable"):
        read.image(read.cases[0])
