"""How large the logs of a run's ranks are, and how large they may become."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.cli.human import size
from trainerd.contract import records
from trainerd.contract.counted import counted
from trainerd.contract.records import LaunchRecord
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from trainerd.contract.paths import RunPaths


def rank_log_line(run: RunPaths, attempt: int) -> str | None:
    """Return it in words, None if there are none or they cannot be looked at.

    Args:
        run: The run folder.
        attempt: The newest attempt, which knows the limit.
    """
    try:
        sizes = [path.stat().st_size for path in run.rank_log(0).parent.glob("rank-*.log*")]
    except OSError:
        return None
    if not sizes:
        return None
    return f"{counted(len(sizes), 'file')}, {size(sum(sizes))}{_limit(run, attempt)}"


def _limit(run: RunPaths, attempt: int) -> str:
    try:
        launch = records.read(run.attempt(attempt).launch, LaunchRecord) if attempt else None
    except (CorruptError, OSError):
        return ""
    if launch is None:
        return ""
    limit = size(launch.log_bytes_max)
    if not launch.log_copies:
        return f"; each is emptied at {limit}"
    copies = counted(launch.log_copies, "copy a rank is", "copies a rank are")
    return f"; each is moved aside at {limit}, {copies} kept"
