"""The loss in a LightningModule, with a learned temperature: a parameter of the criterion, so of the module."""

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader, TensorDataset

from semicl_kernels import LocalContrastiveLoss

CLASSES, CHANNELS = 3, 16


class ContrastiveSegmentation(lightning.LightningModule):
    """Segmentation (N, classes, H, W) of images (N, 1, H, W), trained with cross entropy and contrast."""

    def __init__(self, weight: float = 0.1) -> None:
        super().__init__()
        self.weight = weight
        self.backbone = nn.Sequential(
            nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.Conv2d(32, 32, 5, padding=2), nn.ReLU()
        )
        self.head, self.projection = nn.Conv2d(32, CLASSES, 1), nn.Conv2d(32, CHANNELS, 1)
        self.criterion = LocalContrastiveLoss(temperature=nn.Parameter(torch.tensor(0.1)))

    def training_step(self, batch: list[Tensor]) -> Tensor:
        images, labels = batch
        hidden = self.backbone(images)
        contrast = self.criterion(self.projection(hidden)[:, None], labels[:, None])  # one view of each image
        loss = cross_entropy(self.head(hidden), labels) + self.weight * contrast
        self.log_dict({"loss": loss, "temperature": self.criterion.temperature.detach()}, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def cases(count: int) -> TensorDataset:
    """Images (count, 1, 32, 32) of a bright and a dark square in noise, labels (count, 32, 32)."""
    labels = torch.zeros(count, 32, 32, dtype=torch.long)
    for image in labels:
        top, left = torch.randint(2, 8, (2,)).tolist()
        image[top : top + 8, left : left + 8], image[top + 12 : top + 20, left + 10 : left + 18] = 1, 2
    return TensorDataset((torch.tensor([0.0, 1.0, -1.0])[labels] + 0.7 * torch.randn(labels.shape))[:, None], labels)


lightning.seed_everything(0, verbose=False)
module = ContrastiveSegmentation()
trainer = lightning.Trainer(
    max_epochs=2,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(module, DataLoader(cases(80), batch_size=4, shuffle=True))
temperature = module.criterion.temperature.detach()
print(f"loss {trainer.callback_metrics['loss']:.3f}, learned temperature {temperature:.4f}")
assert temperature != 0.1

# The same loss by the matrix of all pixels with all pixels.
images, labels = cases(2).tensors
with torch.no_grad():
    features = module.projection(module.backbone(images))
    x, y = normalize(features, dim=1).movedim(1, -1).reshape(-1, CHANNELS), labels.flatten()
    s = x @ x.T / temperature
    positive = (y[:, None] == y).fill_diagonal_(False)
    each = s.clone().fill_diagonal_(-torch.inf).logsumexp(1) - (s * positive).sum(1) / positive.sum(1)
    dense = each[y > 0].mean()
    fused = module.criterion(features[:, None], labels[:, None])
torch.testing.assert_close(fused, dense, rtol=1e-4, atol=1e-5)
print(f"fused {fused:.4f}, dense {dense:.4f}")
