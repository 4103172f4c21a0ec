"""A queue of vectors for each class, as keys of the losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .checks import check_dense, check_floats, check_process_group, is_integer
from .distributed import agree, gather_rows
from .fork_safety import serial_in_children

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

TOLERANCE = 1e-2  # of the length of a unit vector: bfloat16's are off by 2^-8


class _Shared:
    """A process group that copies share and that is not saved."""

    def __init__(self, group: ProcessGroup | None) -> None:
        self.group = group

    def __deepcopy__(self, memo: object) -> _Shared:
        return self

    def __reduce__(self) -> tuple[type[_Shared], tuple[None]]:
        return _Shared, (None,)


class ClassQueue(nn.Module):
    """The latest ``size`` unit vectors of each of ``classes`` classes, first in, first out.

    Its contents are buffers: they move with the module, are saved in its state dict and have no gradient. ``keys()``
    are what the losses take::

        queue = ClassQueue(classes=10, size=512, channels=128)
        loss = supervised_contrastive_loss(features, labels, **queue.keys())
        queue.push(torch.nn.functional.normalize(features[:, 0], dim=-1), labels)

    Where a process group is given, every process pushes what all of them push, in the order of their ranks, so that the
    queue is the same in all. All must call ``push`` equally often; their numbers of vectors may differ.

    Args:
        classes: labels are from 0 to ``classes - 1``.
        size: vectors that are kept of each class.
        channels: of a vector.
        process_group: whose processes share the queue; None: this process alone.

    Raises:
        TypeError: if a number is no integer.
        ValueError: if a number is less than 1.
    """

    vectors: Tensor  # (classes, size, channels) float32
    pushed: Tensor  # (classes,) int64: how many vectors of each class there have been

    def __init__(
        self,
        classes: int,
        size: int,
        channels: int,
        process_group: ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        for name, number in {"classes": classes, "size": size, "channels": channels}.items():
            if not is_integer(number):
                raise TypeError(f"{name} must be an integer; got {type(number).__name__}")
            if number < 1:
                raise ValueError(f"{name} must be 1 or more; got {number}")
        check_process_group(process_group)
        self.classes, self.size, self.channels = int(classes), int(size), int(channels)
        self._shared = _Shared(process_group)
        with torch.inference_mode(False):  # tensors of that mode cannot be changed outside of it
            self.register_buffer("vectors", torch.zeros(self.classes, self.size, self.channels))
            self.register_buffer("pushed", torch.zeros(self.classes, dtype=torch.int64))

    @property
    def process_group(self) -> ProcessGroup | None:
        return self._shared.group

    @serial_in_children
    @torch.no_grad()
    def push(self, vectors: Tensor, labels: Tensor) -> None:
        """Add vectors (N, channels) of unit length with labels (N,); of a class the latest are kept.

        Raises:
            TypeError: if an argument has the wrong type or dtype.
            ValueError: if an argument has the wrong shape or device, a label is out of range, or a vector is not of
                unit length.
        """
        group = self.process_group
        if group is None:
            self._check(vectors, labels)
        else:
            facts = {"the call": "ClassQueue.push", "classes": self.classes, "size": self.size}
            facts |= {"channels": self.channels, "the dtype of the queue": str(self.vectors.dtype)}
            facts |= {"the number of vectors pushed before": int(self.pushed.sum())}
            agree(facts, lambda: self._check(vectors, labels), group, self.vectors.device)
        vectors, labels = vectors.to(self.vectors.dtype), labels.long()
        if group is not None:
            vectors, labels = (gather_rows(one, group) for one in (vectors, labels))
        order = torch.argsort(labels, stable=True)
        vectors, labels = vectors[order], labels[order]
        counts = torch.bincount(labels, minlength=self.classes)
        rank = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[labels]
        kept = rank >= (counts - self.size)[labels]  # the latest of more than fit
        place = (self.pushed[labels] + rank) % self.size
        self.vectors[labels[kept], place[kept]] = vectors[kept]
        self.pushed += counts

    def keys(self) -> dict[str, Tensor]:
        """Return ``{"keys": (K, channels), "key_labels": (K,)}`` of what is in the queue, by class."""
        filled = torch.arange(self.size, device=self.pushed.device) < self.pushed[:, None]
        return {"keys": self.vectors[filled], "key_labels": filled.nonzero()[:, 0]}

    def __bool__(self) -> bool:
        return True  # an empty queue is one too

    def __len__(self) -> int:
        return int(self.pushed.clamp_max(self.size).sum())

    def extra_repr(self) -> str:
        return f"classes={self.classes}, size={self.size}, channels={self.channels}"

    def _check(self, vectors: Tensor, labels: Tensor) -> None:
        check_floats("vectors", vectors)
        if vectors.dim() != 2 or vectors.shape[1] != self.channels:
            raise ValueError(f"vectors must be of shape (N, {self.channels}); got {tuple(vectors.shape)}")
        if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
            got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
            raise TypeError(f"labels must be a tensor of integers; got {got}: pass labels.long()")
        check_dense("labels", labels)
        if labels.shape != vectors.shape[:1]:
            raise ValueError(f"labels must be of shape {tuple(vectors.shape[:1])}, (N,); got {tuple(labels.shape)}")
        for name, tensor in {"vectors": vectors, "labels": labels}.items():
            if tensor.device != self.vectors.device:
                raise ValueError(
                    f"{name} must be on the device of the queue, {self.vectors.device}; got {tensor.device}: move the "
                    "queue with .to()"
                )
        if len(labels) == 0:
            return
        low, high = int(labels.long().min()), int(labels.long().max())
        if low < 0 or high >= self.classes:
            raise ValueError(
                f"labels must be from 0 to {self.classes - 1}; got {low if low < 0 else high}: leave out what is to be "
                "ignored, or make a queue of more classes"
            )
        lengths = torch.linalg.vector_norm(vectors.float(), dim=1)
        worst = lengths[(lengths - 1).abs().argmax()]
        if not bool((worst - 1).abs() <= TOLERANCE):
            raise ValueError(
                f"vectors must be of unit length; got one of {worst.item():.4g}: pass torch.nn.functional.normalize("
                "vectors, dim=1)"
            )
