"""What a checkpoint tells of its network, so that it can be used on files it has never seen."""

from dataclasses import asdict, dataclass
from typing import Any

from semicl.data.grid import Grid
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

    def new_network(self, seed: int) -> UNet:
        """A network like it with the random weights of the seed."""
        return new_unet(len(self.grid.patch_size), self.levels, len(self.classes), seed)

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
            tuple(Seen.from_dict(seen) for seen in content.get("seen", ())),  # older checkpoints do not tell
        )
