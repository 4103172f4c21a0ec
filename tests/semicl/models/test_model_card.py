"""A card survives a checkpoint and makes its network again."""

from pathlib import Path

import torch

from semicl.data.grid import Grid
from semicl.models.checkpoint import ModelCard
from semicl.models.lineage import Seen

SEEN = (Seen("Toy", 1, {"training": ("a", "b"), "validation": ("c",), "test": ("d",)}, 0.5, ("a",), True),)


def test_it_survives_a_checkpoint(tmp_path: Path) -> None:
    card = ModelCard("finetune", (4, 8), {"background": 0, "aorta": 820}, Grid((8, 16, 16), (1.0, 1.0, 2.0)), SEEN)
    torch.save(card.to_dict(), tmp_path / "card")
    assert ModelCard.from_dict(torch.load(tmp_path / "card", weights_only=True)) == card


def test_an_older_card_tells_not_what_was_seen(card: ModelCard) -> None:
    content = card.to_dict()
    del content["seen"]
    assert ModelCard.from_dict(content) == card


def test_it_makes_the_network(card: ModelCard) -> None:
    assert card.new_network(0)(torch.rand(2, 1, 32, 32)).shape == (2, 4, 32, 32)
    patches = ModelCard("finetune", (4, 8), {"background": 0, "organ": 1}, Grid((8, 8, 8)))
    assert patches.new_network(0)(torch.rand(2, 1, 8, 8, 8)).shape == (2, 2, 8, 8, 8)
