"""Checkpoints: written in one step, and loaded with an account of what was taken."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from semicl.errors import SemiclError
from semicl.files import replacing

_WRAPPERS = re.compile(r"^((module|_orig_mod|network)\.)+")
"""Prefixes that DistributedDataParallel, torch.compile and the segmentation stage put before a parameter's name."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, written beside their place first.

    Lightning's own way goes through the system's temporary folder, which may be another disk, where the last step is
    a copy that can be cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with replacing(Path(path)) as partial:
            torch.save(checkpoint, partial)


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a network came from a checkpoint.

    Args:
        source: the checkpoint's file name.
        taken: names of the network's tensors that now hold the checkpoint's values.
        kept: names of the network's tensors that the checkpoint does not have.
        ignored: names of the checkpoint's tensors that the network does not have.
    """

    source: str
    taken: tuple[str, ...]
    kept: tuple[str, ...]
    ignored: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.source}: took {len(self.taken)} tensors ({_parts(self.taken)})"
        if self.kept:
            text += f", kept {len(self.kept)} as they were ({_parts(self.kept)})"
        if self.ignored:
            text += f", ignored {len(self.ignored)} ({_parts(self.ignored)})"
        return text


def load_weights(network: nn.Module, path: Path) -> LoadReport:
    """Copy into `network` every tensor of the checkpoint that it knows by name, and say which.

    Raises:
        SemiclError: the file is missing or no checkpoint, no name matches, or a tensor has another shape. The network
            is then as it was.
    """
    own = network.state_dict()
    stored = _read(path)
    taken = {name: value for name, value in stored.items() if name in own}
    if not taken:
        raise SemiclError(
            f"{path}: no tensor matches the network (it has {_parts(stored) or 'none'}; "
            f"the network has {_parts(own)}); give a checkpoint of this network"
        )
    for name, value in taken.items():
        if value.shape != own[name].shape:
            raise SemiclError(
                f"{path}: {name} has shape {tuple(value.shape)}, the network's has {tuple(own[name].shape)}; "
                "give the widths and classes that the checkpoint was trained with"
            )
    network.load_state_dict(taken, strict=False)
    return LoadReport(
        path.name,
        tuple(taken),
        tuple(name for name in own if name not in taken),
        tuple(name for name in stored if name not in own),
    )


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a Lightning checkpoint by name, without wrappers' prefixes."""
    if not path.is_file():
        raise SemiclError(f"{path}: no such checkpoint; run the stage that writes it first")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        return {_WRAPPERS.sub("", name): value for name, value in state.items()}
    except Exception as error:  # torch.load raises whatever the damage leads to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SemiclError(f"{path}: not readable as a checkpoint ({reason}); run the stage again") from error


def _parts(names: Iterable[str]) -> str:
    counts = Counter(name.split(".")[0] for name in names)
    return ", ".join(f"{part} {count}" for part, count in counts.items())
