"""How providers are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    title: str
    colour: str


Looks = Mapping[str, Look]
