"""A thread that does one thing at a time beside the one that made it."""

from __future__ import annotations

import contextlib
import os
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SideThread", "give_way"]

_NICENESS: Final = 5
"""A third of the weight of an ordinary thread: enough that a save still comes to its end on a busy machine."""


def give_way() -> None:
    """Have this thread, and those it makes, count for less than the others: on Linux a thread has its own niceness."""
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
