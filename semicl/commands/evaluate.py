"""`semicl evaluate`: Dice, HD95 and surface distance of a checkpoint, per case and class."""

from semicl.evaluation.evaluate import evaluate

__all__ = ["evaluate"]
