"""Torchrun's restart rounds after a drain.

``torchrun --max-restarts N`` takes the exit code of a drained rank for a failure and starts all ranks once
more, on a machine that is about to go away. Such a round ends at once: the run stays drained.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from trainerd.contract import records
from trainerd.contract.process import identify
from trainerd.contract.records import OutcomeRecord
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trainerd.contract.paths import AttemptPaths, RunPaths

ROUND = "TORCHELASTIC_RESTART_COUNT"


def stays_drained(
    run: RunPaths,
    attempt: AttemptPaths,
    environ: Mapping[str, str],
    *,
    agent_began_wall_s: float | None = None,
) -> bool:
    """Tell whether this is a restart by torchrun and the round before it was drained.

    Args:
        run: The run folder.
        attempt: Folder of this attempt. Under a supervisor all rounds have the same one.
        environ: Environment of this rank.
        agent_began_wall_s: When torchrun was started; that of the parent process if left out.
    """
    if environ.get(ROUND, "0") in {"", "0"}:
        return False
    began_s = parent_began_wall_s() if agent_began_wall_s is None else agent_began_wall_s
    newest = max(_outcomes(run, attempt, began_s), key=lambda found: found[0], default=None)
    return newest is not None and newest[1].kind == "drained"


def _outcomes(run: RunPaths, attempt: AttemptPaths, began_s: float) -> Iterator[tuple[float, OutcomeRecord]]:
    """Yield what ranks that ended since then said, each with the time."""
    for path in {*attempt.root.glob("outcome-*.json"), *run.attempts.glob("*/outcome-*.json")}:
        with contextlib.suppress(OSError, CorruptError):
            modified_s = path.stat().st_mtime
            if modified_s >= began_s and (record := records.read(path, OutcomeRecord)) is not None:
                yield modified_s, record


def parent_began_wall_s() -> float:
    """Return when the parent process was started, to the second before, in seconds since the epoch."""
    parent = identify(os.getppid())
    if parent is None:
        return time.time()
    up_s = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    age_s = up_s - parent.start_ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age_s - 1.0
