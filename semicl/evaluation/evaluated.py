"""What an evaluation depended on, which its results.json tells, so that it is made again where that has changed."""

from pathlib import Path

from semicl.files import read_json

CASES = "cases of hash"
"""The content of the cases."""


def judged(checkpoint: Path, cases: str) -> dict[str, str]:
    """What an evaluation depends on.

    Args:
        checkpoint: whose weights are judged.
        cases: the content of the cases, as `semicl.data.file_states.cases_hash` tells it.

    Raises:
        SemiclError: the checkpoint cannot be read.
    """
    from semicl.models.checkpoint import weights_hash

    return {"weights of hash": weights_hash(checkpoint), CASES: cases}


def evaluated_on(folder: Path) -> dict[str, str] | None:
    """What the evaluation in a folder depended on; None where there is none that tells."""
    try:
        return dict(read_json(folder / "results.json")["depends_on"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
