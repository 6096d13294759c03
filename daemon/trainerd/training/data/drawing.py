"""Draws a sampler for an epoch: whole, if it has an end within reach, else lazily.

Invariants:
    A sampler is drawn on streams of its own: the global generators and those that it holds are seeded by the
    session for that time, and restored afterwards. So two attempts that draw the same sampler get
    the same order, unless it depends on something else, such as a file, the clock or the model.
    How much is drawn at once depends on the sampler and its data alone, never on when a checkpoint is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from trainerd.training.data.lazy_order import LazyOrder
from trainerd.training.data.own_streams import OwnStreams
from trainerd.training.data.packed_order import ObjectOrder, PackedOrder, packed

LISTED_MAX: Final = 1 << 25
"""A sampler that says to have more samples than this is drawn lazily."""
_SPARE: Final = 1000


def drawn(
    sampler: Any, inner: Any, streams: OwnStreams, *, seed: int, samples: int | None
) -> PackedOrder | ObjectOrder | LazyOrder:
    """Return what a sampler yields.

    Args:
        sampler: Yields batches, or indices where there is no batching.
        inner: The sampler that it draws from, or itself.
        streams: What both draw from.
        seed: Of this epoch's order.
        samples: Length of the dataset, if it has one. A sampler that goes on for more than twice of what it,
            or this, says, is taken for one that does not end.
    """
    length = known_length(sampler)
    claimed = max(
        (length or 0) * _batch_size(sampler), (known_length(inner) or 0) if inner is not sampler else 0
    )
    if claimed > LISTED_MAX:
        return LazyOrder(sampler, streams, seed, length=length)
    limited = _Limited(min(2 * max(claimed, samples or 0) + _SPARE, 2 * LISTED_MAX))
    streams.begin(seed)
    try:
        order = packed(limited.of(sampler))
    finally:
        streams.end()
    return LazyOrder(sampler, streams, seed, length=None) if limited.is_cut else order


def known_length(sized: Any) -> int | None:
    """Return the length of something, None if it has none that can be used."""
    try:
        return len(sized)
    except (TypeError, NotImplementedError, AttributeError, OverflowError, ValueError):
        return None


def _batch_size(sampler: Any) -> int:
    size = getattr(sampler, "batch_size", 1)
    return size if type(size) is int and size > 0 else 1


class _Limited:
    """The batches of a sampler, up to a number of samples.

    Attributes:
        is_cut: Whether it had more.
    """

    def __init__(self, samples_max: int) -> None:
        self.is_cut = False
        self._left = samples_max

    def of(self, sampler: Any) -> Iterator[Any]:
        for batch in sampler:
            self._left -= max(len(batch), 1) if isinstance(batch, list | tuple) else 1
            if self._left < 0:
                self.is_cut = True
                return
            yield batch
