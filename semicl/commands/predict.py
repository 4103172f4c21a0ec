"""`semicl predict`: NIfTI in, NIfTI out, in the case's own geometry."""

from semicl.evaluation.predict import predict

__all__ = ["predict"]
