"""Bad input raises ValueError or TypeError, naming the argument, what it got and what it takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from semicl_kernels import (
    LocalContrastiveLoss,
    NTXentLoss,
    SupervisedContrastiveLoss,
    grouped_logsumexp,
    local_contrastive_loss,
    nt_xent_loss,
    supervised_contrastive_loss,
)

from . import on_device
from .on_device import skip_on_gpu

FEATURES = torch.randn(2, 2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.ones(2, 2, 6, 6, dtype=torch.int64)
VECTORS = FEATURES[0, :, :, 0].movedim(2, 0)  # (6, 2, 4)


def local(*args: Any, **options: Any) -> Callable[[], object]:
    return lambda: local_contrastive_loss(*args, **options)


BAD_MAPS = [
    (local([1.0]), TypeError, "features", "list"),
    (local(FEATURES[0, 0, 0], LABELS), ValueError, "features", r"\(6, 6\)"),
    (local(FEATURES[0], LABELS), ValueError, "features", r"\(2, 4, 6, 6\)"),
    (local(FEATURES[..., None, None], LABELS), ValueError, "features", r"\(2, 2, 4, 6, 6, 1, 1\)"),
    (local(FEATURES[:, :, :0], LABELS), ValueError, "features", "channel"),
    (local(FEATURES.long(), LABELS), TypeError, "features", "int64"),
    (local(FEATURES.to(torch.complex64), LABELS), TypeError, "features", "complex64"),
    (local(FEATURES.to(torch.float8_e4m3fn), LABELS), TypeError, "features", "float8"),
    (local(FEATURES.to_sparse(), LABELS), TypeError, "features", "sparse"),
    (local(FEATURES, LABELS.to_sparse()), TypeError, "labels", "sparse"),
    (local(torch.zeros(1).expand(2, 2, 4, 32768, 32768), LABELS), ValueError, "labels", "6, 6"),
    (local(torch.zeros(1).expand(2, 2, 4, 32768, 32768)), ValueError, "features", str(2**32)),
    (local(FEATURES, LABELS.tolist()), TypeError, "labels", "list"),
    (local(FEATURES, LABELS[:, :, :5]), ValueError, "labels", r"\(2, 2, 5, 6\)"),
    (local(FEATURES, LABELS[:, 0]), ValueError, "labels", r"\(2, 6, 6\)"),
    (local(FEATURES, LABELS[:1]), ValueError, "labels", r"\(1, 2, 6, 6\)"),
    (local(FEATURES, LABELS.float()), TypeError, "labels", "float32"),
    (local(FEATURES, LABELS.to(torch.uint64)), TypeError, "labels", "uint64"),
    (local(FEATURES, LABELS.to("meta")), ValueError, "labels", "meta"),
]

with warnings.catch_warnings():  # these are experimental, and some on their way out
    warnings.simplefilter("ignore")
    NESTED = torch.nested.nested_tensor(list(FEATURES))
    JAGGED = torch.nested.nested_tensor(list(FEATURES), layout=torch.jagged)
    MASKED = torch.masked.masked_tensor(FEATURES, FEATURES > 0)
    QUANTIZED = torch.quantize_per_tensor(FEATURES, 0.1, 0, torch.quint8)
LAZY = torch.nn.UninitializedParameter()

# Tensors of other kinds, and the way from them to what is taken.
OTHER_KINDS = [
    (local(NESTED, LABELS), "features", r"nested.*to_padded_tensor\(features"),
    (local(JAGGED, LABELS), "features", r"nested.*to_padded_tensor\(features"),
    (local(MASKED, LABELS), "features", r"MaskedTensor.*features\.get_data\(\)"),
    (local(QUANTIZED, LABELS), "features", r"quint8.*features\.dequantize\(\)"),
    (local(FEATURES.to_sparse(), LABELS), "features", r"sparse_coo.*features\.to_dense\(\)"),
    (local(FEATURES.to_mkldnn(), LABELS), "features", r"mkldnn.*features\.to_dense\(\)"),
    (local(LAZY, LABELS), "features", "without a shape.*first call"),
    (local(FEATURES.to(torch.float8_e5m2), LABELS), "features", r"float8.*features\.float\(\)"),
    (local(FEATURES.long(), LABELS), "features", r"int64.*features\.float\(\)"),
    (local(FEATURES, torch.nested.nested_tensor(list(LABELS))), "labels", r"nested.*to_padded_tensor\(labels"),
    (local(FEATURES, QUANTIZED[:, :, 0]), "labels", r"quint8.*labels\.int_repr\(\)"),
    (local(FEATURES, LABELS.to_sparse()), "labels", r"sparse_coo.*labels\.to_dense\(\)"),
    (local(FEATURES, torch.empty(LABELS.shape, dtype=torch.uint4)), "labels", r"uint4.*labels\.long\(\)"),
    (local(FEATURES, torch.empty(LABELS.shape, dtype=torch.bits8)), "labels", r"bits8.*labels\.long\(\)"),
    (local(FEATURES.numpy(), LABELS), "features", r"ndarray.*torch\.as_tensor\(features, dtype=torch\.float32\)"),
    (local(FEATURES, LABELS.numpy()), "labels", r"ndarray.*torch\.as_tensor\(labels\)"),
    (local([*FEATURES.unbind(1)], LABELS), "features", r"list.*torch\.stack\(features, 1\) of a list of views"),
    (local(FEATURES, LABELS.unbind(1)), "labels", r"tuple.*torch\.stack\(labels, 1\) of a list of views"),
    (lambda: nt_xent_loss([*VECTORS[:, 0]], VECTORS[:, 1]), "z1", r"list: pass torch\.stack\(z1\)$"),
    (lambda: supervised_contrastive_loss(VECTORS, [*torch.arange(6)]), "labels", r"list: pass torch\.stack\(labels\)$"),
    (local(LABELS, FEATURES), "features", r"int64.*features before labels"),
    (lambda: nt_xent_loss(QUANTIZED[0, :, :, 0, 0], VECTORS[:, 0]), "z1", r"quint8.*z1\.dequantize\(\)"),
]

# Labels of another shape that hold what is needed.
OTHER_SHAPES = {
    "of one view": LABELS[:, 0],
    "with an axis of channels": LABELS[:, :, None],
    "one-hot": torch.nn.functional.one_hot(LABELS, 3).movedim(-1, 2),
}
TURNED = torch.arange(72).view(2, 2, 6, 3)

CHANNELS_LAST = FEATURES[..., :5].movedim(2, -1)
# Calls of other shapes, and the way out.
OTHER_LAYOUTS = [
    (local(CHANNELS_LAST, LABELS[..., :5]), r"features must be.*\(2, 2, 6, 5, 4\).*features\.movedim\(-1, 2\)"),
    (local(FEATURES[0, 0, :, 0], LABELS), r"features must be.*\(4, 6\).*SupervisedContrastiveLoss"),
    (local(FEATURES[:, :, :, 0, 0], LABELS), r"features must be.*\(2, 2, 4\).*SupervisedContrastiveLoss"),
]

BAD_OPTIONS = [
    ("temperature", 0, ValueError, "0"),
    ("temperature", -0.1, ValueError, "-0.1"),
    ("temperature", float("nan"), ValueError, "nan"),
    ("temperature", float("inf"), ValueError, "inf"),
    ("temperature", 5e-38, ValueError, "5e-38"),
    ("temperature", 10**400, ValueError, "inf"),
    ("temperature", True, TypeError, "bool"),
    ("temperature", "warm", (TypeError, ValueError), "warm|str"),
    ("temperature", None, (TypeError, ValueError), "None"),
    ("stride", 0, ValueError, "0"),
    ("stride", -2, ValueError, "-2"),
    ("stride", (1, 0), ValueError, r"\(1, 0\)"),
    ("stride", (1, 1, 1), ValueError, r"\(1, 1, 1\)"),
    ("stride", 1.5, (TypeError, ValueError), "1.5|float"),
    ("stride", (1, 2.5), (TypeError, ValueError), "2.5|float"),
    ("stride", b"\x01\x01", TypeError, "x01"),
    ("stride", None, (TypeError, ValueError), "None"),
    ("block_size", 0, ValueError, "0"),
    ("block_size", (4, -1), ValueError, r"\(4, -1\)"),
    ("block_size", (4,), ValueError, r"\(4,\)"),
    ("block_size", 2.0, (TypeError, ValueError), "2.0|float"),
    ("block_size", "all", (TypeError, ValueError), "all|str"),
    ("scope", "volume", ValueError, "volume"),
    ("denominator", "positives", ValueError, "positives"),
    ("reduction", "mean", ValueError, "mean"),
    ("reduction", np.array(["block", "anchor"]), TypeError, "ndarray"),
    ("normalize", "no", TypeError, "no"),
    ("normalize", 1, TypeError, "1"),
    ("background", 0.5, (TypeError, ValueError), "0.5|float"),
    ("ignore_index", "255", (TypeError, ValueError), "255|str"),
    ("backend", "cudnn", ValueError, "cudnn"),
    ("backend", None, TypeError, "NoneType"),
    ("backend", ["cpu"], TypeError, "list"),
]

BAD_VECTORS = [
    (lambda: nt_xent_loss(FEATURES, FEATURES), ValueError, "z1", r"\(2, 2, 4, 6, 6\)"),
    (lambda: nt_xent_loss(VECTORS[:, 0], VECTORS[1:, 0]), ValueError, "z2", r"\(5, "),
    (lambda: nt_xent_loss(VECTORS[:, 0], VECTORS[:, 0, :1]), ValueError, "z2", r"\(6, 1\)"),
    (lambda: nt_xent_loss(VECTORS[:, 0], VECTORS[:, 0].double()), (TypeError, ValueError), "z2", "float64"),
    (lambda: nt_xent_loss(VECTORS[:, 0].long(), VECTORS[:, 0].long()), TypeError, "z1", "int64"),
    (lambda: nt_xent_loss(VECTORS[:, 0], VECTORS[:, 1], temperature=0), ValueError, "temperature", "0"),
    (lambda: nt_xent_loss(VECTORS[:, 0], VECTORS[:, 1], backend="x"), ValueError, "backend", "x"),
    (lambda: supervised_contrastive_loss(VECTORS[:, 0]), ValueError, "features", r"\(6, "),
    (lambda: supervised_contrastive_loss(VECTORS[:, :1]), ValueError, "features", "views.*got 1"),
    (lambda: local_contrastive_loss(FEATURES[:, :1]), ValueError, "features", "views.*got 1"),
    (lambda: supervised_contrastive_loss(FEATURES), ValueError, "features", r"\(2, 2, 4, 6, 6\)"),
    (lambda: supervised_contrastive_loss(VECTORS[:, :, :0]), ValueError, "features", r"\(6, 2, 0\)"),
    (lambda: supervised_contrastive_loss(VECTORS.long()), TypeError, "features", "int64"),
    (lambda: supervised_contrastive_loss(VECTORS, torch.zeros(5).long()), ValueError, "labels", r"\(5,\)"),
    (lambda: supervised_contrastive_loss(VECTORS, torch.zeros(6, 2).long()), ValueError, "labels", r"\(6, 2\)"),
    (lambda: supervised_contrastive_loss(VECTORS, torch.zeros(6)), TypeError, "labels", "float32"),
    (lambda: supervised_contrastive_loss(VECTORS, temperature=-1), ValueError, "temperature", "-1"),
    (lambda: supervised_contrastive_loss(VECTORS, backend="x"), ValueError, "backend", "x"),
]


def assert_raises(call: Callable[[], object], error: Any, argument: str, got: str) -> None:
    with pytest.raises(error, match=got) as raised:
        call()
    assert argument in str(raised.value)


@pytest.mark.parametrize(("call", "error", "argument", "got"), BAD_MAPS)
def test_bad_maps(call: Callable[[], object], error: Any, argument: str, got: str) -> None:
    assert_raises(call, error, argument, got)


@pytest.mark.parametrize(("call", "argument", "way_out"), OTHER_KINDS)
def test_tensors_of_other_kinds_are_told_the_way_out(call: Callable[[], object], argument: str, way_out: str) -> None:
    assert_raises(call, TypeError, argument, way_out)


@pytest.mark.parametrize("labels", OTHER_SHAPES.values(), ids=OTHER_SHAPES)
def test_labels_of_another_shape_are_told_the_way_out(labels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="labels must be of shape") as error:
        local_contrastive_loss(FEATURES, labels)
    way_out = re.search(r": pass (labels.*?\))", str(error.value))
    assert way_out is not None, error.value
    assert torch.equal(eval(way_out[1], {"labels": labels}), LABELS)


def test_labels_whose_axes_are_swapped_are_told_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"got \(2, 2, 6, 3\): pass labels.transpose\(2, 3\)$"):
        local_contrastive_loss(FEATURES[..., :3, :], TURNED)
    with pytest.raises(ValueError, match=r"got \(2, 2, 6, 0\)$"):
        local_contrastive_loss(FEATURES, TURNED[..., :0])


def test_views_in_one_batch_are_told_the_way_out() -> None:
    """Whichever way they lie, what is told makes of them what they were."""
    ways = {"follow each other": FEATURES.flatten(0, 1), "torch.cat": torch.cat([*FEATURES.unbind(1)])}
    for said, flat in ways.items():
        with pytest.raises(ValueError, match=said) as error:
            local_contrastive_loss(flat)
        text = str(error.value).split(" of V views in one batch ")[1]
        first, second = re.findall(r"features\.unflatten\(.*?\)\)(?:\.transpose\(0, 1\))?", text)
        way_out = first if said == "follow each other" else second
        assert torch.equal(eval(way_out, {"features": flat, "V": 2}), FEATURES)


def test_labels_of_another_size_are_told_the_way_out() -> None:
    small = torch.arange(144).view(2, 2, 6, 6)
    large = small.repeat_interleave(2, -1).repeat_interleave(3, -2)
    with pytest.raises(ValueError, match=r"labels must be of shape \(2, 2, 6, 6\).*got \(2, 2, 18, 12\)") as error:
        local_contrastive_loss(FEATURES, large)
    way_out = re.search(r": pass (.*?\.long\(\))", str(error.value))
    assert way_out is not None, error.value
    assert torch.equal(eval(way_out[1], {"torch": torch, "labels": large}), small)


@pytest.mark.parametrize(("call", "told"), OTHER_LAYOUTS)
def test_features_of_another_layout_are_told_the_way_out(call: Callable[[], object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        call()


def test_distributed_tensors_are_told_the_way_out() -> None:
    distributed = pytest.importorskip("torch.distributed.tensor")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = distributed.init_device_mesh("cpu", (1,))
        shared = [distributed.distribute_tensor(one, mesh, [distributed.Shard(0)]) for one in (FEATURES, LABELS)]
        for call, argument in ((local(*shared), "features"), (local(FEATURES, shared[1]), "labels")):
            assert_raises(call, TypeError, argument, rf"DTensor.*{argument}\.to_local\(\).*{argument}\.full_tensor\(\)")
        assert torch.isfinite(local_contrastive_loss(*(one.to_local() for one in shared)))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("reduction", ["block", "none"])
def test_tensors_without_values_have_losses_without(backend: str, reduction: str) -> None:
    """On the meta device and as fake tensors, which tell shapes alone."""
    expected = local_contrastive_loss(FEATURES, LABELS, reduction=reduction, backend="reference")
    mode = FakeTensorMode()
    fake = [mode.from_tensor(tensor) for tensor in (FEATURES, LABELS)]
    with mode:
        found = local_contrastive_loss(*fake, reduction=reduction, backend=backend)
    assert (found.shape, found.dtype, found.device) == (expected.shape, expected.dtype, expected.device)
    found = local_contrastive_loss(FEATURES.to("meta"), LABELS.to("meta"), reduction=reduction)
    assert (found.shape, found.dtype, found.device.type) == (expected.shape, expected.dtype, "meta")


def test_keys_and_weights_without_values_are_taken(backend: str) -> None:
    given = {"weights": torch.ones(LABELS.shape), "keys": torch.randn(3, FEATURES.shape[2])}
    given |= {"key_labels": torch.arange(3), "key_weights": torch.ones(3), "temperature": torch.tensor(0.1)}
    mode = FakeTensorMode()
    fake = {name: mode.from_tensor(one) for name, one in given.items()}
    with mode:
        found = local_contrastive_loss(*(mode.from_tensor(one) for one in (FEATURES, LABELS)), **fake, backend=backend)
    assert found.shape == ()
    meta = {name: one.to("meta") for name, one in given.items() if name != "temperature"}
    assert local_contrastive_loss(FEATURES.to("meta"), LABELS.to("meta"), **meta).is_meta
    with pytest.raises(ValueError, match=r"temperature.*meta"):
        local_contrastive_loss(FEATURES, LABELS, temperature=torch.tensor(0.1, device="meta"))


@pytest.mark.parametrize("name", ["weights", "key_weights"])
def test_weights_within_a_transform_are_refused(name: str) -> None:
    keys = {"keys": torch.randn(3, FEATURES.shape[2]), "key_labels": torch.arange(3)}
    weights = torch.ones(LABELS.shape) if name == "weights" else torch.ones(3)

    def loss(weights: Tensor) -> Tensor:
        return local_contrastive_loss(FEATURES, LABELS, **keys, **{name: weights})

    assert_raises(lambda: torch.func.vmap(loss)(weights[None]), RuntimeError, name, r"torch\.func")
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(weights, weights)
        assert_raises(lambda: loss(dual), RuntimeError, name, "forward-mode tangent")


def test_subclasses_of_tensors_are_taken() -> None:
    class Image(torch.Tensor):
        pass

    leaf = FEATURES.clone().requires_grad_()
    features, labels = leaf.as_subclass(Image), LABELS.as_subclass(Image)
    loss = local_contrastive_loss(features, labels)
    assert float(loss.detach()) == float(local_contrastive_loss(FEATURES, LABELS))
    loss.backward()
    assert leaf.grad is not None


@pytest.mark.parametrize(("option", "value", "error", "got"), BAD_OPTIONS)
def test_bad_options(option: str, value: object, error: Any, got: str) -> None:
    assert_raises(local(FEATURES, LABELS, **{option: value}), error, option, got)


def needs_axes(bad: tuple[str, object, Any, str]) -> bool:
    """Whether only a map's axes tell that a value is bad."""
    return isinstance(bad[1], tuple) and len(bad[1]) != 2


