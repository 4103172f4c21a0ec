"""The loss beside MONAI's Dice loss, on the last features of MONAI's U-Net, with MONAI's transforms and images."""

import numpy as np
import torch
from monai.data import create_test_image_2d
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from monai.networks.nets import BasicUNet
from monai.transforms import Compose, RandFlipd, RandGaussianNoised, RandScaleIntensityd
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot

from semicl_kernels import LocalContrastiveLoss

CLASSES, CHANNELS, HIDDEN = 3, 16, 16
set_determinism(0)
random = np.random.RandomState(0)
unet = BasicUNet(2, in_channels=1, out_channels=HIDDEN, features=(8, 8, 16, 16, 32, 8))  # its output: features
head, projection = nn.Conv2d(HIDDEN, CLASSES, 1), nn.Conv2d(HIDDEN, CHANNELS, 1)
parameters = [*unet.parameters(), *head.parameters(), *projection.parameters()]
optimizer = torch.optim.Adam(parameters, lr=5e-3)
segmentation = DiceCELoss(to_onehot_y=True, softmax=True)
contrast = LocalContrastiveLoss(temperature=0.1, scope="image")  # each image in its own two views
views = Compose(
    [
        RandFlipd(["image", "label"], prob=0.5, spatial_axis=1),
        RandScaleIntensityd("image", factors=0.2, prob=1.0),
        RandGaussianNoised("image", prob=1.0, std=0.05),
    ]
)


def case() -> dict[str, np.ndarray]:
    """An image (1, 48, 48) of discs of two classes, and its label map."""
    image, label = create_test_image_2d(
        48, 48, num_objs=6, rad_max=8, noise_max=0.2, num_seg_classes=CLASSES - 1, random_state=random
    )
    return {"image": image[None].astype(np.float32), "label": label[None].astype(np.int64)}


def batch(count: int) -> tuple[Tensor, Tensor]:
    """Images and labels (count, 2, 1, 48, 48): two views of each."""
    pairs = [[views(each), views(each)] for each in (case() for _ in range(count))]
    return tuple(
        torch.stack([torch.stack([torch.as_tensor(v[k]) for v in pair]) for pair in pairs]) for k in ("image", "label")
    )


for step in range(40):
    images, labels = batch(4)
    hidden = unet(images.flatten(0, 1))
    features = projection(hidden).unflatten(0, images.shape[:2])
    loss = segmentation(head(hidden), labels.flatten(0, 1)) + 0.1 * contrast(features, labels[:, :, 0])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 9:
        print(f"step {step + 1}: loss {loss.item():.3f}")

with torch.no_grad():
    images, labels = (each[:, 0] for each in batch(8))
    hidden = unet(images)
    found, truth = (one_hot(y, CLASSES).movedim(-1, 1) for y in (head(hidden).argmax(1), labels[:, 0]))
    dice = DiceMetric(include_background=False)(found, truth).nanmean()
    print(f"Dice of new images: {dice:.3f}")
    assert dice > 0.8
    # The same loss of one image by the matrix of all pixels with all pixels.
    features = projection(hidden[:1])
    x, y = normalize(features, dim=1).movedim(1, -1).reshape(-1, CHANNELS), labels[:1].flatten()
    s, positive = x @ x.T / 0.1, (y[:, None] == y).fill_diagonal_(False)
    each = s.clone().fill_diagonal_(-torch.inf).logsumexp(1) - (s * positive).sum(1) / positive.sum(1)
    dense, fused = each[y > 0].mean(), contrast(features[:, None], labels[:1])
torch.testing.assert_close(fused, dense, rtol=1e-4, atol=1e-5)
print(f"fused {fused:.4f}, dense {dense:.4f}")
