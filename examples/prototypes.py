"""Pixels against learned prototypes of the classes: keys that have a gradient, and a temperature that has one too."""

import torch
from torch import nn
from torch.nn.functional import normalize

from semicl_kernels import LocalContrastiveLoss

CLASSES, EACH, CHANNELS = 3, 4, 16  # four prototypes for each class
torch.manual_seed(0)
backbone = nn.Conv2d(1, CHANNELS, 5, padding=2)
prototypes = nn.Parameter(torch.randn(CLASSES * EACH, CHANNELS))
prototype_labels = torch.arange(CLASSES).repeat_interleave(EACH)
criterion = LocalContrastiveLoss(temperature=nn.Parameter(torch.tensor(0.2)), background=None, reduction="class")
optimizer = torch.optim.Adam([*backbone.parameters(), *criterion.parameters(), prototypes], lr=1e-2)

labels = torch.randint(0, CLASSES, (2, 1, 3, 3)).repeat_interleave(5, 2).repeat_interleave(5, 3)
for step in range(30):
    images = labels / CLASSES + 0.1 * torch.randn(labels.shape)
    features = backbone(images)[:, None]
    loss = criterion(features, labels, keys=prototypes, key_labels=prototype_labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 9:
        print(f"step {step + 1}: loss {loss.item():.3f}, temperature {criterion.temperature.item():.3f}")

# The same, and the gradient of the prototypes, by the matrix of all pixels with all pixels and prototypes.
fused = criterion(features.detach(), labels, keys=prototypes, key_labels=prototype_labels)
(by_prototypes,) = torch.autograd.grad(fused, prototypes)
x, y = normalize(features.detach(), dim=2).movedim(2, -1).reshape(-1, CHANNELS), labels.flatten()
s = x @ torch.cat([x, normalize(prototypes, dim=1)]).T / criterion.temperature.detach()
positive = (y[:, None] == torch.cat([y, prototype_labels])).fill_diagonal_(False)
itself = torch.eye(*s.shape, dtype=torch.bool)
each = s.masked_fill(itself, -torch.inf).logsumexp(1) - (s * positive).sum(1) / positive.sum(1)
dense = torch.stack([each[y == name].mean() for name in y.unique()]).mean()
(expected,) = torch.autograd.grad(dense, prototypes)
torch.testing.assert_close(fused, dense, rtol=1e-4, atol=1e-5)
torch.testing.assert_close(by_prototypes, expected, rtol=1e-3, atol=1e-6)
print(f"fused {fused:.4f}, dense {dense:.4f}")
