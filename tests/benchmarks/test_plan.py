import pytest

from benchmarks.plan import FULL512, GPU_POINTS, PLANS, only, small
from benchmarks.problems import SHAPES
from benchmarks.providers import PROVIDERS


def names(device: str) -> list[str]:
    return [task.name for task in PLANS[device](False).tasks]


def test_every_shape_is_planned_once():
    assert names("cpu") == [shape.name for shape in SHAPES]
    dense = {f"dense-{points}-{channels}" for points in GPU_POINTS for channels in (64, 128, 256)}
    shapes = {shape.name for shape in (*SHAPES, FULL512)} | dense
    assert len(set(names("cuda"))) == len(names("cuda"))
    assert set(names("cuda")) == {f"{shape}{dtype}" for shape in shapes for dtype in ("", "-bfloat16")}


def test_first_numbers_are_few_and_what_is_judged_comes_next():
    plan = PLANS["cuda"](False)
    assert plan.first == len(PLANS["cuda"](True).tasks) == 3
    first = names("cuda")[:12]
    assert {"hippocampus16-bfloat16", "dense-16384-128-bfloat16", "dense-16384-64-bfloat16", "full512-bfloat16"} <= {
        *first
    }
    assert names("cuda").index("nt-xent-256") < names("cuda").index("dense-131072-128-bfloat16")


@pytest.mark.parametrize("device", ["cuda", "interpreter"])
def test_every_provider_of_a_gpu_is_asked_for(device):
    asked = {name for task in PLANS[device](False).tasks for name in task.providers}
    assert asked == set(PROVIDERS) - {"fused", "fused-bf16", "tiled"}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_errors_are_measured_of_nearly_equal_features_too(device):
    around = {shape.around for shape, _ in PLANS[device](False).accuracies}
    assert around == {None, "class", "one"}


def test_the_sanitizer_sees_ours_alone():
    assert {name for task in small() for name in task.providers} == {"triton", "cuda"}


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_plans_keep_what_only_asks_for(device, quick):
    kept = only(PLANS[device](quick), ["dense-4096"])
    assert kept.tasks
    assert all(task.shape.name.startswith("dense-4096") for task in kept.tasks)
    assert not kept.tests
