"""What is measured is the compiled backend: without it there is nothing to test here."""

import pytest

from semicl_kernels import available_backends


@pytest.fixture(autouse=True)
def compiled_backend() -> None:
    state = available_backends()["cpu"]
    if state != "available":
        pytest.skip(f"needs the compiled cpu backend: {state}")
