"""Configs are found by name or path, laid over each other, and each command takes its own part of them."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from semicl.commands.command import OF_RUN, with_configs
from semicl.commands.pretrain_local import PretrainLocal
from semicl.commands.run import Run
from semicl.commands.table import Table
from semicl.config import did_you_mean, load_yaml, of_command, places, read_config, shipped_configs, structured
from semicl.errors import OptionError, SemiclError, UsageError
from semicl.options import LocalLossOptions, PrepareOptions, SegmentationOptions
from tests.semicl.conftest import error_of


def test_the_shipped_configs() -> None:
    assert {"hippocampus", "mmwhs", "phantom", "hippocampus-small"} <= set(shipped_configs())


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("seed: 3\nfinetune: {schedule: {epochs: 4}}\n")
    assert read_config(str(tmp_path / "mine.yaml")) == {"seed": 3, "finetune": {"schedule": {"epochs": 4}}}


def test_a_number_in_scientific_notation_is_one(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("finetune: {schedule: {learning_rate: 1e-4}}\n")
    assert with_configs(Run, [str(tmp_path / "mine.yaml")]).finetune.schedule.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "no such file; give a YAML file"), ("a: [", "not readable"), ("7", "holds no")],
)
def test_an_unusable_config_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SemiclError, match=message) as caught:
        read_config(str(path))
    assert str(path) in str(caught.value)


def test_a_stage_takes_what_is_shared_and_its_own_section() -> None:
    content = {"seed": 3, "data": "x", "pretrain_local": {"loss": {"stride": 2}}, "finetune": {"mixup": 1}}
    taken = of_command(content, PretrainLocal, "pretrain_local", OF_RUN, "c")
    assert taken == {"seed": 3, "loss": {"stride": 2}}


def test_a_run_takes_everything() -> None:
    content = {"seed": 3, "pretrain_local": {"loss": {"stride": 2}}}
    assert of_command(content, Run, None, OF_RUN, "c") == content


def test_a_config_of_one_command_has_its_options_at_the_top() -> None:
    content = {"loss": {"stride": 2}}
    assert of_command(content, PretrainLocal, "pretrain_local", OF_RUN, "c") == content


@pytest.mark.parametrize(("kind", "section"), [(PretrainLocal, "pretrain_local"), (Run, None)])
def test_an_unknown_key_is_an_error(kind: type, section: str | None) -> None:
    with pytest.raises(UsageError, match="--config c: sead is unknown; did you mean seed"):
        of_command({"sead": 3}, kind, section, OF_RUN, "c")


def test_a_section_without_options_is_an_error() -> None:
    with pytest.raises(UsageError, match="--config c: pretrain_local takes a mapping of options, got null"):
        of_command({"pretrain_local": None}, PretrainLocal, "pretrain_local", OF_RUN, "c")


def test_a_later_config_wins_at_any_depth_of_options_and_replaces_a_mapping_of_names(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("pretrain_local: {loss: {stride: 2, block_size: 4}}\nprepare: {classes: {a: 1}}\n")
    second.write_text("pretrain_local: {loss: {stride: 3}}\nprepare: {classes: {b: 2}}\n")
    found = with_configs(Run, [str(first), str(second)])
    assert found.pretrain_local.loss == LocalLossOptions(block_size=4, stride=3)
    assert found.prepare == PrepareOptions(classes={"b": 2})


def test_every_shipped_config_is_sound() -> None:
    for name in shipped_configs():
        with_configs(Table if name.endswith(("study", "search")) else Run, [name])


def test_options_are_checked_wherever_they_are_made() -> None:
    for make in (
        lambda: LocalLossOptions(stride=0),
        lambda: structured(LocalLossOptions, {"stride": 0}),
        lambda: replace(LocalLossOptions(), stride=0),
    ):
        with pytest.raises(OptionError, match=r"^stride: Input should be greater than 0, got 0$"):
            make()


def test_options_have_places_at_any_depth() -> None:
    assert {"schedule", "schedule.epochs", "loss.stride", "mixup"} <= set(places(SegmentationOptions))


def test_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert structured(PretrainLocal, {"output": "~/o"}).output == tmp_path / "o"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("loss.strid", "loss.stride"), ("epochs", "schedule.epochs"), ("epoch", "schedule.epochs"), ("nothing", None)],
)
def test_what_may_be_meant(name: str, meant: str | None) -> None:
    assert did_you_mean(name, ["loss", "loss.stride", "schedule.epochs"]) == (
        f"; did you mean {meant}?" if meant else ""
    )


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("a: 1\nb: 2\na: 1", "a"),
        ("a: {b: 1, b: 2}", "b"),
        ('{"a": [{"b": 1}, {"c": 1, "c": 2}]}', "c"),
        ("a: 1\n'a': 2", "a"),
        ("1: a\n1: b", "1"),
    ],
)
def test_a_key_that_is_given_twice_is_named(text: str, key: str) -> None:
    with pytest.raises(ValueError, match=f"'{key}' is given twice"):
        load_yaml(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: {b: 1}\nc: {b: 1}", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: &x {b: 1}\nc: {<<: *x, b: 2}\nd: *x", {"a": {"b": 1}, "c": {"b": 2}, "d": {"b": 1}}),
        ("1: a\n'1': b", {1: "a", "1": "b"}),
        ("[1, 1]", [1, 1]),
    ],
)
def test_other_keys_are_read(text: str, expected: object) -> None:
    assert load_yaml(text) == expected


def test_what_is_no_yaml_is_told_as_such() -> None:
    with pytest.raises(yaml.YAMLError):
        load_yaml("a: [")


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("label_fraction: 1.0", "label_fraction"),
        ("finetune: {mixup: 0.2}", "finetune"),
        ("network: {widths: [4], widths: [8]}", "widths"),
    ],
)
def test_a_config_with_a_key_twice_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, key: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("prepared: p\nlabel_fraction: 0.5\nfinetune: {schedule: {epochs: 2}}\n" + more)
    error = error_of(capsys, "finetune", "--config", path, code=2)
    assert error.startswith(f"--config {path}: ")
    assert f"'{key}' is given twice" in error
