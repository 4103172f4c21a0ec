"""Losses of points that several processes share: real processes, gloo, against one process with the whole batch."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

import semicl_kernels.distributed
from semicl_kernels import (
    ClassQueue,
    LocalContrastiveLoss,
    available_backends,
    local_contrastive_loss,
    nt_xent_loss,
    supervised_contrastive_loss,
)

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch was built without torch.distributed")

BACKENDS = available_backends()
IMAGES = 5
TWO, ONE_OF_THREE_EMPTY, FOUR = [2, 3], [1, 0, 4], [1, 2, 1, 1]  # images of each process


def group() -> Any:
    return distributed.group.WORLD


def data(dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (IMAGES, 2, 5, 6)
    labels = torch.randint(0, 4, shape, generator=generator)
    labels[1] = 0  # an image without an anchor
    weights = torch.rand(shape, generator=generator)
    return {
        "features": torch.randn(IMAGES, 2, 8, 5, 6, generator=generator, dtype=dtype),
        "labels": labels,
        "weights": torch.where(weights < 0.3, 0.0, weights),
        "keys": torch.randn(11, 8, generator=generator, dtype=dtype),
        "key_labels": torch.randint(0, 4, (11,), generator=generator),
    }


CASES: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    ((), {}),
    ((), {"reduction": "class", "denominator": "negatives"}),
    ((), {"reduction": "block", "block_size": 3, "stride": (1, 2)}),
    ((), {"reduction": "none", "block_size": 2}),
    ((), {"scope": "image", "reduction": "anchor", "background": None, "ignore_index": 2}),
    ((), {"normalize": False, "reduction": "sum"}),
    (("weights",), {"reduction": "class"}),
    (("keys", "key_labels"), {"denominator": "pairwise"}),
    (("keys", "key_labels"), {"denominator": "negatives", "reduction": "none"}),
    (("weights", "keys", "key_labels"), {"reduction": "anchor"}),
    (("self-supervised",), {}),
    (("self-supervised", "keys"), {"reduction": "none"}),
]


def solve(
    given: dict[str, Tensor], some: slice, case: tuple[tuple[str, ...], dict[str, Any]], backend: str, shared: Any
) -> tuple[Tensor, list[Tensor | None]]:
    """Return the loss and its gradients by features, keys and temperature, of some of the images."""
    beside, options = case
    features, keys = (given[name].clone().requires_grad_() for name in ("features", "keys"))
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    local = features[some]
    arguments = {name: given[name][some] for name in beside if name == "weights"}
    if "keys" in beside:
        arguments["keys"] = keys
        arguments |= {"key_labels": given["key_labels"]} if "key_labels" in beside else {}
    labels = None if "self-supervised" in beside else given["labels"][some]
    loss = local_contrastive_loss(
        local, labels, temperature=temperature, backend=backend, process_group=shared, **arguments, **options
    )
    (loss * torch.linspace(1, 2, 6)[: loss.shape[-1]] if loss.dim() else loss).sum().backward()
    return loss.detach(), [features.grad, keys.grad, temperature.grad]


def assert_is_one_process(rank: int, sizes: list[int], backend: str, dtype: torch.dtype) -> None:
    given, begin = data(dtype), sum(sizes[:rank])
    some = slice(begin, begin + sizes[rank])
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-6}
    for case in CASES:
        loss, grads = solve(given, some, case, backend, group())
        whole, expected = solve(given, slice(None), case, backend, None)
        torch.testing.assert_close(loss, whole[some] if whole.dim() else whole, msg=f"{case}", **tolerance)
        for found, one in zip(grads, expected, strict=True):
            assert (found is None) == (one is None), case
            if found is None or one is None:
                continue
            mean = found.clone()  # as DistributedDataParallel takes it of parameters
            distributed.all_reduce(mean)
            torch.testing.assert_close(mean / len(sizes), one, msg=f"{case}", **tolerance)


def assert_vectors_are_one_process(rank: int, sizes: list[int], backend: str, dtype: torch.dtype) -> None:
    generator, begin = torch.Generator().manual_seed(1), sum(sizes[:rank])
    vectors, labels = torch.randn(IMAGES, 2, 8, generator=generator, dtype=dtype), torch.tensor([0, 1, 1, 0, 2])
    some = slice(begin, begin + sizes[rank])

    def supcon(x: Tensor, y: Tensor, shared: Any) -> Tensor:
        return supervised_contrastive_loss(x, y, backend=backend, process_group=shared)

    def nt_xent(x: Tensor, y: Tensor, shared: Any) -> Tensor:
        return nt_xent_loss(x[:, 0], x[:, 1], backend=backend, process_group=shared)

    for loss in (supcon, nt_xent):
        whole, part = (vectors.clone().requires_grad_() for _ in range(2))
        expected, found = loss(whole, labels, None), loss(part[some], labels[some], group())
        torch.testing.assert_close(found, expected)
        expected.backward()
        found.backward()
        assert whole.grad is not None
        assert part.grad is not None
        torch.testing.assert_close(part.grad[some] / len(sizes), whole.grad[some])


def in_process(rank: int, sizes: list[int], folder: str, timeout: float, run: Callable[..., None], *args: Any) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(sizes),
        timeout=timedelta(seconds=timeout),
    )  # fmt: skip
    run(rank, sizes, *args)
    gc.collect()  # errors hold the group, and a group that lives until the process ends may abort it
    distributed.destroy_process_group()


def spawn(folder: Path, sizes: list[int], run: Callable[..., None], *args: Any, timeout: float = 120) -> None:
    multiprocessing.spawn(in_process, (sizes, str(folder), timeout, run, *args), nprocs=len(sizes))


@pytest.mark.parametrize(
    ("sizes", "backend", "dtype"),
    [
        (TWO, "tiled", torch.float64),
        (FOUR, "tiled", torch.float64),
        (ONE_OF_THREE_EMPTY, "cpu", torch.float32),
        (ONE_OF_THREE_EMPTY, "reference", torch.float64),
    ],
)
def test_processes_are_as_one(tmp_path: Path, sizes: list[int], backend: str, dtype: torch.dtype) -> None:
    if backend == "cpu" and BACKENDS["cpu"] != "available":
        pytest.skip(f"backend cpu: {BACKENDS['cpu']}")
    spawn(tmp_path, sizes, run_all, backend, dtype)


def run_all(rank: int, sizes: list[int], backend: str, dtype: torch.dtype) -> None:
    assert_is_one_process(rank, sizes, backend, dtype)
    assert_vectors_are_one_process(rank, sizes, backend, dtype)


# ---- mistakes --------------------------------------------------------------------------------------------------------


def mistakes(rank: int, sizes: list[int]) -> None:
    """Each is an error in every process, soon, that names what differs."""
    features, labels = torch.randn(2, 2, 4, 3, 3), torch.ones(2, 2, 3, 3, dtype=torch.int64)
    keys, names = torch.randn(3, 4), labels[0, 0, 0]
    calls: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("shape of an image", {"features": features}, {"features": torch.randn(2, 2, 5, 3, 3)}),
        ("shape of an image", {"features": features}, {"features": features[:, :1], "labels": labels[:, :1]}),
        ("dtype of features", {"features": features}, {"features": features.double(), "backend": "tiled"}),
        ("dtype of labels", {"labels": labels}, {"labels": labels.int()}),
        ("temperature", {"temperature": 0.1}, {"temperature": 0.2}),
        ("reduction", {"reduction": "block"}, {"reduction": "anchor"}),
        ("reduction", {"reduction": "block"}, {"reduction": "none"}),
        ("whether there are weights", {}, {"weights": torch.ones(2, 2, 3, 3)}),
        (
            "dtype of weights",
            *({"weights": torch.ones(2, 2, 3, 3, dtype=one)} for one in (torch.float64, torch.float32)),
        ),
        ("'reference'", {"backend": "reference"}, {"backend": "tiled"}),
        ("number of keys", *({"keys": keys[:n], "key_labels": labels[0, 0, 0, :n]} for n in (3, 2))),
        ("labels must be", {}, {"labels": labels[:, :, :2]}),
        ("must be a tensor", {}, {"features": [1.0]}),
        ("reduction must be one of", {}, {"reduction": "mean"}),
        ("temperature must be positive", {}, {"temperature": -1}),
        ("reduction must be one of", {}, {"reduction": "\u00e9" * 3000}),
        (
            "features, keys or temperature require a gradient",
            *({"keys": one, "key_labels": names, "reduction": "none"} for one in (keys.clone().requires_grad_(), keys)),
        ),
        (
            "features, keys or temperature require a gradient",
            *({"temperature": torch.tensor(0.2, requires_grad=one), "reduction": "none"} for one in (False, True)),
        ),
        ("key_labels", *({"keys": keys, "key_labels": names + one} for one in (0, 1))),
    ]
    for match, first, second in calls:
        arguments = {"features": features, "labels": labels, **(first if rank == 0 else second)}
        begin = time.monotonic()
        with pytest.raises((ValueError, TypeError, RuntimeError), match=match):
            local_contrastive_loss(**arguments, process_group=group())
        assert time.monotonic() - begin < 10, match
    assert local_contrastive_loss(features, labels, process_group=group()).isfinite()
    second = distributed.new_group([1])
    if rank == 0:
        with pytest.raises(TypeError, match="hold this process"):
            local_contrastive_loss(features, labels, process_group=second)
    else:
        expected = local_contrastive_loss(features, labels)
        assert torch.equal(local_contrastive_loss(features, labels, process_group=second), expected)
    with pytest.raises((ValueError, RuntimeError), match="unit length"):
        ClassQueue(2, 2, 4, process_group=group()).push(
            keys if rank == 0 else keys[:0], labels[0, 0, 0, : 3 * (1 - rank)]
        )
    leaf = features.requires_grad_()
    with pytest.raises(RuntimeError, match="first-order"):
        torch.autograd.grad(local_contrastive_loss(leaf, labels, process_group=group()), leaf, create_graph=True)
    for module in (LocalContrastiveLoss(process_group=group()), ClassQueue(2, 2, 4, process_group=group())):
        assert copy.deepcopy(module).process_group is module.process_group
        assert pickle.loads(pickle.dumps(module)).process_group is None


def test_a_mistake_of_one_is_an_error_of_all(tmp_path: Path) -> None:
    spawn(tmp_path, [2, 2], mistakes, timeout=20)


def queue_mistakes(rank: int, sizes: list[int]) -> None:
    """Queues that are not the same, and a push that meets a loss."""
    vectors, labels = torch.eye(4)[:3], torch.tensor([0, 1, 1])
    for match in ("dtype of the queue", "pushed before", "the call"):
        queue = ClassQueue(2, 2, 4, process_group=group())
        if rank == 1 and match == "dtype of the queue":
            queue.double()
        if rank == 1 and match == "pushed before":
            queue.pushed += 1
        call = partial(queue.push, vectors, labels)
        if rank == 1 and match == "the call":
            call = partial(nt_xent_loss, vectors, vectors, process_group=group())
        with pytest.raises(ValueError, match=match):
            call()
        assert len(queue) == (2 if rank == 1 and match == "pushed before" else 0)


def test_queues_that_differ_are_an_error_of_all(tmp_path: Path) -> None:
    spawn(tmp_path, [2, 2], queue_mistakes, timeout=20)


def transformed(rank: int, sizes: list[int]) -> None:
    """A process within a transform of torch.func, whatever it transforms, is refused, and the other one with it."""
    features, labels = torch.randn(2, 2, 4, 3, 3), torch.ones(2, 2, 3, 3, dtype=torch.int64)

    module = LocalContrastiveLoss(temperature=torch.nn.Parameter(torch.tensor(0.1)), process_group=group())

    def loss(features: Tensor, labels: Tensor, **options: Any) -> Tensor:
        return local_contrastive_loss(features, labels, process_group=group(), **options)

    calls: list[Callable[[], Any]] = [
        lambda: torch.func.grad(loss)(features, labels),
        lambda: torch.func.vmap(loss)(features[None], labels[None]),
        lambda: torch.func.vmap(partial(loss, features))(labels[None]),
        lambda: torch.func.grad(lambda x: loss(features, labels) * x)(torch.tensor(1.0)),
        lambda: torch.func.grad(lambda t: loss(features, labels, temperature=t))(torch.tensor(0.1)),
        lambda: torch.func.grad(lambda t: torch.func.functional_call(module, {"temperature": t}, (features, labels)))(
            torch.tensor(0.1)
        ),
    ]
    for call in calls:
        begin = time.monotonic()
        with pytest.raises(RuntimeError, match=r"torch\.func"):
            call() if rank == 0 else loss(features, labels)
        assert time.monotonic() - begin < 10
        with pytest.raises(RuntimeError, match=r"torch\.func"):
            call()
    assert loss(features, labels).isfinite()


def test_transforms_of_torch_func_are_refused_by_all(tmp_path: Path) -> None:
    spawn(tmp_path, [2, 2], transformed, timeout=20)


def compiled(rank: int, sizes: list[int]) -> None:
    """The graph ends before the loss and goes on after it."""
    features, labels = torch.randn(2, 2, 4, 3, 3), torch.ones(2, 2, 3, 3, dtype=torch.int64)
    criterion = LocalContrastiveLoss(process_group=group())

    def step(features: Tensor) -> Tensor:
        return 2 * criterion(2 * features, labels)

    found = torch.compile(step, backend="aot_eager")(features)
    torch.testing.assert_close(found, step(features))
    torch.compiler.reset()
    with pytest.raises(RuntimeError, match="leave out fullgraph=True"):
        torch.compile(step, backend="aot_eager", fullgraph=True)(features)


def test_a_graph_goes_around_the_loss(tmp_path: Path) -> None:
    spawn(tmp_path, [2, 2], compiled)


def die(rank: int, sizes: list[int]) -> None:
    features, labels = torch.randn(2, 2, 4, 3, 3), torch.ones(2, 2, 3, 3, dtype=torch.int64)
    criterion = LocalContrastiveLoss(process_group=group())
    criterion(features, labels)
    if rank == 1:
        os._exit(0)
    begin = time.monotonic()
    with pytest.raises(RuntimeError):
        criterion(features, labels)
    assert time.monotonic() - begin < 30
    os._exit(0)  # there is nobody left to say goodbye to


def test_a_process_that_dies_leaves_an_error_and_no_hang(tmp_path: Path) -> None:
    spawn(tmp_path, [2, 2], die, timeout=15)


def count_bytes(rank: int, sizes: list[int]) -> None:
    """What docs/distributed.md says crosses the network: the collectives are real, and what they return is counted."""
    received, gather = [], semicl_kernels.distributed.distributed.all_gather

    def counting(tensors: list[Tensor], tensor: Tensor, **options: Any) -> None:
        received.append(sum(one.nbytes for one in tensors))
        gather(tensors, tensor, **options)

    semicl_kernels.distributed.distributed.all_gather = counting
    given, world = data(torch.float32), len(sizes)
    begin = sum(sizes[:rank])
    some = slice(begin, begin + sizes[rank])
    points = max(sizes) * given["labels"][0].numel()
    rows, labels, weights, lse = 4 * world * points * 8, 8 * world * points, 4 * world * points, 8 * world * points
    for beside, reduction, expected in [
        ((), "block", rows + labels + lse),
        (("weights",), "block", rows + labels + weights + lse),
        ((), "none", rows + labels + 2 * lse + lse),  # log-sum-exps in both passes, and the gradient from above
    ]:
        received.clear()
        solve(given, some, (beside, {"reduction": reduction}), "tiled", group())
        assert sum(received) == 4096 * world + expected, (beside, reduction, received)


def test_what_crosses_the_network(tmp_path: Path) -> None:
    spawn(tmp_path, [2, 3], count_bytes)


def alone(rank: int, sizes: list[int]) -> None:
    for case in CASES:
        given = data(torch.float32)
        shared, without = (solve(given, slice(None), case, "tiled", one) for one in (group(), None))
        assert torch.equal(shared[0], without[0])
        for found, expected in zip(shared[1], without[1], strict=True):
            assert found is expected is None or torch.equal(found, expected)


def test_a_group_of_one_process_changes_nothing(tmp_path: Path) -> None:
    spawn(tmp_path, [IMAGES], alone)


def test_a_group_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match=r"process_group.*group\.WORLD"):
        LocalContrastiveLoss(process_group="all")  # type: ignore[arg-type]


# ---- queues and training ---------------------------------------------------------------------------------------------


def queues(rank: int, sizes: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(12, 4, generator=generator), dim=1)
    labels = torch.randint(0, 3, (12,), generator=generator)
    shared, alone = ClassQueue(3, 2, 4, process_group=group()), ClassQueue(3, 2, 4)
    for first in (0, 6):
        batch = slice(first, first + 6)
        own = slice(first + sum(sizes[:rank]), first + sum(sizes[: rank + 1]))
        shared.push(vectors[own], labels[own])
        alone.push(vectors[batch], labels[batch])
    for name, buffer in alone.state_dict().items():
        assert torch.equal(shared.state_dict()[name], buffer), name


def test_a_shared_queue_is_the_same_in_all_processes(tmp_path: Path) -> None:
    spawn(tmp_path, [2, 0, 4], queues)


TRAIN = """
import gc, sys, torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from semicl_kernels import LocalContrastiveLoss

