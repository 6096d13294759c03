"""The request to stop: a flag that a signal handler sets and that training reads at boundaries.

SIGTERM, SIGINT (Ctrl-C), SIGUSR1 (Slurm), SIGUSR2 (submitit), SIGHUP and SIGXCPU ask for a drain. A second
SIGTERM or SIGINT, 2 s or more after the first, means now. The handler does nothing else. The kernel-side half
of the handler also writes the signal's number into a pipe at once, even where Python is deep in a long
computation: `trainerd.training.interruption.deadline` listens there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Self

from trainerd.contract.signals import STOP, is_second
from trainerd.training.interruption.early_signals import EARLY
from trainerd.training.interruption.forked_children import forget_in_children

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

LATE: Final = 0x80
"""Added to a signal's number where Python's half of the handler notes it: that may be long after it came."""

REASON_CHARACTERS_MAX: Final = 200

_SCRIPTS_OWN: Final = frozenset({signal.SIGHUP, signal.SIGUSR2, signal.SIGXCPU})
"""Signals that are left to a handler of the script's own, and to `nohup`, which ignores the first."""


class DrainFlag:
    """Whether, why and since when a drain is asked for.

    Args:
        is_interactive: Whether this is a notebook or a prompt. There Ctrl-C asks the cell to stop, not the
            process; a second one is raised where the cell stands.

    Attributes:
        notices: A descriptor from which the number of each signal can be read, one byte each, as soon as it
            comes, and of each `notice`; None before `install` and after `close_notices`.
        is_answered: Whether the drain is done, and only the cleanup is left.
        signalled_at_s: When the first signal came, on the monotonic clock; None before that.

    Invariants:
        Once set it stays set.
        The handlers that were there before are put back by `remove`, and in every forked child.
    """

    def __init__(self, *, is_interactive: bool = False) -> None:
        self.is_set = self.is_answered = False
        self.reason = ""
        self.notices: int | None = None
        self.signalled_at_s: float | None = None
        self.former_wakeup = -1
        self.is_interactive = is_interactive
        self._former: dict[int, Any] = {}
        self._former_file: tuple[int, int] | None = None
        self._has_wakeup = False
        self._is_handed_over = False
        self._notify: int | None = None
        self._interruption: BaseException | None = None
        self._interrupting = threading.Lock()

    @property
    def is_stop_button(self) -> bool:
        """Whether Ctrl-C in a notebook or at a prompt asked."""
        return self.is_interactive and self.reason == signal.SIGINT.name

    def install(self, *, takes_signals: bool = True) -> Self:
        """Take over the signals, if this is the main thread; only there does Python allow it.

        Args:
            takes_signals: Whether to; if not, the caller hears them and calls `ask_as_caller`, or calls
                `take` later.
        """
        self.notices, self._notify = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._notify, False)
        forget_in_children(self)
        self._is_handed_over = not takes_signals
        if threading.current_thread() is not threading.main_thread():
            EARLY.tell(self)
            return self
        if takes_signals:
            self._take_wakeup()  # first: little may lie between the early handlers and ours
        early = EARLY.release()
        if takes_signals:
            self.take()
        if early is not None:
            self.hear(signal.Signals(early[0]), early[1])
            self.notice(early[0])
        return self

    @property
    def is_deaf(self) -> bool:
        """Whether no signal is heard: a thread opened the session, and the main thread holds no signals."""
        return not EARLY.is_holding and threading.current_thread() is not threading.main_thread()

    def take(self) -> None:
        """Take the signals over, again if a library has put handlers of its own in the place of ours.

        Those are put back by `hand_over` and `remove`.
        """
        if threading.current_thread() is not threading.main_thread() or self._notify is None:
            return
        self._is_handed_over = False
        for number in STOP:
            former = signal.getsignal(number)
            if former != self._handle and (number not in _SCRIPTS_OWN or former is signal.SIG_DFL):
                self._former[number] = signal.signal(number, self._handle)
        self._take_wakeup()

    def hand_over(self) -> bool:
        """Give the signals back until `take`; return whether we had them. Other requests are still heard."""
        had_them, self._is_handed_over = not self._is_handed_over, True
        self._give_back()
        self._give_back_wakeup()
        return had_them

    def _take_wakeup(self) -> None:
        if not self._has_wakeup and self._notify is not None:
            self.former_wakeup = signal.set_wakeup_fd(self._notify, warn_on_full_buffer=False)
            self._former_file = _file_behind(self.former_wakeup)
            self._has_wakeup = True

    def _give_back_wakeup(self) -> None:
        if not self._has_wakeup:
            return
        self._has_wakeup = False
        former = self.former_wakeup if self.is_former_wakeup_open() else -1
        try:
            signal.set_wakeup_fd(former)
        except (OSError, ValueError):  # such as a file that took its number
            signal.set_wakeup_fd(-1)

    def remove(self) -> None:
        """Give the signals back, and end what is read from `notices`."""
        EARLY.tell(None)
        self.hand_over()
        # Forgotten first: a child that is forked now closes no other.
        notify, self._notify = self._notify, None
        if notify is not None:
            os.close(notify)

    def is_former_wakeup_open(self) -> bool:
        """Whether the descriptor that was there before ours is still that one: numbers are used again."""
        return self._former_file is not None and _file_behind(self.former_wakeup) == self._former_file

    def close_notices(self) -> None:
        """Close what `notices` is read from. For its reader, which may be in another thread."""
        notices, self.notices = self.notices, None
        if notices is not None:
            os.close(notices)

    def notice(self, number: int) -> None:
        """Tell what reads `notices` of a signal, also where it came on another way than through the kernel.

        A library may have put its own handler or wake-up descriptor in the place of ours.
        """
        if self._notify is not None:
            with contextlib.suppress(OSError):  # the pipe is full of such numbers: enough of them
                os.write(self._notify, bytes([number | LATE]))

    def ask(self, reason: str) -> None:
        """Ask for a drain. May come from any thread."""
        if not self.is_set:
            self.reason = reason
            self.is_set = True

    def ask_as_caller(self, reason: str) -> None:
        """Ask for a drain as the caller of the session.

        A caller that has the signals asks because of one: the grace period begins.
        """
        if self._is_handed_over and self.signalled_at_s is None:
            self.signalled_at_s = time.monotonic()
            self.notice(0)  # what listens there takes the time from here
        self.ask(reason)

    def hear(self, number: signal.Signals, at_s: float) -> None:
        """Note that a signal came. May come from any thread."""
        if self.signalled_at_s is None:
            self.signalled_at_s = at_s
        self.ask(number.name)

    def left_s(self, grace_s: float | None) -> float | None:
        """Return how much of the grace period is left, in seconds; None if that is not known."""
        if grace_s is None or self.signalled_at_s is None:
            return None
        return self.signalled_at_s + grace_s - time.monotonic()

    @contextlib.contextmanager
    def interruptible(self, limit_s: float, error: BaseException) -> Iterator[None]:
        """Raise `error` in the block once it took `limit_s`, if it runs in the thread that handles signals.

        A call that never comes back to Python code is not interrupted.
        """
        is_over = False
        thread = threading.get_ident()

        def interrupt() -> None:
            with self._interrupting:
                if is_over or self._notify is None or signal.getsignal(signal.SIGUSR1) != self._handle:
                    return
                self._interruption = error
                signal.pthread_kill(thread, signal.SIGUSR1)

        timer = threading.Timer(limit_s, interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            with self._interrupting:
                is_over, self._interruption = True, None
            timer.cancel()

    def forget_in_child(self) -> None:
        """Let a forked child have the former handlers, and neither end of the pipe."""
        with contextlib.suppress(ValueError, OSError):
            self._give_back()
            wakeup = signal.set_wakeup_fd(-1)
            if wakeup not in {self._notify, -1}:
                signal.set_wakeup_fd(wakeup)
        for descriptor in (self.notices, self._notify):
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self.notices = self._notify = None

    def _give_back(self) -> None:
        for number, former in self._former.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, former if former is not None else signal.SIG_DFL)
        self._former.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._interruption is not None:
            error, self._interruption = self._interruption, None
            raise error
        now_s = time.monotonic()
        is_pressed_again = number == signal.SIGINT and self.is_stop_button
        if is_pressed_again and is_second(self.signalled_at_s or now_s, now_s):
            signal.default_int_handler(number, frame)
        self.hear(signal.Signals(number), now_s)
        self.notice(number)


def _file_behind(descriptor: int) -> tuple[int, int] | None:
    """Return what identifies the file of a descriptor, None if it is not open."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino
