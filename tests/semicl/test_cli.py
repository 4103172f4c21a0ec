"""Options come from configs and the command line, and every mistake is one line."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from semicl import cli
from semicl.cli import COMMANDS
from semicl.config import shipped_configs
from semicl.options import STAGES, LocalLossOptions, MethodOptions, NetworkOptions
from tests.semicl.conftest import REPOSITORY, error_of, run_command

RATES = "(0, 1e+30], got "


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments that the next command's function gets, instead of being run."""
    seen: dict[str, Any] = {}

    class Module:
        def __getattr__(self, name: str) -> Any:
            return lambda **arguments: seen.update(arguments, function=name)

    monkeypatch.setattr(cli, "import_module", lambda _: Module())
    return seen


def test_every_shipped_config_is_a_run_a_study_or_a_search(called: dict[str, Any]) -> None:
    commands = {"study": "table", "search": "search"}
    for name in shipped_configs():
        command = commands.get(name.rpartition("-")[2], "run")
        assert run_command(command, "--config", name) == 0
        assert called["function"] == command


@pytest.mark.parametrize("name", ["hippocampus-small-study", "paper-study"])
def test_the_shipped_studies_compare_all_methods_under_one_fine_tuning_schedule(
    called: dict[str, Any], name: str
) -> None:
    assert run_command("table", "--config", name) == 0
    methods = called["study"].methods
    papers = {"random", "global", "global + local(self)", "Mixup", "TCSM", "local(stride)", "local(block)"}
    papers |= {"global + local(stride)", "global + local(block)"}
    assert set(methods) == papers | {"global + local(full)", "global + local(full), local term"}
    assert (called["study"].label_fractions, called["study"].splits) == ((0.05, 0.1, 0.2), (0, 1, 2, 3))
    assert methods["random"] == MethodOptions()
    assert all(set(method.finetune) <= {"mixup", "tcsm", "local_weight"} for method in methods.values())
    assert called["pretrain_local"].loss == LocalLossOptions()


def test_a_group_that_leaves_the_overruled_option_alone_is_taken(called: dict[str, Any]) -> None:
    assert run_command("table", "--config", "paper-study", "--finetune.schedule", "{epochs: 3}") == 0
    assert called["finetune"].schedule.epochs == 3


def test_the_papers_configs(called: dict[str, Any]) -> None:
    assert run_command("run", "--config", "mmwhs") == 0
    assert called["experiment"].network.levels == (64, 128, 256, 512, 1024)
    assert called["prepare"].shares == (2, 1, 1)
    assert called["prepare"].patch_size == (160, 160)
    assert (called["pretrain_local"].loss.stride, called["pretrain_local"].loss.block_size) == (4, 16)
    assert called["run_options"].splits == (0, 1, 2, 3)
    assert run_command("run", "--config", "hippocampus", "--label_fraction", "0.2") == 0
    assert called["prepare"].shares == (3, 1, 1)
    assert called["experiment"].label_fraction == 0.2
    assert (called["finetune"].schedule.epochs, called["finetune"].schedule.learning_rate) == (120, 1e-5)


def test_a_stage_takes_its_section_of_the_same_config(called: dict[str, Any]) -> None:
    assert run_command("pretrain-local", "--config", "hippocampus-small", "--output", "o") == 0
    assert called["function"] == "pretrain_local"
    assert called["contrast"].loss.block_size == 16
    assert called["contrast"].schedule.epochs == 20
    assert called["experiment"].network == NetworkOptions((16, 32, 64, 128), 256)
    assert called["stage"].output == Path("o")
    assert run_command("prepare", "--config", "mmwhs") == 0
    assert called["options"].patch_size == (160, 160)


