"""What a filesystem that fails means to the user of a verb: no fault of the program, and no traceback."""

from __future__ import annotations

import errno
import os
from typing import Final

from trainerd.contract.durable import OUT_OF_SPACE
from trainerd.errors import UserError

_FAILS: Final = frozenset(
    {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO, errno.EHOSTDOWN}
)
_BAD_PATH: Final = frozenset({errno.ELOOP, errno.ENAMETOOLONG})


def disk_trouble(error: OSError) -> UserError | None:
    """Return what an error of a filesystem means, None for another error and for one that names no file."""
    if not isinstance(error.filename, str | bytes):
        return None
    what = f"{os.fsdecode(error.filename)}: {error.strerror}"
    if error.errno == errno.EROFS:
        return UserError(what, hint="it is mounted read-only: name another folder, or mount it to be written")
    if error.errno in OUT_OF_SPACE:
        return UserError(what, hint="make room, or raise the quota, and try again")
    if error.errno in _FAILS:
        return UserError(what, hint="the disk or its server fails: look at `dmesg`, and try again")
    if error.errno in _BAD_PATH:
        return UserError(what, hint="name another path")
    return None
