"""The options of the losses."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .backends import check_backend_name
from .checks import (
    check_bool,
    check_process_group,
    check_steps,
    check_temperature_tensor,
    check_word,
    checked_temperature,
    integer_or_none,
)

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

SCOPES = ("batch", "image")
DENOMINATORS = ("all", "negatives", "pairwise")
REDUCTIONS = ("block", "anchor", "class", "sum", "none")


@dataclass(frozen=True)
class Options:
    """What a loss is computed with, checked when it is made; :func:`local_contrastive_loss` describes each.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if an option has the wrong value.
    """

    temperature: float | Tensor = 0.1
    stride: int | Sequence[int] = 1
    block_size: int | Sequence[int] | None = None
    scope: str = "batch"
    denominator: str = "all"
    background: int | None = 0
    ignore_index: int | None = None
    normalize: bool = True
    reduction: str = "block"
    backend: str = "auto"
    process_group: ProcessGroup | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.temperature, Tensor):
            self._set("temperature", checked_temperature(self.temperature))
        else:
            check_temperature_tensor(self.temperature)
        self._set("stride", _steps("stride", self.stride))
        if self.block_size is not None:
            self._set("block_size", _steps("block_size", self.block_size))
        check_word("scope", self.scope, SCOPES)
        check_word("denominator", self.denominator, DENOMINATORS)
        self._set("background", integer_or_none("background", self.background))
        self._set("ignore_index", integer_or_none("ignore_index", self.ignore_index))
        check_bool("normalize", self.normalize)
        check_word("reduction", self.reduction, REDUCTIONS)
        check_backend_name(self.backend)
        check_process_group(self.process_group)

    def __deepcopy__(self, memo: dict[int, Any]) -> Options:
        """A copy that shares the process group."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Options(
            **{name: one if name == "process_group" else deepcopy(one, memo) for name, one in values.items()}
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Without the process group, which is this process's."""
        return Options, tuple(
            None if field.name == "process_group" else getattr(self, field.name) for field in fields(self)
        )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def _steps(name: str, steps: int | Sequence[int]) -> int | tuple[int, ...]:
    check_steps(name, steps)
    return tuple(steps) if isinstance(steps, Sequence) else steps
