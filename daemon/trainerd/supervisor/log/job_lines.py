"""Which log lines a decision about a job makes: pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from trainerd.checkpoint.checkpoint_names import CheckpointName
from trainerd.supervisor.log.narration import event_kind
from trainerd.supervisor.machine.job_events import AttemptEnded, LaunchFailed
from trainerd.supervisor.machine.outcome import OutcomeKind
from trainerd.supervisor.machine.states import BackingOff, Queued

if TYPE_CHECKING:
    from trainerd.supervisor.machine.job_events import Event
    from trainerd.supervisor.machine.outcome import Outcome
    from trainerd.supervisor.machine.states import Job

ENDED_WELL: Final = frozenset({OutcomeKind.FINISHED, OutcomeKind.DRAINED, OutcomeKind.STOPPED})
"""How an attempt ends that does not fail."""


class DecidedStep(Protocol):
    """A decision about a job, as the ledger returns it."""

    @property
    def name(self) -> str: ...
    @property
    def event(self) -> Event: ...
    @property
    def before(self) -> Job | None: ...
    @property
    def after(self) -> Job | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def is_ignored(self) -> bool: ...


Line = tuple[str, dict[str, Any]]
"""Name of an event in the catalogue, and its fields."""


def job_lines(step: DecidedStep, *, heartbeat_step: int | None) -> list[Line]:
    """Return what is logged about a decision.

    Args:
        step: The decision.
        heartbeat_step: Last step of which the live attempt of the job has told, None for none.
    """
    job = step.after or step.before
    about = {"job": step.name, "attempt": job.attempt if job is not None else 0}
    if step.is_ignored:
        return [("job.ignored", {**about, "event_kind": type(step.event).__name__, "reason": step.reason})]
    kind = event_kind(step.before, step.event, step.after)
    state = (kind, {**about, "step": heartbeat_step, "reason": step.reason})
    match step.event:
        case AttemptEnded(attempt, outcome):
            return [_ending(step.name, attempt, outcome, step.after), state]
        case LaunchFailed(attempt, error, is_space) if not is_space:
            fields = {"retry_in_s": retry_in_s(step.after), "reason": error}
            return [("attempt.not-launched", {"job": step.name, "attempt": attempt, **fields}), state]
        case _:
            return [state]


def _ending(name: str, attempt: int, outcome: Outcome, after: Job | None) -> Line:
    fields = {
        "job": name,
        "attempt": attempt,
        "outcome": outcome.kind.value,
        "exit": outcome.exit_code,
        "signal": outcome.signal,
        "step": outcome.step,
        "checkpoint": outcome.checkpoint,
        "lost_steps": lost_steps(outcome.step, outcome.checkpoint),
        "retry_in_s": retry_in_s(after),
        "reason": outcome.reason,
    }
    return "attempt.ended" if outcome.kind in ENDED_WELL else "attempt.failed", fields


def retry_in_s(job: Job | None) -> float | None:
    """Return when the next attempt follows by itself, in seconds; None if none does."""
    match job.state if job is not None else None:
        case BackingOff(delay_s):
            return round(delay_s, 3)
        case Queued():
            return 0.0
        case _:
            return None


def lost_steps(step: int | None, checkpoint: str | None) -> int:
    """Return how many finished steps lie beyond the newest checkpoint."""
    name = CheckpointName.parse(checkpoint) if checkpoint is not None else None
    return max((step or 0) - (name.step if name is not None else 0), 0)
