"""What a forked child must not have of its parent: signal handlers, the wake-up descriptor, the session.

Pools, `multiprocessing.Process` and the workers of plain loaders are forks of the training process. With its
handlers they could not be ended by SIGTERM, and through its wake-up descriptor a signal to one of them would
be heard as a signal to the training process.

Invariants:
    Runs in the child before any code of the program does. Until then the signals that ask for a stop are held
    there: a child may be ended right after the fork.
    Closes nothing that belongs to the parent, sends nothing and writes nothing.
"""

from __future__ import annotations

import os
import signal
import threading
import weakref
from typing import Final, Protocol

from trainerd.contract.signals import STOP


class Forkable(Protocol):
    """Something that a forked child must let go of."""

    def forget_in_child(self) -> None:
        """Let go of what belongs to the parent; called in the child."""
        ...


class _ForkHook:
    """Calls what is registered in each forked child."""

    def __init__(self) -> None:
        self._registered: weakref.WeakSet[Forkable] = weakref.WeakSet()
        self._is_installed = False
        self._of_thread = threading.local()  # each thread that forks has a signal mask of its own

    def add(self, forkable: Forkable) -> None:
        self._registered.add(forkable)
        if not self._is_installed:
            self._is_installed = True
            os.register_at_fork(
                before=self._hold, after_in_parent=self._let_through, after_in_child=self._forget
            )

    def _hold(self) -> None:
        self._of_thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP)

    def _let_through(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._of_thread.mask)

    def _forget(self) -> None:
        for forkable in list(self._registered):
            forkable.forget_in_child()
        self._registered.clear()
        self._let_through()


_HOOK: Final = _ForkHook()


def forget_in_children(forkable: Forkable) -> None:
    """Have every child that is forked from now on forget `forkable`, for as long as that lives."""
    _HOOK.add(forkable)
