"""Says which files of a run could not be read, why, and what to do."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from trainerd.cli.rights import without_rights
from trainerd.contract.counted import counted
from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainerd.supervisor.goodput.goodput_facts import UnreadFile


def unread_error(unread: Sequence[UnreadFile]) -> UserError:
    """Return what files that could not be read mean to the user of a verb; there is at least one."""
    first, *others = unread
    if first.why == os.strerror(errno.EACCES):
        error = without_rights(PermissionError(errno.EACCES, first.why, str(first.path)))
    else:
        error = UserError(f"cannot read {first.path}: {first.why}")
    also = f"; nor can {counted(len(others), 'other file')} be read" if others else ""
    return UserError(f"{error.message}{also}", hint=error.hint)
