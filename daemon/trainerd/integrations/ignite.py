"""PyTorch-Ignite: `attach` makes a trainer resumable, `StoreSaver` writes durable checkpoints."""

from __future__ import annotations

from trainerd.training.integrations.ignite_saver import StoreSaver
from trainerd.training.integrations.ignite_trainer import attach

__all__ = ["StoreSaver", "attach"]
