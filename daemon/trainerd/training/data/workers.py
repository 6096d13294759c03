"""Data-loading workers that live through a signal to the whole process group.

A SIGTERM to the group, as systemd, Slurm, torchrun and a terminal's Ctrl-C send it, kills a plain loader's
workers, and with them the rank before it can save. So the workers ignore it: they are created with the drain
signals blocked, so that no moment is left in which one could kill them, and then ignore them. What they
still notice is the end of their parent: the kernel ends them with it, or a thread that waits for that.
A worker that was forked holds the connections of its rank to the other ranks, and these would notice only at
its end that the rank is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import random
import signal
import sys
import threading
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.utils.data

from trainerd.contract.signals import STOP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PR_SET_PDEATHSIG: Final = 1
_FORKING: Final = threading.local()
"""``parent``: number of this process while its main thread creates workers, which inherit it by a fork."""


class WorkerStart:
    """What a worker does first: ignore the drain signals, then what the user's ``worker_init_fn`` does.

    Attributes:
        first: Number of the worker whose place worker 0 takes, where a pass goes on in the middle.
    """

    def __init__(self, user_function: Callable[[int], None] | None, dataset: Any) -> None:
        self._user_function = user_function
        self._dataset = dataset
        self.first = 0

    def __call__(self, worker: int) -> None:
        ignore_drain_signals()
        end_with_parent()
        info = torch.utils.data.get_worker_info()
        if info is not None:
            # The user's function expects to find the user's dataset, not the one that wraps it.
            object.__setattr__(info, "dataset", self._dataset)
            if self.first:
                worker = _take_place(info, (worker + self.first) % info.num_workers)
        if self._user_function is not None:
            self._user_function(worker)


def _take_place(info: Any, worker: int) -> int:
    """Give this worker the number of another worker, and the seeds that torch derives from it. Return it."""
    base = info.seed - info.id
    object.__setattr__(info, "id", worker)
    object.__setattr__(info, "seed", base + worker)
    random.seed(info.seed)
    torch.manual_seed(info.seed)
    numpy_seed = getattr(torch.utils.data._utils.worker, "_generate_state", None)  # noqa: SLF001 - torch's own way
    numpy = sys.modules.get("numpy")
    if numpy_seed is not None and numpy is not None:
        numpy.random.seed(numpy_seed(base, worker))
    return worker


def ignore_drain_signals() -> None:
    """Ignore the drain signals, and unblock them now that they are harmless."""
    for number in STOP:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)


def end_with_parent() -> None:
    """Have this worker end with the process that asked for it.

    The kernel ends a forked worker at the end of the thread that forked it: only the main thread lives as
    long as the process. Any other worker, such as one of a fork server, has another parent, and watches.
    """
    parent = getattr(_FORKING, "parent", None)
    if parent is None:
        _watch_parent()
        return
    with contextlib.suppress(OSError, AttributeError):  # where there is no such call, torch looks every 5 s
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it ended before the call


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(
            target=_end_after, args=(parent.sentinel,), name="trainerd-parent", daemon=True
        ).start()


def _end_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


@contextlib.contextmanager
def drain_signals_blocked() -> Iterator[None]:
    """Block the drain signals while workers are created; they inherit that.

    None is lost: it comes afterwards.
    """
    former = signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    former_parent = getattr(_FORKING, "parent", None)
    _FORKING.parent = os.getpid() if threading.current_thread() is threading.main_thread() else None
    try:
        yield
    finally:
        _FORKING.parent = former_parent
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
