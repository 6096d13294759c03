"""The processes of an attempt's ranks, and which of them a signal goes to.

Invariants: the command of a rank is this process's child, and its number is forgotten when it is reaped, so
none is signalled that has passed to another process. A session is signalled through a descriptor that was
opened first and identified after. None is told of the first request twice.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from trainerd.contract.process import open_pidfd
from trainerd.contract.signals import signal_name
from trainerd.shim.notes import note

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trainerd.contract.process import ProcessIdentity
    from trainerd.shim.attempt_sessions import RegisteredSessions


class RankProcesses:
    """The commands of the ranks and the sessions below them.

    Args:
        sessions: Who registered with the attempt.
    """

    def __init__(self, sessions: RegisteredSessions) -> None:
        self._sessions = sessions
        self._ranks_by_pid: dict[int, int] = {}
        self._identities: dict[int, ProcessIdentity] = {}
        self._told: set[ProcessIdentity] = set()

    @property
    def identities(self) -> tuple[ProcessIdentity, ...]:
        """The commands that were started, by rank."""
        return tuple(self._identities[rank] for rank in sorted(self._identities))

    def started(self, rank: int, identity: ProcessIdentity) -> None:
        """Note the command of a rank."""
        self._ranks_by_pid[identity.pid] = rank
        self._identities[rank] = identity

    def collected(self, pid: int) -> int | None:
        """Forget a child that was reaped; return the rank whose command it was, None for another process."""
        return self._ranks_by_pid.pop(pid, None)

    def sessions(self) -> dict[int, list[ProcessIdentity]]:
        """Return the sessions that live, by rank."""
        return self._sessions.living(self._ranks_by_pid)

    def forward(self, signum: int, ranks: Iterable[int]) -> None:
        """Send a signal to the sessions of ranks, and to the command of each rank that has none."""
        sessions = self.sessions()
        for rank in ranks:
            for identity in sessions.get(rank, ()):
                self._tell(identity, signum)
            if rank not in sessions:
                self.signal_command(rank, signum)

    def tell_latecomers(self, signum: int, sessions: dict[int, list[ProcessIdentity]]) -> None:
        """Send a signal to the sessions that were opened since it was forwarded."""
        for identity in (each for found in sessions.values() for each in found):
            if identity not in self._told:
                self._tell(identity, signum)

    def kill(self, ranks: Iterable[int]) -> None:
        """End the commands of ranks and the sessions below them."""
        sessions = self.sessions()
        for rank in ranks:
            self.signal_command(rank, signal.SIGKILL)
            for identity in sessions.get(rank, ()):
                _send(identity, signal.SIGKILL)

    def signal_command(self, rank: int, signum: int) -> None:
        """Send a signal to the command of a rank, unless it was reaped."""
        for pid, number in self._ranks_by_pid.items():
            if number == rank:
                self._told.add(self._identities[rank])
                # Not reaped, so the number is still that rank's: at worst a zombie's, which nothing hurts.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signum)

    def _tell(self, identity: ProcessIdentity, signum: int) -> None:
        self._told.add(identity)
        name = signal_name(signum)
        if not self._sessions.hears(identity, signum):
            note(f"{name} would end process {identity.pid}, whose session hears the request on the page")
            return
        if identity.pid not in self._ranks_by_pid:
            note(f"sending {name} to the session in process {identity.pid}")
        _send(identity, signum)


def _send(identity: ProcessIdentity, signum: int) -> None:
    with contextlib.suppress(OSError):  # it has just ended, or belongs to another user: the page tells it
        descriptor = open_pidfd(identity)
        if descriptor is None:
            return
        try:
            signal.pidfd_send_signal(descriptor, signum)
        finally:
            os.close(descriptor)
