"""What can be told of a study before torch is imported, and before anything of it is written."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semicl.data.prepare import require_ready
from semicl.errors import SemiclError
from semicl.files import TO_REPLACE, output_folder
from semicl.options import PrepareOptions, SourceOptions, StudyOptions
from semicl.study.plan import Cell, stages_of_methods
from semicl.study.sections import section


def check_study(source: SourceOptions, study: StudyOptions, prepare: PrepareOptions, stages: Mapping[str, Any]) -> None:
    """Raise where methods, data or folders cannot be used.

    Raises:
        SemiclError: so it is.
    """
    stages_of_methods(study, stages)
    with section("prepare", prepare):
        require_ready(source, prepare)
    output_folder(study.output, [source.prepared, *([Path(source.data)] if source.data else [])])


def require_same_study(record: Path, others: Sequence[str], name: str, cells: Sequence[Cell], overwrite: bool) -> None:
    """Raise where tables would be replaced by some that lack cells of theirs: of another study, or of another's part.

    Args:
        record: the JSON file of the tables.
        others: names of the files beside it, written after it.
        name: of the data.
        cells: of the study.
        overwrite: whether any may be replaced.

    Raises:
        SemiclError: so it is.
    """
    there = [record.with_name(file) for file in (record.name, *others) if record.with_name(file).exists()]
    if overwrite or not there:
        return
    if there[0] == record:
        now = {(name, cell.method, cell.label_fraction, cell.split) for cell in cells}
        if _recorded(record) <= now:
            return
    way_out = TO_REPLACE.format(option="output")
    raise SemiclError(f"{there[0]}: is there already, of cells that are not in this study; {way_out}")


def _recorded(record: Path) -> set[tuple[Any, ...]]:
    """The cells of a record; one of its own where it cannot be read."""
    try:
        content = json.loads(record.read_text())
        return {
            (content["data"], cell["method"], cell["label_fraction"], split["split"])
            for cell in content["cells"]
            for split in cell["splits"]
        }
    except (ValueError, KeyError, TypeError):
        return {()}
