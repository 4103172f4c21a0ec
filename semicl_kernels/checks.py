"""What the public functions take: an error names the argument, what it got and what it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

import torch
from torch import Tensor, distributed
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from .backends import Groups
from .backends.base import MAX_ROWS

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
INTEGERS = (
    torch.bool,
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint16, torch.uint32),
)
LAZY = (torch.nn.UninitializedParameter, torch.nn.UninitializedBuffer)
FLOAT_NAMES = "float32, float16, bfloat16 or float64"
LARGEST_SCALE = 1e37  # of similarities: float32 also holds small multiples of it
KEY_WEIGHTS = (1e-30, 1e30)  # float32 also holds sums of them and their products with similarities


# ---- numbers and words -----------------------------------------------------------------------------------------------


def check_word(name: str, word: str, words: Sequence[str]) -> None:
    if not isinstance(word, str):
        raise TypeError(f"{name} must be one of {', '.join(map(repr, words))}; got {type(word).__name__}")
    if word not in words:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, words))}; got {word!r}")


def check_bool(name: str, value: bool) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False; got {value!r}")


def finite_number(name: str, value: float) -> float:
    """Return a finite number as a float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number; got {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not abs(number) < math.inf:
        raise ValueError(f"{name} must be finite; got {number}")
    return number


def checked_temperature(temperature: float) -> float:
    """Return what similarities are divided by, a positive number with an inverse that float32 holds with room to
    spare."""
    number = finite_number("temperature", temperature)
    if number <= 0:
        raise ValueError(f"temperature must be positive and finite; got {number}")
    if number * LARGEST_SCALE < 1:
        raise ValueError(f"temperature must be {1 / LARGEST_SCALE:g} or more, for float32 to hold 1 / it; got {number}")
    return number


def check_temperature_tensor(temperature: Tensor) -> None:
    """Check a temperature that is learned or scheduled: one number of any float dtype, whose value is checked when it
    is used."""
    check_floats("temperature", temperature)
    if temperature.numel() != 1:
        raise ValueError(f"temperature must be a number or a tensor of one; got shape {tuple(temperature.shape)}")


def checked_scale(scale: float) -> float:
    """Return what products are multiplied by, a number that float32 holds with room to spare."""
    number = finite_number("scale", scale)
    if abs(number) > LARGEST_SCALE:
        raise ValueError(f"scale must be from -{LARGEST_SCALE:g} to {LARGEST_SCALE:g}; got {number}")
    return number


def integer_or_none(name: str, value: int | None) -> int | None:
    """Return an integer of any kind as an int, and None as it is."""
    if value is None:
        return None
    if not is_integer(value):
        raise TypeError(f"{name} must be an integer or None; got {type(value).__name__}")
    return int(value)


def is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_steps(name: str, steps: int | Sequence[int]) -> None:
    """Check an integer of 1 or more, or several, one an axis."""
    if type(steps) is int and steps >= 1:
        return  # nearly always; what follows takes longer than some losses do to add
    values: object = (steps,) if is_integer(steps) else steps
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes)) or not all(map(is_integer, values)):
        raise TypeError(f"{name} must be an integer or a sequence of integers, one an axis; got {steps!r}")
    if any(value < 1 for value in values):
        raise ValueError(f"{name} must be 1 or more; got {steps!r}")


