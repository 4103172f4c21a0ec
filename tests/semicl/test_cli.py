"""Options come from configs and the command line, and every mistake is one box."""

import subprocess
import sys
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from semicl import cli
from semicl.cli import COMMANDS
from semicl.commands.pretrain_local import PretrainLocal
from semicl.config import places, shipped_configs
from semicl.options import LocalLossOptions, MethodOptions, NetworkOptions
from tests.semicl.conftest import REPOSITORY, box_of, error_of, run_command, unboxed


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The options of the next command, which is not run."""
    seen = SimpleNamespace()
    monkeypatch.setattr(cli, "_run", lambda command: setattr(seen, "options", command))
    return seen


def test_every_shipped_config_is_a_run_a_study_or_a_search(called: SimpleNamespace) -> None:
    commands = {"study": "table", "search": "search"}
    for name in shipped_configs():
        command = commands.get(name.rpartition("-")[2], "run")
        assert run_command(command, "--config", name) == 0
        assert isinstance(called.options, COMMANDS[command])


@pytest.mark.parametrize("name", ["hippocampus-small-study", "paper-study"])
def test_the_shipped_studies_compare_all_methods_under_one_fine_tuning_schedule(
    called: SimpleNamespace, name: str
) -> None:
    assert run_command("table", "--config", name) == 0
    methods = called.options.methods
    papers = {"random", "global", "global + local(self)", "Mixup", "TCSM", "FixMatch", "local(stride)", "local(block)"}
    papers |= {"global + local(stride)", "global + local(block)"}
    ours = {"global + local(full)", "global + local(full), local term", "FixMatch, local term"}
    assert set(methods) == papers | ours
    assert (called.options.label_fractions, called.options.splits) == ((0.05, 0.1, 0.2), (0, 1, 2, 3))
    assert methods["random"] == MethodOptions()
    assert all(set(method.finetune) <= {"mixup", "tcsm", "fixmatch", "local_weight"} for method in methods.values())
    assert called.options.pretrain_local.loss == LocalLossOptions()


def test_an_option_beside_the_overruled_one_is_taken(called: SimpleNamespace) -> None:
    assert run_command("table", "--config", "paper-study", "--finetune.schedule.epochs", "3") == 0
    assert called.options.finetune.schedule.epochs == 3


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m semicl run --help | head -1"
    found = subprocess.run(command, shell=True, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert "usage" in found.stdout
    assert found.stderr == ""


def test_the_papers_configs(called: SimpleNamespace) -> None:
    assert run_command("run", "--config", "mmwhs") == 0
    assert called.options.network.levels == (64, 128, 256, 512, 1024)
    assert called.options.prepare.shares == (2, 1, 1)
    assert called.options.prepare.patch_size == (160, 160)
    assert (called.options.pretrain_local.loss.stride, called.options.pretrain_local.loss.block_size) == (4, 16)
    assert called.options.splits == (0, 1, 2, 3)
    assert run_command("run", "--config", "hippocampus", "--label_fraction", "0.2") == 0
    assert called.options.prepare.shares == (3, 1, 1)
    assert called.options.label_fraction == 0.2
    assert (called.options.finetune.schedule.epochs, called.options.finetune.schedule.learning_rate) == (120, 1e-5)


def test_a_stage_takes_its_section_of_the_same_config(called: SimpleNamespace) -> None:
    assert run_command("pretrain-local", "--config", "hippocampus-small", "--output", "o") == 0
    assert isinstance(called.options, PretrainLocal)
    assert called.options.loss.block_size == 16
    assert called.options.schedule.epochs == 20
    assert called.options.network == NetworkOptions((16, 32, 64, 128), 256)
    assert called.options.output == Path("o")
    assert run_command("prepare", "--config", "mmwhs") == 0
    assert called.options.patch_size == (160, 160)


def test_the_command_line_wins_over_a_config_and_a_later_config_over_an_earlier(
    called: SimpleNamespace, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("loss: {stride: 2}\nseed: 5\n")
    words = ["pretrain-local", "--config", "hippocampus-small", "--config", tmp_path / "mine.yaml", "--seed", "7"]
    assert run_command(*words) == 0
    assert called.options.loss == LocalLossOptions(block_size=16, stride=2)
    assert called.options.seed == 7


@pytest.mark.parametrize("words", [["--resume"], ["--resume", "--seed", "3"]])
def test_a_switch_needs_no_value(called: SimpleNamespace, words: list[str]) -> None:
    assert run_command("finetune", *words) == 0
    assert called.options.resume is True
    assert called.options.overwrite is False


def test_a_switch_of_a_group_or_a_section_needs_no_value(called: SimpleNamespace) -> None:
    assert run_command("finetune", "--machine.deterministic", "--machine.no_compile") == 0
    assert called.options.machine.deterministic is True
    assert called.options.machine.compile is False
    assert run_command("run", "--prepare.leave_out_damaged", "--finetune.mixup", "1") == 0
    assert called.options.prepare.leave_out_damaged is True


def test_the_command_line_wins_over_a_config_after_it(called: SimpleNamespace) -> None:
    assert run_command("finetune", "--seed", "7", "--config=demo") == 0
    assert called.options.seed == 7


def test_a_value_may_be_the_name_of_a_command(called: SimpleNamespace) -> None:
    assert run_command("finetune", "--output", "finetune") == 0
    assert called.options.output == Path("finetune")


def test_supervised_false(called: SimpleNamespace) -> None:
    assert run_command("pretrain-local", "--loss.no_supervised") == 0
    assert called.options.loss.supervised is False


def test_the_demos_quick_form_is_a_config_over_its_own(called: SimpleNamespace) -> None:
    assert run_command("demo") == 0
    usual = called.options.finetune.schedule.epochs
    assert called.options.output == Path("runs/demo")
    assert run_command("demo", "--quick", "--output", "o") == 0
    assert called.options.finetune.schedule.epochs < usual
    assert called.options.output == Path("o")
    assert called.options.overwrite is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["finetune", "--label_fraction", "0"], "label_fraction: Input should be greater than 0, got 0.0"),
        (["prepare", "--patch_size", "64"], "patch_size: takes two or three even numbers"),
        (["prepare", "--resize", "--patch_size", "8", "8", "8"], "a patch size of three numbers makes none"),
        (["pretrain-global", "--schedule.batch_size", "1"], "schedule.batch_size takes 2 or more here"),
        *(
            (["finetune", "--schedule.learning_rate", rate], "Error parsing schedule: learning_rate: Input should be ")
            for rate in ("1e38", "0", "inf", "nan")
        ),
        (
            ["table", "--methods", "{a: {}}", "--learning_rates", "1e-4", "1e38"],
            "learning_rates.1: Input should be",
        ),
        (["pretrain-global", "--schedule.epochs", "0"], "schedule: epochs: Input should be greater than 0, got 0"),
        (
            ["run", "--finetune.schedule.epochs", "0"],
            "finetune.schedule: epochs: Input should be greater than 0",
        ),
        (["run", "--pretrain_local.loss.stride", "0"], "pretrain_local.loss: stride: Input should be greater than 0"),
        (["finetune", "--validate_every", "1000"], "validate_every takes at most the number of epochs (120)"),
        (["run", "--finetune.validate_every", "1000"], "Error parsing finetune: validate_every takes at most"),
        (["finetune", "--loss.no_supervised"], "loss.supervised takes true in this stage"),
        (["finetune", "--resume", "--overwrite"], "--resume goes on and --overwrite starts anew; give one of them"),
        (["predict", "--checkpoint", "c", "--input", "i", "--overwrite", "--skip_existing"], "give one of them"),
        (["embed", "--checkpoint", "c", "--output", "e.txt"], "output: takes the name of a .png file, got e.txt"),
        (["finetune", "--seed", "many"], "Error parsing --seed: invalid literal for int() with base 10: 'many'"),
        (["finetune", "--validation_volumes", "x"], "Error parsing --validation_volumes:"),
        (
            ["finetune", "--loss.scope", "x"],
            "for argument '--loss.scope'. Expected one of ('batch', 'image')",
        ),
        (["finetune", "--label_fractions", "0.1"], "Perhaps you meant: --label_fraction FLOAT"),
        (["finetune", "--epochs", "3"], "Perhaps you meant: --schedule.epochs INT"),
        (["finetune", "--confg", "demo"], "Perhaps you meant: --config FILE|NAME"),
        (["run", "--finetune.schedule.epoch", "3"], "Perhaps you meant: --finetune.schedule.epochs INT"),
        (["run", "--start", "random"], "Perhaps you meant: --starts [{random,"),
        (["finetune", ""], "Unrecognized options:"),
        (["finetune", "--resume", "true"], "Unrecognized options: true"),
        (["run", "--network.widths", "[64,128]"], "Error parsing --network.widths: Could not find valid parse"),
        (["prepare", "--spacing", "1", "2"], "--spacing"),
        (["prepare", "--spacing", "1", "x", "1"], "Error parsing --spacing:"),
        (["prepare", "--spacing", "1", "0", "1"], "spacing: takes positive numbers, got 1.0 0.0 1.0"),
        (["embed"], "Missing from semicl embed: --checkpoint PATH"),
        (["predict"], "--input PATH a NIfTI file or a picture, or a folder of them. (required)"),
        (["prepare", "--shares", "0.6", "0.2", "0.2"], "Error parsing --shares: Could not parse arguments ['0.6',"),
        (["run", "--prepare.shares", "1", "2"], "--prepare.shares"),
        (["prepare", "--classes", "liver=1"], """takes a mapping, as '{"liver": 1, "spleen": [4, 5]}', got liver=1"""),
        (["prepare", "--classes", "{a: 1, b: x}"], "classes.b.int: Input should be a valid integer"),
        (["prepare", "--classes", '{"a": 1, "a": 2}'], "Error parsing --classes: 'a' is given twice"),
        (["finetune", "--tcsm.decay", "1"], "tcsm: decay: Input should be less than 1, got 1.0"),
        (["table", "--methods", "{a: {}, b: {}}", "--only", "a", "c"], 'only takes one or more of "a", "b", got "c"'),
        (["table", "--methods", "{a: {stage: []}}"], "methods.a.stage is unknown"),
        (
            ["table", "--methods={a: 3}"],
            "methods.a: Input should be a mapping of options, as {name: value}, got 3",
        ),
        (["table", "--methods", "[a]"], "Error parsing --methods: takes a mapping, as "),
        (["table", "--methods", "{a: {stages: [no]}}"], "methods.a.stages.0: Input should be 'pretrain_global' or "),
        (["run", "--network.centre", "-5"], "Error parsing network: centre: Input should be greater than 0, got -5"),
        (["run", "--network.widths", "8", "0"], "network: widths.1: Input should be greater than 0, got 0"),
        (["run", "--network.widths", "8", "--network.centre", "None"], "widths takes two levels or more"),
        (["run", "--splits", "0", "0"], "splits: takes each value once, got 0 0"),
        (["run", "--splits", "-1"], "splits.0: Input should be greater than or equal to 0, got -1"),
        (["finetune", "--seed", "-1"], "seed: Input should be greater than or equal to 0, got -1"),
        (["finetune", "--seed", "4294967296"], "seed: Input should be less than 4294967296, got 4294967296"),
        (["table", "--methods", "{a: {pretrain_local: {channels: 4}}}"], "one of the method's stages"),
        (["table", "--methods", "{a: {stages: [pretrain_local, pretrain_global]}}"], "in this order"),
        ([], "Expected one of {prepare, pretrain-global, pretrain-local, finetune, evaluate, predict, run, "),
        (["--seed", "3"], "Available subcommands: prepare, pretrain-global, "),
    ],
)
def test_mistaken_options_are_one_box(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    text = box_of(capsys, *words)
    assert message in text
    assert "https://" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["table", "--config", "hippocampus-small-study", "--label_fraction", "0.2"],
            "--label_fraction has no effect beside label_fractions [0.05, 0.1, 0.2], which the study tries all; give",
        ),
        (
            ["search", "--config", "paper-study", "--finetune.schedule.learning_rate", "1e-3"],
            "--finetune.schedule.learning_rate has no effect beside learning_rates [1e-05, 0.0001, 0.0005]",
        ),
        (["table"], "--methods is missing; give one or more, as in the config hippocampus-small-study"),
        (
            ["run", "--config", "hippocampus-small-study"],
            "hippocampus-small-study: label_fractions is unknown",
        ),
        (["finetun"], "finetun: no such command; give one of prepare, pretrain-global, "),
        (["finetun"], ", demo; did you mean finetune?"),
        ([""], "an empty word: no such command; give one of prepare, "),
        (["finetune", "--config", "nowhere.yaml"], "nowhere.yaml: no such file; give a YAML file or one of"),
        (["run", "--config", "hipocampus-small"], ", phantom; did you mean hippocampus-small?"),
    ],
)
def test_other_mistakes_are_one_box(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert message in error_of(capsys, *words, code=2)


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        ("run", "finetune: 3", "finetune: Input should be a mapping of options, as {name: value}, got 3"),
        ("run", "finetune: [a]", 'finetune: Input should be a mapping of options, as {name: value}, got ["a"]'),
        ("finetune", "finetune: [a]", 'finetune takes a mapping of options, got ["a"]'),
        ("run", "label_fraction: null", "label_fraction: Input should be a valid number, got null"),
        ("run", "finetune: {schedule: null}", "finetune.schedule: Input should be a mapping of options, "),
        (
            "run",
            "finetune: {schedule: {epochs: null}}",
            "finetune.schedule.epochs: Input should be a valid integer",
        ),
        ("finetune", "schedule: {epochs: x}", "schedule.epochs: Input should be a valid integer, "),
        ("run", "finetune: {schedul: {epochs: 2}}", "finetune.schedul is unknown; did you mean finetune.schedule?"),
        ("run", "prepare: {classes: {a: 1, b: x}}", "prepare.classes.b.int: Input should be a valid integer, "),
        ("run", "output: null", "output: Input is not a valid path"),
        ("run", "finetune: {loss: {stride: 0}}", "finetune.loss.stride: Input should be greater than 0, got 0"),
        ("run", "sead: 3", "sead is unknown; did you mean seed?"),
        ("run", "config: demo", "config is unknown; `--help` lists the options"),
        ("run", "epochs: 5", "epochs is unknown; did you mean finetune.schedule.epochs?"),
        ("run", "colour: 5", "colour is unknown; `--help` lists the options"),
        ("finetune", "schedule: {colour: 5}", "schedule.colour is unknown; `--help` lists the options"),
        ("run", "prepare: {patch_size: 64}", "prepare.patch_size: Input should be a list, as [1, 2], got 64"),
        ("run", "finetune: {schedule: {epochs: 4}, validate_every: 10}", "finetune: validate_every takes at most "),
        ("table", "methods: {a: null}", "methods.a: Input should be a mapping of options, as {name: value}, got null"),
        ("table", "methods: {a: {finetune: 3}}", "methods.a.finetune: Input should be a valid dictionary, got 3"),
        ("table", "methods: {a: {stages: [pretrain_local, pretrain_global]}}", "methods.a: stages takes "),
    ],
)
def test_a_mistake_in_a_config_is_told_with_the_file_and_the_key(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str, text: str, message: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    line = error_of(capsys, command, "--config", "hippocampus-small", "--config", path, code=2)
    assert line.startswith(f"--config {path}: ")
    assert message in line


def test_a_value_that_is_refused_is_told_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("starts: [scratch]")
    line = error_of(capsys, "run", "--config", path, code=2)
    assert line.endswith("""starts.0: Input should be 'random', 'global' or 'pretrained', got "scratch\"""")
    path.write_text("starts: []")
    assert "starts: Tuple should have at least 1 item" in error_of(capsys, "run", "--config", path, code=2)
    path.write_text("starts: []\nlabel_fraction: 2")
    line = error_of(capsys, "run", "--config", path, code=2)
    assert "starts: Tuple should have at least 1 item" in line
    assert "label_fraction: Input should be less than or equal to 1" in line


