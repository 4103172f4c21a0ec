"""The compiled CPU backend: checks and allocates, then hands raw addresses to ``csrc`` (see csrc/cpu/passes.cpp).

The compiled code takes rows with a multiple of 16 channels: of float32, or of bfloat16 where the processor multiplies
pairs of those faster (AVX512-BF16, but not Intel's). float16 rows are computed as float32: rounding them to bfloat16
would cost three bits.
"""

from __future__ import annotations

import os
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import extensions
from .base import AVAILABLE, Backend, Groups, Keys, Positives, Problem
from .grad_scaling import level
from .positives import pulls_of_classes

CHANNEL_MULTIPLE = 16
DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # csrc/cpu/features.h, Dtype

compiled, missing = extensions.find("_C", "a C++17 compiler")


def state() -> str:
    return AVAILABLE if compiled is not None else missing


def refuses(device: torch.device, dtype: torch.dtype, channels: int, bound: float | None) -> str | None:
    if device.type != "cpu":
        return f"tensors on {device}; it takes tensors on the cpu"
    if dtype not in DTYPE_CODES:
        return f"{dtype}; it takes float32, bfloat16 and float16 (backend='tiled' takes float64)"
    return None


def extension() -> ModuleType:
    assert compiled is not None, "the dispatcher only calls backends that are available"
    return compiled


@cache
def instruction_set() -> tuple[str, bool]:
    """The name of the instruction set in use and whether it has bfloat16 dot products.

    The best that the processor and the build have, or the one that the environment variable ``SEMICL_CPU`` names; empty
    is as unset.
    """
    sets: list[tuple[str, bool]] = extension().instruction_sets()
    wanted = os.environ.get("SEMICL_CPU", "").strip()
    if not wanted:
        return sets[0]
    for name, narrow in sets:
        if name == wanted:
            return name, narrow
    raise ValueError(f"SEMICL_CPU is {wanted!r}; this build and processor have {', '.join(name for name, _ in sets)}")


def executed_multiply_adds() -> int:
    """The multiply-adds that the compiled code has executed in this process, for benchmarks."""
    return int(extension().executed_multiply_adds())


def peak_multiply_adds(dtype: torch.dtype = torch.float32, seconds: float = 0.5) -> float:
    """Measure the multiply-adds a second of this processor on registers alone, with torch.get_num_threads() threads."""
    name, narrow = instruction_set()
    return float(extension().peak_rate(name, narrow and dtype == torch.bfloat16, torch.get_num_threads(), seconds))


def is_narrow(dtype: torch.dtype) -> bool:
    """Whether rows of this dtype are multiplied as bfloat16."""
    return dtype == torch.bfloat16 and instruction_set()[1]


def row_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.bfloat16 if is_narrow(dtype) else torch.float32