@pytest.mark.parametrize(("option", "value", "error", "got"), [bad for bad in BAD_OPTIONS if not needs_axes(bad)])
def test_module_rejects_bad_options_when_it_is_made(option: str, value: object, error: Any, got: str) -> None:
    assert_raises(lambda: LocalContrastiveLoss(**{option: value}), error, option, got)


@pytest.mark.parametrize(("option", "value", "error", "got"), [bad for bad in BAD_OPTIONS if needs_axes(bad)])
def test_module_rejects_another_number_of_axes_when_it_is_called(
    option: str, value: object, error: Any, got: str
) -> None:
    assert_raises(lambda: LocalContrastiveLoss(**{option: value})(FEATURES, LABELS), error, option, got)


@pytest.mark.parametrize(("option", "value"), [("scope", "volume"), ("denominator", "d"), ("reduction", "mean")])
def test_unknown_word_is_answered_with_the_known_ones(option: str, value: str) -> None:
    known = {"scope": ("batch", "image"), "denominator": ("all", "negatives"), "reduction": ("block", "anchor", "none")}
    for word in known[option]:
        assert_raises(local(FEATURES, LABELS, **{option: value}), ValueError, option, word)


@pytest.mark.parametrize(("call", "error", "argument", "got"), BAD_VECTORS)
def test_bad_vectors(call: Callable[[], object], error: Any, argument: str, got: str) -> None:
    assert_raises(call, error, argument, got)


