"""What jsonargparse says becomes one reason in plain words."""

import pytest

from semicl.option_errors import as_typed


def _no_list(got: str) -> str:
    return f"Parser key \"widths\":\n  Expected a <class 'tuple'>. Got value: {got}"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            'Parser key "classes":\n  Does not validate against any of the Union subtypes\n  Errors:\n'
            "    - Expected a <class 'int'>. Got value: x\n    - Expected a <class 'NoneType'>\n"
            "  Given value type: <class 'dict'>\n  Given value: {'a': 1, 'b': 'x'}",
            """--classes: expected an integer, got x; an example: --classes '{"liver": 1, "spleen": 4}'""",
        ),
        ("Parser key \"seed\":\n  Expected a <class 'int'>. Got value: None", "--seed: expected an integer, got null"),
        (
            "Parser key \"name\":\n  Expected a <class 'int'>. Got value: a - b",
            "--name: expected an integer, got a - b",
        ),
        ('Parser key "loss":\nUnable to load config "3"', "--loss: expected a mapping of options, got 3"),
        (_no_list("64"), "--widths: expected a list in brackets, as '[64,...]', got 64"),
        (_no_list("64,128"), "--widths: expected a list in brackets, as '[64,128]', got 64,128"),
        (_no_list("None"), "--widths: expected a list, got null"),
        (_no_list("{'a': 1}"), "--widths: expected a list, got {'a': 1}"),
        ("unrecognized arguments: --x", "unrecognized arguments: --x"),
    ],
)
def test_a_message_names_the_option_what_it_takes_and_what_it_got(message: str, told: str) -> None:
    assert as_typed(message) == told


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--label-fraction 0.1", "; did you mean --label_fraction?"),
        ("--loss.strid=2 --x", "; did you mean --loss.stride?"),
        ("--epochs 3", "; did you mean --schedule.epochs?"),
        ("--epoch 3", "; did you mean --schedule.epochs?"),
        ("--channels 3", "; did you mean --first.channels or --second.channels?"),
        ("--nothing.alike 3", ""),
        ("stray", ""),
        ("", ""),
        ("stray --epoch 3", "; did you mean --schedule.epochs?"),
    ],
)
def test_an_unknown_option_is_told_with_what_may_be_meant(typed: str, meant: str) -> None:
    known = ["label_fraction", "loss", "loss.stride", "schedule.epochs", "first.channels", "second.channels"]
    assert as_typed(f"unrecognized arguments: {typed}", known) == f"unrecognized arguments: {typed}{meant}"
