"""Has the kernel run the supervisor before the jobs, where that is possible without touching them.

Linux shares the processor among sessions first (autogroup). Each shim and each rank has one of its own, so
that beside 50 of them the supervisor is one of a hundred. A nice value says nothing across sessions, and jobs
would inherit it; the weight of a session is its own, and theirs stay as they are.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

OWN_SESSION: Final = Path("/proc/self/autogroup")
NICENESS: Final = -10
"""Nine times the weight of another session. The supervisor needs little, and that little soon."""


def go_first(session: Path = OWN_SESSION) -> bool:
    """Raise the weight of this process's session; return whether that was done.

    It is not where the session belongs to another program, such as a terminal, where only root may and this
    is not root, and where the kernel shares the processor otherwise (a cgroup with a cpu controller).
    """
    if os.getsid(0) != os.getpid():
        return False
    with contextlib.suppress(OSError):
        session.write_text(str(NICENESS), encoding="ascii")
        return True
    return False
