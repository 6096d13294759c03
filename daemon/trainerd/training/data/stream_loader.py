"""A stock loader over an iterable dataset, copied so that the user's can be let go."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from trainerd.training.data.loader_view import view_of


def reseeded_loader(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Copy a stock loader over an iterable dataset, with a generator of our own and workers that live on."""
    view = view_of(loader)
    return DataLoader(
        view.dataset,
        batch_size=view.batch_size,
        drop_last=view.drop_last,
        collate_fn=view.collate_fn,
        num_workers=view.num_workers,
        pin_memory=view.pin_memory,
        generator=torch.Generator(),
        **view.worker_options(),
    )
