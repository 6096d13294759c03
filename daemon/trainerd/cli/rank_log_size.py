"""How large the logs of a run's ranks are, and how large they may become."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.cli.human import size
from trainerd.contract import records
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
    files = "1 file" if len(sizes) == 1 else f"{len(sizes)} files"
    return f"{files}, {size(sum(sizes))}{_limit(run, attempt)}"


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
    return f"; each is moved aside at {limit}, {launch.log_copies} copies a rank are kept"
