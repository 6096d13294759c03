"""Requests to stop that come before the session is open: noted, and handed to the session.

A program imports torch and prepares its data for seconds or minutes before it opens a session. A signal in
that time would end it as a failure. Handlers are used, not a mask: a mask would be inherited by every program
that this one starts. Where the shim has held the signals from the first instruction on, `import trainerd`
takes them over.

Invariants:
    Only signals with their default action are taken.
    A second signal, or the only one if no session follows, is not swallowed: the second one acts as it would
    have without this module. So does the first, under a supervisor, if no session opens within a part of the
    grace period: preparing data may take longer than that, and there is nothing to save.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from trainerd.contract.environment import GRACE_S
from trainerd.contract.process import identify
from trainerd.contract.signals import SIGNALS_HELD, STOP, is_second
from trainerd.training.interruption.forked_children import forget_in_children

if TYPE_CHECKING:
    from types import FrameType

_LOG: Final = 2

UNANSWERED_PART: Final = 0.5
"""So much of the grace period a session has to open after a request, before the program ends without it."""

UNANSWERED_MAX_S: Final = 30.0
"""However long the grace period is, a session has no longer than this."""


class EarlySignals:
    """Holds the signals of a process until a session takes them over.

    Attributes:
        first: Number of the first signal and when it came, None if none came.
    """

    def __init__(self) -> None:
        self.first: tuple[int, float] | None = None
        self._former: dict[int, Any] = {}
        self._successor: Listener | None = None
        self._held_since_s: float | None = None
        self._limit_s: float | None = None
        self._is_unanswered = False

    @property
    def is_holding(self) -> bool:
        """Whether the signals of this process are noted here."""
        return bool(self._former)

    def hold(self) -> None:
        """Note signals from now on, if this is the main thread; only there does Python allow it.

        Not in a child of `multiprocessing`, which imports the script again: its parent ends it by SIGTERM,
        and it opens no session.
        """
        if self._former or threading.current_thread() is not threading.main_thread():
            return
        if _is_multiprocessing_child():
            return
        forget_in_children(self)
        for number in STOP:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                self._former[number] = signal.signal(number, self._note)

    def take_over(self) -> None:
        """Note, instead of holding them, the signals that the shim has held since this process began.

        What has come meanwhile counts from that beginning: the grace period may have begun then.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        os.environ.pop(SIGNALS_HELD, None)  # what this process starts holds nothing
        self._limit_s = _limit_s()
        self.hold()
        self._held_since_s = _began_s()
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)  # runs the handlers of those that have come
        finally:
            self._held_since_s = None

    def tell(self, listener: Listener | None) -> None:
        """Pass what comes, and has come, on to a session that has no handlers: one that a thread opened."""
        self._successor = listener if self._former else None
        if self._successor is not None and self.first is not None:
            self._limit_s = None  # answered, however long that session takes
            _pass_on(self._successor, *self.first)

    def release(self) -> tuple[int, float] | None:
        """Give the signals back; return the first that came and when, None if none came."""
        for number, former in self._former.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, former)
        self._former.clear()
        first, self.first = self.first, None
        return first

    def forget_in_child(self) -> None:
        """Let a forked child have the default handling."""
        self.release()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic() if self._held_since_s is None else self._held_since_s
        if self._successor is not None:
            _pass_on(self._successor, number, now_s)
            return
        name = signal.Signals(number).name
        if self.first is None:
            self.first = (number, now_s)
            _say(f"trainerd: {name} came before the session is open: the program leaves when it opens it")
            if self._limit_s is not None:
                # Not `threading`: the code that this handler interrupts may hold one of its locks.
                _thread.start_new_thread(self._end_unanswered, (number, self._limit_s))
        elif self._is_unanswered and self._limit_s is not None:
            _say(f"trainerd: no session was opened within {self._limit_s:g} s of {name}: ends now")
            self.release()
            signal.raise_signal(number)
        elif is_second(self.first[1], now_s):
            _say(f"trainerd: a second signal, {name}, before the session is open: ends now")
            self.release()
            signal.raise_signal(number)

    def _end_unanswered(self, number: int, limit_s: float) -> None:
        time.sleep(limit_s)
        main = threading.main_thread().ident
        if self.first is not None and self._limit_s is not None and main is not None:
            self._is_unanswered = True
            signal.pthread_kill(main, number)


class Listener(Protocol):
    """A session's flag, which hears signals from any thread."""

    def hear(self, number: signal.Signals, at_s: float) -> None:
        """Note that a signal came."""
        ...

    def notice(self, number: int) -> None:
        """Tell what waits for signals."""
        ...


def _pass_on(listener: Listener, number: int, at_s: float) -> None:
    listener.hear(signal.Signals(number), at_s)
    listener.notice(number)


def _limit_s() -> float | None:
    """Return how long a session may take to open after a request, None without a grace period."""
    try:
        grace_s = float(os.environ.get(GRACE_S, ""))
    except ValueError:
        return None
    return min(grace_s * UNANSWERED_PART, UNANSWERED_MAX_S)


def _began_s() -> float:
    """Return when this process began, on the monotonic clock; now if that is not known."""
    now_s = time.monotonic()
    try:
        identity = identify(os.getpid())
    except OSError:
        return now_s
    if identity is None:
        return now_s
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - identity.start_ticks / os.sysconf("SC_CLK_TCK")
    return now_s - max(age_s, 0.0)


def _is_multiprocessing_child() -> bool:
    """Tell whether `multiprocessing` has started this process, in whatever way."""
    module = sys.modules.get("multiprocessing.process")  # in such a child it is loaded
    if module is None:
        return False
    # While the child imports the script it has no parent yet, and its arguments are those of the script.
    is_preparing = getattr(module.current_process(), "_inheriting", False)
    return bool(is_preparing) or module.parent_process() is not None


def _say(message: str) -> None:
    with contextlib.suppress(OSError):
        os.write(_LOG, f"{message}\n".encode())


EARLY: Final = EarlySignals()
"""The signals of this process."""
