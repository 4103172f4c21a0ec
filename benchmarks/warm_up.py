"""``python -m benchmarks.warm_up``: run what a plan's tasks compile once each, without timing.

It fills the compilers' caches on disk while other things are checked, and is what runs under a sanitizer or a profiler.
A provider that fails does not stop the others.
"""

from __future__ import annotations

import argparse
import sys

from . import plan
from .devices import DEVICES
from .measure import one_line, problem_of, reason_against
from .providers import PROVIDERS

MAX_BYTES = 4 << 30  # expected, of one beside others


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.warm_up", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "interpreter"))
    parser.add_argument("--small", action="store_true", help="ours on tiny shapes alone")
    parser.add_argument("--only", metavar="TASK", default="", help="tasks whose name begins so")
    parser.add_argument("--providers", nargs="+", choices=PROVIDERS, help="these alone")
    asked = parser.parse_args()
    device = DEVICES[asked.device]()
    tasks = plan.small() if asked.small else plan.PLANS[asked.device](False).tasks
    failures = 0
    for task in tasks:
        for name in asked.providers or task.providers:
            provider = PROVIDERS[name]
            if not (provider.compiles and task.name.startswith(asked.only)):
                continue
            said = reason_against(name, task.shape, task.dtype, device)
            if said is None and provider.expected_bytes(task.shape, task.dtype) > MAX_BYTES and not asked.only:
                said = "too large beside others"
            try:
                if said is None:
                    provider.call(problem_of(task.shape, task.dtype, device.place))()
                device.settle()
            except Exception as error:
                failures += 1
                said = f"failed: {one_line(error)}"
            print(f"{task.name} {name}: {said or 'ran'}", flush=True)
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
