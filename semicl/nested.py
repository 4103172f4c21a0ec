"""Nested mappings, as options are when they are written down."""

from collections.abc import Mapping
from typing import Any


def laid_over(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A nested mapping with changes at any depth."""
    merged = dict(content)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = laid_over(merged[key], value) if both else value
    return merged
