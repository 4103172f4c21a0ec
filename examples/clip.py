"""InfoNCE over two towers, as CLIP (Radford et al., 2021): images against texts and back, without the matrix."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from semicl_kernels import grouped_logsumexp

torch.manual_seed(0)
image_tower, text_tower = nn.Linear(20, 16), nn.Linear(12, 16)
optimizer = torch.optim.Adam([*image_tower.parameters(), *text_tower.parameters()], lr=1e-2)
SCALE = 1 / 0.07


def clip_loss(images: Tensor, texts: Tensor) -> Tensor:
    """Of N images and N texts of unit length, (N, C) each; row i of both belong together."""
    count = len(images)
    first, last = (torch.tensor([number], dtype=torch.int32) for number in (0, count))
    nothing = torch.zeros(count, dtype=torch.int32)  # no row skips a key
    groups = {"offsets": torch.cat([first, last]), "anchors": last, "skip_begin": nothing, "skip_end": nothing}
    options = {**groups, "key_begin": first, "key_end": last, "scale": SCALE}
    lse = grouped_logsumexp(images, keys=texts, **options) + grouped_logsumexp(texts, keys=images, **options)
    return (lse / 2 - SCALE * (images * texts).sum(1)).mean()


for step in range(40):
    shared = torch.randn(128, 4)
    images, texts = (torch.cat([shared, 0.1 * torch.randn(128, extra)], 1) for extra in (16, 8))
    pair = normalize(image_tower(images), dim=1), normalize(text_tower(texts), dim=1)
    loss = clip_loss(*pair)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 9:
        print(f"step {step + 1}: loss {loss.item():.3f}")

s, target = SCALE * pair[0] @ pair[1].T, torch.arange(128)
dense = (cross_entropy(s, target) + cross_entropy(s.T, target)) / 2
torch.testing.assert_close(loss, dense, rtol=1e-4, atol=1e-5)
print(f"fused {loss.item():.4f}, dense {dense.item():.4f}")
