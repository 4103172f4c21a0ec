"""`semicl prepare`: find cases, check every file, split by subject, and cache what the network will see."""

from semicl.data.prepare import prepare

__all__ = ["prepare"]
