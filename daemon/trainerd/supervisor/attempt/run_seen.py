"""Reads what a verdict on a run needs from its folder, whatever that holds."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from trainerd.contract import records, resolved
from trainerd.contract.durable import read_file
from trainerd.contract.heartbeat import read_heartbeat
from trainerd.contract.process import is_alive
from trainerd.contract.records import (
    ExitRecord,
    FinishedRecord,
    LaunchRecord,
    NodeEndRecord,
    OutcomeRecord,
)
from trainerd.contract.regular_file import NotRegularError, open_regular
from trainerd.contract.resolved import ResolvedJob
from trainerd.contract.session_record import read_sessions
from trainerd.errors import CorruptError
from trainerd.supervisor.attempt.evidence import RANKS_MAX, gather_evidence
from trainerd.supervisor.attempt.probe import ProbedRunning, probe
from trainerd.supervisor.machine.nodes_verdict import NodesSeen
from trainerd.supervisor.machine.run_verdict import RunSeen

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.contract.paths import AttemptPaths, RunPaths
    from trainerd.supervisor.machine.outcome import Evidence

ATTEMPTS_COUNTED_MAX: Final = 200
"""How far back the attempts are counted that made no progress."""


def read_run(run: RunPaths, code: int | None, *, since_wall_s: float = 0.0) -> RunSeen:
    """Return what is known of a run.

    Args:
        run: Its folder, which may be missing or hold anything.
        code: Exit code of what was run, None if it is not known.
        since_wall_s: When that was started, seconds since the epoch: an attempt whose last sign is
            older is one of an earlier start.

    Raises:
        OSError: A record that the verdict rests on cannot be read, which does not mean that it is absent.
    """
    if run.node_ends.is_dir() and run.common == run.root:
        nodes = _nodes(run, since_wall_s)
        return RunSeen(code=code, is_finished=_is_finished(run), nodes=nodes)
    job = _job(run)
    number = run.newest_attempt()
    paths = run.attempt(number) if number else None
    if paths is not None:
        _check_readable(paths.root)
    is_of_this_start = paths is not None and _last_sign_s(paths) >= since_wall_s
    return RunSeen(
        code=code,
        is_finished=_is_finished(run),
        is_live=paths is not None and _is_live(paths),
        is_supervised=paths is not None and paths.launch.exists(),
        evidence=_evidence(job, run, number) if is_of_this_start else None,
        fruitless=_fruitless(run, number),
        budget=job.restart.budget,
    )


def _nodes(run: RunPaths, since_wall_s: float) -> NodesSeen:
    _check_readable(run.node_ends)
    ends = []
    for path in sorted(run.node_ends.glob("[0-9]*.json"))[:RANKS_MAX]:
        with contextlib.suppress(OSError, CorruptError):
            if path.stat().st_mtime >= since_wall_s and (end := records.read(path, NodeEndRecord)):
                ends.append(end)
    return NodesSeen(tuple(ends), has_met=run.newest_attempt() > 0)


def _check_readable(folder: Path) -> None:
    """Open each file of a folder once: some readers take a record that they cannot read for an absent one.

    Raises:
        OSError: One cannot be read.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in sorted(folder.iterdir()):
            with contextlib.suppress(FileNotFoundError, NotRegularError):
                os.close(open_regular(path))


def _job(run: RunPaths) -> ResolvedJob:
    with contextlib.suppress(FileNotFoundError, NotRegularError, CorruptError):
        return resolved.decode(read_file(run.job), source=str(run.job))
    return ResolvedJob(run.root.name, ("true",), "/", "", "")


def _is_finished(run: RunPaths) -> bool:
    with contextlib.suppress(CorruptError):
        return records.read(run.finished, FinishedRecord) is not None
    return False


def _last_sign_s(paths: AttemptPaths) -> float:
    newest_s = 0.0
    with contextlib.suppress(OSError):
        newest_s = paths.root.stat().st_mtime
        for path in paths.root.iterdir():
            newest_s = max(newest_s, path.stat().st_mtime)
    return newest_s


def _is_live(paths: AttemptPaths) -> bool:
    if isinstance(probe(paths), ProbedRunning):
        return True
    for session in read_sessions(paths):
        with contextlib.suppress(OSError):  # on another machine: unknown
            if session.is_open and is_alive(session.process):
                return True
    return False


def _evidence(job: ResolvedJob, run: RunPaths, number: int) -> Evidence:
    paths = run.attempt(number)
    ending = launch = None
    with contextlib.suppress(OSError, CorruptError):
        ending = records.read(paths.exit, ExitRecord)
    with contextlib.suppress(OSError, CorruptError):
        launch = records.read(paths.launch, LaunchRecord)
    if ending is not None and not ending.ranks:
        ending = None
    gather = partial(
        gather_evidence,
        job,
        run,
        number,
        spec_digest=job.spec_digest,
        ending=ending,
        lost_because="nothing says how its newest attempt ended",
    )
    try:
        found = gather()
    except (OSError, CorruptError):
        found = gather(looks_at_checkpoints=False)
    # What exits with the code is a launcher above the ranks, as far as can be told.
    return found if launch is not None else replace(found, is_wrapped=True)


def _fruitless(run: RunPaths, newest: int) -> int:
    """Count the attempts up to the newest that failed without a step beyond what was reached before."""
    first = max(1, newest - ATTEMPTS_COUNTED_MAX + 1)
    count, best = 0, 0
    for number in range(first, newest + 1):
        paths = run.attempt(number)
        step = _step(paths)
        if step > best:
            best, count = step, 0
            continue
        if paths.root.is_dir() and not _has_drained(paths):
            count += 1
    return count


def _step(paths: AttemptPaths) -> int:
    step = 0
    for rank in range(RANKS_MAX):
        try:
            beat = read_heartbeat(paths.heartbeat(rank))
        except (OSError, ValueError):
            beat = None
        if beat is None:
            break
        step = max(step, beat.step)
    return step


def _has_drained(paths: AttemptPaths) -> bool:
    with contextlib.suppress(OSError, CorruptError):
        said = records.read(paths.outcome(0), OutcomeRecord)
        return said is not None and said.kind in {"drained", "finished"}
    return False
