"""Loaders of torchdata whose only state is their position, which the session knows better.

A ``StatefulDataLoader`` over a map-style dataset that has no state itself saves how far it is and what its
sampler's generator was. A sampler of one's own is begun twice when that is loaded, so that one which draws in
its ``__iter__`` yields another order; workers that persist are begun at another moment than in an undisturbed
run. Taken for what it is, an order and a dataset, it is resumed as a stock loader is. Of what is resumed
through its own state, the known causes of inexactness are named.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any, Final

from torch.utils.data import DistributedSampler, IterableDataset, SequentialSampler

from trainerd.contract.verdict import Reason
from trainerd.training.state.rng import isolated_cpu_generators

_LOADER: Final = "torchdata.stateful_dataloader.stateful_dataloader"
_NODES: Final = "torchdata.nodes"
_DEPTH_MAX: Final = 16


def has_state_of_torchdata_alone(loader: Any) -> bool:
    """Tell whether this is torchdata's loader over parts that have no state of their own."""
    if not _is_stateful_data_loader(type(loader)) or isinstance(loader.dataset, IterableDataset):
        return False
    batches, samples = loader.batch_sampler, loader.sampler
    parts = (loader.dataset, loader.collate_fn, batches, samples, getattr(batches, "sampler", None))
    return not any(hasattr(each, "state_dict") for each in parts)


def is_stateless_stream_of_torchdata(loader: Any) -> bool:
    """Tell whether this is torchdata's loader over an iterable dataset that has no state.

    It skips what was yielded, as we do. Its state after a resume counts that twice (torchdata 0.11): a second
    resume would skip batches that nothing has trained on.
    """
    if not _is_stateful_data_loader(type(loader)) or not isinstance(loader.dataset, IterableDataset):
        return False
    dataset = loader.dataset
    is_stateless = not any(hasattr(each, "state_dict") for each in (dataset, loader.collate_fn))
    # An iterator of a class of its own may have a state.
    return is_stateless and inspect.isgeneratorfunction(type(dataset).__iter__)


def reasons_of_torchdata(loader: Any) -> Iterator[Reason]:
    """Yield why a loader of torchdata that is resumed through its own state may not be exact."""
    name = f"{type(loader).__module__}.{type(loader).__qualname__}"
    if type(loader).__module__.startswith(_NODES):
        parts = list(_parts_of(loader, set(), 0))
        if any(_is_in_thread(each) for each in parts) and any(_may_draw(each) for each in parts):
            yield Reason(
                "draws-in-threads",
                name,
                "its nodes load in threads: they draw from the generators that training draws from",
                "draw from a generator made for each sample, or load without Prefetcher and ParallelMapper",
            )
    elif is_torchdata_loader(loader):
        if loader.num_workers > 0 and loader.persistent_workers:
            yield Reason(
                "workers-persist",
                name,
                "its workers live on from pass to pass, and a resumed pass begins them again",
                "persistent_workers=False",
            )
        sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
        if not isinstance(loader.dataset, IterableDataset) and _has_no_state(sampler):
            yield Reason(
                "sampler-without-state",
                name,
                f"its {type(sampler).__qualname__} has no state: a resumed pass may draw another order",
                "shuffle=True, or a sampler with state_dict and load_state_dict",
            )


def is_torchdata_loader(loader: Any) -> bool:
    """Tell whether this is a ``StatefulDataLoader``, or of a class derived from it."""
    return any(map(_is_stateful_data_loader, type(loader).__mro__))


def is_loader_of_nodes(loader: Any) -> bool:
    """Tell whether this is a ``torchdata.nodes.Loader``."""
    return type(loader).__module__ == "torchdata.nodes.loader"


def is_used_loader_of_nodes(loader: Any, state: Any) -> bool:
    """Tell whether this is a ``torchdata.nodes.Loader`` whose state is that of a pass which has begun."""
    return is_loader_of_nodes(loader) and isinstance(state, dict) and bool(state.get("num_yielded"))


def end_former_pass(loader: Any, state: dict[str, Any]) -> None:
    """Put a ``torchdata.nodes.Loader`` where it is after a pass that came to its end, or was left early.

    From its state alone it would go on in a pass that was left, and look for the next batch of one that is
    over, which draws. So that is done here, and the next ``iter`` begins a pass as in an undisturbed run. It
    is asked for a batch: its nodes count a pass only then. Its own search for one would leave a state behind
    that it returns as its own for all of the next pass.
    """
    loader.load_state_dict(state)
    with restarting(loader, is_on=False), isolated_cpu_generators(0):
        next(iter(loader), None)


@contextlib.contextmanager
def restarting(loader: Any, *, is_on: bool) -> Iterator[None]:
    """Set whether the ``iter`` of a ``torchdata.nodes.Loader`` looks for a batch after its state was loaded.

    Within a pass that draws for the batch from another stream than an undisturbed pass, and where nothing is
    left it begins another pass, which is for the loop to do.
    """
    flag = getattr(loader, "restart_on_stop_iteration", None)
    if not isinstance(flag, bool):
        yield
        return
    loader.restart_on_stop_iteration = is_on
    try:
        yield
    finally:
        loader.restart_on_stop_iteration = flag


def _is_stateful_data_loader(kind: type) -> bool:
    return kind.__module__ == _LOADER and kind.__name__ == "StatefulDataLoader"


def _has_no_state(sampler: Any) -> bool:
    is_torchdatas = type(sampler).__module__.startswith("torchdata.")
    is_fixed = isinstance(sampler, SequentialSampler | DistributedSampler)
    return not (is_torchdatas or is_fixed or hasattr(sampler, "state_dict"))


def _is_in_thread(node: Any) -> bool:
    is_in_line = getattr(node, "num_workers", 1) == 0
    return type(node).__name__ == "Prefetcher" or (
        getattr(node, "method", None) == "thread" and not is_in_line
    )


def _may_draw(node: Any) -> bool:
    """Tell whether a node calls a function of the user's, which may draw."""
    function = getattr(node, "map_fn", None)
    return function is not None and not str(getattr(function, "__module__", "")).startswith(
        ("torch", "_operator")
    )


def _parts_of(value: Any, seen: set[int], depth: int) -> Iterator[Any]:
    """Yield the loader and the nodes of torchdata below it."""
    if id(value) in seen or depth > _DEPTH_MAX or not str(type(value).__module__).startswith(_NODES):
        return
    seen.add(id(value))
    yield value
    for each in list(vars(value).values()):
        items = each.values() if isinstance(each, dict) else each if isinstance(each, list) else (each,)
        for item in items:
            yield from _parts_of(item, seen, depth + 1)
