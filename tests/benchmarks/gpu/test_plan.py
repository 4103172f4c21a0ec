from benchmarks.gpu.plan import FULL512, POINTS, WIDTHS, full, rehearsed_tasks, toy
from benchmarks.gpu.providers import OWN, PROVIDERS
from benchmarks.problems import SHAPES


def test_every_shape_is_planned_once_in_both_types():
    plan = full()
    tasks = plan.first + plan.then
    names = [task.name for task in tasks]
    assert len(set(names)) == len(names)
    shapes = {shape.name for shape in (*SHAPES, FULL512)} | {f"dense-{n}-{c}" for n in POINTS for c in WIDTHS}
    assert set(names) == {f"{shape}-{dtype}" for shape in shapes for dtype in ("bfloat16", "float32")}


def test_what_is_judged_comes_first():
    first = {task.name for task in full().first}
    assert {"hippocampus16-bfloat16", "dense-16384-128-bfloat16", "dense-16384-64-bfloat16"} <= first
    assert "full512-bfloat16" in first
    then = [task.name for task in full().then]
    assert then.index("dense-131072-128-bfloat16") < then.index("hippocampus16-float32")
    assert then.index("dense-131072-128-float32") < then.index("dense-1024-64-bfloat16")


def test_every_provider_is_asked_for():
    for plan in (full(), toy()):
        assert {name for task in plan.first for name in task.providers} == set(PROVIDERS)


def test_the_sanitizer_sees_our_backends_alone():
    assert {name for task in rehearsed_tasks("small") for name in task.providers} == set(OWN)
