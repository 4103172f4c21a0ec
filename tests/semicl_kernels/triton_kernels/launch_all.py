"""Calls the loss several times on a GPU that is not there, and compares what the calls launch; a program of its own.

``python -m tests.semicl_kernels.triton_kernels.launch_all libcuda.so.1`` runs Triton's own compiler and launcher for
sm_90 over a stand-in driver (stand_in_driver.c), on tensors of the host that no kernel ever touches. The first call
just launches, the second is recorded, the later ones are repeated (backends/launch_cache.py). Of each launch the driver
gets the grid, the shared memory, the stream and the arguments: all must be those of the first call, numbers by their
bits, and addresses by what lies there. One line of JSON is printed for each call of the list. It cannot share a process
with the interpreter's tests.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.driver import CudaDriver, CudaLauncher, CudaUtils
from triton.runtime.jit import JITFunction

from semicl_kernels import local_contrastive_loss, ops, partition_kernels
from semicl_kernels.backends import device as gpu_device
from semicl_kernels.backends import fused, launch_cache
from semicl_kernels.backends import triton as backend

CALLS = 4
BYTES = {"i1": 1, "u1": 1, "i8": 1, "u8": 1, "i32": 4, "u32": 4, "fp32": 4, "i64": 8, "u64": 8, "fp64": 8}


# ---- the driver, and what it is handed -------------------------------------------------------------------------------


class LaunchConfig(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("attribute_count", ctypes.c_uint),
    )


class Launch(NamedTuple):
    kernel: str
    config: tuple[int, ...]
    numbers: tuple[bytes, ...]
    addresses: tuple[int, ...]


launches: list[Launch] = []


def types_of(signature: Any) -> list[str]:
    if isinstance(signature, tuple):
        return [one for part in signature for one in types_of(part)]
    return [] if signature == "constexpr" else [signature]


class Launcher(CudaLauncher):
    """Triton's, which says what the arguments are that the driver gets next."""

    now: Launcher

    def __init__(self, source: Any, metadata: Any) -> None:
        super().__init__(source, metadata)
        self.kernel, self.types = source.fn.__name__, types_of(tuple(source.signature.values()))

    def __call__(self, *arguments: Any) -> None:
        Launcher.now = self
        super().__call__(*arguments)


@ctypes.CFUNCTYPE(None, ctypes.POINTER(LaunchConfig), ctypes.POINTER(ctypes.c_void_p))
def launched(pointer: Any, arguments: Any) -> None:
    config, numbers, addresses = pointer.contents, [], []
    for number, kind in enumerate(Launcher.now.types):
        if kind.startswith("*"):
            addresses.append(ctypes.c_uint64.from_address(arguments[number]).value)
        else:
            numbers.append(ctypes.string_at(arguments[number], BYTES[kind]))
    looks = (*config.grid, *config.block, config.shared_bytes, config.stream or 0, config.attribute_count)
    launches.append(Launch(Launcher.now.kernel, looks, tuple(numbers), tuple(addresses)))


class Searching:
    """JITFunction.run, counted."""

    run, count = JITFunction.run, 0

    @staticmethod
    def counted(*arguments: Any, **options: Any) -> Any:
        Searching.count += 1
        return Searching.run(*arguments, **options)


class Driver(CudaDriver):
    def __init__(self) -> None:
        self.utils, self.launcher_cls = CudaUtils(), Launcher

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


# ---- calls, and how they differ --------------------------------------------------------------------------------------


class Memory(TorchDispatchMode):
    """Keeps every tensor that a call makes, so that no address is given twice."""

    now: Memory

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.keep(operation(*args, **(kwargs or {})))

    def keep(self, result: Any) -> Any:
        self.kept += [one for one in tree_leaves(result) if isinstance(one, Tensor)]
        return result

    def spans(self) -> list[tuple[int, int]]:
        storages = [one.untyped_storage() for one in self.kept]
        return sorted({(one.data_ptr(), one.nbytes()) for one in storages if one.nbytes()})


class Call(NamedTuple):
    launches: list[Launch]
    memory: Memory
    searched: int  # launches that Triton searched the compiled kernel of

    def place(self, address: int) -> tuple[int, int] | None:
        """Where a tensor of this call begins that an address lies in, and how long it is."""
        return next(((begin, size) for begin, size in self.memory.spans() if 0 <= address - begin < size), None)


# What is made inside of an operation a mode does not see: memory, and what is handed to repeat.


