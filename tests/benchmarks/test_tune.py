"""The search for tiles, with a clock whose times are given."""

import pytest
import torch

from benchmarks import tune
from semicl_kernels.backends import available_backends
from semicl_kernels.backends.device import interpreted
from semicl_kernels.triton_kernels import tile_configs
from semicl_kernels.triton_kernels.tile_configs import Tile

pytestmark = pytest.mark.skipif(
    available_backends()["triton"] != "available" or not interpreted(),
    reason="needs Triton's interpreter: TRITON_INTERPRET=1 and pip install triton",
)
OWN, FAST, WRONG = Tile(32, 32, 4, 1), Tile(32, 16, 4, 1), Tile(16, 16, 4, 1)


def test_candidates_begin_with_the_tables_own_and_fit_the_channels():
    found = tune.candidates("sm_90", "gradient", 1, 64)
    assert found[0] == tile_configs.tile("sm_90", "gradient", 1, 64)
    assert len(set(found)) == len(found) > 10
    assert all(max(tile.width, tile.out) <= 64 for tile in found)


@pytest.mark.parametrize("name", tune.PASSES)
def test_both_sides_of_the_tiles_are_varied(name):
    found = tune.candidates("sm_90", name, 1, 128)
    assert {tile.block_m for tile in found} >= {32, 64, 128}
    assert {tile.block_n for tile in found} >= {32, 64}
    assert name == "gradient" or all(tile.block_m % tile.block_n == 0 for tile in found)


@pytest.mark.parametrize("name", tune.PASSES)
def test_every_candidate_is_timed_with_its_own_tile(name, monkeypatch):
    monkeypatch.setattr(tune, "candidates", lambda *_: [OWN, FAST])
    problem = tune.make(70, 16, torch.float32, torch.device("cpu"))
    block_n = []
    real = tune.call_of

    def call_of(problem, name):
        block_n.append(tile_configs.tile("interpreter", name, problem.planes, problem.padded).block_n)
        return real(problem, name)

    monkeypatch.setattr(tune, "call_of", call_of)
    found = tune.search(problem, name, lambda call: float(block_n[-1]))
    assert found == {OWN: 32.0, FAST: 16.0}
    assert block_n == [32, 16]
    assert tile_configs.tile("interpreter", name, problem.planes, 16) not in (OWN, FAST)  # the table is as before


def test_a_tile_that_is_wrong_or_does_not_run_is_out(monkeypatch):
    monkeypatch.setattr(tune, "candidates", lambda *_: [OWN, WRONG, FAST])
    problem = tune.make(40, 16, torch.float32, torch.device("cpu"))
    results = iter([torch.ones(3), torch.full((3,), torch.nan)])

    def call_of(problem, name):
        result = next(results, None)
        if result is None:
            raise RuntimeError("out of resource: shared memory")
        return lambda: result

    monkeypatch.setattr(tune, "call_of", call_of)
    assert list(tune.search(problem, "sums", lambda call: 1.0)) == [OWN]


def test_entries_are_written_as_in_the_table():
    assert tune.entry(Tile(64, 32, 4, 2, width=32, out=64)) == "Tile(64, 32, 4, 2, width=32, out=64)"
    assert tune.entry(OWN) == "Tile(32, 32, 4, 1)"


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["tune"])
    assert tune.main() == 2
    assert "nothing to time" in capsys.readouterr().err
