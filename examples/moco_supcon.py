"""SupCon with a momentum encoder and a queue for each class (as MoCo, He et al., CVPR 2020, has one for all)."""

import copy

import torch
from torch import nn
from torch.nn.functional import normalize

from semicl_kernels import ClassQueue, supervised_contrastive_loss

CLASSES, CHANNELS, MOMENTUM = 5, 16, 0.99
torch.manual_seed(0)
encoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, CHANNELS))
teacher = copy.deepcopy(encoder).requires_grad_(False)
queue = ClassQueue(CLASSES, size=128, channels=CHANNELS)
optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
centers = torch.randn(CLASSES, 8)

for step in range(40):
    labels = torch.randint(0, CLASSES, (64,))
    samples = centers[labels] + 0.5 * torch.randn(64, 8)
    features = encoder(samples)[:, None]  # one view
    loss = supervised_contrastive_loss(features, labels, **queue.keys(), temperature=0.1)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        for own, other in zip(teacher.parameters(), encoder.parameters(), strict=True):
            own.lerp_(other, 1 - MOMENTUM)
        queue.push(normalize(teacher(samples), dim=1), labels)
    if step % 10 == 9:
        print(f"step {step + 1}: loss {loss.item():.3f}, {len(queue)} in the queue")

# The same by the matrix of all vectors with all vectors and keys.
keys = queue.keys()
with torch.no_grad():
    features = encoder(samples)
    x = normalize(features, dim=1)
    s = torch.cat([x @ x.T, x @ keys["keys"].T], 1) / 0.1
    positive = (labels[:, None] == torch.cat([labels, keys["key_labels"]])).fill_diagonal_(False)
    lse = s.clone().fill_diagonal_(-torch.inf).logsumexp(1)
    dense = (lse - (s * positive).sum(1) / positive.sum(1)).mean()
    fused = supervised_contrastive_loss(features[:, None], labels, **keys, temperature=0.1)
torch.testing.assert_close(fused, dense, rtol=1e-4, atol=1e-5)
print(f"fused {fused:.4f}, dense {dense:.4f}")
