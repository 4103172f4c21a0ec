"""The demo from the command line, as a new user runs it."""

import base64
import json
import re
import shutil
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from semicl.data.phantom import CLASSES
from semicl.errors import SemiclError
from semicl.evaluation.measures import Evaluation, read_evaluation
from semicl.options import PrepareOptions, RunOptions
from semicl.study.naive import HEADINGS, Call, Comparison
from semicl.study.page import difference
from tests.semicl.conftest import error_of, run_command


class Page(HTMLParser):
    """What a page shows and what it takes from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.sources += [str(given[name]) for name in ("src", "href") if name in given]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def _opened(output: Path) -> str:
    """The words of index.html, which is whole and takes nothing from other files."""
    page = Page((output / "index.html").read_text())
    assert page.open == []
    assert len(page.sources) == 2
    for source, name in zip(page.sources, ("loss.png", "predictions.png"), strict=True):
        kind, _, content = source.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content) == (output / name).read_bytes()
    return " ".join(" ".join(page.words).split())


@dataclass(frozen=True)
class Ran:
    """A demo that ran: its folder, what it printed, and its results."""

    output: Path
    text: str
    results: dict[str, Any]


def _demo(output: Path, *arguments: object) -> Ran:
    """Run `semicl demo --quick`, check what every run must leave."""
    with redirect_stdout(StringIO()) as text, redirect_stderr(StringIO()) as bars:
        assert run_command("demo", "--quick", "--output", output, *arguments) == 0
    for bar in ("1 global contrast", "2 local contrast", "3 fine-tune random start", "3 fine-tune pre-trained"):
        assert f"{bar}: 100%" in bars.getvalue()
    picture = (output / "predictions.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert picture.endswith(b"IEND\xaeB`\x82")
    assert list(output.rglob(".partial-*")) == []
    return Ran(output, text.getvalue(), json.loads((output / "results.json").read_text()))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The demo on the phantom."""
    return _demo(tmp_path_factory.mktemp("demo") / "run", "--data", "phantom")


def test_on_the_phantom(ran: Ran) -> None:
    text, results, splits = ran.text, ran.results, ran.output / "split-0"
    assert "PHANTOM" in text
    assert "says nothing about patients" in text
    for word in HEADINGS:
        assert f"┃ {word} " in text
    assert "pretrain-local/model.ckpt: took 80 tensors (encoder 40, decoder 40)" in text
    assert results["verdict"] in text
    assert text.count("Next: ") == 1
    following = f"semicl predict --checkpoint {splits / 'finetune-pretrained' / 'model.ckpt'} --input FILE_OR_FOLDER"
    assert text.endswith(f"Next: {following}\n")
    words = _opened(ran.output)
    for part in ("nothing about patients", results["verdict"], "it would end at", following, "phantom_subjects: 10"):
        assert part in words
    for start in ("random", "pretrained"):
        assert len(results["validation_dice_by_step"][start]) == 2
        (mean,) = results["test_dice"][start]
        assert 0 <= mean <= 1
        cases = json.loads((splits / f"finetune-{start}" / "test" / "results.json").read_text())
        assert cases["classes"] == list(CLASSES[1:])
        dice = f"{cases['summary']['mean']['dice']['mean']:.3f}"
        assert dice in text
        assert dice in words


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
CHECK = """<p id="sizes"></p><script>
addEventListener("load", () => {
  const sizes = [...document.images].map(each => [each.naturalWidth, each.naturalHeight]);
  document.getElementById("sizes").textContent = JSON.stringify(sizes);
});
</script>"""


@pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(BROWSERS)} is installed: `apt-get install chromium`")
def test_a_browser_shows_both_pictures_and_has_no_complaint(ran: Ran, tmp_path: Path) -> None:
    page = tmp_path / "checked.html"
    page.write_text((ran.output / "index.html").read_text() + CHECK)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={tmp_path}/c"]
    words = [str(BROWSER), *flags, "--virtual-time-budget=5000", "--dump-dom", page.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    sizes = json.loads(re.findall(r'<p id="sizes">(.*?)</p>', done.stdout)[-1])
    assert len(sizes) == 2
    assert min(min(size) for size in sizes) > 300
    assert "CONSOLE" not in done.stderr


@pytest.mark.slow
def test_every_organ_of_the_phantom_is_learned(tmp_path: Path) -> None:
    """By the whole demo: some minutes."""
    assert run_command("demo", "--data", "phantom", "--output", tmp_path / "run") == 0
    tests = (tmp_path / "run" / "split-0").glob("finetune-*/test")
    found = [read_evaluation(test) for test in tests]
    assert len(found) == 2
    assert max(found, key=Evaluation.mean_dice).per_class("dice").min() > 0.7


@pytest.mark.slow
def test_on_real_cases(hippocampus: Path, tmp_path: Path) -> None:
    ran = _demo(tmp_path / "run", "--data", hippocampus)
    assert "PHANTOM" not in ran.text
    assert "nothing about patients" not in _opened(ran.output)
    assert ran.results["data"] == "Hippocampus"


def test_the_loss_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Measured and drawn without any data, nothing is trained, and what is there is not replaced unasked."""
    output = tmp_path / "run"
    words = ["demo", "--quick", "--loss_only", "--output", output]
    assert run_command(*words) == 0
    text = capsys.readouterr().out
    for word in HEADINGS:
        assert f"┃ {word} " in text
    assert f"The same as a picture: {output / 'loss.png'}" in text
    assert "Next: " not in text
    assert [each.name for each in output.iterdir()] == ["loss.png"]
    assert "loss.png: is there already" in error_of(capsys, *words)
    assert run_command(*words, "--overwrite") == 0


@pytest.mark.parametrize("more", [("--data", "phantom"), ("--finetune.schedule.epochs", "8"), ("--config", "phantom")])
def test_options_that_train_have_no_effect_beside_the_loss_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    text = error_of(capsys, "demo", "--loss_only", "--output", tmp_path / "run", *more, code=2)
    assert f"{more[0]} has no effect beside --loss_only" in text


def test_the_loss_is_drawn_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[bool] = []

    def trained(*_: object, **__: object) -> None:
        there.append((tmp_path / "run" / "loss.png").is_file())
        raise SemiclError("enough")

    monkeypatch.setattr("semicl.study.experiment.contrast_globally", trained)
    assert run_command("demo", "--quick", "--data", "phantom", "--output", tmp_path / "run") == 1
    assert there == [True]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--splits", "5"), "--splits takes numbers of splits"),
        (("--machine.accelerator", "gpu"), "gpu"),
        (("--prepare.patch_size", "8", "8"), "does not fit"),
        (("--label_fraction", "0.5"), "label_fraction"),
    ],
)
def test_what_cannot_run_is_told_before_anything_is_measured(
    ran: Ran,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    told: str,
) -> None:
    """The last by what a finished demo in the folder was told; its picture stays."""
    monkeypatch.setattr("semicl.study.naive.compare", lambda _: pytest.fail("measured"))
    output = shutil.copytree(ran.output, tmp_path / "run") if "label" in more[0] else tmp_path / "run"
    assert told in error_of(capsys, "demo", "--quick", "--data", "phantom", "--output", output, *more)


@pytest.mark.parametrize(
    ("relative", "words"), [(0.0, "are the same to the last digit"), (2e-7, "differ by 2e-07 of their value at most")]
)
def test_how_far_two_losses_differ_is_said(relative: float, words: str) -> None:
    comparison = Comparison(2**30, 2)
    for way, loss in (("naive", 1 + relative), ("fused", 1.0)):
        comparison.calls[way][32] = Call(loss, 1.0, 1)
    assert difference(comparison) == words


@pytest.fixture
def only_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """No comparison of the loss, and no page."""
    monkeypatch.setattr("semicl.study.naive.compare", lambda _: None)


@pytest.mark.usefixtures("only_run")
def test_an_experiment_in_its_folder_is_replaced_only_when_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[bool, bool]] = []

    def run(source: object, experiment: object, options: RunOptions, prepare: PrepareOptions, *_: object) -> None:
        told.append((options.overwrite, prepare.overwrite))

    monkeypatch.setattr("semicl.study.experiment.run", run)
    for words, overwrite in ((), False), (("--overwrite",), True):
        assert run_command("demo", "--output", tmp_path, *words) == 0
        assert told[-1] == (overwrite, overwrite)


@pytest.mark.usefixtures("only_run")
def test_without_other_data_it_takes_the_phantom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("semicl.study.experiment.run", lambda source, *_: seen.append(source))
    assert run_command("demo", "--output", tmp_path / "run") == 0
    assert (seen[-1].data, seen[-1].prepared) == ("phantom", tmp_path / "run" / "prepared")
    monkeypatch.setattr("semicl.study.experiment.require_possible", lambda *_: None)
    monkeypatch.setenv("SEMICL_DATA", str(tmp_path))
    assert run_command("demo") == 0
    assert seen[-1].data == str(tmp_path)
    assert run_command("demo", "--data", "elsewhere") == 0
    assert seen[-1].data == "elsewhere"
