"""`semicl finetune`: cross entropy + Dice on the labelled fraction; validation picks the weights."""

from semicl.training.train import finetune

__all__ = ["finetune"]
