"""Objects that the tests of the supervisor's pure parts are made of."""

from __future__ import annotations

from trainerd.contract.policy import Resources, RestartPolicy
from trainerd.contract.records import ExitRecord, RankExit
from trainerd.contract.resolved import ResolvedJob
from trainerd.supervisor.machine import Absent
from trainerd.supervisor.machine import job_events as events
from trainerd.supervisor.machine.outcome import Outcome, OutcomeKind, Retry
from trainerd.supervisor.machine.states import (
    BackingOff,
    Draining,
    Faulted,
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

NOW = 1_800_000_000.0
BOOT = "2f8ed1a4-0000-0000-0000-000000000000"

STATE_SAMPLES = {
    Queued: Queued(),
    Starting: Starting(),
    Running: Running(),
    Draining: Draining(),
    BackingOff: BackingOff(1.0, NOW + 1.0),
    Paused: Paused(1.0, NOW + 1.0),
    Stopped: Stopped(),
    Finished: Finished("v1"),
    Parked: Parked(),
    Rejected: Rejected("program"),
    Faulted: Faulted(("a traceback",)),
}


def spec(digest: str = "v1", *, name: str = "ant", budget: int = 5, **fields) -> ResolvedJob:
    values = {
        "command": ("train",),
        "workdir": "/",
        "spec_path": f"/jobs/{name}.yaml",
        "restart": RestartPolicy(budget=budget, initial_s=1.0, max_s=60.0),
        "resources": Resources(),
    }
    return ResolvedJob(name=name, spec_digest=digest, **(values | fields))


def job(state, **fields) -> Job:
    values = {
        "name": "ant",
        "reason": "because",
        "since_wall_s": NOW - 10,
        "spec": spec(),
        "attempt": 3,
        "attempt_digest": "v1",
        "best_step": 100,
    }
    return Job(state=state, **(values | fields))


def outcome(kind: OutcomeKind = OutcomeKind.CRASHED, retry: Retry = Retry.AFTER_BACKOFF, **fields) -> Outcome:
    return Outcome(kind, "it did", retry, **fields)


def event_samples(attempt: int = 3) -> dict[type, list]:
    """Return every kind of event, in the varieties that are answered differently."""
    outcomes = [
        outcome(kind, retry, step=step)
        for kind, retry in [
            (OutcomeKind.FINISHED, Retry.NOTHING_LEFT),
            (OutcomeKind.DRAINED, Retry.AT_ONCE_IF_MOVED),
            (OutcomeKind.STOPPED, Retry.AT_ONCE_IF_MOVED),
            (OutcomeKind.CRASHED, Retry.AFTER_BACKOFF),
            (OutcomeKind.CRASHED, Retry.WHEN_THERE_IS_ROOM),
            (OutcomeKind.LOST, Retry.AT_ONCE),
            (OutcomeKind.STALLED, Retry.AFTER_BACKOFF),
            (OutcomeKind.NON_FINITE_LOSS, Retry.ON_REQUEST),
            (OutcomeKind.NON_FINITE_LOSS, Retry.FROM_THE_CHECKPOINT_BEFORE),
            (OutcomeKind.REJECTED, Retry.NEVER),
        ]
        for step in (None, 100, 101)
    ]
    return {
        events.SpecAccepted: [
            events.SpecAccepted(spec("v1")),
            events.SpecAccepted(spec("v2")),
            events.SpecAccepted(spec("v2"), 7, is_live=True),
        ],
        events.SpecRefused: [events.SpecRefused("no good"), events.SpecRefused("refused before")],
        events.SpecVanished: [events.SpecVanished()],
        events.SlotGranted: [events.SlotGranted((0,))],
        events.NeverFits: [events.NeverFits("too large")],
        events.LaunchFailed: [
            events.LaunchFailed(attempt, "no"),
            events.LaunchFailed(attempt, "full", is_for_want_of_space=True),
        ],
        events.AttemptVoided: [events.AttemptVoided(attempt)],
        events.AttemptSeen: [events.AttemptSeen(attempt)],
        events.DrainSignalled: [events.DrainSignalled(attempt)],
        events.ProgressSeen: [events.ProgressSeen(attempt, 100), events.ProgressSeen(attempt, 101)],
        events.StallSeen: [events.StallSeen(attempt, "nothing moved")],
        events.AttemptEnded: [events.AttemptEnded(attempt, one) for one in outcomes],
        events.ObservationFailed: [events.ObservationFailed(attempt, "EIO")],
        events.StopAsked: [events.StopAsked()],
        events.ResumeAsked: [events.ResumeAsked()],
        events.HoldAsked: [events.HoldAsked()],
        events.RetryAsked: [events.RetryAsked()],
        events.RestartAsked: [events.RestartAsked(), events.RestartAsked(is_fresh=True)],
        events.ShutdownAsked: [events.ShutdownAsked(), events.ShutdownAsked(is_leaving=False)],
        events.PreemptionAsked: [events.PreemptionAsked("bee")],
        events.WaitEnded: [events.WaitEnded(attempt)],
        events.SpaceBack: [events.SpaceBack()],
        events.ScriptChanged: [events.ScriptChanged()],
        events.FaultSeen: [events.FaultSeen("a bug", ("a traceback",)), events.FaultSeen("another", ("b",))],
    }


def exit_record(
    *ranks: RankExit, stop_requested_s: float | None = None, duration_s: float = 60.0
) -> ExitRecord:
    return ExitRecord(
        ranks=ranks or (RankExit(0, exit_code=0),),
        started_wall_s=NOW - duration_s,
        ended_wall_s=NOW,
        duration_s=duration_s,
        boot_id=BOOT,
        stop_requested_s=stop_requested_s,
    )


__all__ = ["BOOT", "NOW", "STATE_SAMPLES", "Absent", "event_samples", "exit_record", "job", "outcome", "spec"]
