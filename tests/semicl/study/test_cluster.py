"""A study on a dask cluster of two workers, one of which is killed in the middle: the table is that of one machine."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.semicl.conftest import run_command, same_weights
from tests.semicl.study.conftest import Words

distributed = pytest.importorskip("distributed")


@pytest.fixture
def cluster() -> Any:
    """Two workers, each a process of one thread."""
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


def _numbers(path: Path) -> list[Any]:
    """What a table tells, but for times, memory, days and machines."""
    cells = json.loads(path.read_text())["cells"]
    return [(cell["method"], cell["label_fraction"], cell["dice"], cell["classes"]) for cell in cells]


@pytest.mark.filterwarnings("ignore")
def test_the_jobs_of_a_killed_worker_are_done_by_the_other(
    study: Path, words: Words, tmp_path: Path, cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "study"
    with distributed.Client(cluster) as client:
        workers = client.run(os.getpid)
    assert len(workers) == 2
    killed: list[int] = []

    def kill_one() -> None:
        """Kill the worker that fine-tunes, once it has written a state to go on from."""
        end = time.monotonic() + 120
        while not killed and time.monotonic() < end:
            time.sleep(0.05)
            if any(output.glob("split-0/labels-0.34/finetune-*/last.ckpt")):
                with distributed.Client(cluster.scheduler_address) as client:
                    busy = [worker for worker, tasks in client.processing().items() if tasks]
                    if busy:
                        (nanny,) = (each for each in cluster.workers.values() if each.worker_address == busy[0])
                        nanny.status = distributed.core.Status.closing_gracefully  # or it would start another
                        killed.append(workers[busy[0]])
                        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill_one)
    thread.start()
    assert run_command(*words(output), "--executor", cluster.scheduler_address) == 0
    thread.join()
    assert len(killed) == 1
    assert f"Jobs: on the 2 workers of {cluster.scheduler_address}." in capsys.readouterr().out
    assert _numbers(output / "table.json") == _numbers(study / "table.json")
    models = sorted(path.relative_to(study) for path in study.rglob("model.ckpt"))
    assert sorted(path.relative_to(output) for path in output.rglob("model.ckpt")) == models
    assert all(same_weights(study / model, output / model) for model in models)
    with distributed.Client(cluster) as client:  # which may have started another in its place
        found = set(client.run(os.getpid).values())
    assert {pid for pid in workers.values() if pid != killed[0]} <= found
    assert killed[0] not in found
