"""Which datasets are known to draw no random numbers, so that nothing has to be kept from what they draw.

Only torch's own, over plain tensors and collated by torch's own function, are known. Anything with code of a
user's in it may draw.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import (
    ConcatDataset,
    StackDataset,
    Subset,
    TensorDataset,
    default_collate,
    default_convert,
)


def draws_nothing(dataset: Any, collate: Any) -> bool:
    """Tell whether fetching from `dataset` and collating by `collate` is known to draw no random number."""
    is_torchs = collate is default_collate or collate is default_convert
    return is_torchs and _is_pure(dataset)


def _is_pure(dataset: Any) -> bool:
    kind = type(dataset)
    if kind is TensorDataset:
        return all(type(tensor) is torch.Tensor for tensor in dataset.tensors)
    if kind is Subset:
        return _is_pure(dataset.dataset)
    if kind is ConcatDataset:
        return all(map(_is_pure, dataset.datasets))
    if kind is StackDataset:
        parts = dataset.datasets
        return all(map(_is_pure, parts.values() if isinstance(parts, dict) else parts))
    return False
