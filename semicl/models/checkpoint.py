"""Checkpoints: written in one step, loaded with an account of what was taken, and the card in each of its network."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from semicl.data.classes import IGNORED
from semicl.data.grid import Grid
from semicl.errors import SemiclError
from semicl.files import CHECKPOINT, LENGTH, replacing, require_checkpoint
from semicl.models.lineage import Seen
from semicl.models.unet import UNet, new_unet

KEY = "semicl"
"""Where a checkpoint keeps its card."""


@dataclass(frozen=True)
class ModelCard:
    """A network's stage, levels and grid, and its classes: names and values of the label files, background first.

    `seen` is what it was trained on, a part for each data set, the last one last; it is empty where nobody noted it.
    """

    stage: str
    levels: tuple[int, ...]
    classes: dict[str, int]
    grid: Grid
    seen: tuple[Seen, ...] = ()
    channels: int = 1
    merged: dict[int, int | None] = field(default_factory=dict)

    @property
    def ignores(self) -> bool:
        """Whether there are values of label files that are ignored."""
        return None in self.merged.values()

    @property
    def outside(self) -> int:
        """The class number of what lies outside of an image."""
        return IGNORED if self.ignores else 0

    def new_network(self, seed: int) -> UNet:
        """A network like it with the random weights of the seed."""
        return new_unet(len(self.grid.patch_size), self.levels, len(self.classes), seed, self.channels)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, which torch.load takes with weights_only."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "ModelCard":
        """The card that `to_dict` wrote."""
        return cls(
            content["stage"],
            tuple(content["levels"]),
            dict(content["classes"]),
            Grid.from_dict(content["grid"]),
            tuple(Seen.from_dict(seen) for seen in content.get("seen", ())),  # older checkpoints tell neither
            content.get("channels", 1),
            dict(content.get("merged", {})),
        )


_WRAPPERS = re.compile(r"^((module|_orig_mod|network)\.)+")
"""Prefixes that DistributedDataParallel, torch.compile and the segmentation stage put before a parameter's name."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, written beside their place first.

    Lightning's own way goes through the system's temporary folder, which may be another disk, where the last step is
    a copy that can be cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        try:
            with replacing(Path(path)) as partial:
                torch.save(checkpoint, partial)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError of its own
            raise SemiclError(
                f"{path}: could not be written ({_reason(error)}); free space on the disk, then call it again to go "
                "on, a single stage with --resume"
            ) from error

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        try:
            return super().load_checkpoint(path, *arguments, **options)
        except Exception as error:  # torch.load raises whatever the damage leads to
            raise SemiclError(f"{path}: not readable{_cause(error)}; give --overwrite to start anew") from error


class MovableCheckpoint(ModelCheckpoint):
    """Lightning's callback, whose state names its files alone, so that the folder they lie in may be moved.

    Lightning's own state holds absolute paths, and forgets the best score where they have changed.
    """

    def state_dict(self) -> dict[str, Any]:
        return _with_files(super().state_dict(), "")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state over.

        Raises:
            SemiclError: the file of the best weights is not there any more.
        """
        super().load_state_dict(_with_files(state_dict, str(self.dirpath)))
        if self.best_model_path and not Path(self.best_model_path).is_file():
            raise SemiclError(
                f"{self.best_model_path}: no such file, though the stage had written it before it was interrupted; "
                "put it back, or give --overwrite to start anew"
            )


def _with_files(state: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """The state of a ModelCheckpoint, with its files in this folder."""
    paths = {name: state[name] for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
    scores = {os.path.join(folder, Path(path).name): score for path, score in state["best_k_models"].items()}
    moved = {name: os.path.join(folder, Path(path).name) if path else "" for name, path in paths.items()}
    return {**state, **moved, "best_k_models": scores, "dirpath": folder}


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a network came from a checkpoint.

    Args:
        source: the checkpoint's file.
        taken: names of the network's tensors that now hold the checkpoint's values.
        kept: names of the network's tensors that the checkpoint does not have.
        ignored: names of the checkpoint's tensors that the network does not have.
        seen: what the checkpoint was trained on, as far as it tells.
        classes: those that its classifier knows, in their order, where it has one and tells them.
    """

    source: Path
    taken: tuple[str, ...]
    kept: tuple[str, ...]
    ignored: tuple[str, ...]
    seen: tuple[Seen, ...]
    classes: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.source}: took {len(self.taken)} tensors ({_parts(self.taken)})"
        if self.kept:
            text += f", kept {len(self.kept)} as they were ({_parts(self.kept)})"
        if self.ignored:
            text += f", ignored {len(self.ignored)} ({_parts(self.ignored)})"
        return text


