"""Times of several calls, taken in turn so that a slow spell of the machine falls on all of them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

MAX_ROUNDS = 15
MIN_ROUNDS = 3
SHORT_SECONDS = 0.1
"""A call this short is made once untimed before it is timed: it would pay for the pages that the call before it gave
back to the system, ten milliseconds after one that took a hundred MiB."""


@dataclass
class Times:
    """Seconds of one call, by round. A call that is too slow for a second try has its first one alone."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def summary(self) -> dict[str, float | int]:
        """Return milliseconds: median, quartiles, least; and the number of rounds."""
        several = self.seconds if len(self.seconds) > 1 else 2 * self.seconds
        first, median, third = statistics.quantiles(several, n=4, method="inclusive")
        return {
            "median_ms": 1e3 * median,
            "quartile1_ms": 1e3 * first,
            "quartile3_ms": 1e3 * third,
            "least_ms": 1e3 * min(self.seconds),
            "rounds": len(self.seconds),
        }


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def rounds_for(seconds: float, share: float) -> int:
    """How often a call of so many seconds is repeated in its share of the time; 0 where its warm-up has to do."""
    if seconds > share:
        return 0
    return min(MAX_ROUNDS, max(MIN_ROUNDS, int(share / seconds)))


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    seconds: float,
    between: Callable[[], None] = lambda: None,
    timed: Callable[[Callable[[], object]], float] = timed,
) -> dict[str, Times]:
    """Time the calls in rounds, each round beginning with another, for about ``seconds`` in all.

    Short calls are timed the second time they are made in a row.

    ``between`` is called after every round, for what is to be measured beside them; ``timed`` gives a call's seconds.
    """
    times = {name: Times() for name in calls}
    warm = {name: timed(call) for name, call in calls.items()}
    quota = {name: rounds_for(warm[name], seconds / len(calls)) for name in calls}
    gc.collect()
    gc.disable()
    try:
        for round_ in range(max(quota.values())):
            names = [name for name in calls if round_ < quota[name]]
            turn = round_ % max(1, len(names))
            for name in names[turn:] + names[:turn]:
                if warm[name] < SHORT_SECONDS:
                    calls[name]()
                times[name].seconds.append(timed(calls[name]))
            between()
    finally:
        gc.enable()
    for name, count in quota.items():
        if count == 0:
            times[name].seconds.append(warm[name])
    return times


def ratio(slower: Times, faster: Times) -> float:
    """The median over the rounds both took part in of slower / faster; of the medians where those are too few."""
    pairs = [a / b for a, b in zip(slower.seconds, faster.seconds, strict=False)]
    return statistics.median(pairs) if len(pairs) >= MIN_ROUNDS else slower.median / faster.median
