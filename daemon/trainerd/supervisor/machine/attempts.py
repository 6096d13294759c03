"""Answers to what is seen of an attempt: it starts, moves, ends.

A job that was asked to stop goes where the request says, whatever became of its attempt, unless it finished.
One that was not asked goes where its outcome says, as long as its budget lasts.
"""

from __future__ import annotations

from dataclasses import replace

from trainerd.contract.counted import counted
from trainerd.supervisor.machine.commands import DrainAttempt, EndStalledAttempt, WakeLater
from trainerd.supervisor.machine.decision import (
    Absent,
    Transition,
    enter,
    forget,
    forgiven,
    queue,
    stay,
    unchanged,
)
from trainerd.supervisor.machine.job_events import (
    AttemptEnded,
    AttemptSeen,
    AttemptVoided,
    DrainSignalled,
    LaunchFailed,
    ObservationFailed,
    ProgressSeen,
    StallSeen,
)
from trainerd.supervisor.machine.outcome import Outcome, OutcomeKind, Retry
from trainerd.supervisor.machine.repeats import Remedy, after_failure
from trainerd.supervisor.machine.restart import failures_after, is_spent, next_delay_s
from trainerd.supervisor.machine.states import (
    BackingOff,
    Draining,
    DrainReason,
    Finished,
    Job,
    Parked,
    Paused,
    Queued,
    Rejected,
    Running,
    Starting,
    Stopped,
)
from trainerd.supervisor.machine.table import answers, ignores

_IDLE = (Absent, Queued, BackingOff, Paused, Stopped, Finished, Parked, Rejected)


@answers(Starting, on=AttemptSeen, leads_to=(Running,))
def run(job: Job, state: Starting, _event: AttemptSeen, now: float) -> Transition:
    """Running."""
    return enter(job, Running(state.gpus), f"attempt {job.attempt} runs", now)


@answers(Draining, on=AttemptSeen)
def signal_again(job: Job, state: Draining, _event: AttemptSeen, _now: float) -> Transition:
    """The request to stop is sent, unless it is known to be on its way."""
    if state.is_signalled:
        return unchanged(job, "the request to stop is on its way")
    return stay(job, "the request to stop is sent to the attempt that was found", DrainAttempt(job.attempt))


@answers(Running, on=AttemptSeen)
def end_again(job: Job, state: Running, _event: AttemptSeen, _now: float) -> Transition:
    """Ended, if it is known to stand still."""
    if not state.is_stalled:
        return unchanged(job, "it is known to run")
    return stay(job, "the stalled attempt that was found is ended", EndStalledAttempt(job.attempt))


ignores(*_IDLE, on=AttemptSeen, because="no attempt of it is live")


@answers(Draining, on=DrainSignalled)
def note_signal(job: Job, state: Draining, _event: DrainSignalled, _now: float) -> Transition:
    """Remembered, since a second signal would mean "now"."""
    if state.is_signalled:
        return unchanged(job, "it is known to be signalled")
    return stay(replace(job, state=replace(state, is_signalled=True)), "the request to stop was delivered")


ignores(Starting, Running, on=DrainSignalled, because="the request was withdrawn in the meantime")
ignores(*_IDLE, on=DrainSignalled, because="no attempt of it is live")


@answers(Starting, Running, on=ProgressSeen, leads_to=(Running,))
def refill(job: Job, state: Starting | Running, event: ProgressSeen, now: float) -> Transition:
    """The restart budget is full again."""
    if event.step <= job.best_step:
        return unchanged(job, f"step {job.best_step} was reached before")
    moved = replace(forgiven(job), best_step=event.step)
    reason = f"step {event.step} goes beyond what was reached before: the restart budget is full"
    if isinstance(state, Starting):
        return enter(moved, Running(state.gpus, has_progressed=True), reason, now)
    return stay(replace(moved, state=replace(state, has_progressed=True)), reason)


@answers(Draining, on=ProgressSeen)
def refill_draining(job: Job, state: Draining, event: ProgressSeen, _now: float) -> Transition:
    """The restart budget is full again."""
    if event.step <= job.best_step:
        return unchanged(job, f"step {job.best_step} was reached before")
    state = replace(state, has_progressed=True)
    reason = f"step {event.step} goes beyond what was reached before: the restart budget is full"
    return stay(replace(forgiven(job), best_step=event.step, state=state), reason)


