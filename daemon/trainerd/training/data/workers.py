"""Data-loading workers that live through a signal to the whole process group.

A SIGTERM to the group, as systemd, Slurm, torchrun and a terminal's Ctrl-C send it, kills a plain loader's
workers, and with them the rank before it can save. So the workers ignore it: they are created with the drain
signals blocked, so that no moment is left in which one could kill them, and then ignore them. What they
still notice is the end of their parent.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

import torch.utils.data

from trainerd.contract.signals import STOP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class WorkerStart:
    """What a worker does first: ignore the drain signals, then what the user's ``worker_init_fn`` does."""

    def __init__(self, user_function: Callable[[int], None] | None, dataset: Any) -> None:
        self._user_function = user_function
        self._dataset = dataset

    def __call__(self, worker: int) -> None:
        ignore_drain_signals()
        info = torch.utils.data.get_worker_info()
        if info is not None:
            # The user's function expects to find the user's dataset, not the one that wraps it.
            object.__setattr__(info, "dataset", self._dataset)
        if self._user_function is not None:
            self._user_function(worker)


def ignore_drain_signals() -> None:
    """Ignore the drain signals, and unblock them now that they are harmless."""
    for number in STOP:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)


@contextlib.contextmanager
def drain_signals_blocked() -> Iterator[None]:
    """Block the drain signals while workers are created; they inherit that.

    None is lost: it comes afterwards.
    """
    former = signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
