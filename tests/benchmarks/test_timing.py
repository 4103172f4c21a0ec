import pytest

from benchmarks.timing import MAX_ROUNDS, MIN_ROUNDS, SHORT_SECONDS, Times, interleaved, ratio, rounds_for


def test_quartiles_lie_between_the_sorted_seconds():
    times = Times([4.0, 1.0, 2.0, 3.0])
    assert times.median == 2.5
    found = times.summary()
    assert [found[f"{name}_ms"] for name in ("least", "quartile1", "median", "quartile3")] == [1e3, 1750, 2500, 3250]
    assert Times([2.0]).summary()["quartile3_ms"] == 2000


def test_rounds_fill_the_share_within_limits():
    assert rounds_for(0.001, 10) == MAX_ROUNDS
    assert rounds_for(4.0, 10) == MIN_ROUNDS
    assert rounds_for(2.0, 10) == 5
    assert rounds_for(11.0, 10) == 0


def test_calls_take_turns_and_the_first_one_changes():
    seen = []

    def timed(call):
        call()
        return SHORT_SECONDS

    times = interleaved({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 100, timed=timed)
    assert seen[:2] == ["a", "b"]  # warm-up
    assert seen[2:8] == ["a", "b", "b", "a", "a", "b"]
    assert len(times["a"].seconds) == len(times["b"].seconds) == MAX_ROUNDS


def test_a_short_call_is_timed_the_second_time_in_a_row():
    seen = []
    times = interleaved({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 1)
    assert seen[2:10] == ["a", "a", "b", "b", "b", "b", "a", "a"]
    assert len(times["a"].seconds) == MAX_ROUNDS


def test_ratio_pairs_rounds():
    assert ratio(Times([2.0, 20.0, 6.0]), Times([1.0, 10.0, 2.0])) == 2.0
    assert ratio(Times([8.0]), Times([1.0, 2.0, 3.0])) == pytest.approx(4.0)
