"""Plain loaders that a script draws from beside its loop: their position is in no checkpoint."""

from __future__ import annotations

import weakref
from typing import Any

from torch.utils.data import dataloader

from trainerd.contract.verdict import Reason
from trainerd.training.state.live_objects import live_instances


class LoadersBeside:
    """The iterators of loaders that are there at one boundary, so that those which go on can be told."""

    def __init__(self) -> None:
        kind = getattr(dataloader, "_BaseDataLoaderIter", None)
        found = [] if kind is None else live_instances(lambda each: issubclass(each, kind))
        self._before = [
            (weakref.ref(each), each._num_yielded)  # noqa: SLF001 - the only thing that shows whether it goes on
            for each in found
            if not _is_of_session(each)
        ]

    def reasons(self) -> list[Reason]:
        """Return one reason for each iterator that has yielded since: its next batch is not restored."""
        gone_on = [
            iterator
            for reference, before in self._before
            if (iterator := reference()) is not None and iterator._num_yielded > before  # noqa: SLF001 - as above
        ]
        return [
            Reason(
                "loader-beside",
                type(getattr(each, "_dataset", None)).__qualname__,
                "a loader is iterated over beside the session's loop, and begins again in every attempt",
                "draw from both in step: for a, b in session.batches(loader, other)",
            )
            for each in gone_on
        ]


def _is_of_session(iterator: Any) -> bool:
    """Tell whether the session iterates here, or something that it iterates over."""
    dataset = getattr(iterator, "_dataset", None)
    is_ours = type(dataset).__module__.startswith("trainerd.")
    return is_ours or getattr(iterator, "begun_by_trainerd", False)
