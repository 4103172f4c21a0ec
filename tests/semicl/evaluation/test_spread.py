"""One value has no deviation."""

from semicl.evaluation.metrics import shown, spread

NAN = float("nan")


def test_mean_and_deviation_are_not_rounded() -> None:
    assert spread([1.0, 3.0]) == {"mean": 2.0, "deviation": 1.0}
    assert spread([0.77846]) == {"mean": 0.77846, "deviation": None}
    assert spread([NAN, NAN]) == {"mean": None, "deviation": None}
    assert spread([NAN, 0.5]) == {"mean": 0.5, "deviation": None}


def test_what_there_is_none_of_is_a_dash() -> None:
    assert shown([0.5, 0.7]) == "0.600 ± 0.100"
    assert shown([0.5, 0.5]) == "0.500 ± 0.000"
    assert shown([0.5]) == "0.500 ± -"
    assert shown([NAN, NAN]) == "-"
