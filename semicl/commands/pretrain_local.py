"""`semicl pretrain-local`: local contrast on encoder and decoder, from a global checkpoint."""

from semicl.training.train import pretrain_local

__all__ = ["pretrain_local"]
