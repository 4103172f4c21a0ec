"""The loss in a training loop of your own: a small network, cross entropy, and contrast between two views."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from semicl_kernels import LocalContrastiveLoss

CLASSES, CHANNELS = 3, 16
torch.manual_seed(0)
backbone = nn.Sequential(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.Conv2d(32, 32, 5, padding=2), nn.ReLU())
head = nn.Conv2d(32, CLASSES, 1)  # makes the segmentation
projection = nn.Conv2d(32, CHANNELS, 1)  # makes the features that are compared; thrown away after training
parameters = [*backbone.parameters(), *head.parameters(), *projection.parameters()]
optimizer = torch.optim.Adam(parameters, lr=2e-3)
criterion = LocalContrastiveLoss(temperature=0.1)  # label 0 is the background


def batch() -> tuple[Tensor, Tensor]:
    """Images (4, 1, 32, 32) of a bright and a dark square in noise, labels (4, 32, 32)."""
    labels = torch.zeros(4, 32, 32, dtype=torch.long)
    for image in labels:
        top, left = torch.randint(2, 8, (2,)).tolist()
        image[top : top + 8, left : left + 8], image[top + 12 : top + 20, left + 10 : left + 18] = 1, 2
    values = torch.tensor([0.0, 1.0, -1.0])[labels]
    return (values + 0.7 * torch.randn(labels.shape))[:, None], labels


def view(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Flip the images and their labels alike, and change the images' brightness."""
    axes = [axis for axis in (-2, -1) if torch.rand(()) < 0.5]
    return images.flip(axes) * (0.8 + 0.4 * torch.rand(())), labels.flip(axes)


for step in range(60):
    views = [view(*each) for each in [batch()] * 2]  # two views of the same images
    images, labels = (torch.stack(each, 1) for each in zip(*views, strict=True))  # (4, 2, 1, 32, 32), (4, 2, 32, 32)
    hidden = backbone(images.flatten(0, 1))
    features = projection(hidden).unflatten(0, labels.shape[:2])  # (4, 2, 16, 32, 32)
    contrast = criterion(features, labels)
    loss = cross_entropy(head(hidden), labels.flatten(0, 1)) + 0.1 * contrast
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 19:
        print(f"step {step + 1}: loss {loss.item():.3f}, contrast {contrast.item():.3f}")

images, labels = batch()
with torch.no_grad():
    hidden = backbone(images)
    predicted = head(hidden).argmax(1)
    found = [
        2 * ((predicted == k) & (labels == k)).sum() / ((predicted == k).sum() + (labels == k).sum()) for k in (1, 2)
    ]
    print(f"Dice of new images: {found[0]:.3f}, {found[1]:.3f}")
    assert min(found) > 0.8
    # The same loss by the matrix of all pixels with all pixels.
    features = projection(hidden)
    x, y = normalize(features, dim=1).movedim(1, -1).reshape(-1, CHANNELS), labels.flatten()
    s = x @ x.T / 0.1
    positive = (y[:, None] == y).fill_diagonal_(False)
    each = s.clone().fill_diagonal_(-torch.inf).logsumexp(1) - (s * positive).sum(1) / positive.sum(1)
    dense = each[y > 0].mean()
    fused = criterion(features[:, None], labels[:, None])
torch.testing.assert_close(fused, dense, rtol=1e-4, atol=1e-5)
print(f"contrast of one view of them, fused: {fused:.4f}; by the matrix of all pixels, {dense:.4f}")
