"""Calls that look alike launch alike: the first is recorded, the others repeat its launches with other memory.

What a call costs the host is Python that works out sizes and tiles, two dozen allocations, and Triton, which looks at
every argument of every launch. All of it depends on how the arguments look and on nothing that is in them. So a
function whose work is launches alone is run once under :func:`repeat`, which notes each launch and where in whose
memory its arguments lie. A call that looks the same allocates what is returned, and one piece of memory for all else,
and goes through the notes with other addresses. Unlike with a CUDA graph, inputs lie wherever they lie and every call
has memory of its own.

Such a function gets its memory from :func:`empty` and :func:`zeros`, works by :func:`launch`, :func:`call` and
:func:`apply`, and does with tensors nothing else but to take contiguous parts of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .launching import ALIGNMENT, interpreted

PIECE = 256  # bytes: the parts of a call's memory begin at multiples of it
MOST_RECORDINGS = 256
# What addresses are counted from: nothing, the stream, a call's memory, its inputs and then what else it allocates.
NOTHING, STREAM, MEMORY, FIRST_INPUT = range(4)


class CurrentStream(NamedTuple):
    """Stands for the address of the device's current stream among the arguments of :func:`call`."""

    device: torch.device


class Place(NamedTuple):
    """An argument, as the address ``offset`` bytes past a ``base``; past NOTHING, it is ``offset`` itself."""

    base: int
    offset: Any
    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.uint8

    def view(self, memory: Sequence[Any]) -> Any:
        """Return the argument as the tensor it is a place of, or what else it is."""
        if self.base == NOTHING:
            return self.offset
        whole = memory[self.base]
        if self.base >= FIRST_INPUT and whole.shape == self.shape:
            return whole
        size = torch.Size(self.shape).numel() * self.dtype.itemsize
        part = whole.view(-1).view(torch.uint8)[self.offset : self.offset + size]
        return part.view(self.dtype).view(self.shape)


class Step(Protocol):
    """A launch that is repeated: ``addresses`` are a call's bases, ``memory`` the tensors that lie there."""

    def __call__(self, addresses: Sequence[int], memory: Sequence[Any]) -> None: ...


class Made(NamedTuple):
    tensor: Tensor
    make: Callable[..., Tensor]


# ---- what a function under repeat uses -------------------------------------------------------------------------------


class _Now(threading.local):
    recording: Recording | None = None


_now = _Now()


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    return _made(torch.empty, shape, dtype, device)


def zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    return _made(torch.zeros, shape, dtype, device)


