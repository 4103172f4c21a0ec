"""The whole run: checks, limits, then shapes until the time is over, every result written as soon as it is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..files import write_whole
from ..machine import place, versions
from . import checks, limits, measure, targets
from .crew import Crew, Outcome
from .device import Device
from .plan import Plan, Task
from .providers import OWN, PROVIDERS

SHARE_OF_CHECKS = 0.3
CLOSING_SECONDS = 15  # for the pictures and tables at the end
START_SECONDS = 12  # of a process with a device, and of a shape's compilation
MOST_SECONDS = 90  # of one job; what takes longer hangs
FORMULAS = {
    "dense_flops": "6 n n C, over the blocks with an anchor",
    "tiled_flops": "forward 2 C (a n - a a / 2), backward 4 C (a n + (n - a) a)",
    "executed_tflops": "tiled_flops over the time of a graph's replay, of a call where there is none",
    "dense_equivalent_tflops": "dense_flops over the same time",
    "least_ms": "tiled_flops over the bfloat16 rate, exponentials (one a pair) over theirs, features and gradient over "
    "the copy rate",
    "times": "forward and backward, partition and packing included; seconds between events around one call with a cold "
    "L2 cache and an idle device",
    "extra_peak_bytes": "peak of allocated memory in a call beyond what was allocated before; it holds the gradient",
}


class Clock:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        return self.end - time.monotonic() - CLOSING_SECONDS


def describe(device: Device, note: Callable[[str], None]) -> dict[str, object]:
    return {**place(), **device.describe(), "total_bytes": device.total_bytes()}


@dataclass
class Campaign:
    plan: Plan
    toy: bool
    clock: Clock
    folder: Path
    say: Callable[[str], None]
    result: dict[str, Any] = field(default_factory=dict)
    banned: dict[str, str] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        self.result |= {
            "toy": self.toy,
            "device": "interpreter" if self.toy else "cuda",
            "formulas": FORMULAS,
            "looks": {name: provider.look.title for name, provider in PROVIDERS.items()},
            "checks": {},
            "machine": {"versions": versions("semicl", "torch", "triton", "numpy")},
            "limits": {},
            "shapes": {},
            "accuracy": [],
            "host_us": {},
            "left_out": [],
            "errors": {},
            "targets": [],
        }
        self.check()
        with Crew(self.toy) as crew:
            self.keep("machine", crew.run(describe, self.patience()))
            self.keep("limits", crew.run(limits.rates, self.patience()))
            self.measure(crew, self.plan.first)
            self.look_at_errors(crew)
            host = partial(measure.host_microseconds, self.plan.host, self.banned)
            self.keep("host_us", crew.run(host, self.patience()))
            self.measure(crew, self.plan.then)
        self.result["banned"] = self.banned
        self.save()
        return self.result

    def patience(self) -> float:
        return max(1.0, min(MOST_SECONDS, self.clock.left()))

    def save(self) -> None:
        self.result["targets"] = targets.verdicts(self.result)
        write_whole(self.result, self.folder / "result.json")

    def keep(self, name: str, outcome: Outcome) -> None:
        if outcome.error is None:
            self.result[name] |= outcome.value
        else:
            self.result["errors"][name] = f"{outcome.error} (at {outcome.at or 'the start'})"
            self.say(f"{name}: {outcome.error}")
        self.save()

    def check(self) -> None:
        seconds = SHARE_OF_CHECKS * self.clock.seconds
        wanted, missing = checks.all_checks(self.plan, self.toy, seconds)
        self.say(f"checks, at most {seconds:.0f} s: {', '.join(check.name for check in wanted)}")
        self.result["checks"] = missing | checks.run_together(wanted, seconds, self.folder / "logs")
        for name, check in self.result["checks"].items():
            self.say(f"  {name}: {check.get('last_line') or check.get('skipped', '')}")
        self.save()

    def measure(self, crew: Crew, tasks: tuple[Task, ...]) -> None:
        for task in tasks:
            if self.clock.left() < task.seconds + START_SECONDS:
                self.result["left_out"].append(task.name)
                continue
            entry = self.shape(crew, task)
            if entry is not None:
                self.add_details(crew, task, entry)
                entry["least_ms"] = limits.least_milliseconds(task.shape, task.dtype, self.result["limits"])
                self.result["shapes"][task.name] = entry
                self.say(f"{task.name}: {one_line(entry)}")
            self.save()

    def shape(self, crew: Crew, task: Task) -> dict[str, Any] | None:
        """Return a task's result; a provider that takes its process down is named and not tried in this dtype again."""
        while True:
            job = partial(measure.shape_result, task, dict(self.banned))
            outcome = crew.run(job, self.patience())
            if outcome.error is None:
                return outcome.value
            self.say(f"{task.name}, {outcome.at}: {outcome.error}")
            if outcome.at not in PROVIDERS or self.clock.left() < task.seconds + START_SECONDS:
                self.result["errors"][task.name] = f"{outcome.error} (at {outcome.at or 'the start'})"
                return None
            name = measure.banned_name(outcome.at, task.dtype)
            self.banned[name] = f"stopped its process at {task.name}: {outcome.error}"

    def add_details(self, crew: Crew, task: Task, entry: dict[str, Any]) -> None:
        """Ask for what is not timed, of our backends that were; its failure leaves the times as they are."""
        timed = {name: one for name, one in entry["providers"].items() if name in OWN and "median_ms" in one}
        outcome = crew.run(partial(measure.details, task, tuple(timed)), self.patience())
        for name, one in timed.items():
            one |= {"not_detailed": outcome.error} if outcome.value is None else outcome.value[name]

    def look_at_errors(self, crew: Crew) -> None:
        for shape, dtype in self.plan.accuracies:
            for backend in OWN:
                if self.cannot_run(backend):
                    continue
                if self.clock.left() < START_SECONDS:
                    self.result["left_out"].append(f"errors of {backend} on {shape.name}")
                    continue
                outcome = crew.run(partial(measure.error_result, shape, dtype, backend), self.patience())
                if outcome.error is None:
                    self.result["accuracy"].append(outcome.value)
                else:
                    self.result["errors"][f"accuracy of {backend} on {shape.name} {dtype}"] = outcome.error
            self.save()

    def cannot_run(self, backend: str) -> bool:
        """Whether the backend was refused on every shape so far."""
        seen = [entry["providers"].get(backend, {}) for entry in self.result["shapes"].values()]
        return all("skipped" in one or not one for one in seen)


def one_line(entry: dict[str, Any]) -> str:
    """Return the medians of a shape in milliseconds, of replays too."""
    parts = []
    for name, measured in entry["providers"].items():
        if "median_ms" not in measured:
            parts.append(f"{name} -")
            continue
        replayed = f" ({measured['replayed']['median_ms']:.3g} replayed)" if "replayed" in measured else ""
        parts.append(f"{name} {measured['median_ms']:.3g}{replayed}")
    return ", ".join(parts)
