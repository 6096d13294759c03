"""torch.distributed.checkpoint: a storage writer and reader with atomic checkpoints and digests."""

from __future__ import annotations

from trainerd.training.integrations.dcp_storage import StoreReader, StoreWriter, remove_unfinished, verify

__all__ = ["StoreReader", "StoreWriter", "remove_unfinished", "verify"]