def _made(make: Callable[..., Tensor], shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    tensor = make(shape, dtype=dtype, device=device)
    if _now.recording is not None:
        _now.recording.made.append(Made(tensor, make))
    return tensor


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Do ``kernel[grid](*arguments, **options)`` with a kernel of Triton's."""
    compiled = kernel[grid](*arguments, **options)
    if _now.recording is not None:
        _now.recording.steps.append((Launch, (kernel, grid, options, compiled), arguments))


def call(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function that takes addresses: of a tensor its own, of None 0, of a list of tensors a list."""
    function(*[_address(argument) for argument in arguments])
    if _now.recording is not None:
        _now.recording.steps.append((Call, (function,), arguments))


def _address(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    if isinstance(argument, list):
        return [_address(one) for one in argument]
    if isinstance(argument, CurrentStream):
        return torch.cuda.current_stream(argument.device).cuda_stream
    return 0 if argument is None else argument


def apply(function: Callable[..., Tensor], out: Tensor, *arguments: Tensor) -> Tensor:
    """Write to ``out``, which is returned, what a function of torch's operations makes of the arguments."""
    out.copy_(function(*arguments))
    if _now.recording is not None:
        _now.recording.steps.append((Apply, (function,), (out, *arguments)))
    return out


# ---- what is repeated ------------------------------------------------------------------------------------------------


class Launch:
    """A kernel of Triton's, past the search for what it was compiled to; the interpreter compiles nothing."""

    def __init__(
        self, kernel: Any, grid: tuple[int, ...], options: dict[str, Any], compiled: Any, places: list[Place]
    ) -> None:
        self.kernel, self.grid, self.options, self.places = kernel, grid, options, places
        self.run = None
        if compiled is not None:
            self.run = compiled[grid + (1,) * (3 - len(grid))]
            constants = [(NOTHING, options[name]) for name in kernel.arg_names[len(places) :]]
            self.addressed = [(place.base, place.offset) for place in places] + constants

    def __call__(self, addresses: Sequence[int], memory: Sequence[Any]) -> None:
        if self.run is None:
            self.kernel[self.grid](*[place.view(memory) for place in self.places], **self.options)
        else:
            arguments = [addresses[base] + offset if base else offset for base, offset in self.addressed]
            self.run(*arguments, stream=addresses[STREAM])


class Call:
    def __init__(self, function: Callable[..., None], places: list[Any]) -> None:
        self.function, self.places = function, places

    def __call__(self, addresses: Sequence[int], memory: Sequence[Any]) -> None:
        self.function(*[_resolved(place, addresses) for place in self.places])


def _resolved(place: Any, addresses: Sequence[int]) -> Any:
    if isinstance(place, list):
        return [_resolved(one, addresses) for one in place]
    if place.base == NOTHING:
        return 0 if place.offset is None else place.offset
    return addresses[place.base] + place.offset


class Apply:
    def __init__(self, function: Callable[..., Tensor], places: list[Place]) -> None:
        self.function, self.places = function, places

    def __call__(self, addresses: Sequence[int], memory: Sequence[Any]) -> None:
        out, *arguments = [place.view(memory) for place in self.places]
        out.copy_(self.function(*arguments))


class Repeated(NamedTuple):
    """A recorded call: what it allocates, what it does, and which of the allocations it returns."""

    device: torch.device
    size: int  # bytes of memory
    makers: Sequence[Callable[[], Tensor]]
    steps: list[Step]
    returned: list[int]

    def __call__(self, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        made = [make() for make in self.makers]
        memory = torch.empty(self.size, dtype=torch.uint8, device=self.device)
        tensors = (None, None, memory, *inputs, *made)
        addresses = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
        if self.device.type == "cuda":
            addresses[STREAM] = torch.cuda.current_stream(self.device).cuda_stream
        for step in self.steps:
            step(addresses, tensors)
        return tuple([made[number] for number in self.returned])


# ---- the recording ---------------------------------------------------------------------------------------------------


class Recording:
    """The notes on a call while it runs. They keep all its memory, so that an address has one meaning."""

    def __init__(self, inputs: Sequence[Tensor | None]) -> None:
        self.inputs = inputs
        self.made: list[Made] = []
        self.steps: list[tuple[Any, tuple[Any, ...], tuple[Any, ...]]] = []

    def finished(self, results: Sequence[Tensor], device: torch.device) -> Repeated:
        """Lay out the memory: what is returned or was zeroed is allocated by itself, all else in one piece."""
        alone = [made for made in self.made if made.make is torch.zeros or any(made.tensor is one for one in results)]
        first, size = FIRST_INPUT + len(self.inputs), 0
        bases: list[tuple[Tensor, int, int]] = []
        for made in self.made:
            number = next((number for number, one in enumerate(alone) if one is made), None)
            if number is not None:
                bases.append((made.tensor, first + number, 0))
            else:
                bases.append((made.tensor, MEMORY, size))
                size += -(-made.tensor.nbytes // PIECE) * PIECE
        steps = [kind(*what, [self.place(one, bases) for one in arguments]) for kind, what, arguments in self.steps]
        returned = [next(number for number, one in enumerate(alone) if one.tensor is result) for result in results]
        makers = [partial(make, tensor.shape, dtype=tensor.dtype, device=device) for tensor, make in alone]
        return Repeated(device, size, makers, steps, returned)

    def place(self, argument: Any, bases: Sequence[tuple[Tensor, int, int]]) -> Any:
        if isinstance(argument, list):
            return [self.place(one, bases) for one in argument]
        if isinstance(argument, CurrentStream):
            return Place(STREAM, 0)
        if not isinstance(argument, Tensor):
            return Place(NOTHING, argument)
        shape, dtype = tuple(argument.shape), argument.dtype
        for number, tensor in enumerate(self.inputs):
            if tensor is argument:
                return Place(FIRST_INPUT + number, 0, shape, dtype)
        if argument.numel() == 0:
            return Place(MEMORY, 0, shape, dtype)
        assert argument.is_contiguous()
        for tensor, base, offset in bases:
            past = argument.data_ptr() - tensor.data_ptr()
            if 0 <= past < tensor.nbytes:
                return Place(base, offset + past, shape, dtype)
        raise AssertionError("a launch got a tensor that is neither an input nor was made by empty or zeros")


_recordings: dict[Hashable, Repeated] = {}


def repeat(
    key: Hashable, inputs: Sequence[Tensor | None], device: torch.device, function: Callable[[], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """Return what ``function()`` returns: tensors that it made.

    ``inputs`` are the tensors that it launches with and did not make, and ``key`` is all that its launches depend on
    but for their addresses. Nothing is repeated with inputs at odd addresses or of which two share one, nor on AMD,
    whose compiler looks at the size of the memory around a tensor.
    """
    if torch.version.hip is not None or not (device.type == "cuda" or interpreted()):
        return function()
    begins = [tensor.data_ptr() for tensor in inputs if tensor is not None]
    if len(set(begins)) < len(begins) or any(begin % ALIGNMENT for begin in begins):
        return function()
    known = _recordings.get(key)
    if known is not None:
        return known(inputs)
    _now.recording = recording = Recording(inputs)
    try:
        results = function()
    finally:
        _now.recording = None
    if len(_recordings) >= MOST_RECORDINGS:
        _recordings.clear()
    _recordings[key] = recording.finished(results, device)
    return results


def forget() -> None:
    """Forget all recordings: for who changes what a call launches, as a tile table, from under them."""
    _recordings.clear()
