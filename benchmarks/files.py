"""Result files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_whole(result: Mapping[str, Any], path: Path) -> Path:
    """Write the result as JSON; an earlier file is replaced when its successor is whole. Return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text(json.dumps(result, indent=1) + "\n")
    return unfinished.replace(path)
