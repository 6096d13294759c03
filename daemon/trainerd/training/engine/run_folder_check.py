"""Whether a run folder can be one: files where files belong, folders where folders belong.

Looked at before anything is opened: a FIFO would block, and a folder be found only under the lock.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from trainerd.contract.regular_file import kind_of
from trainerd.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.contract.paths import RunPaths

_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
_HINT: Final = "move it away, or give the run another folder: session(run_dir=…)"


def check_run_folder(run: RunPaths) -> None:
    """Check everything in a run folder that a session opens.

    Raises:
        UserError: Something is of another kind, or may not be read and written.
    """
    if run.root.is_symlink() and _can_be_made(run.root):
        return  # the run that it led to was moved aside
    for folder in (run.root, run.checkpoints, run.quarantine, run.abandoned, run.attempts):
        mode = _mode(folder)
        if mode is not None and not stat.S_ISDIR(mode):
            raise UserError(f"{folder} is {kind_of(mode)}; a run has a folder there", hint=_HINT)
    for file in (run.record, run.metrics, run.resume, run.witness, run.finished, run.retention):
        mode = _mode(file)
        if mode is None:
            continue
        if not stat.S_ISREG(mode):
            raise UserError(f"{file} is {kind_of(mode)}; a run keeps a file there", hint=_HINT)
        if not os.access(file, os.R_OK | os.W_OK):
            raise UserError(f"{file} cannot be read and written: permission denied", hint=_HINT)


def _mode(path: Path) -> int | None:
    """Return the mode of what is there, None if nothing is."""
    try:
        return path.stat().st_mode
    except OSError as error:
        if error.errno in _ABSENT and not path.is_symlink():
            return None
        raise UserError(f"{path} cannot be looked at: {error.strerror}", hint=_HINT) from error


def _can_be_made(link: Path) -> bool:
    """Tell whether only the last folder that a link leads to is missing."""
    return not link.exists() and link.resolve().parent.is_dir()
