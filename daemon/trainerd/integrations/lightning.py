"""Lightning: `TrainerdCallback` makes a `Trainer` of ``lightning`` or ``pytorch_lightning`` resumable."""

from __future__ import annotations

from trainerd.training.integrations.lightning_trainer import TrainerdCallback

__all__ = ["TrainerdCallback"]
