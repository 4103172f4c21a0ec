"""The contrast of the points of several processes: each has its share of them, and all get the same loss.

    features, labels   gathered once: every process holds the points of all
    log-sum-exps       each process computes those of its own anchors, against all points; then all are gathered
    gradient           each process computes that by its own points alone: their rows, and their part in all anchors'

Nothing of the size of features travels back. The gradient is that of the loss times the number of processes:
``DistributedDataParallel`` divides by it, and leaves the gradient that one process with the whole batch would have.

Plain collectives of torch.distributed, with any backend that has ``all_gather``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, distributed

from . import keyed
from .autograd import refuse_second_order, save_values, saved_values
from .backends import reference
from .keyed import KeyedProblem
from .partition import places

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

HEADER_BYTES = 4096  # of what each process says of its call

# ---- agreement -------------------------------------------------------------------------------------------------------


def agree(
    facts: dict[str, Any], check: Callable[[], None], group: ProcessGroup, device: torch.device
) -> list[dict[str, Any]]:
    """Run ``check`` and return the ``facts`` of all processes, by rank.

    What a process refuses, all refuse: none is left waiting for another.

    Raises:
        ValueError: if facts that must be the same are not; those with a name that begins with "own " may differ.
        Exception: what ``check`` raised in this process; a RuntimeError where it did in another.
    """
    failure: Exception | None = None
    try:
        check()
        # Private, since torch has no public way to ask, nor below to leave a transform: the others must be told of it.
        if torch._C._functorch.peek_interpreter_stack() is not None:
            raise RuntimeError(
                "torch.func transforms (grad, vmap, jvp ...) do not support process_group: use loss.backward() or "
                "torch.autograd.grad"
            )
    except Exception as error:  # whatever it is, the others wait to be told
        failure = error
    with torch._C._DisableFuncTorch():
        of_rank = all_said(
            {"error": f"{type(failure).__name__}: {failure}"} if failure else {"facts": facts}, group, device
        )
    if failure is not None:
        raise failure
    for rank, one in enumerate(of_rank):
        if "error" in one:
            raise RuntimeError(f"rank {rank} of the process group refused its call of the loss: {one['error']}")
    first = of_rank[0]["facts"]
    for rank, one in enumerate(of_rank):
        for name, value in one["facts"].items():
            if not name.startswith("own ") and value != first.get(name):
                raise ValueError(
                    f"{name} must be the same in all processes of the group; got {first.get(name)} in rank 0 and "
                    f"{value} in rank {rank}"
                )
    return [one["facts"] for one in of_rank]


def all_said(said: dict[str, Any], group: ProcessGroup, device: torch.device) -> list[dict[str, Any]]:
    """Return what each process says, by rank; of an error its first letters."""
    if "error" in said:
        said = {"error": said["error"].encode("ascii", "replace").decode()[:1024]}
    message = json.dumps(said).encode()
    if len(message) > HEADER_BYTES:
        message = json.dumps({"error": f"{len(message)} bytes do not fit a message of {HEADER_BYTES}"}).encode()
    header = torch.zeros(HEADER_BYTES, dtype=torch.uint8)
    header[: len(message)] = torch.frombuffer(bytearray(message), dtype=torch.uint8)
    return [json.loads(bytes(one.cpu().numpy()).rstrip(b"\0")) for one in all_gather(header.to(device), group)]


def checksum(integers: Tensor) -> str:
    """Return what tells most tensors of integers apart, in a few letters."""
    values = integers.long().reshape(-1)
    return f"checksum {int((values * torch.arange(1, len(values) + 1, device=values.device)).sum())}"


def outside_graphs(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the function for a call from a captured graph, which ends before it and goes on after it."""
    # Private, since torch has no public way to end a graph with a reason.
    torch._dynamo.graph_break(msg="process_group calls collectives from Python: leave out fullgraph=True")
    return torch.compiler.disable(function)


# ---- collectives -----------------------------------------------------------------------------------------------------


def all_gather(tensor: Tensor, group: ProcessGroup) -> list[Tensor]:
    """Return the tensor of each process, all of one shape."""
    tensors = [torch.empty_like(tensor) for _ in range(group.size())]
    distributed.all_gather(tensors, tensor.contiguous(), group=group)
    return tensors


