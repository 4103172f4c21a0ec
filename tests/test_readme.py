"""The README's code runs as it stands."""

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_every_python_example_runs(capsys):
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})
    loss, has_gradient = capsys.readouterr().out.split()
    assert float(loss) > 0
    assert has_gradient == "tensor(True)"


def test_every_file_it_names_exists():
    names = re.findall(r"`((?:benchmarks|csrc|semicl|semicl_kernels|tests)/[\w./]*)`", README)
    names += re.findall(r"\]\(((?:benchmarks|docs)/[\w./-]+)\)", README)
    assert len(names) > 5
    for name in names:
        assert (Path(__file__).parents[1] / name).exists(), name
