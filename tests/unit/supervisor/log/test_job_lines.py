"""Which lines a decision about a job makes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.support.supervisor_objects import STATE_SAMPLES, event_samples, job, spec
from trainerd.contract.records import ExitRecord, RankExit
from trainerd.supervisor.log.catalogue import CATALOGUE
from trainerd.supervisor.log.job_lines import job_lines, lost_steps
from trainerd.supervisor.machine import decide
from trainerd.supervisor.machine.job_events import AttemptEnded, LaunchFailed
from trainerd.supervisor.machine.outcome import Evidence, judge
from trainerd.supervisor.machine.states import Job, Running, Starting

NOW = 1_000.0


@dataclass(frozen=True)
class Step:
    name: str
    event: object
    before: Job | None
    after: Job | None
    reason: str
    is_ignored: bool


def step_of(job: Job, event: object) -> Step:
    decision = decide(job.name, job, event, NOW)
    return Step(job.name, event, job, decision.job, decision.reason, decision.is_ignored)


def running() -> Job:
    return Job("mnist", Running(), reason="", since_wall_s=0.0, spec=spec(name="mnist"), attempt=3)


def ended(rank: RankExit, **more) -> AttemptEnded:
    record = ExitRecord((rank,), started_wall_s=0.0, ended_wall_s=9.0, duration_s=9.0, boot_id="b")
    evidence = Evidence(3, record, step=47, checkpoint="step-000000040", has_session=True, **more)
    return AttemptEnded(3, judge(evidence, now_wall_s=NOW))


@pytest.mark.parametrize(
    ("rank", "outcome", "exit_code", "signal"),
    [
        (RankExit(0, exit_code=1), "crashed", 1, None),
        (RankExit(0, signal=9), "killed", None, "SIGKILL"),
        (RankExit(0, signal=11), "crashed", None, "SIGSEGV"),
        (RankExit(0, exit_code=0), "crashed", 0, None),
    ],
    ids=["exit 1", "killed", "segmentation fault", "exit 0 in the middle"],
)
def test_an_attempt_that_ends_badly_is_a_warning_with_all_that_is_known(rank, outcome, exit_code, signal):
    step = step_of(running(), ended(rank))
    (name, fields), (state, _) = job_lines(step, heartbeat_step=47)
    assert (name, CATALOGUE[name].level, state) == ("attempt.failed", "warning", "job.backing-off")
    assert fields.pop("reason") == step.event.outcome.reason
    assert fields == {
        "job": "mnist",
        "attempt": 3,
        "outcome": outcome,
        "exit": exit_code,
        "signal": signal,
        "step": 47,
        "checkpoint": "step-000000040",
        "lost_steps": 7,
        "retry_in_s": round(step.after.state.delay_s, 3),
    }
    assert set(fields) | {"reason"} == set(CATALOGUE[name].fields)


def test_an_attempt_that_was_drained_is_no_warning():
    event = ended(RankExit(0, exit_code=85), is_checkpoint_new=True)
    (name, fields), _ = job_lines(step_of(running(), event), heartbeat_step=47)
    assert (name, CATALOGUE[name].level) == ("attempt.ended", "info")
    assert (fields["outcome"], fields["exit"], fields["signal"]) == ("drained", 85, None)


def test_the_rank_that_decided_is_the_one_that_is_named():
    record = ExitRecord(
        (RankExit(0, signal=9, killed_by_shim="peer"), RankExit(1, exit_code=7)),
        started_wall_s=0.0,
        ended_wall_s=9.0,
        duration_s=9.0,
        boot_id="b",
    )
    outcome = judge(Evidence(3, record), now_wall_s=NOW)
    assert (outcome.exit_code, outcome.signal) == (7, None)


def test_nothing_follows_an_attempt_that_is_given_up():
    (_, fields), (state, _) = job_lines(
        step_of(running(), ended(RankExit(0, exit_code=93))), heartbeat_step=1
    )
    assert (state, fields["retry_in_s"]) == ("job.rejected", None)


@pytest.mark.parametrize("is_space", [False, True])
def test_a_launch_that_failed_is_a_warning_unless_the_pause_says_it(is_space):
    starting = Job("mnist", Starting(), reason="", since_wall_s=0.0, spec=spec(name="mnist"), attempt=3)
    event = LaunchFailed(3, "no such device", is_for_want_of_space=is_space)
    names = [name for name, _ in job_lines(step_of(starting, event), heartbeat_step=None)]
    assert names == (["job.paused"] if is_space else ["attempt.not-launched", "job.backing-off"])
    assert CATALOGUE[names[0]].level == "warning"


def test_an_ignored_event_is_said_at_debug_level_alone():
    ((name, _),) = job_lines(step_of(running(), LaunchFailed(1, "old news")), heartbeat_step=None)
    assert (name, CATALOGUE[name].level) == ("job.ignored", "debug")


@pytest.mark.parametrize(
    ("step", "checkpoint", "lost"),
    [
        (None, None, 0),
        (5, None, 5),
        (40, "step-000000040", 0),
        (41, "step-000000040.1", 1),
        (3, "damaged", 3),
    ],
)
def test_lost_steps_are_those_beyond_the_checkpoint(step, checkpoint, lost):
    assert lost_steps(step, checkpoint) == lost


def test_every_decision_makes_lines_of_the_catalogue_with_its_fields_alone():
    for state in STATE_SAMPLES.values():
        for event in (sample for samples in event_samples().values() for sample in samples):
            for name, fields in job_lines(step_of(job(state), event), heartbeat_step=1):
                assert set(fields) <= set(CATALOGUE[name].fields), name
