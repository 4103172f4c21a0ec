"""`semicl run`: an experiment, from files to the test Dice of each start."""

from semicl.study.experiment import run

__all__ = ["run"]
