"""The loader inside a prepared one of Accelerate, as a session reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelerate.data_loader import (
    BatchSamplerShard,
    DataLoaderDispatcher,
    DataLoaderShard,
    SkipBatchSampler,
)
from torch.utils.data import DataLoader

from trainerd.errors import UserError
from trainerd.training.data.loader_view import view_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_prepared(loader: Any) -> bool:
    """Tell whether a loader comes from ``accelerator.prepare``."""
    return issubclass(type(loader), DataLoaderShard | DataLoaderDispatcher)


def loader_within(prepared: Any) -> Any:
    """Return the loader inside a prepared one, with the share of this rank as Accelerate deals it.

    Raises:
        UserError: It skips batches, one rank reads for all, or the ranks get different numbers of batches.
    """
    loader = prepared.base_dataloader
    shard = getattr(loader, "batch_sampler", None)
    if prepared.skip_batches or isinstance(shard, SkipBatchSampler):
        raise UserError(
            "session.batches got what skip_first_batches returned: a resume would skip its batches twice",
            hint="pass the prepared loader itself: session.batches begins at the batch that comes next",
        )
    if issubclass(type(prepared), DataLoaderDispatcher) and prepared.state.num_processes > 1:
        raise UserError(
            "dispatch_batches=True: rank 0 reads for all ranks, which a session cannot resume exactly",
            hint="Accelerator(dataloader_config=DataLoaderConfiguration(dispatch_batches=False))",
        )
    if not isinstance(shard, BatchSamplerShard):
        return loader
    if not shard.even_batches and not shard.drop_last:
        raise UserError(
            "even_batches=False: ranks get different numbers of batches, and could not stop together",
            hint="leave even_batches out, or make the loader with drop_last=True",
        )
    view = view_of(loader)
    return DataLoader(
        view.dataset,
        batch_sampler=AcceleratedShard(shard),
        collate_fn=view.collate_fn,
        num_workers=loader.num_workers,
        pin_memory=view.pin_memory,
        timeout=view.timeout,
        worker_init_fn=view.worker_init_fn,
        multiprocessing_context=view.multiprocessing_context,
        prefetch_factor=view.prefetch_factor,
        persistent_workers=view.persistent_workers,
    )


class AcceleratedShard:
    """A batch sampler that says for which rank it was made: the session does not deal its batches again.

    Args:
        shard: Accelerate's batch sampler of one rank.
    """

    def __init__(self, shard: Any) -> None:
        self._shard = shard
        self.rank: int = shard.process_index
        self.num_replicas: int = shard.num_processes
        self.batch_size: int | None = shard.batch_size
        self.drop_last: bool = shard.drop_last

    def __len__(self) -> int:
        return len(self._shard)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._shard)

    def set_epoch(self, epoch: int) -> None:
        """Tell the samplers inside the epoch."""
        batches: Any = self._shard.batch_sampler
        for each in (batches, getattr(batches, "sampler", batches)):
            if hasattr(each, "set_epoch"):
                each.set_epoch(epoch)
