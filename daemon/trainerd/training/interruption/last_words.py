"""Functions of the script's own that run when the process leaves because a stop was asked for."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

LAST_WORDS_LIMIT_S: Final = 5.0
"""How long all functions together may take, in seconds."""


class LastWords:
    """What the script registered with `session.on_leave`.

    Args:
        say: Is told of a function that raised or took too long.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._functions: list[Callable[[], Any]] = []

    def add(self, function: Callable[[], Any]) -> None:
        self._functions.append(function)

    def run(self, limit_s: float) -> None:
        """Call all functions once, in the order in which they were added, in a thread of their own.

        Args:
            limit_s: How long they may take, in seconds, if that is less than `LAST_WORDS_LIMIT_S`.
        """
        functions, self._functions = self._functions, []
        deadline_s = time.monotonic() + min(limit_s, LAST_WORDS_LIMIT_S)
        for function in functions:
            thread = threading.Thread(
                target=self._call, args=(function,), name="trainerd-on-leave", daemon=True
            )
            thread.start()
            thread.join(max(deadline_s - time.monotonic(), 0.0))
            if thread.is_alive():
                self._say(f"trainerd: on_leave({_name(function)}) took too long and was not waited for")
                return

    def _call(self, function: Callable[[], Any]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - the process leaves in any case
            self._say(f"trainerd: on_leave({_name(function)}) raised {type(error).__name__}: {error}")


def _name(function: Callable[[], Any]) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))
