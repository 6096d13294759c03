"""What the programs of other packages answer when the doctor asks them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Final

from trainerd.contract.folder_owner import groups_of

PROGRAM_LIMIT_S: Final = 20.0
"""How long a program that is asked may take, in seconds."""


def output_of(command: list[str], uid: int | None = None) -> str | None:
    """Return what a program prints, None if it cannot be run, fails or takes too long.

    Args:
        command: The program and its arguments.
        uid: Whom it runs as, this process's user unless given.
    """
    account: dict[str, Any] = {}
    if uid is not None:
        gid, groups = groups_of(uid, Path("/"))
        account = {"user": uid, "group": gid, "extra_groups": groups, "cwd": "/"}
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROGRAM_LIMIT_S,
            check=False,
            stdin=subprocess.DEVNULL,
            **account,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ended.stdout if ended.returncode == 0 else None
