"""The figure of a study has a line a method, with its numbers."""

import pytest

from semicl.figures import fractions_figure


def test_a_line_a_method_through_its_means() -> None:
    series = {"random": [(0.05, 0.7, 0.01), (0.2, 0.8, 0.02)], "ours": [(0.05, 0.75, 0.0)]}
    (axis,) = fractions_figure(series, "heads").axes
    lines = {container.get_label(): container.lines[0] for container in axis.containers}
    assert list(lines) == ["random", "ours"]
    assert lines["random"].get_ydata().tolist() == [0.7, 0.8]
    assert lines["random"].get_xdata() == pytest.approx([0.05, 0.2], rel=0.03)
    assert [label.get_text() for label in axis.get_xticklabels()] == ["5 %", "20 %"]
