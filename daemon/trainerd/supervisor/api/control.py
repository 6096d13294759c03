"""What the supervisor lets its interfaces see and ask for.

The HTTP API is written against this protocol and the service implements it; neither knows the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class OutcomeView:
    """How an attempt ended, as shown.

    Attributes:
        attempt: Which.
        kind: One of finished, drained, crashed, killed, out-of-memory, stalled, lost, non-finite-loss,
            stopped, rejected.
        reason: One sentence.
        evidence: What the judgement rests on, a line each.
        step: Last step it finished, None if it never said.
        checkpoint: Newest valid checkpoint afterwards, None if there is none.
        next_action: What the supervisor does about it, and why.
        wall_s: When it ended, seconds since the epoch.
    """

    attempt: int
    kind: str
    reason: str
    evidence: tuple[str, ...] = ()
    step: int | None = None
    checkpoint: str | None = None
    next_action: str = ""
    wall_s: float = 0.0


@dataclass(frozen=True)
class JobView:
    """A job as shown. Progress fields are None where the job has not said, or is no trainerd session.

    Attributes:
        state: One of queued, starting, running, draining, backing-off, paused, stopped, finished, parked, rejected.
        reason: Why it is in that state: one sentence.
        since_wall_s: Since when, seconds since the epoch.
        attempt: Number of the newest attempt, 0 before the first.
        epochs: Epochs planned.
        batches: Batches in the epoch in progress.
        checkpoint_step: Step of the newest checkpoint.
        pids: Process ids of the live ranks, by rank.
        retry_at_wall_s: When the next attempt starts, while backing off.
        budget_left: Attempts left without progress.
        spec_digest: Of the newest spec that was accepted, empty if none ever was.
        resume: Whether its newest resume was exact, or what differed; None if it was never resumed.
        is_held: Whether nothing of it is launched until it is resumed.
    """

    name: str
    state: str
    reason: str
    since_wall_s: float
    attempt: int
    spec_path: str
    run_dir: str
    phase: str | None = None
    step: int | None = None
    epoch: int | None = None
    epochs: int | None = None
    batch: int | None = None
    batches: int | None = None
    loss: float | None = None
    checkpoint_step: int | None = None
    shim_pid: int | None = None
    pids: tuple[int, ...] = ()
    retry_at_wall_s: float | None = None
    budget_left: int | None = None
    priority: int = 0
    last_outcome: OutcomeView | None = None
    spec_digest: str = ""
    resume: str | None = None
    is_held: bool = False


@dataclass(frozen=True)
class EventView:
    """One line of the journal's history."""

    sequence: int
    wall_s: float
    job: str | None
    kind: str
    message: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DaemonView:
    """The supervisor itself.

    Attributes:
        last_event: Sequence number of the newest event, 0 if there is none.
        is_on_hold: Whether nothing is started until it is released.
        reload_refused_wall_s: When a reload was last refused, seconds since the epoch; None if none was.
        reload_refusal: Why it was.
    """

    version: str
    pid: int
    state_dir: str
    jobs_dir: str
    started_wall_s: float
    is_stopping: bool
    jobs_by_state: dict[str, int] = field(default_factory=dict)
    last_event: int = 0
    is_on_hold: bool = False
    reload_refused_wall_s: float | None = None
    reload_refusal: str = ""


class Control(Protocol):
    """The supervisor, as its interfaces use it. All calls are made on the supervisor's event loop."""

    def daemon(self) -> DaemonView:
        """Describe the supervisor."""
        ...

    def list_jobs(self) -> tuple[JobView, ...]:
        """Describe every job, by name."""
        ...

    def get_job(self, name: str) -> JobView | None:
        """Describe one job, None if there is none of that name."""
        ...

    def list_events(
        self, *, job: str | None = None, after: int = 0, limit: int = 200
    ) -> tuple[EventView, ...]:
        """Return events with a sequence number above `after`, oldest first, at most `limit`."""
        ...

    def list_outcomes(self, name: str) -> tuple[OutcomeView, ...]:
        """Return how each attempt of a job ended, oldest first."""
        ...

    async def stop(self, name: str) -> JobView:
        """Drain a job and keep it stopped until `resume`. Returns once the request is durable.

        Raises:
            UserError: There is no such job, or it cannot be stopped in its state.
        """
        ...

    async def resume(self, name: str) -> JobView:
        """Let a stopped, parked, paused or backing-off job go on now. Returns once the request is durable.

        Raises:
            UserError: There is no such job, or there is nothing to resume.
        """
        ...

    async def hold(self, name: str) -> JobView:
        """Launch nothing of a job until `resume`, and drain it if it runs. Durable when this returns.

        Raises:
            UserError: There is no such job.
        """
        ...

    async def retry(self, name: str) -> JobView:
        """Try a parked, rejected or waiting job again with a full budget. Durable when this returns.

        Raises:
            UserError: There is no such job, or it was not given up.
        """
        ...

    async def hold_all(self) -> DaemonView:
        """Drain every job and start none until `release_all`. Durable when this returns."""
        ...

    async def release_all(self) -> DaemonView:
        """Start jobs again. Those that were held or stopped one by one stay so."""
        ...

    async def reload(self) -> None:
        """Ask the supervisor to run its program anew in place; returns before it does."""
        ...

    async def rescan(self) -> None:
        """Look at the jobs folder now; returns once every settled spec is acknowledged."""
        ...
