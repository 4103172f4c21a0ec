"""One loss call by naive code and by the fused kernels: time and memory by the size of the image, on this machine.

Naive is the code in common use, as SupCon's authors published it for vectors: matrices and masks of all pixels by all.
"""

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from matplotlib.figure import Figure
from rich.live import Live
from torch import Tensor
from torch.nn.functional import normalize

from semicl.console import Table, on_main_process, screen
from semicl_kernels import local_contrastive_loss

SIDES = (32, 64, 96, 128, 160)
"""Pixels; the naive code needs their fourth power."""

CHANNELS = 64
TEMPERATURE = 0.1
MOST_SECONDS = 5.0
MOST_BYTES = 4 * 2**30
"""The naive code is not tried where it would need more than one of these."""

PRELOADED = ("torch.distributed.tensor", "matplotlib.figure", "rich.live", "semicl.console")
"""What is slow to import, less semicl_kernels: it computes with one thread in a process that is forked from its own."""

WARMED_FOR = 0.5
"""Seconds of calls that are not timed: a processor that idled computes up to two times slower at first."""

REPEATED_FOR, CALLS = 0.4, 3
"""Seconds of timed calls, and how many there are at least, while `MOST_SECONDS` last."""

STATUS, FORGET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def naive_loss(features: Tensor, labels: Tensor) -> Tensor:
    """The loss of one group by its matrix.

    Args:
        features: (B, V, C, H, W).
        labels: (B, V, H, W), 0 for the background.
    """
    x, y = normalize(features, dim=2).movedim(2, -1).flatten(0, -2), labels.reshape(-1, 1)
    logits = x @ x.T / TEMPERATURE
    logits = logits - logits.max(1, keepdim=True).values.detach()
    others = 1 - torch.eye(len(x))
    positives = (y == y.T).float() * others
    log_probability = logits - (logits.exp() * others).sum(1, keepdim=True).log()
    means = (positives * log_probability).sum(1) / positives.sum(1)
    return -means[y[:, 0] != 0].mean()


def fused_loss(features: Tensor, labels: Tensor) -> Tensor:
    """The same by semicl."""
    return local_contrastive_loss(features, labels, temperature=TEMPERATURE)


WAYS = {"fused": fused_loss, "naive": naive_loss}
TITLES = {"fused": "semicl", "naive": "naive"}


@dataclass(frozen=True)
class Call:
    """One call, forward and backward.

    Args:
        loss: its value.
        seconds: median of the repetitions once the processor is warm.
        size: bytes by which the memory of a process that does nothing else grew.
    """

    loss: float
    seconds: float
    size: int


@dataclass(frozen=True)
class Comparison:
    """The calls that were measured.

    Args:
        memory: of this machine, in bytes.
        threads: that computed.
        calls: by way ("fused", "naive") and side of the image in pixels.
    """

    memory: int
    threads: int
    calls: dict[str, dict[int, Call]] = field(default_factory=lambda: {way: {} for way in WAYS})

    @property
    def limit(self) -> float:
        """Side of the image at which the naive code would fill the memory: its bytes grow with the fourth power."""
        side = max(self.calls["naive"])
        return side * float(self.memory / self.calls["naive"][side].size) ** 0.25

    def expected(self, side: int) -> tuple[float, float]:
        """Seconds and bytes of the naive code, by the largest call that was measured."""
        largest = max(self.calls["naive"], default=0)
        if not largest:
            return 0.0, 0.0
        call, factor = self.calls["naive"][largest], (side / largest) ** 4
        return call.seconds * factor, call.size * factor

    def row(self, side: int) -> tuple[str, str, str, str]:
        """Cells of the table: the side, the fused call, the naive one or what it would need, the speed-up."""
        fused, naive = self.calls["fused"][side], self.calls["naive"].get(side)
        if naive is not None:
            return str(side), _shown(fused), _shown(naive), f"{naive.seconds / fused.seconds:.0f} x"
        seconds, size = self.expected(side)
        why = "out of memory" if size > self.memory else "not tried"
        return str(side), _shown(fused), f"{why}: about {duration_in_words(seconds)}, {size_in_words(size)}", ""


HEADINGS = ("pixels", *TITLES.values(), "faster")


