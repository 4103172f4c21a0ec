"""The launch cache: the launches of a call are recorded, and repeated for later calls with other addresses.

A call costs the host Python that computes sizes and tiles, two dozen allocations, and Triton's look at every argument
of every launch. All of it depends on shapes, strides, dtypes and alignment, never on values. So a function that does
nothing but launch kernels is run under :func:`repeat`. The first call just runs. The second is recorded: each launch,
and the tensor and offset that each argument points into. Later calls of the same shapes allocate the results and one
workspace, and repeat the launches with the new addresses. Unlike in a CUDA graph, inputs may lie anywhere and every
call has its own memory.

Such a function allocates by :func:`empty` and :func:`zeros` and launches by :func:`launch` and :func:`call`. Of tensors
it may only take contiguous parts besides. Outside of :func:`repeat` the four record nothing. Triton's checks at every
launch, whether global variables or its debug and instrumentation options changed, are made once. Its launch hooks are
called every time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .device import ALIGNMENT, interpreted, on

PART_ALIGNMENT = 256  # bytes, of the parts of a call's memory
MAX_CACHED = 1024
# What addresses are counted from: the stream, a call's memory, its inputs and then what else it allocates.
STREAM, MEMORY, FIRST_INPUT = range(3)


class CurrentStream(NamedTuple):
    """Stands for the address of the device's current stream among the arguments of :func:`call`."""

    device: torch.device


class Address(NamedTuple):
    """A tensor among a launch's arguments: it begins ``offset`` bytes past a ``base``."""

    base: int
    offset: int
    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.uint8

    def view(self, memory: Sequence[Any]) -> Any:
        """Return the tensor, of a call with this ``memory``."""
        whole = memory[self.base]
        if self.base >= FIRST_INPUT and (whole.shape, whole.dtype) == (self.shape, self.dtype):
            return whole
        size = torch.Size(self.shape).numel() * self.dtype.itemsize
        part = whole.view(-1).view(torch.uint8)[self.offset : self.offset + size]
        return part.view(self.dtype).view(self.shape)


class Step(Protocol):
    """A launch that is repeated: ``addresses`` are a call's bases, ``memory`` the tensors that lie there."""

    def __call__(self, addresses: Sequence[int], memory: Sequence[Any]) -> None: ...


# ---- what a function under repeat uses -------------------------------------------------------------------------------


class _Now(threading.local):
    recorder: Recorder | None = None


_now = _Now()


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    return _allocated(torch.empty, shape, dtype, device)


def zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    return _allocated(torch.zeros, shape, dtype, device)


def _allocated(
    allocate: Callable[..., Tensor], shape: Sequence[int], dtype: torch.dtype, device: torch.device
) -> Tensor:
    tensor = allocate(shape, dtype=dtype, device=device)
    if _now.recorder is not None:
        _now.recorder.allocated.append(Allocated(tensor, allocate))
    return tensor


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Do ``kernel[grid](*arguments, **options)`` with a kernel of Triton's."""
    compiled = kernel[grid](*arguments, **options)
    if _now.recorder is not None:
        _now.recorder.launches.append((partial(Launch, kernel, grid, options, compiled), arguments))


