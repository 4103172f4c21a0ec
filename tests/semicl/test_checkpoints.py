"""Loading says what it took, refuses what does not fit, and writing never leaves half a file."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from semicl.checkpoints import AtomicCheckpointIO, load_weights
from semicl.errors import SemiclError
from semicl.networks import UNet, new_unet

WIDTHS = (4, 4, 4, 4, 4, 4)


@pytest.fixture
def network() -> UNet:
    return new_unet(WIDTHS, classes=3, seed=0)


@pytest.fixture
def stored() -> dict[str, Tensor]:
    return new_unet(WIDTHS, classes=3, seed=1).state_dict()


def _save(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save({"state_dict": state}, path)
    return path


def test_the_report_counts_each_part(network: UNet, stored: dict[str, Tensor], tmp_path: Path) -> None:
    part = {name: value for name, value in stored.items() if name.startswith("encoder.")}
    kept = {name: value.clone() for name, value in network.state_dict().items() if name not in part}
    report = load_weights(network, _save(tmp_path / "global.ckpt", part | {"projection.weight": torch.zeros(2)}))
    assert set(report.taken) == set(part)
    assert set(report.kept) == set(kept)
    assert report.ignored == ("projection.weight",)
    assert str(report) == (
        "global.ckpt: took 40 tensors (encoder 40), kept 42 as they were (decoder 40, classifier 2), "
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
    with pytest.raises(SemiclError, match=r"other\.ckpt: no tensor matches .*backbone 1.*encoder 40"):
        load_weights(network, path)


def test_another_shape_is_refused_and_changes_nothing(network: UNet, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    path = _save(tmp_path / "wide.ckpt", new_unet((8, 8, 8, 8, 8, 8), 3, seed=1).state_dict())
    with pytest.raises(SemiclError, match=r"wide\.ckpt: encoder\.\S+ has shape \(8, 1, 3, 3\), the network's has \(4,"):
        load_weights(network, path)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_an_unreadable_checkpoint_is_named(network: UNet, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.ckpt"
    if content is None:
        _save(path, network.state_dict())
        content = path.read_bytes()[:5000]
    path.write_bytes(content)
    with pytest.raises(SemiclError, match=r"broken\.ckpt: not readable as a checkpoint"):
        load_weights(network, path)


def test_a_missing_checkpoint_is_named(network: UNet, tmp_path: Path) -> None:
    with pytest.raises(SemiclError, match=r"none\.ckpt: no such checkpoint"):
        load_weights(network, tmp_path / "none.ckpt")


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stage.ckpt"
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"state_dict": {"a": torch.ones(2)}}, path)
    old = path.read_bytes()

    def full_disk(_: object, partial: Path) -> None:
        partial.write_bytes(b"hal")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("semicl.checkpoints.torch.save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        writer.save_checkpoint({"state_dict": {"a": torch.zeros(2)}}, path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
