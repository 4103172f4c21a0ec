"""The whole run: first numbers, checks, errors, then the other shapes until the time is over.

Every result is written as soon as it is there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

from . import checks, measure, targets
from .devices import DEVICES
from .measure import Results
from .plan import Plan, Task
from .problems import type_name
from .providers import PROVIDERS
from .report import write_whole
from .workers import Outcome, Worker

SHARE_OF_CHECKS = 0.3
CLOSING_SECONDS = 15  # for the pictures and tables at the end
START_SECONDS = 10  # of a process with a device, and of a shape's compilation


@dataclass
class Session:
    plan: Plan
    device: str
    minutes: float
    folder: Path | None
    say: Callable[[str], None]
    threads: int | None = None
    result: dict[str, Any] = field(default_factory=dict)
    banned: dict[tuple[str, str], str] = field(default_factory=dict)  # provider and dtype: why it is not tried again
    begin: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        return 60 * self.minutes - (time.monotonic() - self.begin) - CLOSING_SECONDS

    def run(self) -> dict[str, Any]:
        self.result |= {"device": self.device, "machine": {}, "checks": {}, "shapes": {}, "accuracy": []}
        self.result |= {"left_out": [], "errors": {}, "targets": []}
        first, then = self.plan.tasks[: self.plan.first], self.plan.tasks[self.plan.first :]
        with Worker(self.device, self.threads) as worker:
            self.result["machine"] = self.keep("machine", worker, methodcaller("describe")).value or {}
            self.measure(worker, first)
            self.check()
            self.measure_errors(worker)
            self.measure(worker, then)
        self.save()
        return self.result

    def save(self) -> None:
        self.result["targets"] = targets.verdicts(self.result)
        if self.folder is not None:
            write_whole(self.result, self.folder / "result.json")

    def keep(self, name: str, worker: Worker, job: Callable[..., Any]) -> Outcome:
        """Run a job; record its error, if there is one, under the name."""
        outcome = worker.run(job, max(1.0, min(self.plan.timeout, self.left())))
        if outcome.error is not None:
            self.result["errors"][name] = outcome.error
            self.say(f"{name}: {outcome.error}")
        return outcome

    def check(self) -> None:
        if self.plan.tests and self.folder is not None:
            seconds = SHARE_OF_CHECKS * min(self.left(), 60 * self.plan.minutes)
            wanted = checks.all_checks(self.plan, self.device, seconds)
            self.say(f"checks, at most {seconds:.0f} s: {', '.join(check.name for check in wanted)}")
            self.result["checks"] = checks.run_together(wanted, seconds, self.folder / "logs")
            for name, check in self.result["checks"].items():
                self.say(f"  {name}: {check['last_line']}")
            self.save()

    def measure(self, worker: Worker, tasks: tuple[Task, ...]) -> None:
        for task in tasks:
            if self.left() < task.seconds + START_SECONDS:
                self.result["left_out"].append(task.name)
                continue
            entry = {**measure.facts(task), "providers": {}, "extra_peak_bytes": {}}
            for found in self.results(worker, task):
                entry["providers"] |= found["providers"]
                entry["extra_peak_bytes"] |= found["extra_peak_bytes"]
            entry["providers"] = {name: entry["providers"][name] for name in task.providers}
            self.result["shapes"][task.name] = entry
            self.say(f"{task.name}: {one_line(entry['providers'])}")
            self.save()

    def results(self, worker: Worker, task: Task) -> list[dict[str, Any]]:
        """Return a task's results. Providers of a job that failed are tried alone; who fails alone is not tried again
        in this dtype."""
        dtype = type_name(task.dtype)
        banned = {name: self.banned[name, dtype] for name in task.providers if (name, dtype) in self.banned}
        names = tuple(name for name in task.providers if name not in banned)
        found: list[dict[str, Any]] = [skipped(banned)]
        together = DEVICES[self.device].takes_turns
        jobs = deque([names] if together and names else [(name,) for name in names])
        while jobs:
            group = jobs.popleft()
            outcome = self.keep(f"{task.name}, {' '.join(group)}", worker, partial(measure.task_result, task, group))
            if outcome.error is None:
                found.append(outcome.value)
            elif len(group) > 1:
                jobs.extend((name,) for name in group)
            else:
                self.banned[group[0], dtype] = f"stopped its process at {task.name}: {outcome.error}"
                found.append(skipped({group[0]: f"failed: {outcome.error}"}))
        return found

    def measure_errors(self, worker: Worker) -> None:
        for shape, dtype in self.plan.accuracies:
            for name in DEVICES[self.device].own:
                if PROVIDERS[name].dtype is not None or self.is_refused(name):
                    continue
                title = f"error of {name} on {shape.name}, {type_name(dtype)}"
                if self.left() < START_SECONDS:
                    self.result["left_out"].append(title)
                    continue
                outcome = self.keep(title, worker, partial(measure.error_result, shape, dtype, name))
                if outcome.error is None:
                    self.result["accuracy"].append(outcome.value)
            self.save()

    def is_refused(self, name: str) -> bool:
        """Whether a provider was skipped on every shape so far."""
        seen = [entry["providers"].get(name, {}) for entry in self.result["shapes"].values()]
        return bool(seen) and all("skipped" in one for one in seen)


def skipped(reasons: dict[str, str]) -> dict[str, Any]:
    return {"providers": {name: {"skipped": reason} for name, reason in reasons.items()}, "extra_peak_bytes": {}}


def one_line(results: Results) -> str:
    """Return medians in milliseconds."""
    times = {name: one.get("median_ms") for name, one in results.items()}
    return ", ".join(f"{PROVIDERS[n].title} {'-' if ms is None else f'{ms:.3g} ms'}" for n, ms in times.items())