def steps_of_axes(name: str, steps: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """Return one integer an axis from an integer or as many integers; none so large that it would not fit int32."""
    check_steps(name, steps)
    values = tuple(steps) if isinstance(steps, Sequence) else (steps,) * axes
    if len(values) != axes:
        raise ValueError(f"{name} must have one integer for each of the {axes} axes; got {steps!r}")
    return tuple(min(int(value), MAX_ROWS) for value in values)


def check_process_group(group: object) -> None:
    if group is not None and not (distributed.is_available() and isinstance(group, distributed.ProcessGroup)):
        if isinstance(group, int) and distributed.is_available() and group == distributed.GroupMember.NON_GROUP_MEMBER:
            raise TypeError("process_group must hold this process; got one of others: call the loss in those alone")
        raise TypeError(
            f"process_group must be a process group of torch.distributed or None; got {type(group).__name__}: pass "
            "torch.distributed.group.WORLD for all processes"
        )


# ---- tensors ---------------------------------------------------------------------------------------------------------


def check_floats(name: str, tensor: Tensor) -> None:
    """Check a tensor that a loss is differentiated by."""
    if not isinstance(tensor, Tensor):
        way_out = _as_tensor(name, tensor, ", dtype=torch.float32")
        raise TypeError(f"{name} must be a tensor; got {type(tensor).__name__}: pass {way_out}")
    check_dense(name, tensor)
    if tensor.dtype not in FLOATS:
        way_out = "" if tensor.is_complex() else f": pass {name}.float()"
        if tensor.dtype in INTEGERS and name == "features":
            way_out += ", or features before labels where the two are swapped"
        raise TypeError(f"{name} must be of {FLOAT_NAMES}; got {tensor.dtype}{way_out}")
    if not torch.compiler.is_compiling():
        check_untransformed(name, tensor)


def _as_tensor(name: str, value: object, more: str = "") -> str:
    """What makes a tensor of a value that is none."""
    tensors = [one for one in value if isinstance(one, Tensor)] if isinstance(value, list | tuple) else []
    if not tensors:
        return f"torch.as_tensor({name}{more})"
    if name in ("features", "labels") and tensors[0].dim() > 0:
        return f"torch.stack({name}, 1) of a list of views, torch.stack({name}) of one of samples"
    return f"torch.stack({name})"


def check_dense(name: str, tensor: Tensor) -> None:
    """Refuse tensors whose values do not lie in one array of memory of this process."""
    kind = way_out = ""
    if hasattr(tensor, "full_tensor"):
        kind = "a DTensor, shared out among processes"
        way_out = (
            f"{name}.to_local(), which contrasts the part of this process alone, or {name}.full_tensor(), which "
            "gathers all parts in every process; the same for features and labels"
        )
    elif isinstance(tensor, torch.masked.MaskedTensor):
        kind, way_out = "a MaskedTensor", f"{name}.get_data(), and ignore_index as the label of what is masked out"
    elif type(tensor) in LAZY:
        kind, way_out = "a parameter without a shape", "it after the first call of its module"
    elif tensor.is_nested:
        kind, way_out = (
            "a nested tensor",
            f"torch.nested.to_padded_tensor({name}, 0), and ignore_index as the label there",
        )
    elif tensor.is_quantized:
        kind, way_out = f"a quantized one of {tensor.dtype}", f"{name}.dequantize(), or {name}.int_repr() of labels"
    elif tensor.layout != torch.strided:
        kind, way_out = f"one of layout {tensor.layout}", f"{name}.to_dense()"
    if kind:
        raise TypeError(f"{name} must be a dense tensor; got {kind}: pass {way_out}")


def check_untransformed(name: str, tensor: Tensor) -> None:
    """Refuse what only ``torch.func`` and forward-mode differentiation hand over: the tangent would be lost."""
    # Private, since torch has no public way to ask. Without it torch.func.grad would advise a user to change our class.
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise RuntimeError(
            f"{name} is transformed by torch.func (grad, vmap, jvp ...), which the losses of semicl_kernels do not "
            "support: use loss.backward() or torch.autograd.grad"
        )
    if forward_ad.unpack_dual(tensor).tangent is not None:
        raise RuntimeError(
            f"{name} has a forward-mode tangent, and the losses of semicl_kernels have reverse-mode gradients only: "
            "use loss.backward() or torch.autograd.grad"
        )


def has_values(tensor: Tensor) -> bool:
    """Whether the values of a tensor can be looked at: it has some, and no graph is captured.

    ``is_compiling`` says nothing of ``make_fx`` and fake tensors; torch documents these under private names.
    """
    captured = torch.compiler.is_compiling() or get_proxy_mode() is not None
    return not (captured or tensor.is_meta or isinstance(tensor, FakeTensor))


def check_features(features: Tensor) -> None:
    """Check a map (B, V, C, *space)."""
    check_floats("features", features)
    if features.dim() not in (5, 6):
        way_out = (
            "pass features[:, None] of one view, torch.stack([view1, view2], 1) of two; of V views in one batch "
            "features.unflatten(0, (-1, V)) where those of an image follow each other, features.unflatten(0, (V, -1))"
            ".transpose(0, 1) after torch.cat([view1, view2])"
        )
        if features.dim() < 4:
            image = "pass features[None, None] of an image (C, H, W); " if features.dim() == 3 else ""
            way_out = f"{image}losses of vectors are SupervisedContrastiveLoss and NTXentLoss"
        raise ValueError(
            "features must be of shape (B, V, C, height, width) or (B, V, C, depth, height, width); "
            f"got {tuple(features.shape)}: {way_out}"
        )
    if features.shape[2] < 1:
        raise ValueError(f"features must have at least one channel; got {tuple(features.shape)} (B, V, C, *space)")


def check_point_count(name: str, points: int) -> None:
    """Check a number of points. A compiled graph of any size is not tied to it: the operators check theirs."""
    if torch.compiler.is_compiling():
        return
    if points > MAX_ROWS:
        raise ValueError(f"{name} must have {MAX_ROWS} points at most; got {points}: take a stride or fewer images")


def check_views_without_labels(views: int) -> None:
    """Refuse a single view of features (., V, ...) that have no labels: their loss would be 0, whatever they are."""
    if views == 1:
        raise ValueError(
            "features must have two views or more along axis 1 where labels is None; got 1: a point's positives are "
            "then its place in the other views. Pass torch.stack([view1, view2], dim=1), or labels"
        )


def check_labels(
    labels: Tensor,
    shape: tuple[int, ...],
    device: torch.device,
    layout: str,
    name: str = "labels",
    of: str = "features",
    channels: int | None = None,
) -> None:
    """Check labels of the ``shape``; ``layout`` says what it is of the features, which have so many ``channels``."""
    if not isinstance(labels, Tensor):
        way_out = _as_tensor(name, labels)
        raise TypeError(f"{name} must be a tensor or None; got {type(labels).__name__}: pass {way_out}")
    check_dense(name, labels)
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(
            f"{name} must be of an integer dtype; got {labels.dtype}: pass {name}.long(), and never "
            "interpolate class maps"
        )
    if labels.dtype not in INTEGERS:
        raise TypeError(
            f"{name} must be bool or of an integer dtype of 8 bits or more that int64 can hold; got "
            f"{labels.dtype}, so pass {name}.long()"
        )
    if tuple(labels.shape) != shape:
        if channels is not None and tuple(labels.shape) == (*shape[:2], channels, *shape[2:-1]):
            raise ValueError(
                f"features must be of shape (B, V, C, *space); got {(*labels.shape, shape[-1])} with labels "
                f"{tuple(labels.shape)}, so their channels are last: pass features.movedim(-1, 2)"
            )
        raise ValueError(
            f"{name} must be of shape {shape}, {layout} of the {of}; got {tuple(labels.shape)}"
            + labels_way_out(tuple(labels.shape), shape)
        )
    if labels.device != device:
        raise ValueError(
            f"{name} must be on the device of the features, {device}; got {labels.device}: pass "
            f"{name}.to({str(device)!r})"
        )


def labels_way_out(got: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """Return how to make labels of the ``shape`` from others: of more axes, of one view, of another size."""
    if len(got) == len(shape) + 1 and (*got[:2], *got[3:]) == shape:
        if got[2] == 1:
            return ": pass labels.squeeze(2)"
        return ": pass labels.argmax(2) of one-hot ones"
    if len(shape) > 1 and got == (shape[0], *shape[2:]):
        return f": pass labels[:, None].expand{shape} where all views show the same places"
    if len(shape) > 3 and len(got) == len(shape) and got[:2] == shape[:2] and 0 not in (*got, *shape):
        if len(shape) == 4 and got[2:] == shape[:1:-1]:
            return ": pass labels.transpose(2, 3)"
        return (
            f": pass torch.nn.functional.interpolate(labels.float(), {shape[2:]}).long() where they show the same "
            "places at another size; it takes the nearest label"
        )
    return ""


def check_weights(weights: Tensor, shape: tuple[int, ...], device: torch.device, layout: str) -> None:
    """Check weights of anchors of the ``shape``; ``layout`` says what it is of the features."""
    check_numbers("weights", weights, device)
    if tuple(weights.shape) != shape:
        raise ValueError(f"weights must be of shape {shape}, {layout} of the features; got {tuple(weights.shape)}")
    if weights.device.type == "cpu" and has_values(weights):
        numbers = weights.double()
        if bool((~(numbers >= 0) | numbers.isinf()).any()):
            raise ValueError(
                f"weights must be 0 or more and finite; got {numbers.min().item()} to {numbers.max().item()}: pass "
                "torch.nan_to_num(weights, 0, 0, 0).clamp_min(0) to leave out what is not"
            )


def check_numbers(name: str, tensor: Tensor, device: torch.device) -> None:
    """Check a tensor of numbers that a loss is not differentiated by."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor or None; got {type(tensor).__name__}: pass torch.as_tensor({name})")
    check_dense(name, tensor)
    if tensor.is_complex():
        raise TypeError(f"{name} must be real; got {tensor.dtype}")
    if tensor.requires_grad:
        raise ValueError(f"{name} must not require a gradient, since the loss has none by it: pass {name}.detach()")
    if not torch.compiler.is_compiling():
        check_untransformed(name, tensor)
    if tensor.device != device:
        raise ValueError(
            f"{name} must be on the device of the features, {device}; got {tensor.device}: pass "
            f"{name}.to({str(device)!r})"
        )


def check_keys(
    features: Tensor, channels: int, with_labels: bool, keys: Tensor, labels: Tensor | None, weights: Tensor | None
) -> None:
    """Check keys (K, C), their labels (K,), needed exactly where the points have some, and their weights (K,)."""
    check_floats("keys", keys)
    if keys.dim() != 2 or keys.shape[1] != channels:
        raise ValueError(
            f"keys must be of shape (K, {channels}), the channels of the features; got {tuple(keys.shape)}"
        )
    if keys.device != features.device:
        raise ValueError(f"keys must be on the device of the features, {features.device}; got {keys.device}")
    shape = (keys.shape[0],)
    if with_labels and labels is None:
        raise ValueError("key_labels must be given where labels are: the class of each key, (K,)")
    if labels is not None:
        if not with_labels:
            raise ValueError("key_labels must be None where labels is: the keys are then negatives of every anchor")
        check_labels(labels, shape, features.device, "(K,)", "key_labels", "keys")
    if weights is not None:
        check_key_weights(weights, keys)


def check_key_weights(weights: Tensor, keys: Tensor) -> None:
    check_numbers("key_weights", weights, keys.device)
    count = keys.shape[0]  # len() would make it a captured graph's constant
    if tuple(weights.shape) != (count,):
        raise ValueError(f"key_weights must be of shape ({count},), (K,) of the keys; got {tuple(weights.shape)}")
    if weights.device.type != "cpu" or not has_values(weights):
        return
    low, high = KEY_WEIGHTS
    numbers = weights.float()
    if not bool(((numbers >= low) & (numbers <= high)).all()):
        raise ValueError(
            f"key_weights must be positive, from {low} to {high}; got {numbers.min().item():.6g} to "
            f"{numbers.max().item():.6g}: leave out keys that count nothing, as keys[key_weights > 0]"
        )


def check_rows(rows: Tensor) -> None:
    """Check rows (M, C)."""
    check_floats("rows", rows)
    if rows.dim() != 2 or rows.shape[1] < 1:
        raise ValueError(f"rows must be of shape (M, C) with C >= 1; got {tuple(rows.shape)}")
    check_point_count("rows", rows.shape[0])


def check_group_tensors(rows: Tensor, **integers: Tensor) -> None:
    """Check offsets (G + 1,), anchors (G,), skip_begin (M,) and skip_end (M,), in this order, beside rows (M, C)."""
    for name, tensor in integers.items():
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.int32:
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name} must be a tensor of torch.int32; got {got}")
        check_dense(name, tensor)
        if tensor.device != rows.device:
            raise ValueError(f"{name} must be on the device of rows, {rows.device}; got {tensor.device}")
    offsets, count = integers["offsets"], rows.shape[0]
    if offsets.dim() != 1 or len(offsets) < 1:
        raise ValueError(f"offsets must be of shape (G + 1,); got {tuple(offsets.shape)}")
    sizes = {"anchors": len(offsets) - 1, "skip_begin": count, "skip_end": count}
    for name, size in sizes.items():
        if tuple(integers[name].shape) != (size,):
            raise ValueError(f"{name} must be of shape ({size},); got {tuple(integers[name].shape)}")


def check_key_tensors(
    rows: Tensor,
    offsets: Tensor,
    keys: Tensor | None,
    begin: Tensor | None,
    end: Tensor | None,
    weights: Tensor | None,
) -> None:
    """Check keys (K, C) of rows (M, C), and the keys [begin, end) of each group."""
    if keys is None:
        if not begin is end is weights is None:
            raise ValueError("key_begin, key_end and key_weights are of keys; got no keys")
        return
    check_floats("keys", keys)
    if keys.dim() != 2 or keys.shape[1] != rows.shape[1]:
        raise ValueError(f"keys must be of shape (K, {rows.shape[1]}), as rows; got {tuple(keys.shape)}")
    if keys.dtype != rows.dtype or keys.device != rows.device:
        raise ValueError(
            f"keys must have the dtype and device of rows, {rows.dtype} on {rows.device}; got {keys.dtype} on "
            f"{keys.device}"
        )
    for name, tensor in {"key_begin": begin, "key_end": end}.items():
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.int32:
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name} must be a tensor of torch.int32; got {got}")
        if tensor.shape != (len(offsets) - 1,) or tensor.device != rows.device:
            raise ValueError(
                f"{name} must be of shape ({len(offsets) - 1},), (G,), on {rows.device}; got {tuple(tensor.shape)} on "
                f"{tensor.device}"
            )
    if weights is not None:
        check_key_weights(weights, keys)


def check_key_groups(groups: Groups, rows: int, begin: Tensor, end: Tensor, count: int) -> None:
    """Check that the groups lie within the rows and their keys within ``count`` keys; a GPU is not waited for."""
    check_groups(groups, rows)
    if begin.device.type == "cpu" and bool(((begin < 0) | (begin > end) | (end > count)).any()):
        raise ValueError(
            f"key_begin and key_end must be from 0 to {count}, the number of keys, and key_begin no larger; got "
            f"{begin.tolist()} and {end.tolist()}"
        )


def check_groups(groups: Groups, count: int) -> None:
    """Check that the groups lie within ``count`` rows, their anchors within them, and none is larger than it may be.

    On a GPU this would wait for the device and is left out.
    """
    offsets, anchors, largest = groups.offsets, groups.anchors, groups.largest
    if offsets.device.type != "cpu":
        return
    sizes = offsets.diff()
    if offsets[0] < 0 or offsets[-1] > count or (sizes < 0).any():
        raise ValueError(
            f"offsets must ascend from 0 or more to at most {count}, the number of rows; got {offsets.tolist()}"
        )
    if (sizes > largest).any():
        raise ValueError(f"largest must be a size that no group exceeds, {int(sizes.max())} or more; got {largest}")
    if ((anchors < 0) | (anchors > sizes)).any():
        raise ValueError(f"anchors must be from 0 to the sizes of the groups, {sizes.tolist()}; got {anchors.tolist()}")
