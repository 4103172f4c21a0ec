"""Which backends there are to test, and a hypothesis profile that repeats itself."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest
import torch

from semicl_kernels import available_backends, ops
from semicl_kernels.backends import launch_cache

from .interpreter import is_interpreted
from .on_device import ON_GPU

# The same examples in every run: a failure is then a change of the code, never of the draw.
hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("repeatable")

BACKENDS = available_backends()
if os.environ.get("SEMICL_REQUIRE_CPU") == "1" and BACKENDS["cpu"] != "available":
    raise pytest.UsageError(f"SEMICL_REQUIRE_CPU=1, and backend cpu: {BACKENDS['cpu']}")


def backend_parameter(name: str) -> object:
    missing = pytest.mark.skipif(BACKENDS[name] != "available", reason=f"backend {name}: {BACKENDS[name]}")
    return pytest.param(name, marks=missing)


# Those that take every case: "cuda", which does not, has test_cuda.py and test_gpu.py.
TAKE_ALL = [name for name in BACKENDS if name != "cuda"]


@pytest.fixture(params=[backend_parameter(name) for name in TAKE_ALL], scope="session")
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend of this machine that takes every case."""
    return str(request.param)


@pytest.fixture(params=[backend_parameter(name) for name in TAKE_ALL if name != "reference"], scope="session")
def fast_backend(request: pytest.FixtureRequest) -> str:
    """The same but the reference."""
    return str(request.param)


@pytest.fixture(params=[backend_parameter("cpu")], scope="session")
def compiled_backend(request: pytest.FixtureRequest) -> str:
    """The backend that has threads of its own."""
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_recorded() -> None:
    """Tests change what calls launch: tiles, blocks of columns, chunks, the compiled code itself."""
    launch_cache.forget()
    ops.partition_of_places.cache_clear()


@pytest.fixture
def threads() -> Iterator[None]:
    """Gives torch its number of threads back after a test that changes it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# What the interpreter runs of its cases while the other files' are slow ones: the values against the reference.
INTERPRETED_FILES = ("test_agreement.py", "test_ops.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cases that compute on a GPU are marked so. Of the many that Triton's interpreter would run, all but every tenth
    of a test of values are slow ones."""
    seen: dict[str, int] = {}
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if any(str(value) in ON_GPU for value in parameters.values()):
            item.add_marker(pytest.mark.gpu)
        if any(is_interpreted(str(value)) for value in parameters.values()):
            name = item.nodeid.split("[")[0]
            if item.path.name not in INTERPRETED_FILES or seen.setdefault(name, 0) % 10:
                item.add_marker(pytest.mark.slow)
            seen[name] = seen.get(name, 0) + 1