def load_weights(network: nn.Module, path: Path) -> LoadReport:
    """Copy into `network` every part of the checkpoint (encoder, decoder, ...) that it knows, and say which.

    A part is taken whole or not at all; what was taken is read back and compared.

    Raises:
        SemiclError: the file is missing or no checkpoint, no part matches, a part matches in some tensors only, or a
            tensor has another shape. The network is then as it was.
    """
    own = network.state_dict()
    content = _read(path)
    card = _card(path, content) if KEY in content else None
    stored = content["state_dict"]
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
                "give the --network, patch size, channels and classes that the checkpoint was trained with"
            )
    kept = tuple(name for name in own if name not in taken)
    parts = {name.split(".")[0] for name in taken}
    torn = [name for name in kept if name.split(".")[0] in parts]
    torn += [name for name in stored if name not in own and name.split(".")[0] in parts]
    if torn:
        raise SemiclError(
            f"{path}: only a part of {torn[0].split('.')[0]} matches the network ({torn[0]} does not); "
            "give the --network that the checkpoint was trained with"
        )
    network.load_state_dict(taken, strict=False)
    now = network.state_dict()
    wrong = [name for name, value in taken.items() if not torch.equal(now[name].cpu(), value.to(now[name].dtype))]
    if wrong:
        raise SemiclError(f"{path}: {wrong[0]} did not take its value; it holds NaN, so run the stage again")
    ignored = tuple(name for name in stored if name not in own)
    if card is None:
        return LoadReport(path, tuple(taken), kept, ignored, ())
    classes = tuple(card.classes) if "classifier" in parts else ()
    return LoadReport(path, tuple(taken), kept, ignored, card.seen, classes)


def load_segmentation(path: Path) -> tuple[UNet, ModelCard]:
    """The network of a fine-tuned checkpoint, ready to predict, and its card.

    Raises:
        SemiclError: the file is missing, no checkpoint, or of another stage.
    """
    content = _read(path)
    card = _card(path, content)
    if card.stage != "finetune":
        raise SemiclError(
            f"{path}: a checkpoint of {card.stage}, which knows no classes; run `semicl finetune` from it"
        )
    network = card.new_network(seed=0)
    report = load_weights(network, path)
    if report.kept:
        raise SemiclError(f"{path}: has no {_parts(report.kept)}; run `semicl finetune` again")
    return network.eval(), card


def read_card(path: Path) -> ModelCard:
    """The card of a checkpoint.

    Raises:
        SemiclError: the file is missing, no checkpoint, or has no card.
    """
    return _card(path, _read(path))


def weights_hash(path: Path) -> str:
    """A hash of the names, types, shapes and bits of a checkpoint's tensors, whatever else is in the file.

    Raises:
        SemiclError: the file is missing or no checkpoint.
    """
    digest = hashlib.sha256()
    for name, value in sorted(_read(path)["state_dict"].items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[: 2 * LENGTH]


def picked_validation(path: Path) -> tuple[int, float]:
    """The epoch whose weights a checkpoint of fine-tuning holds, from 1, and the validation Dice that they reached.

    Raises:
        SemiclError: the file is missing or no checkpoint.
    """
    content = _read(path)
    return content["epoch"] + 1, content["history"][-1][1]


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint, its `state_dict` the dense tensors in it alone, by their names without wrappers' prefixes."""
    require_checkpoint(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        content["state_dict"] = {
            _WRAPPERS.sub("", name): value.detach().to_dense().resolve_conj().resolve_neg().cpu()
            for name, value in content["state_dict"].items()
            if isinstance(value, Tensor)
        }
    except Exception as error:  # torch.load raises whatever the damage leads to
        raise SemiclError(f"{path}: not readable as a checkpoint{_cause(error)}; {CHECKPOINT}") from error
    return content


def _reason(error: BaseException) -> str:
    """The first line of an error, whose rest is about torch."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _cause(error: BaseException) -> str:
    """Why a file could not be read, in brackets; nothing where torch took it for something that it is not.

    What a file of another kind leads to in the unpickler means nothing, and torch's advice, to load it without
    weights_only, would run what is in it.
    """
    told = isinstance(error, (OSError, RuntimeError)) and "weights_only" not in str(error)
    return f" ({_reason(error)})" if told else ""


def _card(path: Path, content: dict[str, Any]) -> ModelCard:
    try:
        return ModelCard.from_dict(content[KEY])
    except (KeyError, TypeError) as error:
        raise SemiclError(
            f"{path}: does not tell its network; give a checkpoint that a stage of semicl wrote"
        ) from error


def _parts(names: Iterable[str]) -> str:
    counts = Counter(name.split(".")[0] for name in names)
    return ", ".join(f"{part} {count}" for part, count in counts.items())
