"""Label-efficient medical image segmentation: pre-train a U-Net with contrast, fine-tune it on few labels.

The method is that of Hu, Zeng, Xu and Shi, "Semi-supervised Contrastive Learning for Label-efficient Medical Image
Segmentation", MICCAI 2021 (arXiv 2109.07407). The losses come from `semicl_kernels`; reading, networks, metrics and
training loops from MONAI, Kornia and Lightning.

``python -m semicl demo`` shows the whole of it in a few minutes on a CPU.
"""

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """The version that is installed."""
    try:
        return version("semicl")
    except PackageNotFoundError:
        return "from source, not installed"
