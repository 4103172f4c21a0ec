"""`semicl export --bundle`: a fine-tuned network as a MONAI bundle, which predicts without semicl.

A bundle is a folder of weights, MONAI transforms as JSON, and what the network takes and gives; MONAI's specification
of bundles names its files. Its transforms are those of `semicl predict`, written with MONAI's own and, for intensities,
a copy of semicl's module.
"""

import inspect
from pathlib import Path
from typing import Any

import monai
import nibabel
import numpy as np
import torch

from semicl import own_version
from semicl.console import conclude
from semicl.data import intensities
from semicl.data.grid import Grid
from semicl.data.intensities import PERCENTILES
from semicl.errors import SemiclError
from semicl.evaluation.inference import AT_ONCE, OVERLAP, PATCHES_AT_ONCE, label_type
from semicl.files import output_folder, replacing, require_checkpoint, write_json
from semicl.models import unet
from semicl.models.checkpoint import ModelCard, load_segmentation
from semicl.options import ExportOptions

METADATA, INFERENCE = "configs/metadata.json", "configs/inference.json"
WEIGHTS, GUIDE = "models/model.pt", "docs/README.md"

SCRIPTS = {"scripts/unet.py": unet, "scripts/intensities.py": intensities}
"""Modules that are copied into a bundle: they import nothing of semicl."""

FILES = (METADATA, INFERENCE, WEIGHTS, "scripts/__init__.py", *SCRIPTS, GUIDE)

SCALED = "numpy.stack([@scaled(channel) for channel in image.numpy()])"

AFFINE = "nibabel.load({}.meta['filename_or_obj']).affine"
"""MONAI's reader would change that of a file whose pixdim says something else than its sform."""

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"


def export(options: ExportOptions) -> None:
    """Write a fine-tuned network as a MONAI bundle.

    Raises:
        SemiclError: the checkpoint cannot be used, shrinks its slices, or the folder holds files of a bundle already.
    """
    require_checkpoint(options.checkpoint)
    folder = output_folder(
        options.bundle, [options.checkpoint], files=FILES, overwrite=options.overwrite, option="bundle"
    )
    network, card = load_segmentation(options.checkpoint)
    if len(card.grid.patch_size) == 2 and not card.grid.sliding_window:
        raise SemiclError(
            f"{options.checkpoint}: shrinks slices that are larger than its patch (--prepare.resize), for which MONAI "
            "has no transform; use `semicl predict`, or train without --prepare.resize"
        )
    write_json(folder / METADATA, metadata(card, folder.resolve().name))
    write_json(folder / INFERENCE, inference(card))
    _write(folder / "scripts" / "__init__.py", "")
    for name, module in SCRIPTS.items():
        _write(folder / name, inspect.getsource(module))
    _write(folder / GUIDE, guide(card, folder.resolve().name))
    with replacing(folder / WEIGHTS) as partial:
        torch.save(network.state_dict(), partial)
    needs = "monai[fire,nibabel,ignite]"
    rows = {"bundle": folder, "classes": _classes(card), "reads": "NIfTI files alone, no pictures", "needs": needs}
    conclude("Exported", rows)