@pytest.mark.parametrize("module", [NTXentLoss, SupervisedContrastiveLoss])
def test_modules_of_vectors_reject_bad_options_when_they_are_made(module: Any) -> None:
    assert_raises(lambda: module(temperature=float("nan")), ValueError, "temperature", "nan")
    assert_raises(lambda: module(backend="x"), ValueError, "backend", "x")


ROWS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
SKIP = torch.arange(4, dtype=torch.int32)
GROUPS = {
    "rows": ROWS,
    "offsets": torch.tensor([0, 4], dtype=torch.int32),
    "anchors": torch.tensor([4], dtype=torch.int32),
    "skip_begin": SKIP,
    "skip_end": SKIP + 1,
}


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("rows", ROWS[0], ValueError),
        ("rows", ROWS[:, :0], ValueError),
        ("rows", ROWS.long(), TypeError),
        ("rows", ROWS.to(torch.float8_e5m2), TypeError),
        ("rows", ROWS.to_sparse(), TypeError),
        ("offsets", torch.tensor([0.0, 4.0]), TypeError),
        ("offsets", torch.tensor([[0, 4]], dtype=torch.int32), ValueError),
        ("offsets", torch.zeros(0, dtype=torch.int32), ValueError),
        ("anchors", torch.tensor([2, 2], dtype=torch.int32), ValueError),
        ("anchors", torch.tensor([4.0]), TypeError),
        ("skip_begin", SKIP[:3], ValueError),
        ("skip_end", SKIP[:3], ValueError),
        ("skip_begin", SKIP.float(), TypeError),
        ("skip_end", SKIP.to("meta"), ValueError),
        ("scale", float("nan"), ValueError),
        ("scale", "1", TypeError),
        ("scale", -1e38, ValueError),
        ("largest", 3, ValueError),
        ("largest", -1, ValueError),
        ("largest", 4.0, TypeError),
        ("mutual", 1, TypeError),
        ("backend", "cudnn", ValueError),
        ("backend", 1, TypeError),
    ],
)
def test_bad_groups(argument: str, value: object, error: Any) -> None:
    with pytest.raises(error) as raised:
        grouped_logsumexp(**{**GROUPS, argument: value})
    assert argument in str(raised.value)


