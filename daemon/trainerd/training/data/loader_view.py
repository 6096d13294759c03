"""What the session needs of a stock loader, without the loader: so that it can be let go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader

from trainerd.training.data.worker_count import rehearsed_workers
from trainerd.training.data.workers import WorkerStart

_FIELDS = (
    "dataset",
    "batch_size",
    "num_workers",
    "prefetch_factor",
    "pin_memory",
    "pin_memory_device",
    "timeout",
    "sampler",
    "batch_sampler",
    "generator",
    "collate_fn",
    "persistent_workers",
    "worker_init_fn",
    "drop_last",
)


@dataclass(frozen=True)
class LoaderView:
    """The parts of a loader under the names that it has for them; see `torch.utils.data.DataLoader`."""

    dataset: Any
    batch_size: int | None
    num_workers: int
    prefetch_factor: int | None
    pin_memory: bool
    pin_memory_device: str
    timeout: float
    sampler: Any
    batch_sampler: Any
    generator: Any
    collate_fn: Callable[[Any], Any]
    persistent_workers: bool
    worker_init_fn: Callable[[int], None] | None
    drop_last: bool
    multiprocessing_context: Any
    in_order: bool = True

    def worker_options(self) -> dict[str, Any]:
        """Return the options of a loader with the same workers."""
        if self.num_workers == 0:
            return {}
        return {
            "prefetch_factor": self.prefetch_factor,
            "persistent_workers": self.persistent_workers,
            "multiprocessing_context": self.multiprocessing_context,
            "worker_init_fn": WorkerStart(self.worker_init_fn, self.dataset),
            "timeout": self.timeout,
        }


def view_of(loader: DataLoader[Any], **others: Any) -> LoaderView:
    """Return the view of a loader, with some parts replaced by others."""
    fields = {name: getattr(loader, name, None) for name in _FIELDS}
    fields["multiprocessing_context"] = loader.multiprocessing_context
    fields["num_workers"] = rehearsed_workers(loader.num_workers)
    return LoaderView(**{**fields, **others})
