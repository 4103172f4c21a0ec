import pytest

from benchmarks.targets import CPU_DEEP, DEEP, FULL, MEBIBYTE, NARROW, SPARSE, verdicts

GIB = 2**30


def judged(device: str, shapes: dict, accuracy: list | None = None) -> list[dict]:
    return verdicts({"device": device, "shapes": shapes, "accuracy": accuracy or []})


def the(found: list[dict], words: str) -> dict:
    (one,) = [verdict for verdict in found if words in verdict["target"]]
    return one


def on_cpu(plain: float, authors: float, extra: int) -> dict:
    providers = {"anchors-only": {"ratio_to_fused": plain}, "authors": {"ratio_to_fused": authors}}
    return {"providers": providers, "extra_peak_bytes": {"fused": extra}, "feature_bytes": MEBIBYTE}


def on_gpu(shape: str, times: dict[str, float]) -> dict:
    return {
        "family": shape.split("-")[0],
        "dtype": shape.rsplit("-", 1)[1],
        "points": int(shape.split("-")[1]) if shape.startswith("dense") else 1,
        "providers": {name: {"median_ms": time} for name, time in times.items()},
        "extra_peak_bytes": {},
        "feature_bytes": GIB,
    }


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_nothing_measured_nothing_judged(device):
    assert {verdict["met"] for verdict in judged(device, {})} == {None}


def test_the_interpreter_is_not_judged_by_its_times():
    shapes = {DEEP: on_gpu(DEEP, {"triton": 0.1, "flex": 1.0})}
    assert {verdict["met"] for verdict in judged("interpreter", shapes)} == {None}


def test_sparse_shapes_are_judged_together_and_by_the_slowest():
    shapes = {name: on_cpu(plain, 100.0, 1) for name, plain in zip(SPARSE, (0.9, 4.0, 4.0, 4.0), strict=True)}
    found = judged("cpu", shapes)
    assert the(found, "anchor rows, sparse shapes, geometric mean")["measured"] == "2.75x (0.90, 4.00, 4.00, 4.00)"
    assert the(found, "the same, slowest shape")["met"] is False
    assert the(found, "naive")["met"] is True
    del shapes[SPARSE[0]]
    assert the(judged("cpu", shapes), "naive")["met"] is None


def test_worst_memory_is_the_one_judged():
    verdict = the(judged("cpu", {"a": on_cpu(1, 1, MEBIBYTE), "b": on_cpu(1, 1, 68 * MEBIBYTE)}), "extra peak memory")
    assert verdict["met"] is False
    assert "(b)" in verdict["measured"]


def test_share_of_the_peak_and_bfloat16():
    providers = {"fused": {"executed_over_peak": 0.76}, "fused-bf16": {"ratio_to_fused": 0.5}}
    found = judged("cpu", {CPU_DEEP: {"providers": providers, "extra_peak_bytes": {}, "feature_bytes": 1}})
    assert the(found, "executed over peak")["met"] is True
    assert the(found, "bfloat16 over float32")["measured"] == "2x"


def test_worst_error_is_the_one_judged():
    found = judged("cpu", {}, [{"loss_ratio": 1.0, "gradient_ratio": 0.5}, {"loss_ratio": 2.5, "gradient_ratio": 1.0}])
    assert the(found, "error of the loss")["met"] is False
    assert the(found, "error of the gradient")["met"] is True


def test_authors_need_all_sparse_shapes():
    shapes = {f"{name}-bfloat16": on_gpu(f"{name}-bfloat16", {"triton": 1.0, "authors": 60.0}) for name in SPARSE}
    assert the(judged("cuda", shapes), "naive")["met"] is True
    del shapes[f"{SPARSE[0]}-bfloat16"]
    assert the(judged("cuda", shapes), "naive")["met"] is None


def test_the_worst_shape_and_its_best_peer_are_named():
    shapes = {
        DEEP: on_gpu(DEEP, {"triton": 1.0, "cuda": 0.5, "flex": 1.5, "authors": 9.0}),
        NARROW: on_gpu(NARROW, {"triton": 1.0, "flex": 1.9, "compiled": 1.5}),
    }
    verdict = the(judged("cuda", shapes), "the best other provider")
    assert verdict["met"] is False
    assert verdict["measured"] == f"1.5x ({NARROW}, compiled)"


def test_passes_over_pairs_are_held_against_each_other():
    """Not whole calls: the kernels around the pairs are the same."""
    small = "dense-2048-128-bfloat16"
    shapes = {name: on_gpu(name, {"triton": 1.0, "cuda": 1.0}) for name in (DEEP, small)}
    shapes[DEEP]["providers"]["cuda"]["graph_ms"] = 0.39
    for name, times in ((DEEP, (0.52, 0.39)), (small, (1.0, 2.0))):
        for provider, time in zip(("triton", "cuda"), times, strict=True):
            shapes[name]["providers"][provider]["pairs_ms"] = time
    found = judged("cuda", shapes)
    assert the(found, f"cuda, {DEEP}")["met"] is True
    assert the(found, "ahead of triton")["measured"] == f"1.33x ({DEEP})"  # the smaller one does not count


def test_share_of_the_rate_of_products():
    shapes = {NARROW: on_gpu(NARROW, {"cuda": 1.0})}
    shapes[NARROW]["providers"]["cuda"]["executed_over_peak"] = 0.5
    assert the(judged("cuda", shapes), "over the rate")["measured"] == "60 %"


@pytest.mark.parametrize(("extra", "met"), [(2.9, True), (3.1, False)])
def test_memory_is_counted_beyond_the_gradient(extra, met):
    shapes = {FULL: {**on_gpu(FULL, {}), "extra_peak_bytes": {"triton": int(extra * GIB)}}}
    assert the(judged("cuda", shapes), "triton, full512")["met"] is met
