"""Feature maps and label maps with every trait that the losses must cope with, made from a seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from . import oracle
from .accuracy import Sizes
from .on_device import local_contrastive_loss

# Class k of a case is written as CODES[k]: labels may be large or negative. The first is the default background.
CODES = (0, 1, -7, 2**40, -(2**62), 5)
IGNORE = -100
# What the features of a class lie around: nothing, a center of its own or the same for all.
AROUND = (None, "class", "one")
LABEL_KINDS = ("random", "one class", "one pixel", "background", "pair", "ignored")
DENOMINATORS = ("all", "negatives", "pairwise")
# The options that say which points meet, with their defaults.
GEOMETRY = {"stride": 1, "block_size": None, "scope": "batch", "ignore_index": None}
LAYOUTS = ("contiguous", "channels last", "strided", "views first")


@dataclass(frozen=True)
class Case:
    shape: tuple[int, ...]  # (B, V, C, *space)
    label_kind: str | None = "random"  # None: no labels
    layout: str = "contiguous"
    duplicated: bool = False
    around: str | None = None
    spread: float = 1.0  # of the features around that
    decades: tuple[float, float] = (0.0, 0.0)  # powers of ten from which every vector is given a factor
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    def features(self, dtype: torch.dtype) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        values = torch.randn(self.shape, generator=generator, dtype=torch.float64)
        if self.duplicated:
            # A handful of different vectors, so that most pairs are of equal ones.
            flat = values.flatten(3) if values.dim() > 3 else values
            repeats = torch.arange(flat.shape[3]) % 3
            values = flat[..., repeats.clamp(max=flat.shape[3] - 1)].reshape(self.shape)
        if self.around is not None:
            values = self.centers(generator) + self.spread * values
        low, high = self.decades
        sizes = torch.rand((*self.shape[:2], 1, *self.shape[3:]), generator=generator, dtype=torch.float64)
        return lay_out((10 ** (low + (high - low) * sizes) * values).to(dtype), self.layout)

    def centers(self, generator: torch.Generator) -> Tensor:
        """Return (B, V, C, *space): a vector of normal numbers for each class, or one for all."""
        batch, views, channels, *space = self.shape
        labels = self.labels()
        if self.around == "one":
            classes = torch.zeros(batch, views, *space, dtype=torch.int64)
        elif labels is None:
            places = torch.arange(batch * math.prod(space))
            classes = places.reshape(batch, 1, *space).expand(batch, views, *space)
        else:
            classes = labels.unique(return_inverse=True)[1]
        count = int(classes.max()) + 1 if classes.numel() else 0
        return torch.randn(count, channels, generator=generator, dtype=torch.float64)[classes].movedim(-1, 2)

    def labels(self) -> Tensor | None:
        if self.label_kind is None:
            return None
        generator = torch.Generator().manual_seed(self.seed + 1)
        batch, views, _, *space = self.shape
        return label_map(self.label_kind, (batch, views, *space), generator)

    def anchors(self) -> int:
        geometry = {name: self.options.get(name, value) for name, value in GEOMETRY.items()}
        labels = self.labels()
        points = oracle.points_of_map(self.shape, labels, **geometry)
        background = self.options.get("background", 0) if labels is not None else None
        return oracle.count_anchors(points, self.options.get("denominator", "all"), background)

    def plain(self, dtype: torch.dtype) -> Callable[..., Tensor]:
        """Return the loss in plain PyTorch. The reference computes "pairwise" in float32 at least."""
        narrow = dtype in (torch.bfloat16, torch.float16)
        if narrow and self.options.get("denominator") == "pairwise":
            return oracle.plain_pytorch
        return partial(local_contrastive_loss, backend="reference")

    def sizes(self, dtype: torch.dtype) -> Sizes:
        anchors = self.anchors()
        lengths = self.features(torch.float64).norm(dim=2)
        temperature = float(self.options.get("temperature", 0.1))
        summed = self.options.get("reduction") in ("sum", "none")
        each = (1.0 if summed else 1 / max(1, anchors)) / temperature  # an anchor's weight in the gradient
        if self.options.get("normalize", True):
            exponent, factor = 1 / temperature, 1 / float(lengths.min())
        else:
            exponent, factor = float(lengths.max()) ** 2 / temperature, float(lengths.max())
        return Sizes(dtype, exponent, anchors, each * factor * max(1, anchors) ** 0.5)


def lay_out(values: Tensor, layout: str) -> Tensor:
    if layout == "channels last":
        return values.movedim(2, -1).contiguous().movedim(-1, 2)
    if layout == "views first":
        return values.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "strided":
        wide = values.new_zeros((*values.shape[:-1], 2 * values.shape[-1]))
        wide[..., ::2] = values
        return wide[..., ::2]
    return values.contiguous()


def label_map(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    classes = torch.zeros(shape, dtype=torch.int64)
    flat = classes.view(-1)
    if kind == "one class":
        flat.fill_(1)
    elif kind == "one pixel":
        flat[flat.numel() // 2] = 2
    elif kind == "pair":
        flat[0] = flat[-1] = 3
    elif kind != "background":
        flat.copy_(torch.randint(0, len(CODES), flat.shape, generator=generator))
    labels = torch.tensor(CODES)[classes]
    if kind == "ignored":
        labels[torch.rand(shape, generator=generator) < 0.3] = IGNORE
    return labels


@st.composite
def cases(draw: st.DrawFn, largest_side: int, most_channels: int) -> Case:
    axes = draw(st.sampled_from((2, 2, 3)))
    side = st.integers(1, largest_side if axes == 2 else max(2, largest_side // 2))
    per_axis = st.one_of(st.integers(1, 4), st.tuples(*[st.integers(1, 4)] * axes))
    space = draw(st.tuples(*[side] * axes))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, most_channels)), *space)
    unlabelled = (None,) if shape[1] > 1 else ()
    options = {
        "temperature": draw(st.sampled_from((0.1, 0.5, 1.0, 0.07))),
        "stride": draw(st.one_of(st.just(1), per_axis)),
        "block_size": draw(st.one_of(st.none(), per_axis, st.just(100))),
        "scope": draw(st.sampled_from(("batch", "image"))),
        "denominator": draw(st.sampled_from(DENOMINATORS)),
        "background": draw(st.sampled_from((CODES[0], CODES[0], CODES[2], 99))),
        "ignore_index": draw(st.sampled_from((None, IGNORE, CODES[3]))),
        "normalize": draw(st.sampled_from((True, True, False))),
        "reduction": draw(st.sampled_from(("block", "anchor", "sum", "none"))),
    }
    return Case(
        shape=shape,
        label_kind=draw(st.sampled_from((*unlabelled, "random", *LABEL_KINDS))),
        layout=draw(st.sampled_from(LAYOUTS)),
        duplicated=draw(st.booleans()),
        seed=draw(st.integers(0, 2**16)),
        options=options,
    )


def uneven(shape: torch.Size) -> Tensor:
    """What the losses of a map are weighed by, so that its gradient tells them apart; a scalar by half."""
    return torch.linspace(0.5, 1.5, math.prod(shape), dtype=torch.float64).reshape(shape)


def value_and_gradient(loss: Any, case: Case, features: Tensor) -> tuple[Tensor, Tensor]:
    """The loss (map) of a case and the gradient of its sum, weighted unevenly where it is a map."""
    leaf = features.detach().requires_grad_()
    value = loss(leaf, case.labels(), **case.options)
    (gradient,) = torch.autograd.grad((value * uneven(value.shape).to(value.dtype)).sum(), leaf)
    return value.detach(), gradient


def true_value_and_gradient(case: Case, features: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """The same by the oracle."""
    options = {**case.options, **options}
    truth = oracle.local_contrastive_loss(features, case.labels(), **options)
    if options.get("reduction") != "none":
        return truth.value, truth.gradient * uneven(torch.Size())
    above = uneven(truth.value.shape)
    return truth.value, oracle.local_contrastive_loss(features, case.labels(), **options, above=above).gradient
