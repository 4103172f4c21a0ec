"""``python -m benchmarks.gpu.rehearsal PLAN PART PARTS``: run what a plan's tasks compile once each, without timing.

It fills the compilers' caches on disk while other things are checked, and is what runs under a sanitizer. It does every
PARTS-th task from PART on; a provider that fails does not stop the others.
"""

from __future__ import annotations

import os
import sys

from .device import open_device
from .measure import one_line, rehearse
from .plan import rehearsed_tasks
from .providers import OWN

COMPILING = (*OWN, "compiled", "flex")


def main(plan: str, part: int, parts: int) -> int:
    device = open_device(os.environ.get("TRITON_INTERPRET") == "1")
    failures = 0
    for task in rehearsed_tasks(plan)[part::parts]:
        for name in task.providers:
            if name not in COMPILING:
                continue
            try:
                said = rehearse(task, name, device)
            except Exception as error:
                failures += 1
                said = f"failed: {one_line(error)}"
            print(f"{task.name} {name}: {said}", flush=True)
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