def compare(sides: Sequence[int] = SIDES) -> Comparison:
    """Measure both at each side, each in a process of its own, and show a table that grows.

    Where nobody looks (the other processes of a training) nothing is shown.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    comparison = Comparison(memory, torch.get_num_threads())
    rows: list[int] = []
    with Live(console=screen(), auto_refresh=False, screen=False) as live:
        for side in _measured(comparison, sides):
            rows.append(side)
            if on_main_process():
                live.update(_table(comparison, rows), refresh=live.console.is_terminal)
    if on_main_process() and not live.console.is_terminal:
        live.console.line()  # where nothing is drawn anew the table ends without one
    return comparison


def comparison_figure(comparison: Comparison) -> Figure:
    """Time and memory against the side of the image, and where the naive code would run out of memory."""
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    sides = sorted(comparison.calls["fused"])
    limit = comparison.limit
    beyond = [max(comparison.calls["naive"]), max(limit, max(sides))]
    panels = figure.subplots(1, 2)
    for place, (axes, title) in enumerate(zip(panels, ("seconds, forward and backward", "memory, GiB"), strict=True)):
        unit = (1.0, float(2**30))[place]
        for way, color in (("naive", "#c8553d"), ("fused", "#0b6e4f")):
            calls = comparison.calls[way]
            values = [(call.seconds, call.size)[place] / unit for call in calls.values()]
            axes.plot([*calls], values, "o-", color=color, label=TITLES[way], markersize=4)
        needed = [comparison.expected(round(side))[place] / unit for side in beyond]
        axes.plot(beyond, needed, ":", color="#c8553d", label="naive, expected")
        axes.axvline(limit, color="0.5", linewidth=1)
        axes.set(xscale="log", yscale="log", xlabel="side of the image, pixels", title=title)
        axes.set_xticks(sides, [str(side) for side in sides])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=8)
    where = panels[0].get_xaxis_transform()
    panels[0].text(limit, 0.02, "memory is full ", transform=where, rotation=90, ha="right", va="bottom", fontsize=7)
    panels[1].axhline(comparison.memory / 2**30, color="black", linewidth=1)
    note = f"{comparison.memory / 2**30:.0f} GiB of this machine:\nnaive code ends at {limit:.0f} pixels"
    panels[1].annotate(
        note,
        (0.03, comparison.memory / 2**30),
        xycoords=("axes fraction", "data"),
        xytext=(0, -5),
        textcoords="offset points",
        va="top",
        fontsize=8,
    )
    return figure


# ---- measuring -------------------------------------------------------------------------------------------------------


def _measured(comparison: Comparison, sides: Sequence[int]) -> Iterator[int]:
    """Fill the comparison; gives each side when it is done."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    for side in sides:
        seconds, size = comparison.expected(side)
        tried = seconds <= MOST_SECONDS and size <= min(MOST_BYTES, comparison.memory / 2)
        for way in WAYS if tried else ["fused"]:
            # A new process: nothing is left of the call before. Ctrl-C is the parent's.
            with ProcessPoolExecutor(1, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
                comparison.calls[way][side] = pool.submit(_call, way, side, comparison.threads).result()
        yield side


def _call(way: str, side: int, threads: int) -> Call:
    torch.set_num_threads(threads)
    _once(way, *problem(16))  # threads start, libraries load
    features, labels = problem(side)
    before, start = _peak(forget=True), time.perf_counter()
    loss = _once(way, features, labels)
    size = _peak() - before
    while time.perf_counter() - start < WARMED_FOR:
        _once(way, features, labels)
    seconds: list[float] = []
    while sum(seconds) < REPEATED_FOR or (len(seconds) < CALLS and sum(seconds) < MOST_SECONDS):
        begin = time.perf_counter()
        _once(way, features, labels)
        seconds.append(time.perf_counter() - begin)
    return Call(loss, median(seconds), max(size, 1))


def problem(side: int) -> tuple[Tensor, Tensor]:
    """One image in two views: features (1, 2, 64, side, side), labels (1, 2, side, side) of two organs, 6 % of it."""
    generator = torch.Generator().manual_seed(side)
    features = torch.randn(1, 2, CHANNELS, side, side, generator=generator, requires_grad=True)
    labels = torch.zeros(1, 2, side, side, dtype=torch.long)
    edge = round(side * (0.06 / 2) ** 0.5)
    labels[..., side // 4 : side // 4 + edge, side // 4 : side // 4 + edge] = 1
    labels[..., side // 2 : side // 2 + edge, side // 2 : side // 2 + edge] = 2
    return features, labels


def _once(way: str, features: Tensor, labels: Tensor) -> float:
    loss = WAYS[way](features, labels)
    torch.autograd.grad(loss, features)
    return loss.item()


def _peak(forget: bool = False) -> int:
    """Peak of this process's memory in bytes; with `forget`, where the system can, its present size from now on."""
    if not STATUS.exists():
        return (1 if sys.platform == "darwin" else 1024) * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if forget:
        FORGET_PEAK.write_text("5")
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


# ---- showing ---------------------------------------------------------------------------------------------------------


def _table(comparison: Comparison, sides: Sequence[int]) -> Table:
    table = Table(*HEADINGS, title=f"One loss call, one image in two views, {threads_in_words(comparison.threads)}")
    for side in sides:
        table.add_row(*comparison.row(side))
    return table


def threads_in_words(threads: int) -> str:
    """So many threads."""
    return "1 thread" if threads == 1 else f"{threads} threads"


def _shown(call: Call) -> str:
    return f"{duration_in_words(call.seconds)}, {size_in_words(call.size)}"


def duration_in_words(seconds: float) -> str:
    """Three digits, of milliseconds below a second."""
    return f"{seconds:.3g} s" if seconds >= 0.9995 else f"{1e3 * seconds:.3g} ms"


def size_in_words(size: float) -> str:
    """Three digits of bytes, in MiB below a GiB."""
    return f"{size / 2**30:.3g} GiB" if size >= 999.5 * 2**20 else f"{size / 2**20:.3g} MiB"
