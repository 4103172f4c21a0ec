"""The reference judges the other backends, so it shares no code with them."""

import re
from pathlib import Path

from semicl_kernels.backends import reference


def test_it_imports_the_contract_alone() -> None:
    source = Path(reference.__file__).read_text()
    assert re.findall(r"^ *from (\.\S*) import", source, re.MULTILINE) == [".base"]
