"""What a supervisor leaves open for the program that takes its place in the same process (SIGHUP).

The lock of the state folder stays held and the socket stays open, so there is no moment at which another
supervisor could start, and no request fails: it waits in the socket's queue. Their descriptors are
named in the environment, for the process that made them and for no other.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import MutableMapping

VARIABLE: Final = "TRAINERD_HANDOVER"

_FORM: Final = re.compile(r"1 pid=(\d+) lock=(\d+) socket=(\d+) file=(\d+):(\d+)", re.ASCII)


@dataclass(frozen=True)
class Handover:
    """Open descriptors, and what the socket's name in the filesystem was.

    Attributes:
        lock: Of the file that is locked.
        listener: Of the socket that listens.
        socket_file: Device and inode of the socket's name.
    """

    lock: int
    listener: int
    socket_file: tuple[int, int]

    @property
    def inherited_socket(self) -> tuple[int, tuple[int, int]]:
        """The socket, as `listening` wants it."""
        return self.listener, self.socket_file

    def offer(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Leave them to the next program of this process. A crash here closes them, like any other end."""
        for descriptor in (self.lock, self.listener):
            os.set_inheritable(descriptor, True)
        device, inode = self.socket_file
        environ[VARIABLE] = (
            f"1 pid={os.getpid()} lock={self.lock} socket={self.listener} file={device}:{inode}"
        )


def take(environ: MutableMapping[str, str] = os.environ) -> Handover | None:
    """Return what the program before left, None if there was none or this is another process."""
    found = _FORM.fullmatch(environ.pop(VARIABLE, ""))
    if found is None:
        return None
    pid, lock, listener, device, inode = (int(number) for number in found.groups())
    if pid != os.getpid():
        return None
    for descriptor in (lock, listener):
        # No job and no check of the next program is to inherit them.
        with contextlib.suppress(OSError):
            os.set_inheritable(descriptor, False)
    return Handover(lock, listener, (device, inode))
