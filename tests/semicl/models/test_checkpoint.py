"""Loading says what it took, refuses what does not fit, and writing never leaves half a file."""

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from semicl.errors import SemiclError
from semicl.models.checkpoint import (
    AtomicCheckpointIO,
    ModelCard,
    load_segmentation,
    load_weights,
    read_card,
    weights_hash,
)
from semicl.models.unet import UNet, new_unet
from tests.semicl.conftest import LEVELS


@pytest.fixture
def stored(card: ModelCard) -> dict[str, Tensor]:
    return card.new_network(seed=1).state_dict()


def _save(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save({"state_dict": state}, path)
    return path


def _part(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key.startswith(f"{name}.")}


def test_the_report_counts_each_part(network: UNet, stored: dict[str, Tensor], tmp_path: Path) -> None:
    part = _part(stored, "encoder")
    kept = {name: value.clone() for name, value in network.state_dict().items() if name not in part}
    path = _save(tmp_path / "global.ckpt", part | {"projection.weight": torch.zeros(2)})
    report = load_weights(network, path)
    assert set(report.taken) == set(part)
    assert set(report.kept) == set(kept)
    assert report.ignored == ("projection.weight",)
    assert str(report) == (
        f"{path}: took 24 tensors (encoder 24), kept 22 as they were (decoder 20, classifier 2), "
        "ignored 1 (projection 1)"
    )
    now = network.state_dict()
    assert all(torch.equal(now[name], value) for name, value in (part | kept).items())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "network.", "module._orig_mod.network."])
def test_wrappers_prefixes_do_not_matter(network: UNet, stored: dict[str, Tensor], tmp_path: Path, prefix: str) -> None:
    wrapped = {prefix + name: value for name, value in stored.items()}
    report = load_weights(network, _save(tmp_path / "wrapped.ckpt", wrapped))
    assert (len(report.taken), report.kept, report.ignored) == (len(stored), (), ())
    assert all(torch.equal(network.state_dict()[name], value) for name, value in stored.items())


def test_a_checkpoint_without_a_match_is_refused(network: UNet, tmp_path: Path) -> None:
    path = _save(tmp_path / "other.ckpt", {"backbone.weight": torch.zeros(3)})
    with pytest.raises(SemiclError, match=r"other\.ckpt: no tensor matches .*backbone 1.*encoder 24"):
        load_weights(network, path)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((8, 8, 8), r"encoder\.\S+ has shape \(8, 1, 3, 3\), the network's has \(4,"),
        (LEVELS[:2], r"decoder\.\S+ has shape \(6, 6, 2, 2\)"),
        ((*LEVELS, 10), r"decoder\.\S+ has shape \(10, "),
    ],
)
def test_another_architecture_is_refused_and_changes_nothing(
    network: UNet, tmp_path: Path, levels: tuple[int, ...], message: str
) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    path = _save(tmp_path / "other.ckpt", new_unet(2, levels, 4, seed=1).state_dict())
    with pytest.raises(SemiclError, match=message) as caught:
        load_weights(network, path)
    assert str(path) in str(caught.value)
    assert "--network" in str(caught.value)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


def test_a_value_that_is_not_taken_is_noticed(network: UNet, stored: dict[str, Tensor], tmp_path: Path) -> None:
    stored["classifier.bias"][0] = torch.nan
    with pytest.raises(SemiclError, match=r"classifier\.bias did not take its value; it holds NaN"):
        load_weights(network, _save(tmp_path / "nan.ckpt", stored))