ignores(*_IDLE, on=ProgressSeen, because="no attempt of it is live")

ignores(
    Starting,
    Running,
    Draining,
    *_IDLE,
    on=ObservationFailed,
    because="failing to observe says nothing about what was to be observed",
)


@answers(Running, on=StallSeen)
def end_stalled(job: Job, state: Running, event: StallSeen, _now: float) -> Transition:
    """Its stacks are written to its logs, then it is ended; what follows is decided when it has ended."""
    if state.is_stalled:
        return unchanged(job, "it is being ended for that")
    reason = f"stalled: {event.reason}"
    stalled = replace(job, state=replace(state, is_stalled=True), reason=reason)
    return stay(stalled, reason, EndStalledAttempt(job.attempt))


ignores(Starting, on=StallSeen, because="it was not seen running yet")
ignores(Draining, on=StallSeen, because="it is draining, and ended when its grace period is over")
ignores(*_IDLE, on=StallSeen, because="no attempt of it is live")


@answers(Starting, Running, on=AttemptVoided, leads_to=(Queued, Rejected))
def launch_again(job: Job, _state: Starting | Running, _event: AttemptVoided, now: float) -> Transition:
    """Nothing ran: queued again."""
    return queue(job, f"attempt {job.attempt} never started", now)


@answers(Draining, on=AttemptVoided, leads_to=(Queued, Stopped, Rejected, Absent))
def drain_nothing(job: Job, state: Draining, _event: AttemptVoided, now: float) -> Transition:
    """Nothing ran: where the request to stop says."""
    return _after_drain(job, state, f"attempt {job.attempt} never started", now)


ignores(*_IDLE, on=AttemptVoided, because="no attempt of it is live")


@answers(Starting, on=LaunchFailed, leads_to=(BackingOff, Paused, Parked, Rejected))
def launch_later(job: Job, _state: Starting, event: LaunchFailed, now: float) -> Transition:
    """Tried again after a wait, within the budget; paused if there was no room on the disk."""
    retry = Retry.WHEN_THERE_IS_ROOM if event.is_for_want_of_space else Retry.AFTER_BACKOFF
    # A launch that failed because there was no room has used up nothing of the job's.
    failures = job.failures if event.is_for_want_of_space else job.failures + 1
    reason = f"attempt {job.attempt} could not be launched: {event.error}"
    return _again(replace(job, failures=failures), retry, reason, now)


@answers(Draining, on=LaunchFailed, leads_to=(Queued, Stopped, Rejected, Absent))
def launch_no_more(job: Job, state: Draining, event: LaunchFailed, now: float) -> Transition:
    """Nothing ran: where the request to stop says."""
    return _after_drain(job, state, f"attempt {job.attempt} could not be launched: {event.error}", now)


ignores(Running, on=LaunchFailed, because="it was seen running")
ignores(*_IDLE, on=LaunchFailed, because="no attempt of it is live")


@answers(
    Starting,
    Running,
    on=AttemptEnded,
    leads_to=(Queued, BackingOff, Paused, Finished, Parked, Rejected),
)
def follow_outcome(job: Job, state: Starting | Running, event: AttemptEnded, now: float) -> Transition:
    """Finished, rejected, or tried again as the outcome and the restart budget say."""
    outcome = event.outcome
    has_progressed = isinstance(state, Running) and state.has_progressed
    job, has_progressed = _credited(job, outcome, has_progressed=has_progressed)
    reason = f"{outcome.kind.value}: {outcome.reason}"
    if outcome.kind is OutcomeKind.FINISHED:
        return enter(forgiven(job), Finished(job.attempt_digest), outcome.reason, now)
    if outcome.retry is Retry.NEVER:
        return enter(job, Rejected("program", event.script), reason, now)
    if outcome.retry is Retry.AT_ONCE:
        # Not the job's fault, so it costs nothing; what it gained before counts.
        return queue(forgiven(job) if has_progressed else job, reason, now)
    job = replace(job, failures=failures_after(job.failures, has_progressed=has_progressed))
    if outcome.retry is Retry.AT_ONCE_IF_MOVED and has_progressed:
        return queue(forgiven(job), reason, now)
    return _after_failure(job, outcome, reason, now, has_progressed=has_progressed)


