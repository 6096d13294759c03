"""Loaders that hold one iterator over a sampler without an end, to keep their workers from epoch to epoch.

timm's ``MultiEpochsDataLoader`` and Ultralytics' ``InfiniteDataLoader`` are such: a subclass of `DataLoader`
that puts a sampler which repeats another for ever in the place of its batch sampler, and takes ``len(self)``
batches of it per epoch. What they repeat is an ordinary sampler, so the session takes that and leaves their
iterator alone; its own workers live on from epoch to epoch.
"""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader, IterableDataset, Sampler

from trainerd.training.data.drawing import known_length
from trainerd.training.data.loader_view import LoaderView, view_of


def unrepeated(loader: Any) -> LoaderView | None:
    """Return the parts of such a loader, with the sampler that it repeats; None if it is none."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    repeat = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    inner = getattr(repeat, "sampler", None)
    has_iterator = any(vars(loader).get(name) is not None for name in _ITERATORS)
    is_repeat = not isinstance(repeat, Sampler) and set(getattr(repeat, "__dict__", {})) == {"sampler"}
    if inner is None or not is_repeat or not has_iterator or known_length(loader) != known_length(inner):
        return None
    others = {"persistent_workers": loader.num_workers > 0}
    if loader.batch_sampler is not None:
        return view_of(loader, batch_sampler=inner, **others)
    return view_of(loader, sampler=inner, **others)


_ITERATORS = ("iterator", "_iterator")