def test_the_command_line_wins_over_a_config_and_a_later_config_over_an_earlier(
    called: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("loss: {stride: 2}\nseed: 5\n")
    words = ["pretrain-local", "--config", "hippocampus-small", "--config", tmp_path / "mine.yaml", "--seed", "7"]
    assert run_command(*words) == 0
    assert called["contrast"].loss == LocalLossOptions(block_size=16, stride=2)
    assert called["experiment"].seed == 7


@pytest.mark.parametrize("words", [["--resume"], ["--resume", "true"], ["--resume", "--seed", "3"]])
def test_a_switch_needs_no_value(called: dict[str, Any], words: list[str]) -> None:
    assert run_command("finetune", *words) == 0
    assert called["stage"].resume is True
    assert called["stage"].overwrite is False


def test_a_switch_of_a_group_or_a_section_needs_no_value(called: dict[str, Any]) -> None:
    assert run_command("finetune", "--machine.deterministic", "--machine.compile", "false") == 0
    assert called["experiment"].machine.deterministic is True
    assert called["experiment"].machine.compile is False
    assert run_command("run", "--prepare.leave_out_damaged", "--finetune.mixup", "1") == 0
    assert called["prepare"].leave_out_damaged is True


def test_the_command_line_wins_over_a_config_after_it(called: dict[str, Any]) -> None:
    assert run_command("finetune", "--seed", "7", "--config=demo") == 0
    assert called["experiment"].seed == 7


def test_a_value_may_be_the_name_of_a_command(called: dict[str, Any]) -> None:
    assert run_command("finetune", "--output", "finetune") == 0
    assert called["stage"].output == Path("finetune")


def test_supervised_false(called: dict[str, Any]) -> None:
    assert run_command("pretrain-local", "--loss.supervised", "false") == 0
    assert called["contrast"].loss.supervised is False


def test_the_demos_quick_form_is_a_config_over_its_own(called: dict[str, Any]) -> None:
    assert run_command("demo") == 0
    usual = called["finetune"].schedule.epochs
    assert run_command("demo", "--quick", "--output", "o") == 0
    assert called["finetune"].schedule.epochs < usual
    assert called["run_options"].output == Path("o")
    assert called["run_options"].overwrite is False


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["finetune", "--label_fraction", "0"], 1, "--label_fraction takes a number in (0, 1], got 0.0"),
        (["prepare", "--patch_size", "[64]"], 1, "--patch_size takes two or three even numbers"),
        (["pretrain-global", "--schedule.batch_size", "1"], 1, "--schedule.batch_size takes 2 or more here"),
        *(
            (["finetune", "--schedule.learning_rate", rate], 1, f"--schedule.learning_rate takes a number in {RATES}")
            for rate in ("1e38", "0", ".inf", ".nan")
        ),
        (["table", "--methods", "{a: {}}", "--learning_rates", "[1e-4, 1e38]"], 1, "one or more numbers in (0, 1e+30]"),
        (["pretrain-global", "--schedule.epochs", "0"], 1, "--schedule.epochs takes a positive number, got 0"),
        (["run", "--finetune.schedule.epochs", "0"], 1, "--finetune.schedule.epochs takes a positive number, got 0"),
        (["run", "--pretrain_local.loss.stride", "0"], 1, "--pretrain_local.loss.stride takes a number of 1 or more"),
        (["pretrain-local", "--loss.stride", "0"], 1, "--loss.stride takes a number of 1 or more, got 0"),
        (["finetune", "--validate_every", "1000"], 1, "--validate_every takes at most the number of epochs"),
        (["finetune", "--resume", "--overwrite"], 1, "--overwrite takes false beside --resume"),
        (["finetune", "--seed", "many"], 2, "error: --seed: expected an integer, got many"),
        (["finetune", "--schedule", "{epochs: x}"], 2, "error: --schedule.epochs: expected an integer, got x"),
        (["finetune", "--validation_volumes", "x"], 2, "error: --validation_volumes: expected an integer, got x"),
        (["finetune", "--loss.scope", "x"], 2, "error: --loss.scope: expected one of 'batch', 'image', got x"),
        (["finetune", "--label_fractions", "0.1"], 2, "--label_fractions 0.1; did you mean --label_fraction?"),
        (["finetune", "--epochs", "3"], 2, "did you mean --schedule.epochs?"),
        (["run", "--start", "[random]"], 2, "--start [random]; did you mean --starts?"),
        (
            ["table", "--config", "hippocampus-small-study", "--label_fraction", "0.2"],
            1,
            "--label_fraction has no effect beside label_fractions [0.05, 0.1, 0.2], which the study tries all; give",
        ),
        (
            ["search", "--config", "paper-study", "--finetune.schedule.learning_rate", "1e-3"],
            1,
            "--finetune.schedule.learning_rate has no effect beside learning_rates [1e-05, 0.0001, 0.0005]",
        ),
        (["finetune", ""], 2, "error: unrecognized arguments:"),
        (["run", "--network.widths", "64"], 2, "--network.widths: expected a list in brackets, as '[64,...]', got 64"),
        (["prepare", "--spacing", "[1, 2]"], 2, "error: --spacing: expected a list of 3 elements, got [1, 2]"),
        (["evaluate"], 2, "error: the following arguments are required: --checkpoint"),
        (["predict"], 2, "error: the following arguments are required: --checkpoint, --input"),
        (["predict"], 2, "; an example: --checkpoint runs/mine/finetune/model.ckpt --input scan.nii.gz"),
        (["prepare", "--shares", "[0.6,0.2,0.2]"], 2, "expected an integer, got 0.6; an example: --shares '[3,1,1]'"),
        (["run", "--prepare.shares", "[1,2]"], 2, "; an example: --prepare.shares '[3,1,1]'"),
        (
            ["prepare", "--classes", "liver=1"],
            2,
            """, got liver=1; an example: --classes '{"liver": 1, "spleen": 4}'""",
        ),
        (["finetune", "--tcsm.decay", "1"], 1, "--tcsm.decay takes a number in [0, 1), got 1.0"),
        (
            ["table", "--methods", "{a: {}, b: {}}", "--only", "[a, c]"],
            1,
            '--only takes one or more of "a", "b", got ["c"]',
        ),
        (["table"], 1, "--methods takes one or more, as in the config hippocampus-small-study, got {}"),
        (["table", "--methods", "{a: {stage: []}}"], 2, "--methods.a.stage is unknown; methods.a takes finetune,"),
        (["table", "--methods={a: 3}"], 2, "error: --methods.a takes a mapping of options (stages, "),
        (["table", "--methods", "[a]"], 2, 'error: --methods takes a mapping of names, got ["a"]'),
        (["table", "--methods", "{a: {stages: [no]}}"], 2, "--methods.a.stages: expected one of 'pretrain_global', "),
        (["prepare", "--classes", "{a: 1, b: x}"], 2, "error: --classes: expected an integer, got x"),
        (["prepare", "--spacing", "[1, x, 1]"], 2, "error: --spacing: expected a number, got x"),
        (["run", "--finetune.schedule", "null"], 2, "--finetune.schedule: expected a mapping of options, got null"),
        (["run", "--network.centre", "-5"], 1, "--network.centre takes a number of 1 or more, or null, got -5"),
        (["run", "--network.widths", "[8,0]"], 1, "--network.widths takes numbers of 1 or more, got [8, 0]"),
        (["table", "--methods", "{a: {pretrain_local: {channels: 4}}}"], 1, "one of the method's stages"),
        (["table", "--methods", "{a: {stages: [pretrain_local, pretrain_global]}}"], 1, "in this order"),
        (["run", "--config", "hippocampus-small-study"], 2, "unknown key 'label_fractions'"),
        (["finetun"], 2, "finetun: no such command; give one of prepare, pretrain-global, "),
        (["finetun"], 2, ", demo; did you mean finetune?"),
        (["pretrain"], 2, "; did you mean pretrain-global or pretrain-local?"),
        (["--seed", "3"], 2, "error: --seed: no such command; give one of prepare, "),
        ([""], 2, "error: an empty word: no such command; give one of prepare, "),
        (
            ["finetune", "--config", "nowhere.yaml"],
            1,
            "nowhere.yaml: no such file; give a YAML file or one of",
        ),
        (["run", "--config", "hipocampus-small"], 1, ", phantom; did you mean hippocampus-small?"),
    ],
)
def test_mistaken_options_are_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    assert message in error_of(capsys, *words, code=code)


