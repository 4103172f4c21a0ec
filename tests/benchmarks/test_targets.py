import pytest

from benchmarks.targets import DEEP, MEBIBYTE, SPARSE, geometric_mean, verdicts


def shape(plain: float, authors: float, extra: int, features: int = MEBIBYTE) -> dict:
    providers = {"anchors-only": {"ratio_to_fused": plain}, "authors": {"ratio_to_fused": authors}}
    return {"providers": providers, "extra_peak_bytes": {"fused": extra}, "feature_bytes": features}


def judged(shapes: dict, accuracies: list | None = None) -> dict:
    return {verdict["target"]: verdict for verdict in verdicts(shapes, accuracies or [])}


def test_nothing_measured_nothing_judged():
    assert {verdict["met"] for verdict in verdicts({}, [])} == {None}


def test_geometric_mean():
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)


def test_sparse_shapes_are_judged_together_and_by_the_slowest():
    shapes = {name: shape(plain, 100.0, MEBIBYTE) for name, plain in zip(SPARSE, (0.9, 4.0, 4.0, 4.0), strict=True)}
    found = judged(shapes)
    assert found["plain PyTorch with anchor rows, sparse shapes, geometric mean"]["met"] is True
    assert found["the same, slowest shape"]["met"] is False
    assert found["the authors' algorithm, sparse shapes, geometric mean"]["met"] is True


def test_worst_memory_is_the_one_judged():
    shapes = {"a": shape(1, 1, MEBIBYTE), "b": shape(1, 1, 68 * MEBIBYTE)}
    verdict = judged(shapes)["extra peak memory over (3 x features + 64 MiB), worst shape"]
    assert verdict["met"] is False
    assert "(b)" in verdict["measured"]


def test_share_of_the_peak_and_bfloat16():
    providers = {"fused": {"executed_over_peak": 0.76}, "fused-bf16": {"ratio_to_fused": 0.5}}
    found = judged({DEEP: {"providers": providers, "extra_peak_bytes": {}, "feature_bytes": 1}})
    assert found[f"{DEEP}: executed over peak"]["met"] is True
    assert found[f"{DEEP}: bfloat16 over float32"]["measured"] == "2x"


def test_worst_error_is_the_one_judged():
    found = judged({}, [{"loss_ratio": 1.0, "gradient_ratio": 0.5}, {"loss_ratio": 2.5, "gradient_ratio": 1.0}])
    assert found["error of the loss over plain PyTorch's"]["met"] is False
    assert found["error of the gradient over plain PyTorch's"]["met"] is True