def test_a_value_that_the_command_line_gives_is_no_mistake_of_the_config(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("finetune: {loss: {stride: 2}, validate_every: 10}")
    words = ["run", "--config", tmp_path / "mine.yaml"]
    assert "finetune.loss: stride: Input should be" in box_of(capsys, *words, "--finetune.loss.stride=0")
    text = box_of(capsys, *words, "--finetune.schedule.epochs", "4")
    assert "Error parsing finetune: validate_every takes at most the number of epochs (4)" in text
    assert "got 10; give another validate_every or schedule.epochs" in text


@pytest.mark.parametrize("text", ["sead: 3", "pretrain_local: {los: {stride: 2}}", "loss: {strid: 2}"])
def test_unknown_keys_of_a_config_are_errors(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert run_command("pretrain-local", "--config", tmp_path / "mine.yaml") in (1, 2)
    text = unboxed(capsys.readouterr().err)
    assert any(word in text for word in ("sead", "los", "strid"))


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("--version") == 0
    assert capsys.readouterr().out == f"semicl {version('semicl')}\n"


def _help(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The help of a command, its lines joined."""
    assert run_command(*words, "--help") == 0
    return " ".join(capsys.readouterr().out.replace("\u2502", " ").split())


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    text = _help(capsys)
    assert all(f" {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_explains_every_option(capsys: pytest.CaptureFixture[str], command: str) -> None:
    text = _help(capsys, command)
    kinds = {field.name: field.type for field in fields(COMMANDS[command])}
    for place in places(COMMANDS[command]):
        if place != "typed" and not is_dataclass(kinds.get(place)):  # which options are typed is no option
            assert f"--{place}" in text or place.count(".") > 0
    for word in ("<class", "Literal[", "tuple[", "Optional", "DESIGN.md"):
        assert word not in text


@pytest.mark.parametrize(
    ("command", "required"),
    [("predict", ["checkpoint", "input"]), ("evaluate", []), ("embed", ["checkpoint"]), ("finetune", [])],
)
def test_help_calls_required_what_is_and_nothing_else(
    capsys: pytest.CaptureFixture[str], command: str, required: list[str]
) -> None:
    text = _help(capsys, command)
    assert text.startswith(f"usage: semicl {command} [-h] [OPTIONS]")
    assert text.count("(required)") == len(required)


def test_headings_of_help_say_what_they_are_of(capsys: pytest.CaptureFixture[str]) -> None:
    local, tuning = (_help(capsys, command) for command in ("pretrain-local", "finetune"))
    assert " what changes each view; in the self-supervised form its intensities alone, since a point must " in local
    assert " what changes the training slices. " in tuning
    assert " the supervised local contrastive term. " in tuning


def test_help_shows_defaults_as_they_are_typed(capsys: pytest.CaptureFixture[str]) -> None:
    text = _help(capsys, "finetune")
    assert "--schedule.epochs INT how often each slice or patch is seen. (default: 120)" in text
    assert "--resume, --no_resume go on with an unfinished stage in the output folder. (default: False)" in text
    assert "smallest and largest magnification. (default: 0.85 1.15)" in text
    assert "(default: runs/demo)" in _help(capsys, "demo")


def _without(missing: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command line where a library is missing."""
    program = (
        f"import runpy, sys; sys.modules[{missing!r}] = None; sys.argv = {['semicl', *words]!r};"
        "runpy.run_module('semicl', run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("missing", ["tyro", "pytorch_lightning"])
def test_a_missing_library_is_named_with_the_command_that_installs_it(missing: str) -> None:
    done = _without(missing, "demo", "--data", "phantom")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert missing in line
    assert line.endswith("pip install '.[train]' in the source folder of semicl")


def test_the_version_needs_no_other_library() -> None:
    done = _without("tyro", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"semicl {version('semicl')}\n"


def test_a_folder_that_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    words = ["prepare", "--data", "phantom", "--phantom_subjects", "5", "--prepared", tmp_path / "file" / "prepared"]
    assert str(tmp_path / "file") in error_of(capsys, *words)
