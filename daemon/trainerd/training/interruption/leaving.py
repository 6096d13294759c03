"""The ways in which a training process ends, and the records by which its end is judged."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

import torch

from trainerd.contract import records
from trainerd.contract.exit_codes import DRAINED
from trainerd.contract.records import OutcomeRecord
from trainerd.contract.signals import STACKS
from trainerd.errors import (
    FencedError,
    LockedError,
    MismatchError,
    NonFiniteLossError,
    SpaceError,
    TrainerdError,
    UserError,
)
from trainerd.training.interruption.departure import DEPARTURE, STREAM_LIMIT_S, flush_streams, within

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_TRACEBACK_LINES: Final = 20

Kind = Literal["exception", "mismatch", "out-of-memory", "no-space", "nonfinite-loss", "fenced"]

_OUT_OF_MEMORY: Final = (
    "DefaultCPUAllocator: ",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""What torch says where it raises a plain RuntimeError because memory ran out."""

_LOG: Final = 2
"""The descriptor of standard error, which under a supervisor is the rank's log, whatever `sys.stderr` is by
now."""


def record_drained(outcome: Path, *, step: int, checkpoint: str | None, reason: str) -> None:
    """Say durably that all is durable and that the run can go on from there."""
    records.write(outcome, OutcomeRecord("drained", step=step, checkpoint=checkpoint, detail=(reason,)))


def exit_process(code: int) -> NoReturn:
    """Leave the process from the thread that trains, so that the script can clean up.

    A second time it ends at once, and so it does with any other exit code than that of a drain. So it does in
    another thread than the main one: `SystemExit` would end that thread alone, and the main thread would go
    on as if the training were complete.

    Args:
        code: Exit code.

    Raises:
        SystemExit: This is how it leaves.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if code != DRAINED or DEPARTURE.is_begun or not is_main:
        end_process(code)
    DEPARTURE.begin(lambda: _end_late(code))
    raise SystemExit(code)


def _end_late(code: int) -> NoReturn:
    say_last(f"trainerd: the cleanup was not over after {DEPARTURE.limit_s:.3g} s: exiting {code} now")
    end_process(code)


def end_process(code: int) -> NoReturn:
    """End the workers, flush what was printed and end at once, without the interpreter's teardown."""
    end_workers()
    within(STREAM_LIMIT_S, flush_streams)
    os._exit(code)


def say(message: str) -> None:
    """Write a message to the rank's log. A log that cannot be written is no error."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{message}\n")


def say_last(message: str) -> None:
    """Say something on the way out, within `STREAM_LIMIT_S`."""
    within(STREAM_LIMIT_S, lambda: say(message))


def end_workers() -> None:
    """End the loader workers of this process. They ignore SIGTERM, and they have nothing to save.

    Only for a process that leaves at once: from here on the end of a child is no news. torch raises an error
    for each worker that ends, in the main thread and wherever that is just then, which here would be the way
    out.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in multiprocessing.active_children():
        if worker.daemon:
            worker.kill()


def record_finished(outcome: Path, *, step: int, checkpoint: str) -> None:
    """Say durably that the attempt has finished the run."""
    records.write(outcome, OutcomeRecord("finished", step=step, checkpoint=checkpoint))


def record_exception(outcome: Path, error: BaseException, *, step: int | None) -> None:
    """Say durably what ended the attempt. Never hides the error that it records."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    detail = (
        tuple(error.differences) if isinstance(error, MismatchError) else tuple(lines[-_TRACEBACK_LINES:])
    )
    record = OutcomeRecord(
        _kind_of(error),
        step=step,
        error_type=f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."),
        error_message=str(error),
        detail=detail,
    )
    try:
        records.write(outcome, record)
    except (OSError, TrainerdError) as problem:
        say(f"trainerd: cannot record the outcome in {outcome}: {problem}")


def _kind_of(error: BaseException) -> Kind:
    if isinstance(error, MismatchError):
        return "mismatch"
    if isinstance(error, SpaceError):
        return "no-space"
    if isinstance(error, NonFiniteLossError):
        return "nonfinite-loss"
    if isinstance(error, FencedError):
        return "fenced"
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "out-of-memory"
    if isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY):
        return "out-of-memory"
    return "exception"


def end_workers_at_exit() -> None:
    """Keep stuck workers from holding up the interpreter's end, which sends them SIGTERM and waits."""
    atexit.unregister(_end_own_workers)
    atexit.register(_end_own_workers, os.getpid())


def _end_own_workers(pid: int) -> None:
    if os.getpid() == pid:  # a forked child has the list of its parent's workers
        end_workers()


def show_stacks_when_asked() -> None:
    """Write the stacks of all threads to the log on `STACKS`, even while the interpreter lock is held.

    A handler of the script's own stays.
    """
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        if signal.getsignal(STACKS) is signal.SIG_DFL:
            faulthandler.register(STACKS, file=_LOG, all_threads=True, chain=False)


def show_user_errors_without_traceback() -> None:
    """Show a user's mistake as a message: the traceback would point at our code, not at theirs."""
    if getattr(sys.excepthook, "is_trainerds", False):
        return
    former = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
        if isinstance(error, UserError | LockedError | FencedError):
            say(f"error: {error}")
        else:
            former(kind, error, trace)

    hook.is_trainerds = True  # type: ignore[attr-defined]
    sys.excepthook = hook
