"""Tells systemd how the supervisor is doing (sd_notify). Without NOTIFY_SOCKET it does nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

from trainerd.contract.safe_text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

_MICROSECONDS = 1_000_000


class Notifier:
    """The way to systemd.

    Args:
        environ: Read once: NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._watchdog_us = _watchdog_us(environ)
        self._status = ""

    @property
    def watchdog_interval_s(self) -> float | None:
        """How often `alive` is expected, in seconds: half of systemd's limit. None if it is not."""
        return None if self._watchdog_us is None else self._watchdog_us / _MICROSECONDS / 2

    def ready(self) -> None:
        """Say that specs are watched and requests are answered."""
        self._send("READY=1")
        self.alive()

    def status(self, text: str) -> None:
        """Say in one line what is going on, if that has changed."""
        text = one_line(text)  # each line of a message to systemd is a variable
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def reloading(self) -> None:
        """Say that the program is about to be replaced by a newer one; `ready` says that this is done."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self.alive()  # the clock of the watchdog goes on, and the new program is silent until it is ready

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Feed the watchdog."""
        if self._watchdog_us is not None:
            self._send("WATCHDOG=1")

    def extend(self, by_s: float) -> None:
        """Ask for more time to start or to stop."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(by_s * _MICROSECONDS)}")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # systemd may be gone, or its queue full: it is told again soon, and no job depends on it.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
            way.setblocking(False)
            way.sendto(text.encode(), address)


def _watchdog_us(environ: Mapping[str, str]) -> int | None:
    text = environ.get("WATCHDOG_USEC", "")
    if not text.isdigit() or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(text)
