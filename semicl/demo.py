"""The quick tour: pre-train with contrast, fine-tune on few labels, compare with a random start."""

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import pytorch_lightning as pl
import torch
from rich.console import Console
from torch.utils.data import TensorDataset
from tqdm import tqdm

from semicl.cases import Case, CaseFolder, check_case, find_cases
from semicl.checkpoints import load_weights
from semicl.errors import SemiclError
from semicl.evaluate import Evaluation, evaluate, predict
from semicl.figures import write_predictions
from semicl.networks import PixelProjection, SliceProjection, UNet, new_unet
from semicl.options import DemoOptions
from semicl.phantom import write_phantom
from semicl.progress import WIDTH
from semicl.report import comparison_table, evaluation_json, history_table, verdict, write_json
from semicl.splits import Split, split_by_subject
from semicl.stages import GlobalContrast, LocalContrast, Segmentation
from semicl.training import finetune, pretrain
from semicl.volumes import LabelledVolume, read_image, read_volume

HIPPOCAMPUS = Path("../shared/data/Task04_Hippocampus")
PHANTOM = "phantom"
PICTURED_VOLUMES = 5

T = TypeVar("T")


def run_demo(options: DemoOptions) -> None:
    """All stages for one split and one seed; prints the comparison and writes it under `options.output`.

    Raises:
        SemiclError: the data cannot be used; nothing has then been written but, for the phantom, its volumes.
    """
    seconds: dict[str, float] = {}
    synthetic = options.data == PHANTOM or (options.data is None and not HIPPOCAMPUS.is_dir())
    with _timed(seconds, "prepare"):
        folder = find_cases(_phantom(options) if synthetic else Path(options.data or HIPPOCAMPUS))
        for case in tqdm(folder.cases, desc="check files", unit="case", ncols=WIDTH):
            check_case(case, len(folder.classes))
        split = split_by_subject(folder.cases, options.label_fraction, options.seed)
    _announce(folder, split, synthetic)

    with _timed(seconds, "global contrast"):
        pretrain_globally(options, split, len(folder.classes))
    with _timed(seconds, "local contrast"):
        pretrain_locally(options, split, len(folder.classes))

    labelled = _read(split.labelled, options, read_volume, "read labelled volumes")
    validation = _read(split.validation[: options.validation_volumes], options, read_volume, "read validation volumes")
    random = new_unet(options.widths, len(folder.classes), options.seed)
    pretrained = new_unet(options.widths, len(folder.classes), options.seed)
    print(load_weights(pretrained, options.output / "local.ckpt"))
    histories = {}
    for name, network in (("random", random), ("pretrained", pretrained)):
        with _timed(seconds, f"fine-tune {name}"):
            histories[name] = fine_tune(options, network, labelled, validation, name)

    with _timed(seconds, "test"):
        test = _read(split.test, options, read_volume, "read test volumes")
        scores = {
            name: evaluate(network, tqdm(test, desc=f"test {name}", unit="volume", ncols=WIDTH), len(folder.classes))
            for name, network in (("random", random), ("pretrained", pretrained))
        }
        _draw(options, folder, test, random, pretrained)
    _conclude(options, folder, split, synthetic, histories, scores, seconds)


def pretrain_globally(options: DemoOptions, split: Split, classes: int) -> None:
    """Stage 1: the encoder, on the images of all training volumes; opens no label file. Writes global.ckpt."""
    images = torch.cat(_read(split.training, options, read_image, "read training images"))
    pl.seed_everything(options.seed, verbose=False)
    encoder = new_unet(options.widths, classes, options.seed).encoder
    stage = GlobalContrast(
        encoder, SliceProjection(options.widths[4]), options.global_temperature, options.global_contrast
    )
    pretrain(stage, TensorDataset(images), options.output / "global.ckpt", "1 global contrast")


def pretrain_locally(options: DemoOptions, split: Split, classes: int) -> None:
    """Stage 2: encoder and decoder, on the labelled fraction, from global.ckpt. Writes local.ckpt."""
    slices = _slices(_read(split.labelled, options, read_volume, "read labelled volumes"))
    # A slice without foreground has no anchor; it would only dilute the batch.
    with_anchors = (slices.tensors[1] > 0).flatten(1).any(1)
    if not with_anchors.any():
        names = ", ".join(case.name for case in split.labelled)
        raise SemiclError(f"labelled cases {names}: hold no foreground; give another --seed or --label_fraction")
    pl.seed_everything(options.seed, verbose=False)
    network = new_unet(options.widths, classes, options.seed)
    print(load_weights(network, options.output / "global.ckpt"))
    stage = LocalContrast(
        network.encoder,
        network.decoder,
        PixelProjection(options.widths[5]),
        options.local_temperature,
        options.block_size,
        options.local_contrast,
    )
    anchored = TensorDataset(*(tensor[with_anchors] for tensor in slices.tensors))
    pretrain(stage, anchored, options.output / "local.ckpt", "2 local contrast")