@pytest.mark.parametrize("offsets", [[0, 40], [-4, 4], [4, 0]])
def test_bad_offsets_past_the_front_door(fast_backend: str, offsets: list[int]) -> None:
    """Inside torch.compile and through torch.ops the operation itself refuses them."""
    skip_on_gpu(fast_backend, "on a GPU the check would wait for the device and is left out")
    groups = {**GROUPS, "offsets": torch.tensor(offsets, dtype=torch.int32)}
    call = torch.compile(grouped_logsumexp, backend="eager", fullgraph=True)
    with pytest.raises(ValueError, match="offsets"):
        call(**groups, backend=fast_backend)
    with pytest.raises(ValueError, match="offsets"):
        torch.ops.semicl.grouped_logsumexp(*groups.values(), 4, False, torch.tensor(1.0), None, fast_backend)


@pytest.mark.parametrize("function", [torch.func.grad, torch.func.vmap])
def test_function_transforms_are_refused(backend: str, function: Any) -> None:
    """They would fail inside, and a forward-mode tangent would be lost without a word."""
    with pytest.raises(RuntimeError, match=r"features.*torch\.func.*autograd\.grad"):
        function(lambda features: local_contrastive_loss(features, backend=backend))(FEATURES[None])
    with pytest.raises(RuntimeError, match=r"rows.*torch\.func"):
        function(lambda rows: grouped_logsumexp(**{**GROUPS, "rows": rows}, backend=backend).sum())(ROWS[None])