def padded(channels: int) -> int:
    return -(-channels // CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE


def floats(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory for the compiled code, whatever torch's default dtype and device are."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def as_rows(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the rows contiguous, in the dtype of the arithmetic, with zeros up to a multiple of 16 channels."""
    rows = rows.to(dtype)
    missing = padded(rows.shape[1]) - rows.shape[1]
    return torch.nn.functional.pad(rows, (0, missing)).contiguous() if missing else rows.contiguous()


class Operands(NamedTuple):
    """Rows and keys as every pass of the compiled code takes them, and the tensors whose addresses it has."""

    rows: Any
    keys: Any
    held: tuple[Tensor | None, ...]
    narrow: bool

    @classmethod
    def of(cls, rows: Tensor, keys: Keys | None, groups: Groups) -> Operands:
        """Of rows and keys of any dtype. Those with keys are multiplied as float32."""
        narrow = keys is None and is_narrow(rows.dtype)
        dtype = torch.bfloat16 if narrow else torch.float32
        operand = as_rows(rows, dtype)
        if keys is None:
            return cls(packed(operand, groups), extension().Keys(), (operand,), narrow)
        values, weights = (
            as_rows(keys.values, dtype),
            None if keys.weights is None else keys.weights.float().contiguous(),
        )
        ranges = [keys.begin.data_ptr(), keys.end.data_ptr()]
        compiled_keys = extension().Keys(
            values.data_ptr(), len(values), ranges, keys.itself.data_ptr(), address(weights)
        )
        return cls(packed(operand, groups), compiled_keys, (operand, values, weights, *keys[1:4]), narrow)


def packed(rows: Tensor, groups: Groups, inverse_norms: Tensor | None = None) -> Any:
    """Return the rows, of :func:`as_rows`, and their groups as every pass of the compiled code takes them.

    ``inverse_norms`` (M,) is what rows are multiplied by in similarities.
    """
    addresses = [tensor.data_ptr() for tensor in groups.tensors]
    return extension().Packed(rows.data_ptr(), *rows.shape, address(inverse_norms), addresses, len(groups.anchors))


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def forward(rows: Tensor, keys: Keys | None, groups: Groups, scale: float, bound: float | None) -> Tensor:
    operands = Operands.of(rows, keys, groups)
    return logsumexp(operands, len(rows), scale)


def logsumexp(operands: Operands, count: int, scale: float) -> Tensor:
    """Return lse (M,) float64: rounded to float32, a large one would lose more than its sum of exponentials."""
    lse = floats(count, dtype=torch.float64).zero_()
    extension().logsumexp(
        instruction_set()[0],
        operands.narrow,
        torch.get_num_threads(),
        operands.rows,
        operands.keys,
        scale,
        lse.data_ptr(),
    )
    return lse


def backward(
    grad: Tensor,
    rows: Tensor,
    keys: Keys | None,
    lse: Tensor,
    groups: Groups,
    positives: Positives | None,
    scale: float,
    bound: float | None,
    unit_rows: bool,
    with_rows: bool,
    with_keys: bool,
) -> tuple[Tensor, Tensor]:
    operands = Operands.of(rows, keys, groups)
    # A pull may be far larger than the gradient by its log-sum-exp, of which a pairwise one takes a share.
    largest = grad.abs()
    if positives is not None:
        largest = torch.maximum(largest, pulls_of_classes(positives, keys).abs())
    unit, lse = level(largest.float(), groups).unit, lse.double().contiguous()
    grad = (grad / unit).float()
    if keys is not None and len(unit) > 0:
        # Groups share keys, and so a unit.
        grad, unit = grad * (unit / unit.amax()), unit.amax().expand(len(unit))
    channels = padded(rows.shape[1])
    with_rows |= keys is None
    out = floats(len(rows) if with_rows else 0, channels).zero_()
    by_keys = floats(len(keys.values) if with_keys and keys is not None else 0, channels).zero_()
    taken_off = None if positives is None else positives._replace(pulls=(positives.pulls / unit).float())
    wanted = (out if with_rows else None, by_keys if with_keys else None)
    write_gradient(operands, taken_off, unit_rows, scale, lse, grad, *wanted)
    if len(unit) > 0:
        out.mul_(unit[: len(out), None])
        by_keys.mul_(unit[0])
    return out[:, : rows.shape[1]], by_keys[:, : rows.shape[1]]


def write_gradient(
    operands: Operands,
    positives: Positives | None,
    unit_rows: bool,
    scale: float,
    lse: Tensor,
    grad: Tensor,
    out: Tensor | None,
    by_keys: Tensor | None,
) -> None:
    """Write the gradient by the rows of groups that have an anchor, and add that by the keys; pulls are float32."""
    extension().logsumexp_gradient(
        instruction_set()[0],
        operands.narrow,
        torch.get_num_threads(),
        operands.rows,
        operands.keys,
        positives is not None and positives.pairwise,
        unit_rows,
        scale,
        0 if positives is None else positives.class_begin.data_ptr(),
        0 if positives is None else positives.class_end.data_ptr(),
        lse.data_ptr(),
        grad.data_ptr(),
        0 if positives is None else positives.pulls.data_ptr(),
        address(out),
        address(by_keys),
    )


def positive_sums(rows: Tensor, keys: Keys | None, groups: Groups, class_begin: Tensor, class_end: Tensor) -> Tensor:
    operands, sums = Operands.of(rows, keys, groups), floats(len(rows), dtype=torch.float64)
    extension().positive_sums(
        operands.narrow,
        torch.get_num_threads(),
        operands.rows,
        operands.keys,
        class_begin.data_ptr(),
        class_end.data_ptr(),
        sums.zero_().data_ptr(),
    )
    return sums


def softplus(
    rows: Tensor, keys: Keys | None, groups: Groups, positives: Positives, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    return compared(Operands.of(rows, keys, groups), positives, lse, scale)


def compared(operands: Operands, positives: Positives, lse: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    lse = lse.double().contiguous()
    values, slopes = floats(2, len(lse), dtype=torch.float64).zero_()
    extension().positive_softplus(
        instruction_set()[0],
        operands.narrow,
        torch.get_num_threads(),
        operands.rows,
        operands.keys,
        scale,
        positives.class_begin.data_ptr(),
        positives.class_end.data_ptr(),
        lse.data_ptr(),
        values.data_ptr(),
        slopes.data_ptr(),
    )
    return values, slopes


def map_layout(features: Tensor) -> tuple[list[int], list[int]]:
    """Sizes and strides of (B, V, C, *space) as the compiled code takes them: (B V, C, three of space).

    Images and views must be one dimension in memory, which :func:`mergeable` tells.
    """
    batch, views, channels, *space = features.shape
    missing = [1] * (3 - len(space))
    image_stride = features.stride(1) if views > 1 else features.stride(0)
    sizes = [batch * views, channels, *missing, *space]
    strides = [image_stride, features.stride(2), *[0 for _ in missing], *features.stride()[3:]]
    return sizes, strides


def mergeable(features: Tensor) -> Tensor:
    """Return the features, copied if need be so that images and views lie at one stride."""
    batch, views = features.shape[:2]
    merged = batch == 1 or views == 1 or features.stride(0) == views * features.stride(1)
    return features if merged else features.contiguous()


REDUCTION_CODES = {"block": 0, "anchor": 1, "sum": 2, "none": 2}  # csrc/cpu/partition.h, Reduction
# What the compiled partition reads; other integers are copied to int64 first.
READ_INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def partition(
    labels: Tensor,
    block_edges: list[int],
    group_total: int,
    per_image: bool,
    other_classes_only: bool,
    background: int | None,
    ignore_index: int | None,
    reduction: str,
    self_supervised: bool,
) -> tuple[Tensor, ...]:
    """Return the tensors of :class:`semicl_kernels.partition.Partition`, of labels on the CPU.

    ``block_edges`` are of the axes of space. ``self_supervised``: the labels tell every place of every image apart
    and are the same in all views; they are not read.
    """
    if labels.dtype not in READ_INTEGERS:
        labels = labels.long()
    missing, points = [1] * (5 - labels.dim()), labels.numel()
    sizes = [points, group_total + 1, group_total, points, points, points, points]
    integer = floats(0, dtype=torch.int32)
    integers = [integer.new_empty(size) for size in sizes]
    out = (floats(points, dtype=torch.int64), *integers, floats(points, dtype=torch.float64))
    extension().partition(
        torch.get_num_threads(),
        labels.data_ptr(),
        labels.element_size(),
        labels.dtype.is_signed,
        [*labels.shape[:2], *missing, *labels.shape[2:]],
        [*labels.stride()[:2], *missing, *labels.stride()[2:]],
        [*missing, *block_edges],
        per_image,
        other_classes_only,
        background,
        ignore_index,
        REDUCTION_CODES[reduction],
        self_supervised,
        [tensor.data_ptr() for tensor in out],
    )
    return out


def gather(features: Tensor, row_of_point: Tensor, normalize: bool) -> tuple[Tensor, Tensor | None]:
    """Return the rows of a map (M, padded C), as the arithmetic takes them, and (M,) 1 over the length of those that
    were rounded; rows of groups without an anchor are not written."""
    features = mergeable(features)
    count, channels = row_of_point.numel(), padded(features.shape[2])
    rows, inverse_lengths = floats(count, channels, dtype=row_dtype(features.dtype)), floats(count)
    # A length off by 2^-9 is off in all similarities of a row: where those of a class are nearly equal, it decides.
    inverse_norms = floats(count) if normalize and is_narrow(features.dtype) else None
    extension().gather_rows(
        torch.get_num_threads(),
        features.data_ptr(),
        DTYPE_CODES[features.dtype],
        *map_layout(features),
        row_of_point.data_ptr(),
        normalize,
        is_narrow(features.dtype),
        channels,
        rows.data_ptr(),
        inverse_lengths.data_ptr(),
        address(inverse_norms),
    )
    return rows, inverse_norms


def positive_means(rows: Tensor, arguments: Any, problem: Problem) -> Tensor:
    """Return (M,): the mean of ``scale x_i . x_p`` over the other rows p of an anchor's class, 0 for other rows."""
    means = floats(len(rows)).zero_()
    extension().positive_means(
        is_narrow(rows.dtype),
        torch.get_num_threads(),
        arguments,
        problem.scale,
        problem.class_begin.data_ptr(),
        problem.class_end.data_ptr(),
        means.data_ptr(),
    )
    return means


class CompiledFused:
    """The whole contrast in compiled code: gather, log-sum-exp with its gradient, positives, normalization."""

    def row_channels(self, channels: int) -> int:
        return padded(channels)

    def anchor_losses(self, problem: Problem) -> Tensor:
        rows, inverse_norms = gather(problem.features, problem.row_of_point, problem.normalize)
        arguments = packed(rows, problem.groups, inverse_norms)
        operands = Operands(arguments, extension().Keys(), (), is_narrow(rows.dtype))
        lse = logsumexp(operands, len(rows), problem.scale)
        if problem.pairwise:
            positives, count = problem.positives(lse)
            return compared(operands, positives, lse, problem.scale)[0].div_(count).float()
        return lse.sub_(positive_means(rows, arguments, problem)).float()

    def loss(self, problem: Problem, weights: Tensor) -> Tensor:
        return torch.dot(weights, self.anchor_losses(problem).double()).float()

    def contrast(self, problem: Problem, weights: Tensor) -> tuple[Tensor, Tensor]:
        losses, gradient = self.losses_and_gradient(problem, weights)
        return torch.dot(weights, losses).float(), gradient

    def losses_and_gradient(self, problem: Problem, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return (M,) float64 the anchors' losses and the gradient by the gathered rows of their sum, each ``weights``
        (M,) float64 times, which may differ within a class range and be as large as 2."""
        features, groups = mergeable(problem.features), problem.groups
        count, channels = problem.row_of_point.numel(), padded(features.shape[2])
        # Rows of groups without an anchor are neither gathered nor given a gradient: their memory is never touched.
        rows, row_gradient = floats(count, channels, dtype=row_dtype(features.dtype)), floats(count, channels)
        losses = floats(count, dtype=torch.float64)
        extension().contrast(
            instruction_set()[0],
            is_narrow(features.dtype),
            torch.get_num_threads(),
            features.data_ptr(),
            DTYPE_CODES[features.dtype],
            *map_layout(features),
            problem.row_of_point.data_ptr(),
            problem.normalize,
            channels,
            rows.data_ptr(),
            [tensor.data_ptr() for tensor in groups.tensors],
            len(groups.anchors),
            problem.pairwise,
            problem.scale,
            problem.class_begin.data_ptr(),
            problem.class_end.data_ptr(),
            weights.data_ptr(),
            losses.data_ptr(),
            row_gradient.data_ptr(),
        )
        return losses, row_gradient

    def map_gradient(self, problem: Problem, weights: Tensor, out: Tensor) -> None:
        weights, unit = level(weights, problem.groups)
        _, row_gradient = self.losses_and_gradient(problem, weights.double())
        self.scatter_scaled(row_gradient, unit, problem.row_of_point, out)

    def scatter(self, row_gradient: Tensor, factor: Tensor, row_of_point: Tensor, out: Tensor) -> None:
        self.scatter_scaled(row_gradient, factor.float(), row_of_point, out)

    def scatter_scaled(self, row_gradient: Tensor, factors: Tensor, row_of_point: Tensor, out: Tensor) -> None:
        """Scatter with a factor (M,) float32 for each row, or one () for all."""
        extension().scatter_rows(
            torch.get_num_threads(),
            row_gradient.data_ptr(),
            row_gradient.shape[1],
            row_of_point.data_ptr(),
            factors.data_ptr(),
            factors.stride(0) if factors.dim() else 0,
            out.data_ptr(),
            DTYPE_CODES[out.dtype],
            *map_layout(out),
        )


BACKEND = Backend(
    "cpu", state, refuses, forward, backward, positive_sums, softplus, CompiledFused(), takes_pairwise=True
)
