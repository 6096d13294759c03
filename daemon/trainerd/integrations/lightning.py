"""Lightning, also as ``pytorch_lightning``: a `Trainer` that resumes, and checkpoint files that are durable.

`TrainerdCallback` makes a trainer resumable, `StoreCheckpointIO` writes the files of `ModelCheckpoint`.
"""

from __future__ import annotations

from trainerd.training.integrations.lightning_checkpoint_io import StoreCheckpointIO
from trainerd.training.integrations.lightning_trainer import TrainerdCallback

__all__ = ["StoreCheckpointIO", "TrainerdCallback"]
