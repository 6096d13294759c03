"""Threads that do one thing at a time beside the one that made them."""

from __future__ import annotations

import contextlib
import os
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KeptThread", "SideThread"]

_NICENESS: Final = 5
"""A third of the weight of an ordinary thread: enough that a save still comes to its end on a busy
machine."""


def _give_way() -> None:
    """Have this thread, and those it makes, count for less than the others.

    On Linux a thread has its own niceness.
    """
    with contextlib.suppress(OSError):
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), own + _NICENESS)


class SideThread:
    """Runs what it is given, in order; `wait` returns, or raises, what came of the oldest not yet waited for.

    Used as a context manager. At its end everything given to it has been done, and the thread is gone.
    """

    def __init__(self, name: str) -> None:
        self._tasks: SimpleQueue[tuple[Callable[[Any], Any], Any] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def run(self, function: Callable[[Any], Any], argument: Any) -> None:
        self._tasks.put((function, argument))

    def wait(self) -> Any:
        result, error = self._done.get()
        if error is not None:
            raise error
        return result

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                self._done.put((task[0](task[1]), None))
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                self._done.put((None, error))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._tasks.put(None)
        self._thread.join()


class KeptThread:
    """A thread that gives way to all others, and is kept from one task to the next.

    To start a thread is to wait until it runs, and then for the interpreter lock that it holds: up to 5 ms. A
    task for one that is there already costs its maker nothing.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._tasks: SimpleQueue[Callable[[], object] | None] = SimpleQueue()

    def start(self) -> None:
        """See to it that the thread is there.

        A forked child has none of its parent's threads, and gets its own.
        """
        if self._thread is None or not self._thread.is_alive():
            self._tasks = SimpleQueue()
            self._thread = threading.Thread(target=_do, args=(self._tasks,), name=self._name, daemon=True)
            self._thread.start()

    def run(self, task: Callable[[], object]) -> None:
        """Have a task done after those before it; it must not raise."""
        self.start()
        self._tasks.put(task)

    def close(self) -> None:
        """End the thread, after what it was given."""
        if self._thread is not None and self._thread.is_alive():
            self._tasks.put(None)
            self._thread.join()


def _do(tasks: SimpleQueue[Callable[[], object] | None]) -> None:
    _give_way()
    while (task := tasks.get()) is not None:
        task()
        del task  # it may hold a whole snapshot, and the next one may be far