def fine_tune(
    options: DemoOptions,
    network: UNet,
    labelled: Sequence[LabelledVolume],
    validation: Sequence[LabelledVolume],
    name: str,
) -> list[tuple[int, float]]:
    """Stage 3: train `network` on the labelled fraction and leave it with the weights that validation chose.

    The seed is set here, so both starts see the same batches and views. Writes NAME.ckpt.

    Returns:
        After how many steps validation looked, and the Dice it found.
    """
    pl.seed_everything(options.seed, verbose=False)
    stage = Segmentation(network, options.segmentation)
    checkpoint = options.output / f"{name}.ckpt"
    finetune(stage, _slices(labelled), validation, options.validations, checkpoint, f"3 fine-tune {name}")
    load_weights(network, checkpoint)
    return stage.history


def _phantom(options: DemoOptions) -> Path:
    folder = options.output / PHANTOM
    write_phantom(folder, options.phantom_subjects, options.seed)
    return folder


def _read(cases: Sequence[Case], options: DemoOptions, reader: Callable[[Case, int], T], title: str) -> list[T]:
    return [reader(case, options.slice_size) for case in tqdm(cases, desc=title, unit="volume", ncols=WIDTH)]


def _slices(volumes: Sequence[LabelledVolume]) -> TensorDataset:
    return TensorDataset(torch.cat([v.image for v in volumes]), torch.cat([v.label for v in volumes]))


def _announce(folder: CaseFolder, split: Split, synthetic: bool) -> None:
    if synthetic:
        print("No real cases: this run uses a PHANTOM, synthetic volumes. Its Dice says nothing about patients.")
    print(
        f"{folder.name}: {len(folder.cases)} cases of {_subjects(folder.cases)} subjects; training "
        f"{len(split.training)} volumes, of which {len(split.labelled)} with labels ({_subjects(split.labelled)} of "
        f"{_subjects(split.training)} subjects), validation {len(split.validation)}, test {len(split.test)}."
    )


def _draw(
    options: DemoOptions, folder: CaseFolder, test: Sequence[LabelledVolume], random: UNet, pretrained: UNet
) -> None:
    pictured = test[:PICTURED_VOLUMES]
    labels = {
        "truth": {v.name: v.label for v in pictured},
        "random start": {v.name: predict(random, v.image).cpu() for v in pictured},
        "pre-trained": {v.name: predict(pretrained, v.image).cpu() for v in pictured},
    }
    images = {v.name: v.image for v in pictured}
    write_predictions(options.output / "predictions.png", images, labels, folder.classes)


def _conclude(
    options: DemoOptions,
    folder: CaseFolder,
    split: Split,
    synthetic: bool,
    histories: dict[str, list[tuple[int, float]]],
    scores: dict[str, Evaluation],
    seconds: dict[str, float],
) -> None:
    random, pretrained = scores["random"], scores["pretrained"]
    kind = "synthetic volumes, not patients" if synthetic else folder.name
    watched = min(options.validation_volumes, len(split.validation))
    print(f"\nValidation while fine-tuning ({watched} of {len(split.validation)} volumes):")
    Console().print(history_table(histories["random"], histories["pretrained"]))
    print(f"\n{len(split.test)} test volumes of {_subjects(split.test)} held-out subjects ({kind}):")
    Console().print(comparison_table(folder.classes, random, pretrained))
    print(verdict(random, pretrained))
    write_json(
        options.output / "results.json",
        {
            "data": folder.name,
            "synthetic": synthetic,
            "verdict": verdict(random, pretrained),
            "test": {name: evaluation_json(score, folder.classes) for name, score in scores.items()},
            "validation_dice_by_step": {name: dict(history) for name, history in histories.items()},
            "split": {name: [case.name for case in cases] for name, cases in vars(split).items()},
            "options": asdict(options),
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "lightning": version("pytorch-lightning"),
            },
            "threads": torch.get_num_threads(),
        },
    )
    print(f"Seconds: {', '.join(f'{name} {value:.0f}' for name, value in seconds.items())}.")
    print(f"Pictures, numbers and checkpoints: {options.output}/predictions.png, results.json, *.ckpt")


def _subjects(cases: Sequence[Case]) -> int:
    return len({case.subject for case in cases})


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
