"""What the jobs with Lightning share: the package that ``PACKAGE`` names, a model, a callback with state."""

from __future__ import annotations

import importlib
import os

import torch

from tests.support.lightning_packages import import_torchvision_first

import_torchvision_first()
pl = importlib.import_module(os.environ.get("PACKAGE", "lightning.pytorch"))

from torchmetrics import MeanSquaredError  # noqa: E402


class Model(pl.LightningModule):  # type: ignore[misc, name-defined]
    """Two layers with dropout, whose error over an epoch is a metric of torchmetrics."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
        self.error = MeanSquaredError()

    def logged_loss(self, batch, **options):
        """Return the loss of a training step, logged with these options."""
        found = self.net(batch)
        loss = (found - 1).square().mean()
        self.error(found, torch.ones_like(found))
        self.log("error", self.error, on_step=False, on_epoch=True)
        self.log("loss", loss, on_step=True, on_epoch=True, **options)
        return loss

    def log_validation(self, batch, **options) -> None:
        """Log the loss of a step of a validation."""
        self.log("valid", (self.net(batch) - 1).square().mean(), **options)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 0.01)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "valid"}}


class Epochs(pl.Callback):  # type: ignore[misc, name-defined]
    """Keeps the metrics of each epoch, bit for bit."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_end(self, trainer, pl_module):
        values = {name: float(value).hex() for name, value in sorted(trainer.callback_metrics.items())}
        self.seen.append([trainer.current_epoch, values])

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]
