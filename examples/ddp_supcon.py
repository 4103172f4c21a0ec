"""SupCon over the batch of all processes: torchrun --nproc-per-node 2 examples/ddp_supcon.py"""

import gc

import torch
from torch import distributed, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from semicl_kernels import SupervisedContrastiveLoss

distributed.init_process_group("gloo")  # "nccl" on GPUs
rank, world = distributed.get_rank(), distributed.get_world_size()
torch.manual_seed(0)
encoder = DistributedDataParallel(nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16)))
criterion = SupervisedContrastiveLoss(temperature=0.1, process_group=distributed.group.WORLD)
optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
centers = torch.randn(5, 8)

for step in range(20):
    labels = torch.randint(0, 5, (64,))
    samples = centers[labels] + 0.5 * torch.randn(64, 8)
    own = slice(rank * 64 // world, (rank + 1) * 64 // world)  # this process's part of the batch
    loss = criterion(encoder(samples[own])[:, None], labels[own])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if rank == 0 and step % 5 == 4:
        print(f"step {step + 1}: loss {loss.item():.3f}")

# The same by the matrix of the whole batch.
with torch.no_grad():
    fused = criterion(encoder(samples[own])[:, None], labels[own])
    x = normalize(encoder.module(samples), dim=1)
    s = x @ x.T / 0.1
    positive = (labels[:, None] == labels).fill_diagonal_(False)
    lse = s.clone().fill_diagonal_(-torch.inf).logsumexp(1)
    dense = (lse - (s * positive).sum(1) / positive.sum(1))[positive.any(1)].mean()
torch.testing.assert_close(fused, dense, rtol=1e-4, atol=1e-5)
if rank == 0:
    print(f"fused {fused:.4f}, dense {dense:.4f}")
del encoder, criterion, optimizer, loss  # what holds the group; else gloo may abort the process as it exits
gc.collect()
distributed.destroy_process_group()
