"""Fetching a Decathlon task through MONAI."""

import os
import shutil
from pathlib import Path
from typing import Final

from monai.apps.datasets import DecathlonDataset
from monai.apps.utils import download_url, extractall

from semicl.errors import SemiclError
from semicl.files import PARTIAL

TASKS: Final = {"hippocampus": "Task04_Hippocampus"}


def download(dataset: str, folder: Path) -> Path:
    """Fetch a task's archive, check its MD5, unpack it in `folder` and return its own folder there.

    A task that is there already is not fetched again.

    Raises:
        SemiclError: the download failed, or what arrived is not the archive.
    """
    task = TASKS[dataset]
    if (folder / task / "dataset.json").is_file():
        return folder / task
    url, archive = DecathlonDataset.resource[task], folder / f"{task}.tar"
    partial = folder / f"{PARTIAL}{task}"
    try:
        download_url(url, archive, hash_val=DecathlonDataset.md5[task], hash_type="md5")
        extractall(archive, partial)
        os.replace(partial / task, folder / task)
    except (OSError, RuntimeError, ValueError) as error:
        raise SemiclError(
            f"{url}: download failed ({error}); check the network and the space on the disk, or fetch the archive by "
            "other means, unpack it and give its folder as --data"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder / task
