"""Which notices follow from a decision about a job: pure.

Each is made from the decision that the journal has recorded, at the moment at which it is recorded: the next
supervisor does not make it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from trainerd.supervisor.log.job_lines import ENDED_WELL
from trainerd.supervisor.log.narration import next_action
from trainerd.supervisor.machine.job_events import AttemptEnded, LaunchFailed, StallSeen
from trainerd.supervisor.machine.states import BackingOff, Faulted, Finished, Parked, Paused, Queued, Rejected

if TYPE_CHECKING:
    from trainerd.contract.hooks import NoticeEvent
    from trainerd.supervisor.log.job_lines import DecidedStep
    from trainerd.supervisor.machine.states import Job

_ENTERED: Final[dict[type, NoticeEvent]] = {
    Finished: "finished",
    Parked: "parked",
    Faulted: "parked",
    Rejected: "rejected",
    Paused: "disk-low",
}
"""What to tell when a job enters a state. One that was set aside for a fault of trainerd waits for a person,
as a parked one does."""


@dataclass(frozen=True)
class Notice:
    """Something that happened and that people may want to be told of.

    Attributes:
        event: What kind of thing.
        message: What happened, in one sentence.
        job: Name of the job; None if it is about the machine.
        attempt: Number of the attempt, 0 before the first.
        state: State of the job now.
        wall_s: When, seconds since the epoch.
        details: What else is known.
        is_test: Whether it only tries the way.
    """

    event: NoticeEvent
    message: str
    job: str | None = None
    attempt: int = 0
    state: str = ""
    wall_s: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)
    is_test: bool = False


def notices_of(step: DecidedStep, *, wall_s: float) -> tuple[Notice, ...]:
    """Return what is to be told about a decision, at most one notice.

    Args:
        step: The decision.
        wall_s: When, seconds since the epoch.
    """
    event = None if step.is_ignored or step.after is None else _event(step, step.after)
    if event is None or step.after is None:
        return ()
    message, details = _in_words(step, step.after)
    return (
        Notice(
            event,
            message,
            job=step.name,
            attempt=step.after.attempt,
            state=step.after.state.NAME,
            wall_s=wall_s,
            details=details,
        ),
    )


def _event(step: DecidedStep, after: Job) -> NoticeEvent | None:
    if isinstance(step.event, StallSeen):
        return "stalled"
    is_new = step.before is None or type(step.before.state) is not type(after.state)
    is_other_refusal = isinstance(after.state, Rejected) and (
        step.before is None or step.before.reason != after.reason
    )
    if is_new or is_other_refusal:
        event = _ENTERED.get(type(after.state))
        if event is not None:
            return event
    return "restarted" if is_new and _is_tried_again(step, after) else None


def _is_tried_again(step: DecidedStep, after: Job) -> bool:
    """Return whether an attempt ended badly, or could not be launched, and the next follows by itself."""
    if after.is_held or not isinstance(after.state, Queued | BackingOff):
        return False
    match step.event:
        case AttemptEnded(_, outcome):
            return outcome.kind not in ENDED_WELL
        case LaunchFailed():
            return True
        case _:
            return False


def _in_words(step: DecidedStep, after: Job) -> tuple[str, dict[str, Any]]:
    if not isinstance(step.event, AttemptEnded):
        return step.reason, {}
    outcome = step.event.outcome
    action = next_action(after, checkpoint=outcome.checkpoint)
    details = {
        "outcome": outcome.kind.value,
        "exit": outcome.exit_code,
        "signal": outcome.signal,
        "step": outcome.step,
        "checkpoint": outcome.checkpoint,
        "next": action,
    }
    return f"attempt {step.event.attempt}: {outcome.reason}; next: {action}", details


def suspect_notice(
    job: str, attempt: int, *, verdict: str, reason: str, checkpoint: str | None, wall_s: float
) -> Notice:
    """Return the notice of a resume that is not exact, or may not be."""
    return Notice(
        "suspect",
        f"the resume of attempt {attempt} is {verdict}: {reason}",
        job=job,
        attempt=attempt,
        state="running",
        wall_s=wall_s,
        details={"verdict": verdict, "checkpoint": checkpoint},
    )


def trial_notice(wall_s: float) -> Notice:
    """Return a notice that tries the way."""
    return Notice(
        "finished",
        "this is a test of trainerd's notices; nothing happened",
        job="test",
        wall_s=wall_s,
        is_test=True,
    )
