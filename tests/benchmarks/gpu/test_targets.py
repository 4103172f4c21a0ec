import pytest

from benchmarks.gpu.targets import DEEP, FULL, NARROW, verdicts
from benchmarks.targets import SPARSE

GIB = 2**30


def entry(shape: str, times: dict[str, float], replays: dict[str, float] | None = None) -> dict:
    replays = replays or {}
    providers = {name: {"median_ms": time} for name, time in times.items()}
    for name, time in replays.items():
        providers.setdefault(name, {})["replayed"] = {"median_ms": time}
    points = int(shape.split("-")[1]) if shape.startswith("dense") else 1
    return {
        "family": shape.split("-")[0],
        "dtype": shape.rsplit("-", 1)[1],
        "points": points,
        "providers": providers,
        "extra_peak_bytes": {},
        "feature_bytes": GIB,
        "dense_flops": 1e12,
    }


def judged(shapes: dict, toy: bool = False, rate: float | None = None) -> list[dict]:
    return verdicts({"toy": toy, "shapes": shapes, "limits": {"bfloat16_flops": rate}, "accuracy": []})


def the(found: list[dict], words: str) -> dict:
    (one,) = [verdict for verdict in found if words in verdict["target"]]
    return one


def test_nothing_measured_nothing_judged():
    assert {verdict["met"] for verdict in judged({})} == {None}


def test_a_toy_run_is_not_judged_by_its_times():
    assert {verdict["met"] for verdict in judged({DEEP: entry(DEEP, {"triton": 0.1, "flex": 1.0})}, toy=True)} == {None}


def test_authors_need_all_sparse_shapes():
    shapes = {f"{name}-bfloat16": entry(f"{name}-bfloat16", {"triton": 1.0, "authors": 60.0}) for name in SPARSE}
    assert the(judged(shapes), "authors")["met"] is True
    del shapes[f"{SPARSE[0]}-bfloat16"]
    assert the(judged(shapes), "authors")["met"] is None


def test_the_worst_shape_and_its_best_peer_are_named():
    shapes = {
        DEEP: entry(DEEP, {"triton": 1.0, "cuda": 0.5, "flex": 1.5, "authors": 9.0}),
        NARROW: entry(NARROW, {"triton": 1.0, "flex": 1.9, "compiled": 1.5}),
    }
    verdict = the(judged(shapes), "the best other provider")
    assert verdict["met"] is False
    assert verdict["measured"] == f"1.5x ({NARROW}, compiled)"


def test_passes_over_pairs_are_held_against_each_other():
    """Not whole calls: the kernels around the pairs are the same."""
    small = "dense-2048-128-bfloat16"
    replays = {"triton": 1.0, "cuda": 0.39}
    shapes = {name: entry(name, {}, replays) for name in (DEEP, small)}
    for name, times in ((DEEP, (0.52, 0.39)), (small, (1.0, 2.0))):
        for provider, time in zip(("triton", "cuda"), times, strict=True):
            shapes[name]["providers"][provider]["pairs_ms"] = time
    found = judged(shapes)
    assert the(found, f"cuda, {DEEP}")["met"] is True
    assert the(found, "ahead of triton")["measured"] == f"1.33x ({DEEP})"  # the smaller one does not count


def test_share_of_the_rate_of_products():
    shapes = {NARROW: entry(NARROW, {}, {"cuda": 2.0})}
    verdict = the(judged(shapes, rate=1e15), "over the rate")
    assert verdict["measured"] == "50 %"
    assert verdict["met"] is True


@pytest.mark.parametrize(("extra", "met"), [(2.9, True), (3.1, False)])
def test_memory_is_counted_beyond_the_gradient(extra, met):
    shapes = {FULL: entry(FULL, {})}
    shapes[FULL]["extra_peak_bytes"] = {"triton": int(extra * GIB)}
    assert the(judged(shapes), "triton, full512")["met"] is met
