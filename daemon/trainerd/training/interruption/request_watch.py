"""A thread that hears on the request page that a stop is asked for, where the signal cannot be heard.

A signal reaches the flag only if the session was opened in the main thread and its handler is still there: an
event loop, a framework or a library may have put its own in place. The page says the same as the signal.

Invariant: what was heard from the signal is not said again, since a second time would mean "now".
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_S: Final = 0.1
"""How often the page is looked at, in seconds."""

STOP_LIMIT_S: Final = 1.0
"""How long the end of the thread is waited for, in seconds."""


class RequestWatch:
    """Looks at the request page until a stop is asked for.

    Args:
        asked: Returns the number of the signal by which the page asks for a stop, None while it does not.
        is_heard: Returns whether the request was heard already.
        say: Called with the number, once, if the request was not heard otherwise by the look after.
    """

    def __init__(
        self, asked: Callable[[], int | None], *, is_heard: Callable[[], bool], say: Callable[[int], None]
    ) -> None:
        self._asked = asked
        self._is_heard = is_heard
        self._say = say
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="trainerd-requests", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Returns when the page and what is called are no longer used."""
        self._is_over.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(STOP_LIMIT_S)

    def _look(self) -> None:
        signum: int | None = None
        while not self._is_over.wait(LOOK_S):
            if self._is_heard():
                return
            if signum is not None:
                self._say(signum)
                return
            signum = self._asked()
