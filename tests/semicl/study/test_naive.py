"""The naive code computes what the fused code does, and what it would need is told before it is tried."""

from pathlib import Path

import pytest
import torch

from semicl.study import naive
from semicl.study.naive import (
    Call,
    Comparison,
    compare,
    comparison_figure,
    duration_in_words,
    fused_loss,
    naive_loss,
    problem,
    size_in_words,
)


@pytest.mark.parametrize("side", [8, 20])
def test_both_losses_and_gradients_agree(side: int) -> None:
    features, labels = problem(side)
    losses = [loss(features, labels) for loss in (fused_loss, naive_loss)]
    gradients = [torch.autograd.grad(loss, features)[0] for loss in losses]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-7)


def test_both_are_measured_and_a_table_grows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second size is one that the naive code would take too long for."""
    monkeypatch.setattr(naive, "MOST_SECONDS", 0.0)
    monkeypatch.setattr(naive, "REPEATED_FOR", 0.0)
    comparison = compare((24, 48))
    assert sorted(comparison.calls["fused"]) == [24, 48]
    assert sorted(comparison.calls["naive"]) == [24]
    assert comparison.calls["naive"][24].size > 2 * (2 * 24**2) ** 2 * 4
    assert comparison.calls["naive"][24].loss == pytest.approx(comparison.calls["fused"][24].loss, rel=1e-5)
    shown = capsys.readouterr().out
    assert "pixels" in shown
    assert "not tried: about" in shown


def test_what_the_naive_code_would_need_grows_with_the_fourth_power(tmp_path: Path) -> None:
    comparison = Comparison(memory=16 * 2**30, threads=2)
    comparison.calls["naive"][32] = Call(1.0, 0.5, 2**30)
    for side in (32, 128):
        comparison.calls["fused"][side] = Call(1.0, 0.001, 2**20)
    assert comparison.limit == 64
    assert comparison.expected(64) == (8.0, 16 * 2**30)
    assert comparison.row(32) == ("32", "1 ms, 1 MiB", "500 ms, 1 GiB", "500 x")
    assert comparison.row(128) == ("128", "1 ms, 1 MiB", "out of memory: about 128 s, 256 GiB", "")
    figure = comparison_figure(comparison)
    figure.savefig(tmp_path / "loss.png")
    assert "naive code ends at 64 pixels" in figure.axes[1].texts[0].get_text()


def test_numbers_have_no_exponent() -> None:
    assert [duration_in_words(each) for each in (0.0234, 0.9994, 0.9999)] == ["23.4 ms", "999 ms", "1 s"]
    assert [size_in_words(each * 2**20) for each in (2.26, 999.4, 1010, 24576)] == [
        "2.26 MiB",
        "999 MiB",
        "0.986 GiB",
        "24 GiB",
    ]
