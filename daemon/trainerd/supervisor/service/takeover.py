"""How `trainerd exec` gets a state folder that another supervisor may use, here or on another machine.

A lock that another process of this machine holds is respected: the caller is told to come again. A holder on
another machine cannot be asked and may be gone for good, with its lock still known to a file server: after a
wait its lock is removed and its journal moved aside, which it goes on writing under the new name. Its attempt
is fenced by the monitor. Correctness rests on the fence; the wait is for an attempt that is about to leave.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.lock import is_locked_elsewhere
from trainerd.contract import codec
from trainerd.contract.durable import read_file, write_file
from trainerd.contract.process import ProcessIdentity, identify, is_elsewhere
from trainerd.contract.signals import STOP
from trainerd.errors import CorruptError, LockedError, TryAgainError
from trainerd.supervisor.attempt.probe import ProbedElsewhere, probe
from trainerd.supervisor.service.instance_lock import instance_lock, is_replaced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trainerd.contract.paths import RunPaths, StatePaths

ENGINE_WAIT_S: Final = 60.0
"""How long another holder is waited for under an engine, in seconds, unless the user says otherwise."""

LOOK_S: Final = 0.2
"""How often it is looked whether the holder has left, in seconds."""

_HOLDER_FORMAT: Final = "trainerd.holder/1"
_HOLDER_BYTES_MAX: Final = 4096

ENGINE_VARIABLES: Final = ("SLURM_JOB_ID", "KUBERNETES_SERVICE_HOST", "_CONDOR_JOB_AD", "SKYPILOT_TASK_ID")


class AskedToLeaveError(TryAgainError):
    """A request to stop came while it waited."""


def usual_wait_s(environ: Mapping[str, str]) -> float | None:
    """Return how long to wait before a takeover; None where no engine has placed this process."""
    return ENGINE_WAIT_S if any(environ.get(name) for name in ENGINE_VARIABLES) else None


@contextlib.contextmanager
def exclusive_state(
    state: StatePaths, run: RunPaths, *, takeover_after_s: float | None, say: Callable[[str], None]
) -> Iterator[int]:
    """Hold a state folder, waiting for its holder or taking it over. The signals of `STOP` must be blocked.

    Args:
        state: The folder.
        run: The run whose attempts are to go on.
        takeover_after_s: How long a holder is waited for, in seconds; one on another machine is taken over
            from after that. None neither waits nor takes over what is locked.
        say: Takes what happens, a sentence each.

    Yields:
        The descriptor by which the folder is locked.

    Raises:
        LockedError: Another process uses the folder, or trains the run.
        AskedToLeaveError: A request to stop came while it waited.
    """
    wait = _Wait(takeover_after_s, say)
    taken: ProcessIdentity | None = None
    with contextlib.ExitStack() as stack:
        while True:
            before = lock_holder(state)
            try:
                descriptor = stack.enter_context(instance_lock(state.lock))
                break
            except LockedError as error:
                if wait.goes_on(_name(before)):
                    continue
                if takeover_after_s is None or before is None or not is_elsewhere(before):
                    raise
                if lock_holder(state) == before:  # or it has changed hands since
                    say(f"{error.message}: {_name(before)}; after {takeover_after_s:g} s this one takes over")
                    taken = before
                    state.lock.unlink(missing_ok=True)
        before = taken or before
        if before is not None and is_elsewhere(before):
            # Not released, so it may still be used. The spec and the run folder say what it says of the job.
            for path in state.move_journal_aside():
                say(f"{_name(before)} did not release this folder; its journal is kept as {path.name}")
        write_file(state.holder, codec.to_json(identify(os.getpid()), _HOLDER_FORMAT))
        _await_attempt(run, wait)
        try:
            yield descriptor
        finally:
            with contextlib.suppress(OSError):
                if not is_replaced(descriptor, state.lock):
                    state.holder.unlink()  # released in order


def lock_holder(state: StatePaths) -> ProcessIdentity | None:
    """Return which `trainerd exec` holds a state folder, or ended without releasing it; None if unknown."""
    with contextlib.suppress(OSError, CorruptError):
        document = read_file(state.holder, bytes_max=_HOLDER_BYTES_MAX)
        identity = codec.from_json(document, ProcessIdentity, _HOLDER_FORMAT, source=state.holder)
        if read_file(state.lock, bytes_max=_HOLDER_BYTES_MAX).split() == [b"%d" % identity.pid]:
            return identity  # or a supervisor holds it
    return None


def _await_attempt(run: RunPaths, wait: _Wait) -> None:
    """Wait for an attempt on another machine to end.

    Raises:
        LockedError: It holds the lock of the checkpoints, and is not to be taken over from.
        AskedToLeaveError: A request to stop came.
    """
    while isinstance(found := probe(run.attempt(run.newest_attempt())), ProbedElsewhere):
        if wait.goes_on(_name(found.shim)):
            continue
        if wait.limit_s is None and is_locked_elsewhere(run.checkpoints):
            raise LockedError(
                f"{run.root}: an attempt on {_name(found.shim)} is writing to this run",
                hint="stop it there, or take over after a wait: --takeover-after 60s",
            )
        return


def _name(holder: ProcessIdentity | None) -> str:
    if holder is None:
        return "another process"
    return f"process {holder.pid} on {holder.host}" if is_elsewhere(holder) else f"process {holder.pid}"


class _Wait:
    """The time that is left to wait, for one holder after the other."""

    def __init__(self, limit_s: float | None, say: Callable[[str], None]) -> None:
        self.limit_s = limit_s
        self._say = say
        self._deadline_s = time.monotonic() + (limit_s or 0.0)
        self._said: str | None = None

    def goes_on(self, holder: str) -> bool:
        """Wait a little; return whether there was time for that.

        Raises:
            AskedToLeaveError: A request to stop came.
        """
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            return False
        if holder != self._said:
            self._say(f"{holder} may still run this job; it is waited for, {left_s:.0f} s at most")
            self._said = holder
        if signal.sigtimedwait(STOP, min(LOOK_S, left_s)) is not None:
            raise AskedToLeaveError(f"asked to leave while {holder} was waited for; nothing was started")
        return True
