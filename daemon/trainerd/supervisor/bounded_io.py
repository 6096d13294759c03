"""Blocking calls in threads, so that a filesystem that hangs stops neither the event loop nor the other jobs.

Invariants: an observation that does not return within its limit is reported as not made, which says nothing
about what was to be observed. It is not started again while its thread still hangs. The number of threads
that hang is bounded; beyond it no observation is made. Threads are daemons, so none of them keeps the process
from ending.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import structlog

from trainerd.errors import TrainerdError, TryAgainError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

OBSERVATION_LIMIT_S: Final = 5.0
"""How long one observation may take before it counts as not made, in seconds."""

HUNG_MAX: Final = 64
"""How many observations may hang at once. Beyond that no other is started."""

ACTIVE_MAX: Final = 8
"""How many threads observe at once. Those that hang are not counted."""

K = TypeVar("K", bound="Hashable")
T = TypeVar("T")

_log = structlog.get_logger(__name__)


class NotObservedError(TryAgainError):
    """An observation did not return in time, or was not started because an earlier one still hangs."""


class BoundedIo:
    """Makes blocking calls for one event loop.

    Args:
        limit_s: How long an observation may take, in seconds.
        hung_max: How many may hang at once.
    """

    def __init__(self, *, limit_s: float = OBSERVATION_LIMIT_S, hung_max: int = HUNG_MAX) -> None:
        self._limit_s = limit_s
        self._hung_max = hung_max
        self._hung: set[Hashable] = set()
        self._turns = asyncio.Semaphore(ACTIVE_MAX)
        self._threads = DaemonThreads()
        self._acts: set[asyncio.Future[Any]] = set()

    @property
    def hung(self) -> frozenset[Hashable]:
        """Keys of the observations that hang now."""
        return frozenset(self._hung)

    async def observe(self, key: Hashable, call: Callable[[], T], *, limit_s: float | None = None) -> T:
        """Return what `call` returns.

        Args:
            key: What is observed, such as a run folder: nothing under this key is started while a call hangs.
            call: Blocks.
            limit_s: How long it may take, if not as long as any other.

        Raises:
            NotObservedError: It did not return in time, or was not started.
            Exception: What the call raised.
        """
        answers = await self._answers({key: call}, self._limit_s if limit_s is None else limit_s)
        if key not in answers:
            raise NotObservedError(f"{key} could not be observed: its filesystem does not answer")
        answer, error = answers[key]
        if error is not None:
            raise error
        return answer

    async def sweep(self, calls: Mapping[K, Callable[[], T]]) -> dict[K, T]:
        """Make many observations, one after the other, and return those that were made.

        What hangs is left out, and so is what raises `OSError` or an error of ours; the others are made all
        the same.
        """
        found = {}
        for key, (answer, error) in (await self._answers(calls, self._limit_s)).items():
            if error is None:
                found[key] = answer
            elif not isinstance(error, TrainerdError | OSError):
                raise error
        return found

    async def act(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, however long it takes.

        It changes something, and may not be made twice.
        """
        future = asyncio.get_running_loop().run_in_executor(self._threads, call)
        self._acts.add(future)
        future.add_done_callback(self._acts.discard)
        # The caller may be cancelled; the act goes on all the same.
        return await asyncio.shield(future)

    async def finish(self) -> None:
        """Wait, within the limit, for acts that go on although their callers were cancelled."""
        if self._acts:
            await asyncio.wait(tuple(self._acts), timeout=self._limit_s)

    async def _answers(
        self, calls: Mapping[K, Callable[[], T]], limit_s: float
    ) -> dict[K, tuple[T, Exception | None]]:
        answers: dict[K, tuple[T, Exception | None]] = {}
        pending = deque((key, call) for key, call in calls.items() if key not in self._hung)
        while pending and len(self._hung) < self._hung_max:
            observations = _Observations(pending, answers)
            async with self._turns:
                future = asyncio.get_running_loop().run_in_executor(self._threads, observations.make)
                while not future.done():
                    count = observations.count
                    await asyncio.wait({future}, timeout=limit_s)
                    if not future.done() and count == observations.count and observations.abandon():
                        break
            if not future.done():
                self._note_hung(observations.current, future)
            else:
                future.result()
        return answers

    def _note_hung(self, key: Hashable, future: asyncio.Future[None]) -> None:
        _log.warning("supervisor.filesystem-hangs", what=str(key), hung=len(self._hung) + 1)
        self._hung.add(key)

        def back(_future: asyncio.Future[None]) -> None:
            self._hung.discard(key)
            _log.info("supervisor.filesystem-answers", what=str(key), hung=len(self._hung))

        future.add_done_callback(back)


class _Observations(Generic[K, T]):
    """Observations that one thread makes, until it hangs in one and is abandoned.

    Args:
        pending: What is to be observed; another thread goes on with it when this one is abandoned.
        answers: Takes what was returned or raised.
    """

    def __init__(
        self,
        pending: deque[tuple[K, Callable[[], T]]],
        answers: dict[K, tuple[T, Exception | None]],
    ) -> None:
        self.current: K | None = None
        self.count = 0
        self._pending = pending
        self._answers = answers
        self._is_abandoned = False
        self._lock = threading.Lock()

    def make(self) -> None:
        """Make them. Called in a thread."""
        while (call := self._next()) is not None:
            answer: Any = None
            failure = None
            try:
                answer = call()
            except Exception as error:  # noqa: BLE001 - raised again where it was asked for
                failure = error
            if not self._keep(answer, failure):
                return

    def abandon(self) -> bool:
        """Give up the thread if it is in an observation: it makes no other. Called on the event loop."""
        with self._lock:
            self._is_abandoned = self.current is not None
            return self._is_abandoned

    def _next(self) -> Callable[[], T] | None:
        with self._lock:
            self.current = None
            if not self._pending:
                return None
            self.current, call = self._pending.popleft()
            return call

    def _keep(self, answer: T, error: Exception | None) -> bool:
        with self._lock:
            if self._is_abandoned or self.current is None:
                return False
            self._answers[self.current] = answer, error
            self.count += 1
            return True


class DaemonThreads(concurrent.futures.Executor):
    """A thread for each call. Those of the standard executors are waited for when the interpreter ends."""

    def submit(
        self, function: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[T]:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()

        def run() -> None:
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - raised again where the future is awaited
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=run, name="bounded-io", daemon=True).start()
        return future