def _write(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def inference(card: ModelCard) -> dict[str, Any]:
    """The config of `python -m monai.bundle run`."""
    slices = len(card.grid.patch_size) == 2
    return {
        "imports": ["$import glob", "$import nibabel", "$import os", "$import sys"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/predictions'",
        "names": "$[name for suffix in ('.nii', '.nii.gz') for name in glob.glob('*' + suffix, root_dir=@dataset_dir)]",
        "data": "$[{'image': os.path.join(@dataset_dir, name)} for name in sorted(@names)]",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": {
            "_target_": "scripts.unet.UNet",
            "dimensions": len(card.grid.patch_size),
            "levels": list(card.levels),
            "classes": len(card.classes),
            "channels": card.channels,
        },
        # Probabilities are averaged where windows overlap, not scores.
        "network": "$torch.nn.Sequential(@network_def, torch.nn.Softmax(1)).to(@device)",
        "scaled": {"_target_": "scripts.intensities.scaled", "_mode_": "callable"},
        "preprocessing": {"_target_": "Compose", "transforms": [*_preprocessing(card)]},
        "dataset": {"_target_": "Dataset", "data": "@data", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": {
            "_target_": "SliceInferer" if slices else "SlidingWindowInferer",
            **({"spatial_dim": 0} if slices else {}),
            "roi_size": list(card.grid.patch_size),
            "sw_batch_size": AT_ONCE if slices else PATCHES_AT_ONCE,
            "overlap": OVERLAP,
            "mode": "gaussian",
        },
        "postprocessing": {"_target_": "Compose", "transforms": [*_postprocessing(card)]},
        "checkpoint_loader": {
            "_target_": "CheckpointLoader",
            "load_path": f"$@bundle_root + '/{WEIGHTS}'",
            "load_dict": {"model": "@network_def"},
            "map_location": "@device",
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": ["@checkpoint_loader"],
        },
        "initialize": [
            "$@data or sys.exit(@dataset_dir + ': holds no .nii or .nii.gz file')",
            "$os.makedirs(@output_dir, exist_ok=True)",
            "$os.path.samefile(@output_dir, @dataset_dir) and sys.exit(@output_dir + ': its images would be replaced')",
        ],
        "run": ["$@evaluator.run()"],
    }


def _preprocessing(card: ModelCard) -> list[dict[str, Any]]:
    """A file to the network's grid, as `semicl.data.volumes` does it: (channels, superior, right, anterior)."""
    axis = "no_channel" if card.channels == 1 else -1
    reader = {"reader": "NibabelReader", "channel_dim": axis, "squeeze_non_spatial_dims": True}
    steps: list[dict[str, Any]] = [
        {"_target_": "LoadImaged", "dtype": "$numpy.float64", **reader},
        {"_target_": "EnsureChannelFirstd", "channel_dim": axis},
        {
            "_target_": "Lambdad",
            "func": f"$lambda image: monai.data.MetaTensor({SCALED}, {AFFINE.format('image')}, image.meta)",
        },
        {"_target_": "Orientationd", "axcodes": "RAS", "labels": None},
    ]
    if card.grid.spacing is not None:
        bilinear = {"mode": "bilinear", "padding_mode": "border"}
        steps.append({"_target_": "Spacingd", "pixdim": list(card.grid.spacing), **bilinear})
    steps += [
        {"_target_": "SpatialPadd", "spatial_size": _padded(card.grid)},
        {"_target_": "Transposed", "indices": [0, 3, 1, 2]},
        {"_target_": "EnsureTyped", "dtype": "$torch.float32"},
    ]
    return [{**step, "keys": "image"} for step in steps]


def _padded(grid: Grid) -> list[int]:
    """Least sides along right, anterior and superior; -1: any."""
    *depth, height, width = grid.patch_size
    return [height, width, *(depth or [-1])]


def _postprocessing(card: ModelCard) -> list[dict[str, Any]]:
    """Class probabilities on the grid to a label file with the values of the training labels, on the image's voxels."""
    values = list(card.classes.values())
    dtype = label_type(np.array(values)).__name__
    labels = f"nibabel.Nifti1Image(pred[0].cpu().numpy().astype(numpy.{dtype}), {AFFINE.format('pred')})"
    file = "os.path.join(@output_dir, os.path.basename(pred.meta['filename_or_obj']))"
    steps: list[dict[str, Any]] = [
        {"_target_": "Invertd", "transform": "@preprocessing", "orig_keys": "image", "nearest_interp": False},
        {"_target_": "AsDiscreted", "argmax": True},
        {
            "_target_": "MapLabelValued",
            "orig_labels": [*range(len(values))],
            "target_labels": values,
            "dtype": "$numpy.int64",
        },
        # MONAI's writer would name every file .nii.gz, and leave out a last axis of length 1.
        {"_target_": "Lambdad", "func": f"$lambda pred: nibabel.save({labels}, {file}) or pred"},
    ]
    return [{**step, "keys": "pred"} for step in steps]


def metadata(card: ModelCard, name: str) -> dict[str, Any]:
    """What the network takes and gives, and the versions that it was exported with."""
    space = list(card.grid.patch_size)
    names = ["image"] if card.channels == 1 else [f"channel {number}" for number in range(card.channels)]
    scaled = "intensities of its own scale, from percentile {} to {}, in [0, 1]".format(*PERCENTILES)
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": "exported"},
        "monai_version": monai.__version__.partition("+")[0],
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"nibabel": nibabel.__version__},
        "name": name,
        "task": f"Segmentation of {_classes(card)}",
        "description": f"A U-Net of semicl {own_version()}",
        "authors": "",
        "copyright": "",
        "data_source": card.seen[-1].data if card.seen else "",
        "data_type": "nibabel",
        "image_classes": f"{card.channels} channel(s), each with {scaled}",
        "label_classes": f"single channel data, {_classes(card)}",
        "pred_classes": f"{len(card.classes)} channels, the scores of {', '.join(card.classes)}",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": "n/a",
                    "num_channels": card.channels,
                    "spatial_shape": space,
                    "dtype": "float32",
                    "value_range": [0, 1],
                    "is_patch_data": len(space) == 3,
                    "channel_def": dict(zip(map(str, range(card.channels)), names, strict=True)),
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": len(card.classes),
                    "spatial_shape": space,
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": len(space) == 3,
                    "channel_def": {str(number): name for number, name in enumerate(card.classes)},
                }
            },
        },
    }


def _classes(card: ModelCard) -> str:
    """Names of the classes, with their values in label files."""
    return ", ".join(f"{name} ({value})" for name, value in card.classes.items())


def guide(card: ModelCard, name: str) -> str:
    """The bundle's README."""
    channels = "of one channel" if card.channels == 1 else f"of {card.channels} channels, the last axis of a file"
    return f"""# {name}

A segmentation network that `semicl export` wrote. It labels NIfTI images {channels}: {_classes(card)}.

```
pip install "monai[fire,nibabel,ignite]"
python -m monai.bundle run --config_file configs/inference.json --dataset_dir IMAGES --output_dir PREDICTIONS
```

writes a label file for each `*.nii` and `*.nii.gz` of the folder IMAGES, of its name and geometry. Call it in this
folder, or give `--bundle_root` too. Voxel sizes are taken for millimeters.
"""
