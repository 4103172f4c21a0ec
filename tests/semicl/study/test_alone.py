"""A folder has one study at a time."""

from pathlib import Path

import pytest

from semicl.errors import SemiclError
from semicl.study.alone import alone_in


def test_a_second_study_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with (
        alone_in(tmp_path / "o"),
        pytest.raises(SemiclError, match="another `semicl table` or `semicl search` is at work"),
    ):
        alone_in(tmp_path / "o").__enter__()
    with alone_in(tmp_path / "o"):
        pass