def test_no_word_is_answered_with_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command() == 2
    text = capsys.readouterr().err
    assert text.startswith("usage: semicl COMMAND")
    assert all(f"    {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("words", [["prepare", "--classes", "{a: 1, b: x}"], ["prepare", "--spacing", "[1, x, 1]"]])
def test_no_python_is_in_an_error(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert ", got x; an example: --" in error_of(capsys, *words, code=2)


@pytest.mark.parametrize(
    ("command", "text", "code", "message"),
    [
        ("run", "finetune: 3", 2, "finetune takes a mapping of options (schedule, "),
        ("run", "finetune: [a]", 2, 'channels, layers, mixup, tcsm, validate_every, validation_volumes), got ["a"]'),
        ("finetune", "finetune: [a]", 2, 'finetune takes a mapping of options, got ["a"]'),
        ("run", "label_fraction: null", 2, "label_fraction: expected a number, got null"),
        ("run", "finetune: {schedule: null}", 2, "finetune.schedule takes a mapping of options (epochs, "),
        ("run", "finetune: {schedule: {epochs: null}}", 2, "finetune.schedule.epochs: expected an integer, got null"),
        ("finetune", "schedule: {epochs: null}", 2, "schedule.epochs: expected an integer, got null"),
        ("run", "finetune: {schedul: {epochs: 2}}", 2, "finetune.schedul is unknown; finetune takes augmentation, "),
        ("run", "prepare: {classes: {a: 1, b: x}}", 2, "prepare.classes: expected an integer, got x"),
        ("run", "output: null", 2, "output: expected a path, got null"),
        ("run", "finetune: {loss: {stride: 0}}", 1, "finetune.loss.stride takes a number of 1 or more, got 0"),
        ("table", "methods: {a: null}", 2, "methods.a takes a mapping of options (stages, "),
        ("table", "methods: {a: {finetune: 3}}", 2, "methods.a.finetune: expected a mapping, got 3"),
        ("table", "methods: {a: {stages: [pretrain_local, pretrain_global]}}", 1, "methods.*.stages takes "),
    ],
)
def test_a_mistake_in_a_config_is_told_with_the_file_and_the_key(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str, text: str, code: int, message: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    line = error_of(capsys, command, "--config", "hippocampus-small", "--config", path, code=code)
    assert line.startswith(f"error: --config {path}: ")
    assert message in line


def test_a_value_that_the_command_line_gives_is_no_mistake_of_the_config(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("finetune: {loss: {stride: 2}}")
    line = error_of(capsys, "run", "--finetune.loss.stride=0", "--config", tmp_path / "mine.yaml")
    assert line.startswith("error: --finetune.loss.stride takes ")


@pytest.mark.parametrize(
    ("command", "section", "option"),
    [("finetune", "", "--schedule.epochs"), ("run", "finetune.", "--finetune.schedule.epochs")],
)
def test_a_value_that_clashes_with_the_command_line_is_no_mistake_of_the_config(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str, section: str, option: str
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("finetune: {validate_every: 10}")
    line = error_of(capsys, command, "--config", config, option, "4")
    assert line.startswith(f"error: --{section}validate_every takes at most the number of epochs (4)")
    assert line.endswith(f", got 10; give another --{section}validate_every or {option}")
    config.write_text("finetune: {schedule: {epochs: 4}, validate_every: 10}")
    line = error_of(capsys, command, "--config", config)
    assert line.startswith(f"error: --config {config}: {section}validate_every takes at most")


@pytest.mark.parametrize("text", ["sead: 3", "pretrain_local: {los: {stride: 2}}", "loss: {strid: 2}"])
def test_unknown_keys_of_a_config_are_errors(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert run_command("pretrain-local", "--config", tmp_path / "mine.yaml") in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert any(word in line for word in ("sead", "los", "strid"))


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command("--version")
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"semicl {version('semicl')}\n"


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_explains_every_option(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command(command, "--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for key in COMMANDS[command].keys() - set(COMMANDS[command].sections):
        assert f"--{key}" in text
    assert "--config" in text


def _help(capsys: pytest.CaptureFixture[str], command: str) -> str:
    """The help of a command, its lines joined."""
    with pytest.raises(SystemExit):
        run_command(command, "--help")
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_is_free_of_python_and_of_the_options_of_other_commands(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    text = _help(capsys, command)
    for word in ("<class", "Literal[", "tuple[", "Optional", "null", "DESIGN.md", "Path to a configuration file"):
        assert word not in text
    assert not any(f"--{section}." in text.split("Options of a single stage")[0] for section in STAGES)


@pytest.mark.parametrize(
    ("command", "required"),
    [("predict", ["checkpoint", "input"]), ("evaluate", ["checkpoint"]), ("embed", ["checkpoint"]), ("finetune", [])],
)
def test_help_calls_required_what_is_and_nothing_else(
    capsys: pytest.CaptureFixture[str], command: str, required: list[str]
) -> None:
    text = _help(capsys, command)
    usage = "".join(f" --{option} VALUE" for option in required)
    assert text.startswith(f"usage: semicl {command}{usage} [--OPTION VALUE ...]")
    assert text.count("(required)") == len(required)


def test_headings_of_help_say_what_they_are_of(capsys: pytest.CaptureFixture[str]) -> None:
    local, tuning = (_help(capsys, command) for command in ("pretrain-local", "finetune"))
    assert " what changes each view; in the self-supervised form its intensities alone, since a point must " in local
    assert " what changes the training slices: --augmentation.rotation" in tuning
    assert " the supervised local contrastive term: --loss.supervised" in tuning


def test_help_shows_defaults_as_they_are_typed(capsys: pytest.CaptureFixture[str]) -> None:
    text = _help(capsys, "finetune")
    assert "--schedule.epochs INTEGER how often each slice or patch is seen. (default: 120)" in text
    assert "--resume {true,false} go on with an unfinished stage in the output folder. (default: false)" in text
    assert "(default: '[0.85,1.15]')" in text
    assert "--augmentation.scale '[ITEM,...]'" in text
    assert "(default: runs/demo)" in _help(capsys, "demo")


def _without(missing: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command line where a library is missing."""
    program = (
        f"import runpy, sys; sys.modules[{missing!r}] = None; sys.argv = {['semicl', *words]!r};"
        "runpy.run_module('semicl', run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("missing", ["jsonargparse", "pytorch_lightning"])
def test_a_missing_library_is_named_with_the_command_that_installs_it(missing: str) -> None:
    done = _without(missing, "demo", "--data", "phantom")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert missing in line
    assert line.endswith("pip install '.[train]' in the source folder of semicl")


def test_the_version_needs_no_other_library() -> None:
    done = _without("jsonargparse", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"semicl {version('semicl')}\n"


def test_a_folder_that_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    words = ["prepare", "--data", "phantom", "--phantom_subjects", "5", "--prepared", tmp_path / "file" / "prepared"]
    assert str(tmp_path / "file") in error_of(capsys, *words)
