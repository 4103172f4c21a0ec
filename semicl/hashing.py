"""A short name for content of any length."""

import hashlib
import json
from typing import Any

LENGTH = 8


def short_hash(*parts: Any) -> str:
    """Letters and digits that differ where the parts do; the order of a mapping's keys does not matter."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]
