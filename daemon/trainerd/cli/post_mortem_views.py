"""Jobs as shown when no supervisor runs: what the journal said last, and how the attempt stands now."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

from trainerd.cli.plain_runs import is_plain, plain_standing
from trainerd.cli.post_mortem import ENDED, UNKNOWN
from trainerd.contract import records
from trainerd.contract.heartbeat import read_heartbeat
from trainerd.contract.records import FinishedRecord
from trainerd.contract.resume_record import read_resume
from trainerd.contract.signals import signal_name
from trainerd.errors import TrainerdError
from trainerd.supervisor.api.saved_progress import read_saved
from trainerd.supervisor.api.views import job_view
from trainerd.supervisor.attempt.probe import (
    ProbedElsewhere,
    ProbedEnded,
    ProbedLost,
    ProbedNotStarted,
    ProbedRunning,
    ProbedUnknown,
    probe,
)
from trainerd.supervisor.machine.states import Job, Running, Stopped

if TYPE_CHECKING:
    from trainerd.contract.heartbeat import Heartbeat
    from trainerd.contract.paths import RunPaths
    from trainerd.contract.resume_record import ResumeRecord
    from trainerd.supervisor.api.control import JobView, OutcomeView
    from trainerd.supervisor.attempt.probe import ProbeResult


def journal_view(job: Job, run: RunPaths, last_outcome: OutcomeView | None) -> JobView:
    """Return a job of the journal as shown.

    A state in which an attempt may run is the journal's last word, so the attempt is looked at.
    """
    found = probe(run.attempt(job.attempt)) if job.is_live else None
    is_over = isinstance(found, ProbedEnded | ProbedLost | ProbedNotStarted)
    view = _view(job, run, last_outcome, is_live=job.is_live and not is_over)
    # Nothing is tried again with no supervisor.
    view = dataclasses.replace(view, retry_at_wall_s=None)
    if found is None:
        return view
    if is_over:
        view = dataclasses.replace(view, state=ENDED, phase=None)
    return _as_found(view, found)


def folder_view(name: str, run: RunPaths, last_outcome: OutcomeView | None) -> JobView:
    """Return a run that no journal knows as shown.

    Raises:
        OSError: Its attempts cannot be listed.
    """
    attempt = run.newest_attempt()
    found = probe(run.attempt(attempt)) if attempt else None
    by_hand = (
        plain_standing(run.attempt(attempt), attempt) if attempt and is_plain(run.attempt(attempt)) else None
    )
    is_live = bool(by_hand[0]) if by_hand is not None else isinstance(found, ProbedRunning)
    job = Job(name, Running() if is_live else Stopped(), "", _changed_s(run), attempt=attempt)
    view = _view(job, run, last_outcome, is_live=is_live)
    finished = _finished(run)
    if finished is not None and not is_live:
        return dataclasses.replace(
            view, state="finished", reason=f"finished at step {finished.step}", since_wall_s=finished.wall_s
        )
    if not is_live:
        is_unknown = isinstance(found, ProbedUnknown) or (by_hand is not None and by_hand[0] is None)
        state = UNKNOWN if is_unknown else ENDED
        view = dataclasses.replace(view, state=state, reason="a run folder that no journal knows")
    if by_hand is not None:
        return dataclasses.replace(view, reason=by_hand[1])
    return _as_found(view, found) if found is not None else view


def unknown_view(name: str, run: RunPaths, error: OSError) -> JobView:
    """Return a run of which something cannot be read as shown."""
    reason = f"not known: {error.filename or run.root} cannot be read: {error.strerror}"
    return dataclasses.replace(job_view(Job(name, Stopped(), reason, _changed_s(run)), run), state=UNKNOWN)


def _changed_s(run: RunPaths) -> float:
    with contextlib.suppress(OSError):
        return run.root.stat().st_mtime
    return 0.0


def _view(job: Job, run: RunPaths, last_outcome: OutcomeView | None, *, is_live: bool) -> JobView:
    """Return a job as its folder shows it; the heartbeat is news only of an attempt that may run."""
    beat = _beat(run, job.attempt)
    return job_view(
        job,
        run,
        heartbeat=beat if is_live else None,
        past=None if is_live else beat,
        saved=read_saved(run),
        last_outcome=last_outcome,
        resume=_resume(run),
    )


def _as_found(view: JobView, found: ProbeResult) -> JobView:
    """Return a job with how its attempt stands."""
    view = dataclasses.replace(view, reason=_standing(found, view.attempt))
    if not isinstance(found, ProbedRunning):
        return view
    pids = tuple(rank.pid for rank in found.ranks)
    return dataclasses.replace(view, shim_pid=found.shim.pid, pids=pids)


def _standing(found: ProbeResult, attempt: int) -> str:
    """Return how an attempt stands, in a sentence."""
    later = "the next supervisor decides what follows"
    if isinstance(found, ProbedRunning):
        return f"attempt {attempt} runs without a supervisor"
    if isinstance(found, ProbedEnded):
        ranks = ", ".join(f"rank {rank.rank} {_how(rank)}" for rank in found.record.ranks[:4])
        return f"attempt {attempt} has ended ({ranks}); {later}"
    if isinstance(found, ProbedLost):
        return f"attempt {attempt} is gone: {found.evidence}; {later}"
    if isinstance(found, ProbedElsewhere):
        return f"attempt {attempt} was started on {found.shim.host}, another machine, and may still run there"
    if isinstance(found, ProbedNotStarted):
        return f"attempt {attempt} was never started; {later}"
    if isinstance(found, ProbedUnknown):
        return f"attempt {attempt} may run: {found.why}"
    return f"attempt {attempt} may run: it was launched, and no shim has answered"


def _how(rank: records.RankExit) -> str:
    if rank.spawn_error is not None:
        return "was not started"
    if rank.signal is not None:
        return f"was ended by {signal_name(rank.signal)}"
    return f"exited with {rank.exit_code}"


def _beat(run: RunPaths, attempt: int) -> Heartbeat | None:
    if attempt:
        with contextlib.suppress(OSError, ValueError):
            return read_heartbeat(run.attempt(attempt).heartbeat(0))
    return None


def _resume(run: RunPaths) -> ResumeRecord | None:
    with contextlib.suppress(TrainerdError, OSError):
        return read_resume(run.resume)
    return None


def _finished(run: RunPaths) -> FinishedRecord | None:
    with contextlib.suppress(TrainerdError, OSError):
        return records.read(run.finished, FinishedRecord)
    return None