def _after_failure(
    job: Job, outcome: Outcome, reason: str, now: float, *, has_progressed: bool
) -> Transition:
    repeat, remedy = after_failure(None if has_progressed else job.repeat, outcome)
    stalls = 0 if has_progressed else job.stalls
    stalls += outcome.kind is OutcomeKind.STALLED
    job = replace(job, repeat=repeat, stalls=stalls)
    if outcome.retry is Retry.ON_REQUEST:
        return enter(job, Parked(), reason, now)
    if remedy is Remedy.GIVE_UP:
        assert repeat is not None
        then = "again after going back to an earlier checkpoint"
        if not repeat.has_gone_back:
            then = "and there is no earlier checkpoint to go back to"
        return enter(job, Parked(), f"it failed {repeat.times} times in the same way, {then}: {reason}", now)
    if remedy is Remedy.GO_BACK:
        job = replace(job, goes_back_to=outcome.checkpoint_before)
        reason = f"{reason}; going back to {outcome.checkpoint_before}"
    return _again(job, outcome.retry, reason, now)


@answers(Draining, on=AttemptEnded, leads_to=(Queued, Stopped, Finished, Rejected, Absent))
def follow_request(job: Job, state: Draining, event: AttemptEnded, now: float) -> Transition:
    """Where the request to stop says: queued, stopped, forgotten; or finished, if it got that far."""
    job, has_progressed = _credited(job, event.outcome, has_progressed=state.has_progressed)
    if has_progressed:
        job = forgiven(job)
    reason = f"{event.outcome.kind.value}: {event.outcome.reason}"
    is_complete = event.outcome.kind is OutcomeKind.FINISHED
    is_current = job.spec is not None and job.spec.spec_digest == job.attempt_digest
    if is_complete and is_current and state.why is not DrainReason.REMOVED:
        return enter(job, Finished(job.attempt_digest), event.outcome.reason, now)
    return _after_drain(job, state, reason, now)


ignores(*_IDLE, on=AttemptEnded, because="no attempt of it is live")


def _credited(job: Job, outcome: Outcome, *, has_progressed: bool) -> tuple[Job, bool]:
    step = -1 if outcome.step is None else outcome.step
    has_progressed = has_progressed or step > job.best_step
    # An attempt that was to go back has done so before it was launched.
    return replace(job, best_step=max(job.best_step, step), goes_back_to=None), has_progressed


def _after_drain(job: Job, state: Draining, reason: str, now: float) -> Transition:
    if state.why is DrainReason.REMOVED:
        return forget(f"{reason}; the spec was removed: forgotten, its run folder stays")
    if state.why is DrainReason.STOP:
        return enter(job, Stopped(), f"{reason}; it stays stopped until it is resumed", now)
    if job.is_held:
        return queue(job, f"{reason}; held until it is resumed", now)
    return queue(job, f"{reason}; it goes on when it is its turn ({state.why.value})", now)


def _again(job: Job, retry: Retry, reason: str, now: float) -> Transition:
    assert job.spec is not None, "a job that was launched has a spec"
    policy = job.spec.restart
    if is_spent(job.failures, policy):
        where = f"beyond step {job.best_step}" if job.best_step >= 0 else "at all"
        attempts = counted(job.failures, "attempt", "attempts in a row")
        spent = f"{attempts} made no progress {where}; the last one {reason}"
        return enter(job, Parked(), spent, now)
    if job.refusal is not None:
        return queue(job, reason, now)
    delay_s = next_delay_s(job.failures, policy, seed=f"{job.name}:{job.attempt}")
    wake = WakeLater(job.attempt, delay_s)
    if retry is Retry.WHEN_THERE_IS_ROOM:
        return enter(job, Paused(delay_s, now + delay_s), reason, now, wake)
    return enter(job, BackingOff(delay_s, now + delay_s), reason, now, wake)
