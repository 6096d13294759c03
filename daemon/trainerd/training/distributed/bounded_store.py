"""Questions to the store with a limit: a store that is stopped keeps the connection, and answers nothing.

torch waits for an answer without a limit where the process that has the store is stopped or its host is
gone. So a thread of its own asks, and the caller waits for that thread as long as the limit says.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class StoreSilentError(Exception):
    """The store does not answer. Never leaves the package."""


class BoundedStore:
    """Asks one question after the other, from a thread that may be left behind.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._questions: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]
        self._questions = queue.SimpleQueue()
        self._is_silent = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ask(self, question: Callable[[], T], *, limit_s: float) -> T:
        """Return the answer to a question.

        Raises:
            StoreSilentError: There is none within the limit, or there was none to an earlier question.
        """
        if self._is_silent:
            raise StoreSilentError
        answer: Future[T] = Future()
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._answer, name=self._name, daemon=True)
                self._thread.start()
            self._questions.put((question, answer))
        try:
            return answer.result(limit_s)
        except TimeoutError:
            if answer.done():
                return answer.result()  # at the last moment, or the question itself raised it
            self._is_silent = True
            raise StoreSilentError from None

    def close(self) -> None:
        """End the thread, once it has answered. A later question starts another thread."""
        with self._lock:
            if self._thread is not None:
                self._questions.put(None)
                self._thread = None

    def _answer(self) -> None:
        while (asked := self._questions.get()) is not None:
            question, answer = asked
            try:
                answer.set_result(question())
            except BaseException as error:  # noqa: BLE001 - raised where it was asked
                answer.set_exception(error)
