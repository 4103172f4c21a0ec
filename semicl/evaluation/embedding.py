"""Features of pixels, and their places in the plane."""

from dataclasses import replace

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import nn

from semicl.console import progress_bar, say
from semicl.data.datasets import LabelledVolume, Volumes
from semicl.data.prepared import Prepared
from semicl.errors import SemiclError
from semicl.evaluation.figures import embedding_figure, write_figure
from semicl.evaluation.inference import point_features, to_device
from semicl.models.checkpoint import ModelCard, load_weights
from semicl.models.lineage import split_to_judge
from semicl.models.unet import UNet
from semicl.options import EmbedOptions

PERPLEXITY = 30


def draw_embedding(options: EmbedOptions, card: ModelCard, prepared: Prepared) -> dict[str, object]:
    """Draw the decoder's features of validation pixels, for the random start and for the checkpoint.

    Returns:
        Lines of the command's summary.

    Raises:
        SemiclError: the checkpoint and the prepared folder do not belong together.
    """
    grid = card.grid
    if prepared.grid.sliding_window and not prepared.is_cut:  # all images fit the patch
        grid = replace(grid, sliding_window=True)
    if (grid, card.channels) != (prepared.grid, prepared.channels):
        raise SemiclError(
            f"{options.checkpoint}: was trained on {card.grid}, {options.prepared} holds {prepared.grid}; give the "
            "prepared folder that it was trained on"
        )
    split = split_to_judge(card.seen, prepared, options.split, options.checkpoint)
    volumes = Volumes(prepared, prepared.split(split).validation[: options.volumes])
    chosen = _choose(volumes, len(prepared.classes), options)
    networks = {"random start": card.new_network(options.seed), options.checkpoint.parent.name: card.new_network(0)}
    say(load_weights(networks[options.checkpoint.parent.name], options.checkpoint))
    points, labels = {}, {}
    for title, network in networks.items():
        features, labels[title] = _features(to_device(network, options.machine), volumes, chosen, card.grid.patch_size)
        points[title] = _flat(features, options)
    write_figure(options.output, embedding_figure(points, labels, list(prepared.classes)))
    return {"points": len(labels["random start"]), "volumes": len(volumes), "picture": options.output}


def _choose(volumes: Volumes, classes: int, options: EmbedOptions) -> list[np.ndarray]:
    """For each volume the flat places of the pixels to draw: about as many of each class over all volumes."""
    generator = np.random.default_rng(options.seed)
    share = max(1, options.points // len(volumes))
    chosen = []
    for volume in (volumes[number] for number in range(len(volumes))):
        label = volume.label.flatten().numpy()
        places = (np.flatnonzero(label == number) for number in range(classes))
        chosen.append(np.concatenate([generator.permutation(own)[:share] for own in places]))
    return chosen


def _features(
    network: UNet, volumes: Volumes, chosen: list[np.ndarray], patch_size: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, C) of the chosen pixels, scaled to unit length as the loss sees them, and their class numbers."""
    rows, labels = [], []
    for number, places in enumerate(progress_bar(chosen, desc="features", unit="volume")):
        volume: LabelledVolume = volumes[number]
        features = point_features(network, volume.image, patch_size).flatten(1)[:, torch.from_numpy(places)]
        rows.append(nn.functional.normalize(features, dim=0).T.cpu().numpy())
        labels.append(volume.label.flatten().numpy()[places])
    return np.concatenate(rows), np.concatenate(labels)


def _flat(features: np.ndarray, options: EmbedOptions) -> np.ndarray:
    """Features (N, C) in the plane, (N, 2)."""
    if options.method == "pca":
        return PCA(2, random_state=options.seed).fit_transform(features)
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=options.seed).fit_transform(features)
