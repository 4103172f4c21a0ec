"""Lightning's loggers by name; a stage that is resumed goes on in the same log."""

import csv
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from semicl.console import on_main_process
from semicl.files import read_json, write_json
from semicl.training.folder import StageFolder

PROJECT = "semicl"
"""Of wandb and mlflow, where WANDB_PROJECT and MLFLOW_EXPERIMENT_NAME name no other."""


@contextmanager
def opened_loggers(names: Iterable[str], folder: StageFolder) -> Iterator[Sequence[Logger]]:
    """The loggers of a stage, which are closed afterwards.

    Args:
        names: "tensorboard", "csv", "wandb", "mlflow".
        folder: of the stage; where it is unfinished, logs are continued.
    """
    folder.logs.mkdir(parents=True, exist_ok=True)
    loggers = [_MAKERS[name](folder) for name in names]
    code = 1
    try:
        yield loggers
        code = 0
    finally:
        for logger in loggers:
            if isinstance(logger, WandbLogger) and on_main_process():  # else the next stage would go on in this run
                logger.experiment.finish(exit_code=code)


def _tensorboard(folder: StageFolder) -> Logger:
    return TensorBoardLogger(folder.logs, name="tensorboard", version=0)


def _csv(folder: StageFolder) -> Logger:
    """Lightning's logger empties the file that it finds, so what is in it is logged again."""
    logger = CSVLogger(folder.logs, name="csv", version=0)
    file = folder.logs / "csv" / "version_0" / "metrics.csv"
    rows: list[dict[str, str]] = []
    if folder.last.is_file() and file.is_file():
        with file.open(newline="", encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened))
    for row in rows:
        step = int(row.pop("step"))
        logger.log_metrics({name: float(value) for name, value in row.items() if value}, step)
    if rows:
        logger.save()
    return logger


def _wandb(folder: StageFolder) -> Logger:
    run = _run(folder, "wandb", lambda: secrets.token_hex(4))
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    return WandbLogger(folder.path.name, folder.logs, id=run, project=project, resume="allow")


def _mlflow(folder: StageFolder) -> Logger:
    def made(run: str | None = None) -> Any:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.logs.absolute()}/mlflow.db")
        return MLFlowLogger(name, folder.path.name, uri, run_id=run)

    return made(_run(folder, "mlflow", lambda: made().run_id))


_MAKERS: dict[str, Callable[[StageFolder], Logger]] = {
    "tensorboard": _tensorboard,
    "csv": _csv,
    "wandb": _wandb,
    "mlflow": _mlflow,
}


def _run(folder: StageFolder, name: str, begin: Callable[[], str]) -> str | None:
    """The run of a service that a stage goes on with, or a new one, whose name is then kept in the stage's folder."""
    if not on_main_process():
        return None
    runs = dict(read_json(folder.runs)) if folder.runs.is_file() else {}
    if not (folder.last.is_file() and name in runs):
        runs[name] = begin()
        write_json(folder.runs, runs)
    return str(runs[name])
