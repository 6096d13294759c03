"""Where batches come from: a source gives the batches of an epoch from any position on.

=======================  ===========================================================================
what the user passes     how it is resumed
=======================  ===========================================================================
stock map-style loader   `MapSource`: order and sample randomness are functions of (seed, epoch,
                         batch), so it begins at the batch, and loads nothing to skip it. An order
                         that is not is saved
torchdata's, of a        the same, unless its dataset, collate function or sampler has a state of its
map-style dataset        own
torchdata's, of a        as any other iterable
stream without a state
has ``state_dict``       `StatefulSource`: through its own state
`ToldLoader`             as the loader within
any other iterable       `IterableSource`: skipped by consumption, said once
=======================  ===========================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torch.utils.data import DataLoader, IterableDataset

from trainerd.training.data.exact_loader import ExactLoader
from trainerd.training.data.iterable_source import IterableSource
from trainerd.training.data.loader_view import view_of
from trainerd.training.data.map_source import MapSource
from trainerd.training.data.passes import Pass, Source
from trainerd.training.data.repeating import unrepeated
from trainerd.training.data.stateful_source import StatefulSource
from trainerd.training.data.stream_loader import reseeded_loader
from trainerd.training.data.told_loader import ToldLoader, ToldSource
from trainerd.training.data.torchdata_loaders import (
    has_state_of_torchdata_alone,
    is_stateless_stream_of_torchdata,
    is_torchdata_loader,
)
from trainerd.training.state.rng import isolated_cpu_generators

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.contract.verdict import Reason
    from trainerd.training.data.dataset_memory import FirstMarks

__all__ = ["IterableSource", "MapSource", "Pass", "Source", "StatefulSource", "is_stock", "source_for"]


def _ignored(reason: Reason) -> None:
    del reason


def source_for(
    loader: Any,
    *,
    seed: int,
    warn: Callable[[str], None],
    suspect: Callable[[Reason], None] = _ignored,
    first: FirstMarks | None = None,
) -> Source:
    """Return the source for what the user passed to ``session.batches``.

    Args:
        loader: A `DataLoader`, something with a ``state_dict``, or any iterable that can be begun again.
        seed: Of the session.
        warn: Says something to the user once.
        suspect: Takes in a known cause of inexactness.
        first: What the run has seen of datasets before.
    """

    def of_iterable(iterable: Any, *, is_copy: bool = False) -> Source:
        return IterableSource(iterable, seed=seed, warn=warn, suspect=suspect, is_copy=is_copy, first=first)

    if isinstance(loader, ToldLoader):
        within = source_for(loader.loader, seed=seed, warn=warn, suspect=suspect, first=first)
        return ToldSource(within, loader.listener)
    if isinstance(loader, ExactLoader):
        return MapSource(loader.source_view, seed=seed, suspect=suspect, first=first)
    if has_state_of_torchdata_alone(loader):
        return MapSource(view_of(loader), seed=seed, suspect=suspect, is_sharded_here=False, first=first)
    if is_stateless_stream_of_torchdata(loader):
        return of_iterable(reseeded_loader(loader), is_copy=True)
    if _has_state(loader):
        return StatefulSource(loader, seed=seed, suspect=suspect, first=first)
    if is_stock(loader):
        if not isinstance(loader.dataset, IterableDataset):
            return MapSource(view_of(loader), seed=seed, suspect=suspect, first=first)
        return of_iterable(reseeded_loader(loader), is_copy=True)
    if (view := unrepeated(loader)) is not None:
        return MapSource(view, seed=seed, suspect=suspect, first=first)
    return of_iterable(loader)


def is_stock(loader: Any) -> bool:
    """Tell whether a loader is iterated over as torch does it."""
    return isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__


def _has_state(loader: Any) -> bool:
    if not (hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")):
        return False
    if isinstance(getattr(loader, "use_stateful_dataloader", None), bool):
        # Accelerate's loaders fetch a batch ahead, and more at their beginning than later: begun at their
        # state they draw other random numbers for a batch than they did, even if that is a torchdata state.
        return False
    if not isinstance(loader, DataLoader) or is_torchdata_loader(loader):
        return True  # not asked for its state here: that may begin it
    try:
        with isolated_cpu_generators(0):
            cast("Any", loader).state_dict()
    except AttributeError:
        return False
    return True
