"""`semicl pretrain-global`: NT-Xent on the encoder, on the images of all training volumes."""

from semicl.training.train import pretrain_global

__all__ = ["pretrain_global"]
