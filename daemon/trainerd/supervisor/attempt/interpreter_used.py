"""Tells with which Python an attempt ran, from its spec and its launch record."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING, Final

from trainerd.shim.spawn import DEFAULT_PATH
from trainerd.supervisor.attempt.launch_record import PYTHON_WORD
from trainerd.supervisor.machine.interpreter import Interpreter

if TYPE_CHECKING:
    from trainerd.contract.records import LaunchRecord
    from trainerd.contract.resolved import ResolvedJob

_PYTHON: Final = re.compile(r"(?:python|pypy)[\d.]*")


def interpreter_used(job: ResolvedJob, launch: LaunchRecord | None) -> Interpreter | None:
    """Return what ran the command of an attempt.

    Args:
        job: The spec, newest; it may be another than that of the attempt.
        launch: What was started; None if that cannot be told any more.
    """
    if launch is None or not launch.command:
        return None
    first = launch.command[0]
    if not _PYTHON.fullmatch(os.path.basename(first)):  # noqa: PTH119 - a word of a command need not be a sane path
        return None
    if job.command and job.command[0] == PYTHON_WORD and first != PYTHON_WORD:
        return Interpreter(first, "field" if job.python is not None else "supervisor")
    # The shim looks in the PATH of the ranks, from their folder.
    found = shutil.which(first, path=launch.env.get("PATH", DEFAULT_PATH)) if "/" not in first else None
    return Interpreter(found or first, "command")
