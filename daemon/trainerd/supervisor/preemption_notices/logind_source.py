"""Notices of logind: the machine shuts down. A delay lock has it wait until the jobs have left."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final

from trainerd.supervisor.preemption_notices.system_bus import SYSTEM_BUS, SystemBus
from trainerd.supervisor.preemption_notices.taking import NotSeenError, Taking

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.contract.clock import Clock

LOGIND_POLL_S: Final = 0.5
"""How often it is asked, in seconds: by default a lock delays a shutdown by no more than 5 s."""

_SERVICE: Final = "org.freedesktop.login1"
_PATH: Final = "/org/freedesktop/login1"
_MANAGER: Final = "org.freedesktop.login1.Manager"
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"


class LogindSource:
    """A delay lock on shutdowns, and whether one has begun.

    Args:
        clock: Tells when that was first seen.
        has_left: Returns whether no job has processes: then the lock is released.
        address: Socket of the system bus.
    """

    name = "logind"
    poll_s = LOGIND_POLL_S

    def __init__(self, clock: Clock, has_left: Callable[[], bool], address: str = SYSTEM_BUS) -> None:
        self._clock = clock
        self._has_left = has_left
        self._address = address
        self._bus: SystemBus | None = None
        self._lock: int | None = None
        self._deadline_s: float | None = None

    def look(self) -> tuple[Taking, ...]:
        try:
            return self._look()
        except NotSeenError:
            if self._bus is not None:
                self._bus.close()
                self._bus = None
            raise

    def _look(self) -> tuple[Taking, ...]:
        if self._bus is None:
            self._bus = SystemBus(self._address)
        is_preparing = self._property(self._bus, "PreparingForShutdown", "b") != 0
        if not is_preparing:
            self._deadline_s = None
            if self._lock is None:
                self._lock = self._new_lock(self._bus)
            return ()
        if self._deadline_s is None:
            delay_s = self._property(self._bus, "InhibitDelayMaxUSec", "t") / 1e6
            self._deadline_s = self._clock.wall_s() + (delay_s if self._lock is not None else 0.0)
        elif self._has_left():
            self.release()
        key = f"shutdown {self._deadline_s}"
        return (Taking("logind", key, "shuts this machine down", self._deadline_s),)

    def release(self) -> None:
        """Let the shutdown go on."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _new_lock(self, bus: SystemBus) -> int | None:
        words = ("shutdown", "trainerd", "jobs save and leave first", "delay")
        bus.call(_SERVICE, _PATH, _MANAGER, "Inhibit", words)
        lock = bus.take_descriptor()
        if lock is None:
            raise NotSeenError("logind gives no lock")
        return lock

    def _property(self, bus: SystemBus, name: str, kind: str) -> int:
        body = bus.call(_SERVICE, _PATH, _PROPERTIES, "Get", (_MANAGER, name))
        form, at = {"b": ("<I", 4), "t": ("<Q", 8)}[kind]
        if body[:3] != bytes([1]) + kind.encode() + b"\0":
            raise NotSeenError(f"logind answers with another type for {name}")
        try:
            return int(struct.unpack_from(form, body, at)[0])
        except struct.error:
            raise NotSeenError(f"logind answers with too little for {name}") from None
