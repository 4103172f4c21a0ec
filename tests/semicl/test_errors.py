"""A stage's errors name its options as the experiment takes them."""

import pytest

from semicl.errors import SemiclError, section
from semicl.options import SegmentationOptions


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("told --schedule.epochs 1", "told --finetune.schedule.epochs 1"),
        (
            "give --label_fraction, --mixup, or another --output",
            "give --label_fraction, --finetune.mixup, or another --output",
        ),
        ("run `semicl finetune --mixup 1`", "run `semicl finetune --mixup 1`"),
    ],
)
def test_the_stages_own_options_get_its_name(text: str, told: str) -> None:
    with pytest.raises(SemiclError) as caught, section("finetune", SegmentationOptions()):
        raise SemiclError(text)
    assert str(caught.value) == told