shared = sys.argv[1] == "shared"
torch.manual_seed(0)
model = nn.Conv2d(3, 8, 3, padding=1).double()
images, labels = torch.randn(4, 2, 3, 6, 6).double(), torch.randint(0, 3, (4, 2, 6, 6))
if shared:
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    images, labels, model = images[2 * rank :][:2], labels[2 * rank :][:2], DistributedDataParallel(model)
criterion = LocalContrastiveLoss(process_group=distributed.group.WORLD if shared else None, backend="tiled")
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
for step in range(5):
    optimizer.zero_grad()
    features = model(images.flatten(0, 1)).unflatten(0, (-1, 2))
    criterion(features, labels).backward()
    optimizer.step()
if not shared or rank == 0:
    print(" ".join(f"{value:.12e}" for one in model.parameters() for value in one.flatten().tolist()))
if shared:
    distributed.barrier()  # nobody leaves while another one still needs it
    del model, criterion, optimizer, features  # else gloo may abort the process as it exits
    gc.collect()
    distributed.destroy_process_group()
"""


def test_ddp_by_torchrun_trains_as_one_process_does(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(TRAIN)

    def output(*words: str) -> str:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        run = {"capture_output": True, "text": True, "check": False, "env": environment, "timeout": 300}
        done = subprocess.run([sys.executable, *words], **run)
        assert done.returncode == 0, done.stderr
        return done.stdout

    alone = output(str(script), "alone")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    shared = output(*torchrun, str(script), "shared")
    # Gloo of older torch prints that it is connected.
    lines = ([line for line in text.splitlines() if not line.startswith("[Gloo]")] for text in (shared, alone))
    weights, expected = ([float(one) for one in " ".join(each).split()] for each in lines)
    torch.testing.assert_close(torch.tensor(weights).double(), torch.tensor(expected).double(), rtol=1e-9, atol=1e-12)