def gather_known(tensor: Tensor, counts: list[int], group: ProcessGroup) -> Tensor:
    """Return the rows of all processes, by rank; process r has ``counts[r]`` of them."""
    padded = tensor.new_zeros((max(counts), *tensor.shape[1:]))
    padded[: len(tensor)] = tensor
    # As bytes: not every backend of torch.distributed sends every dtype.
    of_rank = all_gather(padded.view(torch.uint8) if padded.numel() else padded.to(torch.uint8), group)
    rows = [one.view(tensor.dtype) if one.numel() else one.to(tensor.dtype) for one in of_rank]
    return torch.cat([one[:count] for one, count in zip(rows, counts, strict=True)])


def gather_rows(tensor: Tensor, group: ProcessGroup) -> Tensor:
    """Return the rows of all processes, by rank, of which each may have another number."""
    count = torch.tensor([len(tensor)], device=tensor.device)
    return gather_known(tensor, [int(one) for one in all_gather(count, group)], group)


# ---- the loss --------------------------------------------------------------------------------------------------------


class Call(NamedTuple):
    """What is not a tensor of a call that several processes make."""

    shape: torch.Size  # (B, V, *space) of this process
    images: list[int]  # of each process
    rank: int
    group: ProcessGroup
    backend: str

    @property
    def points_of_image(self) -> int:
        return self.shape[1:].numel()

    @property
    def counts(self) -> list[int]:
        return [images * self.points_of_image for images in self.images]

    @property
    def total_shape(self) -> torch.Size:
        return torch.Size((sum(self.images), *self.shape[1:]))

    def gather(self, values: Tensor) -> Tensor:
        """Return (M, ...) of the values of this process's points."""
        return gather_known(values, self.counts, self.group)

    def of_all(self, problem: KeyedProblem) -> KeyedProblem:
        """Return the problem of the points of all processes."""
        points, labels, weights = self.gather(problem.points), problem.labels, problem.weights
        if problem.self_supervised:
            labels = places(self.total_shape, points.device)
        else:
            labels = self.gather(labels.reshape(-1)).reshape(self.total_shape)
        weights = None if weights is None else self.gather(weights)
        return problem._replace(points=points, labels=labels, weights=weights)


class DistributedContrast(torch.autograd.Function):
    """The loss of all processes' points and its gradient by this one's points, by keys and by the scale."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        problem, (call,) = KeyedProblem.unflat(inputs)
        problem = call.of_all(problem)
        wants_gradient, _ = KeyedProblem.unflat(ctx.needs_input_grad)
        is_map, with_keys = problem.reduction == "none", bool(wants_gradient.keys)
        result = solve(call, problem, with_keys, None, not is_map and any(ctx.needs_input_grad))
        begin, end = own_range(call)
        ctx.call, ctx.is_map, ctx.with_keys = call, is_map, with_keys
        if is_map:
            save_values(ctx, *problem)
            return result.losses[begin:end].to(problem.points.dtype)
        by_points = result.by_points[begin:end] if len(result.by_points) else result.by_points
        save_values(ctx, by_points, result.by_keys, result.by_scale)
        return torch.dot(result.weights, result.losses).to(problem.points.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True
            refuse_second_order(ctx)
        call, size = ctx.call, ctx.call.group.size()
        if ctx.is_map:
            begin, end = own_range(call)
            result = solve(call, KeyedProblem(*saved_values(ctx)), ctx.with_keys, call.gather(grad.double()), True)
            by_points, by_keys, by_scale = result.by_points[begin:end], result.by_keys, result.by_scale
        else:
            by_points, by_keys, by_scale = (grad.to(one.dtype).to(one.device) * one for one in saved_values(ctx))
        gradients = (by_points * size, by_keys * size if ctx.with_keys else None, by_scale.cpu() * size)
        return *gradients, *[None] * (len(ctx.needs_input_grad) - len(gradients))


def own_range(call: Call) -> tuple[int, int]:
    begin = sum(call.counts[: call.rank])
    return begin, begin + call.counts[call.rank]


def solve(
    call: Call, problem: KeyedProblem, with_keys: bool, above: Tensor | None, with_gradient: bool
) -> keyed.Result:
    share = keyed.Share(*own_range(call), call.gather)
    with torch.no_grad(), torch.autocast(problem.points.device.type, enabled=False):
        if call.backend != "reference":
            return keyed.contrast(problem, above, with_gradient, with_keys, call.backend, share)
        whole = keyed.Result(*reference.keyed_contrast(problem, above, with_keys))
    # Those of all anchors, of which each process is to give its part.
    by_keys, by_scale = (one / call.group.size() for one in (whole.by_keys, whole.by_scale))
    return whole._replace(by_keys=by_keys, by_scale=by_scale)
