"""Loaders of a Lightning trainer that begin an epoch at any batch, each batch a function of its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from trainerd.training.data.drawing import known_length

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trainerd.training.data.exact_loader import ExactLoader
    from trainerd.training.data.feed import Feed
    from trainerd.training.data.pass_memory import PassMemory

    Place = Callable[[], tuple[int, int]]

_NEXT_PASS: Final = 1 << 32
"""From the epoch number of one pass over a loader to that of the next one within the same epoch."""

_AFTER: Final = "after_pass"


def as_it_is(thing: Any) -> Any:
    """Stand for a loader of this file, or another part of a protected trainer, when that is copied.

    ``torch.save(model)`` copies the trainer of the model, for example. The copy has what was replaced, since
    neither the run nor the place of the trainer in it is the copy's.
    """
    return thing


class EpochLoader:
    """An exact loader whose passes begin where the trainer is.

    Everything else is the loader's own.

    Args:
        loader: The loader.
        place: Tells the epoch that begins, and how many of its batches are done.
        memory: What its sampler and its dataset remember.
        is_made_for: Tells whether the trainer asks the program for a loader of its own for an epoch.
        is_cycled: Whether it is begun again within an epoch, when a longer one beside it goes on.
    """

    def __init__(
        self,
        loader: ExactLoader,
        place: Place,
        *,
        memory: PassMemory,
        is_made_for: Callable[[int], bool],
        is_cycled: bool,
    ) -> None:
        self.loader = loader
        self.memory = memory
        self._is_made_for = is_made_for
        self._place = place
        self._is_cycled = is_cycled
        self._epoch = -1
        self._number = self._first = 0
        self._has_fetched = False

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        epoch, batch = self._place()
        if epoch != self._epoch or not self._has_fetched:
            length = max(len(self), 1)
            self._epoch = epoch
            self._number, self._first = divmod(batch, length) if self._is_cycled else (0, min(batch, length))
        else:
            self._number, self._first = self._number + 1, 0
        self._has_fetched = False
        is_new = self._number == 0 and self._is_made_for(epoch)
        return self._batches(self._epoch + self._number * _NEXT_PASS, self._first, is_new=is_new)

    def _batches(self, epoch: int, first: int, *, is_new: bool) -> Iterator[Any]:
        # Only now: Lightning sets the epoch of samplers after it has made the iterator.
        self._has_fetched = True
        self.loader.begin_at(epoch, first)
        yield from self.memory.batches(epoch, is_new=is_new)

    @property
    def _iterator(self) -> Any:
        return self.loader._iterator  # noqa: SLF001 - Lightning shuts workers down through it

    @_iterator.setter
    def _iterator(self, value: Any) -> None:
        self.loader._iterator = value  # noqa: SLF001 - as above

    def __reduce__(self) -> tuple[Any, ...]:
        return as_it_is, (self.loader,)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "loader" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.__dict__["loader"], name)


class FeedLoader:
    """Any other loader, such as one of an iterable dataset: its position is state of the run.

    Args:
        feed: The stream over the loader.
        place: Tells the epoch that begins, and how many of its batches are done.
        is_fetched_ahead: Tells whether Lightning fetches one batch ahead to see the end: where neither the
            loader has a length nor the trainer a limit of batches.
    """

    def __init__(self, feed: Feed, place: Place, is_fetched_ahead: Callable[[], bool]) -> None:
        self.loader: Any = None
        self._is_fetched_ahead = is_fetched_ahead
        self._feed = feed
        self._place = place
        self._is_resumed = False
        self._before: dict[str, Any] | None = None
        self._after: dict[str, Any] | None = None

    def over(self, loader: Any) -> FeedLoader | SizedFeedLoader:
        """Return this, with the loader that it is to read."""
        self.loader = loader
        return SizedFeedLoader(self) if known_length(loader) is not None else self

    def __iter__(self) -> Iterator[Any]:
        _, batch = self._place()
        return self.batches(is_inside=batch > 0)

    def batches(self, *, is_inside: bool) -> Iterator[Any]:
        """Yield the batches of a pass."""
        was_over = self._is_resumed and not is_inside  # the pass of the checkpoint
        self._is_resumed = False
        if was_over and self._after is not None:
            self._feed.load_state_dict(self._after)
        self._after = None
        is_ahead = self._is_fetched_ahead()
        stream = self._feed.iterate(self.loader, is_next=was_over, is_ahead=is_ahead)
        while True:
            self._before = self._feed.state_dict() if is_ahead else None
            try:
                batch = next(stream)
            except StopIteration:
                self._after = self._feed.state_dict() if is_ahead else None
                return
            yield batch

    def __reduce__(self) -> tuple[Any, ...]:
        return as_it_is, (self.loader,)

    def state_dict(self) -> dict[str, Any]:
        """Return where the trainer is in the stream, and what that is once a pass was seen to be over."""
        state = self._feed.state_dict() if self._before is None else self._before
        return state if self._after is None else {**state, _AFTER: self._after}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._is_resumed = state["has_begun"]
        self._after = state.get(_AFTER)
        self._feed.load_state_dict(state)


class SizedFeedLoader:
    """A stream over a loader that has a length."""

    def __init__(self, stream: FeedLoader) -> None:
        self._stream = stream

    def __reduce__(self) -> tuple[Any, ...]:
        return as_it_is, (self._stream.loader,)

    def __len__(self) -> int:
        return len(self._stream.loader)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._stream)
