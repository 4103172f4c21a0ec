"""The pixel contrast of ContrastiveSeg (Wang et al., ICCV 2021) on all pixels, with a memory of earlier ones.

Every positive is compared with all negatives; the paper samples pixels, here none are left out.
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from semicl_kernels import ClassQueue, LocalContrastiveLoss

CLASSES, CHANNELS = 4, 16
torch.manual_seed(0)
backbone = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())
head, projection = nn.Conv2d(32, CLASSES, 1), nn.Conv2d(32, CHANNELS, 1)
parameters = [*backbone.parameters(), *head.parameters(), *projection.parameters()]
optimizer = torch.optim.Adam(parameters, lr=1e-3)
criterion = LocalContrastiveLoss(temperature=0.1, denominator="pairwise", background=None, reduction="anchor")
queue = ClassQueue(CLASSES, size=64, channels=CHANNELS)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.randint(0, CLASSES, (2, 4, 4)).repeat_interleave(6, 1).repeat_interleave(6, 2)
    return (labels / CLASSES + 0.1 * torch.randn(labels.shape))[:, None], labels


for step in range(20):
    images, labels = batch()
    hidden = backbone(images)
    features = projection(hidden)
    contrast = criterion(features[:, None], labels[:, None], **queue.keys())  # one view of each image
    loss = cross_entropy(head(hidden), labels) + 0.1 * contrast
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    points, names = normalize(features.detach(), dim=1).movedim(1, -1).reshape(-1, CHANNELS), labels.flatten()
    some = torch.randperm(len(points))[:32]
    queue.push(points[some], names[some])
    if step % 5 == 4:
        print(f"step {step + 1}: loss {loss.item():.3f}, contrast {contrast.item():.3f}, {len(queue)} in the queue")

# The same by the matrix of all pixels with all pixels and keys.
images, labels = batch()
with torch.no_grad():
    features, keys = projection(backbone(images)), queue.keys()
    x, y = normalize(features, dim=1).movedim(1, -1).reshape(-1, CHANNELS), labels.flatten()
    s = torch.cat([x @ x.T, x @ keys["keys"].T], 1) / 0.1
    same = y[:, None] == torch.cat([y, keys["key_labels"]])
    negatives = s.masked_fill(same, -torch.inf).logsumexp(1, keepdim=True)
    positive = same.clone().fill_diagonal_(False)
    each = torch.logaddexp(negatives - s, torch.zeros(()))
    dense = ((each * positive).sum(1) / positive.sum(1)).mean()
    fused = criterion(features[:, None], labels[:, None], **keys)
torch.testing.assert_close(fused, dense, rtol=1e-4, atol=1e-5)
print(f"fused {fused:.4f}, dense {dense:.4f}")