@pytest.mark.parametrize("missing", ["encoder.stem.conv_0.conv.weight", "decoder.levels.0.upsample.deconv.bias"])
def test_a_part_is_taken_whole_or_not_at_all(
    network: UNet, stored: dict[str, Tensor], tmp_path: Path, missing: str
) -> None:
    del stored[missing]
    with pytest.raises(SemiclError, match=f"only a part of {missing.split('.')[0]} matches the network"):
        load_weights(network, _save(tmp_path / "torn.ckpt", stored))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_an_unreadable_checkpoint_is_named(network: UNet, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.ckpt"
    if content is None:
        _save(path, network.state_dict())
        content = path.read_bytes()[:5000]
    path.write_bytes(content)
    with pytest.raises(SemiclError, match=r"broken\.ckpt: not readable as a checkpoint"):
        load_weights(network, path)


@pytest.mark.parametrize(
    "content",
    [b"a: 1\n", b"network: {widths: [4, 8]}\n", b"", b"\x80\x04\x95", b"\x1f\x8b\x08\x00", b"<html></html>", "script"],
)
def test_a_file_of_another_kind_is_one_line_without_torchs_advice(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "my.yaml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.jit.save(torch.jit.script(torch.nn.Identity()), path)
    with pytest.raises(SemiclError) as caught:
        read_card(path)
    way_out = "give the model.ckpt that a stage of semicl wrote, or run that stage again"
    assert str(caught.value) == f"{path}: not readable as a checkpoint; {way_out}"


def test_what_else_a_checkpoint_may_hold_is_not_taken(tmp_path: Path) -> None:
    torch.save({"weights": torch.ones(2)}, tmp_path / "other.ckpt")
    with pytest.raises(SemiclError, match=r"other\.ckpt: not readable as a checkpoint; give the model\.ckpt"):
        read_card(tmp_path / "other.ckpt")
    torch.save({"state_dict": {}, "network": Path("pickled")}, tmp_path / "other.ckpt")
    with pytest.raises(SemiclError, match=r"other\.ckpt: not readable as a checkpoint; give the model\.ckpt"):
        read_card(tmp_path / "other.ckpt")


@pytest.mark.parametrize("other", [None, 3, {"version": 1}])
def test_a_state_that_is_no_tensor_does_not_matter(
    network: UNet, stored: dict[str, Tensor], tmp_path: Path, other: object
) -> None:
    plain, mixed = tmp_path / "plain.ckpt", tmp_path / "mixed.ckpt"
    _save(plain, stored)
    torch.save({"state_dict": stored | {"head._extra_state": other}}, mixed)
    assert weights_hash(mixed) == weights_hash(plain)
    assert load_weights(network, mixed).ignored == ()


@pytest.mark.parametrize("change", [Tensor.to_sparse, torch.nn.Parameter])
def test_a_tensor_may_be_stored_in_other_ways(tmp_path: Path, change: Callable[[Tensor], Tensor]) -> None:
    plain, other = ({"head.weight": value} for value in (torch.eye(3), change(torch.eye(3))))
    assert weights_hash(_save(tmp_path / "a.ckpt", plain)) == weights_hash(_save(tmp_path / "b.ckpt", other))


def test_a_conjugate_tensor_is_its_values(tmp_path: Path) -> None:
    value = torch.tensor([1 + 2j]).conj()
    first = _save(tmp_path / "a.ckpt", {"head.weight": value})
    assert weights_hash(first) == weights_hash(_save(tmp_path / "b.ckpt", {"head.weight": value.resolve_conj()}))


def test_a_tensor_without_values_is_one_line(tmp_path: Path) -> None:
    path = _save(tmp_path / "meta.ckpt", {"head.weight": torch.empty(3, device="meta")})
    with pytest.raises(SemiclError, match=r"meta\.ckpt: not readable as a checkpoint"):
        weights_hash(path)


def test_a_missing_checkpoint_is_named(network: UNet, tmp_path: Path) -> None:
    with pytest.raises(SemiclError, match=r"none\.ckpt: no such checkpoint"):
        load_weights(network, tmp_path / "none.ckpt")


def test_of_a_folder_the_checkpoint_in_it_is_named(network: UNet, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SemiclError, match=r"finetune: is a folder; give .*/finetune/model\.ckpt$"):
        load_weights(network, checkpoint.parent)
    with pytest.raises(SemiclError, match=r"is a folder; give the model\.ckpt of a stage$"):
        load_weights(network, tmp_path)


def test_a_segmentation_comes_with_its_card(checkpoint: Path, card: ModelCard, network: UNet) -> None:
    loaded, found = load_segmentation(checkpoint)
    assert found == read_card(checkpoint) == card
    assert not loaded.training
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in network.state_dict().items())


def test_a_contrastive_checkpoint_cannot_segment(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["semicl"]["stage"] = "pretrain-local"
    torch.save(content, checkpoint)
    with pytest.raises(SemiclError, match="a checkpoint of pretrain-local, which knows no classes"):
        load_segmentation(checkpoint)


def test_a_foreign_checkpoint_has_no_card(tmp_path: Path, stored: dict[str, Tensor]) -> None:
    with pytest.raises(SemiclError, match=r"foreign\.ckpt: does not tell its network"):
        read_card(_save(tmp_path / "foreign.ckpt", stored))


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stage.ckpt"
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"state_dict": {"a": torch.ones(2)}}, path)
    old = path.read_bytes()

    def full_disk(_: object, partial: Path) -> None:
        partial.write_bytes(b"hal")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("semicl.models.checkpoint.torch.save", full_disk)
    with pytest.raises(SemiclError, match=r"could not be written .*No space left.*, then call it again .* --resume"):
        writer.save_checkpoint({"state_dict": {"a": torch.zeros(2)}}, path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_takes_no_more_is_a_clear_message(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """torch's own writer meets the limit, in a process of its own: limits of this one could not be lifted again."""
    path = tmp_path / "stage.ckpt"
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        try:
            AtomicCheckpointIO().save_checkpoint({"state_dict": {"a": torch.ones(10**6)}}, path)
        except SemiclError as error:
            os.write(2, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert f"{path}: could not be written" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