def keeping(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *arguments, **options: Memory.now.keep(allocate(*arguments, **options))


def repeat(name: str, options: Any, inputs: Any, function: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return launch_cache.repeat(name, options, Memory.now.keep(inputs), function)


def call(function: Callable[[], object]) -> Call:
    launches.clear()
    searched = Searching.count
    Memory.now = Memory()
    with Memory.now:
        Memory.now.keep(function())
    return Call([*launches], Memory.now, Searching.count - searched)


def differences(first: Call, again: Call) -> list[str]:
    """In what the launches of a later call are not those of the first."""
    if [one.kernel for one in first.launches] != [one.kernel for one in again.launches]:
        return ["other kernels"]
    found: list[str] = []
    begins: dict[tuple[int, int], int] = {}  # where each tensor of the first call begins in the later one
    for number, (one, other) in enumerate(zip(first.launches, again.launches, strict=True)):
        where = f"launch {number}, {one.kernel}: "
        if one.config != other.config:
            found.append(f"{where}configuration {one.config} and {other.config}")
        if one.numbers != other.numbers:
            found.append(f"{where}numbers {one.numbers} and {other.numbers}")
        for old, new in zip(one.addresses, other.addresses, strict=True):
            if old == 0:  # a tensor of no elements: it may lie anywhere
                continue
            tensor = first.place(old)
            if tensor is None or new % 16 != old % 16:
                found += [f"{where}address {old:x} and {new:x}"] * (old != new)
                continue
            begin = begins.setdefault(tensor, new - (old - tensor[0]))
            if new - begin != old - tensor[0]:
                found.append(f"{where}another part of a tensor")
            if again.place(begin) is None or again.place(begin + tensor[1] - 1) != again.place(begin):
                found.append(f"{where}memory that is not the call's")
    taken = sorted((begin, begin + tensor[1]) for tensor, begin in begins.items())
    found += ["tensors overlap" for (_, end), (begin, _) in pairwise(taken) if begin < end]
    return found


def loss(dtype: torch.dtype, shape: tuple[int, ...], labelled: bool, **options: Any) -> Callable[[], object]:
    """A call of the loss and its gradient, with inputs of its own."""

    def function() -> object:
        features = torch.zeros(shape, dtype=dtype, requires_grad=True)
        labels = torch.zeros((*shape[:2], *shape[3:]), dtype=torch.int64) if labelled else None
        value = local_contrastive_loss(features, labels, backend="triton", background=None, **options)
        return features, labels, value, torch.autograd.grad(value, features)

    return function


CASES = {
    "bfloat16, blocks": loss(torch.bfloat16, (1, 2, 48, 9, 7), True, block_size=5, denominator="negatives"),
    "float32, places": loss(torch.float32, (1, 2, 48, 9, 7), False, block_size=5, normalize=False),
    "float16, one group": loss(torch.float16, (1, 2, 48, 8, 4), True),
}


def planted() -> dict[str, int]:
    """What is wrong with the first launch of what was recorded, if one thing in it is: of how many things one hears."""
    found = {}
    function = next(iter(CASES.values()))
    first = call(function)
    for name, wrong in {
        "an address": lambda base, value: (base, value + 16) if base is not None else None,
        "a number": lambda base, value: (base, value + 1) if base is None and type(value) is int else None,
        "a tensor of an earlier call": lambda base, value: (None, first.launches[-1].addresses[0]) if base else None,
    }.items():
        steps = [step for one in launch_cache.remembered.values() if one is not None for step in one.steps]
        based = steps[-1].based
        place, changed = next((i, wrong(*one)) for i, one in enumerate(based) if wrong(*one) is not None)
        right, based[place] = based[place], changed
        found[name] = len(differences(first, call(function)))
        based[place] = right
    return found


def main(library: str) -> None:
    ctypes.CDLL(library).on_launch(launched)
    torch.empty, torch.zeros = keeping(torch.empty), keeping(torch.zeros)
    fused.repeat = partition_kernels.repeat = repeat
    ops.MAX_REMEMBERED = 0  # every call makes its partition
    JITFunction.run = lambda *arguments, **options: Searching.counted(*arguments, **options)
    triton.runtime.driver.set_active(Driver())
    gpu_device.interpreted = launch_cache.interpreted = lambda: True  # tensors of the host are taken
    backend.chip = fused.chip = lambda device: gpu_device.Chip("sm_90", 264)
    for name, function in CASES.items():
        first, *others = calls = [call(function) for _ in range(CALLS)]
        facts = {
            "call": name,
            "kernels": [one.kernel for one in first.launches],
            "searched": [one.searched for one in calls],
            "differences": [differences(first, one) for one in others],
        }
        print(json.dumps(facts), flush=True)
    launch_cache.forget()
    for _ in range(2):
        call(next(iter(CASES.values())))
    print(json.dumps({"call": "planted", "found": planted()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