def test_forward_mode_is_refused(backend: str) -> None:
    def loss(features: torch.Tensor) -> torch.Tensor:
        return on_device.local_contrastive_loss(features, backend=backend)

    with pytest.raises(RuntimeError, match=r"features.*torch\.func"):
        torch.func.jvp(loss, (FEATURES,), (FEATURES,))
    with torch.autograd.forward_ad.dual_level():
        expected = loss(FEATURES)  # no tangent, no harm
        dual = torch.autograd.forward_ad.make_dual(FEATURES, FEATURES)
        with pytest.raises(RuntimeError, match=r"features.*forward-mode tangent"):
            loss(dual)
    assert torch.equal(expected, loss(FEATURES))


def test_compiled_backend_refuses_float64_and_names_one_that_takes_it(compiled_backend: str) -> None:
    with pytest.raises(ValueError, match=r"cpu.*float64.*tiled"):
        local_contrastive_loss(FEATURES.double(), LABELS, backend=compiled_backend)


def test_auto_takes_float64() -> None:
    loss = local_contrastive_loss(FEATURES.double(), LABELS)
    expected = local_contrastive_loss(FEATURES.double(), LABELS, backend="reference")
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)


WITHOUT_EXTENSION = """
import sys

class NotBuilt:
    def find_spec(self, name, path=None, target=None):
        if name == "semicl_kernels._C":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotBuilt())
import torch
from semicl_kernels import available_backends, local_contrastive_loss
features, labels = torch.ones(1, 1, 2, 2, 2), torch.ones(1, 1, 2, 2, dtype=torch.int64)
print("reason:", available_backends()["cpu"])
print("auto:", float(local_contrastive_loss(features, labels, backend="auto")))
try:
    local_contrastive_loss(features, labels, backend="cpu")
except ValueError as error:
    print("error:", error)
"""


def test_backend_that_was_not_built_names_its_fix() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTENSION],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert "pip install" in said["reason"]
    assert "compiler" in said["reason"]
    assert "circular" not in said["reason"]  # what Python guesses of a missing submodule would mislead
    assert "pip install" in said["error"]
    assert "cpu" in said["error"]
    assert float(said["auto"]) == pytest.approx(1.0986, abs=1e-4)  # log 3: all vectors equal