def call(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function that takes addresses: of a tensor its own, of None 0, of a list of tensors a list."""
    function(*[_address(argument) for argument in arguments])
    if _now.recorder is not None:
        _now.recorder.launches.append((partial(Call, function), arguments))


def _address(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    if isinstance(argument, list):
        return [_address(one) for one in argument]
    if isinstance(argument, CurrentStream):
        return torch.cuda.current_stream(argument.device).cuda_stream
    return 0 if argument is None else argument


# ---- what is repeated ------------------------------------------------------------------------------------------------


class Launch:
    """A kernel of Triton's, past the search for what it was compiled to; the interpreter compiles nothing."""

    def __init__(
        self, kernel: Any, grid: tuple[int, ...], options: dict[str, Any], compiled: Any, arguments: list[Any]
    ) -> None:
        self.kernel, self.grid, self.options, self.arguments = kernel, grid, options, arguments
        every = [*arguments, *(options[name] for name in kernel.arg_names[len(arguments) :])]
        self.compiled = None if compiled is None else compiled[grid + (1,) * (3 - len(grid))]
        self.based = [(one.base, one.offset) if isinstance(one, Address) else (None, one) for one in every]

    def __call__(self, addresses: Sequence[int], memory: Sequence[Any]) -> None:
        if self.compiled is None:
            self.kernel[self.grid](*[_view(one, memory) for one in self.arguments], **self.options)
        else:
            arguments = [value if base is None else addresses[base] + value for base, value in self.based]
            self.compiled(*arguments, stream=addresses[STREAM])


def _view(argument: Any, memory: Sequence[Any]) -> Any:
    return argument.view(memory) if isinstance(argument, Address) else argument


class Call:
    def __init__(self, function: Callable[..., None], arguments: list[Any]) -> None:
        self.function, self.arguments = function, arguments

    def __call__(self, addresses: Sequence[int], memory: Sequence[Any]) -> None:
        self.function(*[_resolved(one, addresses) for one in self.arguments])


def _resolved(argument: Any, addresses: Sequence[int]) -> Any:
    if isinstance(argument, Address):
        return addresses[argument.base] + argument.offset
    if isinstance(argument, list):
        return [_resolved(one, addresses) for one in argument]
    return 0 if argument is None else argument


class Recording(NamedTuple):
    """A call: what it allocates, what it does, and which of the allocations it returns."""

    device: torch.device
    size: int  # bytes of memory
    allocators: Sequence[Callable[[], Tensor]]
    steps: Sequence[Step]
    returned: Sequence[int]

    def again(self, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        separate = [allocate() for allocate in self.allocators]
        memory = (None, torch.empty(self.size, dtype=torch.uint8, device=self.device), *inputs, *separate)
        addresses = [0 if tensor is None else tensor.data_ptr() for tensor in memory]
        if self.device.type == "cuda":
            addresses[STREAM] = torch.cuda.current_stream(self.device).cuda_stream
        for step in self.steps:
            step(addresses, memory)
        return tuple([separate[number] for number in self.returned])


# ---- the recorder ----------------------------------------------------------------------------------------------------


class Allocated(NamedTuple):
    tensor: Tensor
    allocate: Callable[..., Tensor]


class Recorder:
    """The notes on a call while it runs. They keep all its memory, so that an address has one meaning."""

    def __init__(self, inputs: Sequence[Tensor | None]) -> None:
        self.allocated: list[Allocated] = []
        self.launches: list[tuple[Callable[[list[Any]], Step], tuple[Any, ...]]] = []
        self.addresses = {
            id(tensor): Address(FIRST_INPUT + number, 0, tuple(tensor.shape), tensor.dtype)
            for number, tensor in enumerate(inputs)
            if tensor is not None
        }
        self.first_separate = FIRST_INPUT + len(inputs)

    def recording(self, results: Sequence[Tensor], device: torch.device) -> Recording:
        """Lay out the memory: what is returned or was zeroed is allocated by itself, all else in one piece."""
        numbers = {id(result): -1 for result in results}
        allocators: list[Callable[[], Tensor]] = []
        size = 0
        for tensor, allocate in self.allocated:
            look = (tuple(tensor.shape), tensor.dtype)
            if id(tensor) in numbers or allocate is torch.zeros:
                numbers[id(tensor)] = len(allocators)
                self.addresses[id(tensor)] = Address(self.first_separate + len(allocators), 0, *look)
                allocators.append(partial(allocate, tensor.shape, dtype=tensor.dtype, device=device))
            else:
                self.addresses[id(tensor)] = Address(MEMORY, size, *look)
                size += -(-tensor.nbytes // PART_ALIGNMENT) * PART_ALIGNMENT
        returned = [numbers[id(result)] for result in results]
        assert -1 not in returned, "what is returned must be whole, and made by empty or zeros"
        begins = [(tensor.data_ptr(), tensor.nbytes, self.addresses[id(tensor)]) for tensor, _ in self.allocated]
        steps = [step([self.placed(one, begins) for one in arguments]) for step, arguments in self.launches]
        return Recording(device, size, allocators, steps, returned)

    def placed(self, argument: Any, begins: Sequence[tuple[int, int, Address]]) -> Any:
        """Return an argument of a launch with addresses for tensors."""
        if isinstance(argument, list):
            return [self.placed(one, begins) for one in argument]
        if isinstance(argument, CurrentStream):
            return Address(STREAM, 0)
        if not isinstance(argument, Tensor):
            return argument
        known = self.addresses.get(id(argument))
        return self.part(argument, begins) if known is None else known

    def part(self, tensor: Tensor, begins: Sequence[tuple[int, int, Address]]) -> Address:
        assert tensor.is_contiguous()
        look = (tuple(tensor.shape), tensor.dtype)
        if tensor.numel() == 0:
            return Address(MEMORY, 0, *look)
        for begin, size, whole in begins:
            past = tensor.data_ptr() - begin
            if 0 <= past < size:
                return Address(whole.base, whole.offset + past, *look)
        raise AssertionError("a launch got a tensor that is neither an input nor was made by empty or zeros")


# Of what was seen once there is no recording yet. The last ones used come last.
remembered: dict[Hashable, Recording | None] = {}


def repeat(
    name: str, options: Hashable, inputs: Sequence[Tensor | None], function: Callable[[], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """Return what ``function()`` returns: tensors that it made.

    ``inputs`` are the tensors that it launches with and did not make, the first of them no None; ``name`` and
    ``options`` are all that its launches depend on but for the inputs' looks. Nothing is repeated where one tensor is
    two of the inputs, nor on AMD, whose compiler looks at the size of the memory around a tensor.
    """
    assert _now.recorder is None, "a function under repeat has called another"
    assert inputs[0] is not None
    device = inputs[0].device
    with on(device):
        if torch.version.hip is not None or not (device.type == "cuda" or interpreted()):
            return function()
        tensors = [tensor for tensor in inputs if tensor is not None]
        if len({id(tensor) for tensor in tensors}) < len(tensors):
            return function()
        key = (name, options, device, *[None if tensor is None else _look(tensor) for tensor in inputs])
        seen = key in remembered
        recording = remembered.pop(key, None)
        if recording is not None:
            remembered[key] = recording
            return recording.again(inputs)
        if not seen:
            _remember(key, None)
            return function()
        _now.recorder = Recorder(inputs)
        try:
            results = function()
            _remember(key, _now.recorder.recording(results, device))
        finally:
            _now.recorder = None
        return results


def _look(tensor: Tensor) -> Hashable:
    """All that a launch may depend on of an input: Triton compiles for aligned addresses and for others."""
    return tensor.dtype, tensor.shape, tensor.stride(), tensor.data_ptr() % ALIGNMENT == 0


def _remember(key: Hashable, recording: Recording | None) -> None:
    while len(remembered) >= MAX_CACHED:
        remembered.pop(next(iter(remembered), None), None)
    remembered[key] = recording


def forget() -> None:
    """Forget all recordings: for who changes what a call launches, as a tile table, from under them."""
    remembered.clear()
