"""Waiting for a worker's batch, in a way that a drain can end.

The iterator of a loader with workers returns when the batch is there, and cannot be asked to return earlier.
There are two ways around that:

* torch's iterator waits in its method `_try_get_data`, for a few seconds at a time, to see whether its
  workers live. Asked for less time at once, the drain flag can be read in between. The method is private.
* Where torch has no such method, or the method takes no timeout, a thread fetches the batch and this one
  waits for it. That uses nothing but ``next``, and costs a thread for every batch.
"""

from __future__ import annotations

import inspect
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, Final

POLL_S: Final = 0.2
"""How often a wait for a worker's batch reads the drain flag, in seconds."""
_LIVENESS_CHECK_S: Final = 5.0  # torch's own default for one such wait


class WaitInterruptedError(Exception):
    """A drain was asked for while waiting for a batch. Never leaves the package."""


def interruptible(iterator: Iterator[Any], is_draining: Callable[[], bool]) -> Iterator[Any]:
    """Return the batches of `iterator`, which come from workers.

    The wait for a batch raises `WaitInterruptedError` once `is_draining` is true.
    """
    plain_wait = getattr(type(iterator), "_try_get_data", None)
    if plain_wait is None or not _takes_timeout(plain_wait):
        return _FetchedByThreads(iterator, is_draining)
    if "_try_get_data" not in vars(iterator):  # an iterator of persistent workers comes back each epoch
        _watch_flag_in(iterator, plain_wait, is_draining)
    return iterator


def _takes_timeout(plain_wait: Callable[..., Any]) -> bool:
    try:
        inspect.signature(plain_wait).bind(None, timeout=POLL_S)
    except (TypeError, ValueError):
        return False
    return True


def _watch_flag_in(iterator: Any, plain_wait: Callable[..., Any], is_draining: Callable[[], bool]) -> None:
    # Not a bound method: that would keep the iterator, and with it its workers, alive until the next
    # collection of cycles.
    iterator_reference = weakref.ref(iterator)

    def watched_wait(timeout: float = _LIVENESS_CHECK_S) -> Any:
        deadline_s = time.monotonic() + timeout
        while True:
            left_s = deadline_s - time.monotonic()
            answer = plain_wait(iterator_reference(), timeout=max(min(left_s, POLL_S), 0.0))
            if answer[0] or left_s <= POLL_S:
                return answer
            if is_draining():
                raise WaitInterruptedError

    iterator._try_get_data = watched_wait  # noqa: SLF001 - see above; without it, `_FetchedByThreads`


class _FetchedByThreads(Iterator[Any]):
    """Batches of an iterator, each fetched by a thread while the caller waits.

    Invariants:
        At most one thread uses the iterator. After an interrupted wait it goes on, and the next wait is for
        the same batch.
    """

    def __init__(self, iterator: Iterator[Any], is_draining: Callable[[], bool]) -> None:
        self._iterator = iterator
        self._is_draining = is_draining
        self._in_flight: futures.Future[Any] | None = None

    def __next__(self) -> Any:
        if self._in_flight is None:
            self._in_flight = futures.Future()
            threading.Thread(
                target=_fetch,
                args=(self._iterator, self._in_flight),
                name="trainerd-batch",
                daemon=True,  # a worker that is stuck must not hold up the end of the process
            ).start()
        while not futures.wait([self._in_flight], timeout=POLL_S).done:
            if self._is_draining():
                raise WaitInterruptedError
        fetched, self._in_flight = self._in_flight, None
        try:
            if (batch := fetched.result()) is _END:
                raise StopIteration
            return batch
        finally:
            del fetched  # see `_fetch`


_END: Final = object()


def _fetch(iterator: Iterator[Any], fetched: futures.Future[Any]) -> None:
    try:
        fetched.set_result(next(iterator, _END))
    except BaseException as error:  # noqa: BLE001 - raised where the batch is waited for
        fetched.set_exception(error)
    finally:
        # The traceback of an error keeps this frame. What it names would be in a cycle with it, and an
        # iterator that is collected with a cycle cannot tell its workers to end: their queues are closed
        # before it.
        del iterator, fetched
