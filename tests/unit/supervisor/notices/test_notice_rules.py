"""Which notices follow from which decision."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.support.supervisor_objects import NOW, job, outcome, spec
from trainerd.contract.hooks import Hook
from trainerd.supervisor.attempt.run_news import RankFinding
from trainerd.supervisor.ledger import Step
from trainerd.supervisor.machine import decide
from trainerd.supervisor.machine import job_events as events
from trainerd.supervisor.machine.outcome import OutcomeKind, Retry
from trainerd.supervisor.machine.states import Queued, Rejected, Running, Starting
from trainerd.supervisor.notices.announcer import Announcer
from trainerd.supervisor.notices.disk_watch import DiskWatch, look_at_disk
from trainerd.supervisor.notices.notice_rules import notices_of


def told(before, event):
    decision = decide("ant", before, event, NOW)
    step = Step("ant", event, before, decision.job, decision.reason, decision.commands, decision.is_ignored)
    return notices_of(step, wall_s=NOW)


def ended(kind, retry, **fields):
    return events.AttemptEnded(3, outcome(kind, retry, **fields))


def test_each_ending_tells_what_became_of_the_job():
    running = job(Running())
    expected = {
        "finished": ended(OutcomeKind.FINISHED, Retry.NOTHING_LEFT),
        "restarted": ended(OutcomeKind.CRASHED, Retry.AFTER_BACKOFF),
        "rejected": ended(OutcomeKind.REJECTED, Retry.NEVER),
        "disk-low": ended(OutcomeKind.CRASHED, Retry.WHEN_THERE_IS_ROOM),
    }
    for event, ending in expected.items():
        (notice,) = told(running, ending)
        assert (notice.event, notice.job, notice.attempt, notice.wall_s) == (event, "ant", 3, NOW)
        assert "attempt 3: it did; next: " in notice.message
    spent = job(Running(), spec=spec(budget=1))
    (notice,) = told(spent, ended(OutcomeKind.CRASHED, Retry.AFTER_BACKOFF))
    assert (notice.event, notice.state) == ("parked", "parked")


def test_a_drained_attempt_and_a_held_job_are_not_restarted():
    running = job(Running())
    assert told(running, ended(OutcomeKind.DRAINED, Retry.AT_ONCE_IF_MOVED, step=101)) == ()
    held = job(Running(), is_held=True)
    assert told(held, ended(OutcomeKind.CRASHED, Retry.AFTER_BACKOFF)) == ()


def test_a_stall_a_refused_spec_and_a_machine_too_small_are_told_once():
    (notice,) = told(job(Running()), events.StallSeen(3, "no step for 600 s"))
    assert (notice.event, notice.message) == ("stalled", "stalled: no step for 600 s")
    assert told(job(Running(is_stalled=True)), events.StallSeen(3, "again")) == ()
    (notice,) = told(None, events.SpecRefused("no command"))
    assert notice.event == "rejected"
    refused = decide("ant", None, events.SpecRefused("no command"), NOW).job
    assert told(refused, events.SpecRefused("no command")) == ()
    (notice,) = told(refused, events.SpecRefused("no such folder"))
    assert "no such folder" in notice.message
    (notice,) = told(job(Queued()), events.NeverFits("it asks for 9 gpus"))
    assert notice.event == "rejected"


def test_a_launch_that_fails_is_told_as_a_restart_or_as_a_full_disk():
    (notice,) = told(job(Starting()), events.LaunchFailed(3, "no such program"))
    assert notice.event == "restarted"
    (notice,) = told(job(Starting()), events.LaunchFailed(3, "disk full", is_for_want_of_space=True))
    assert notice.event == "disk-low"


@pytest.mark.parametrize(
    "event",
    [events.SlotGranted(), events.ProgressSeen(3, 500), events.StopAsked(), events.ShutdownAsked()],
    ids=lambda event: type(event).__name__,
)
def test_the_ordinary_course_of_a_job_tells_nothing(event):
    assert told(job(Running()), event) == told(job(Queued()), event) == ()


def test_the_hooks_of_a_job_hear_of_it_and_of_a_resume_that_is_not_exact():
    offered = []
    hook = Hook("ant#1", "desktop")
    outbox = SimpleNamespace(offer=lambda notice, more: offered.append((notice, more)))
    announcer = Announcer(outbox, SimpleNamespace(wall_s=lambda: NOW))
    running = job(Running(), spec=spec(notify=(hook,)))
    fields = {"verdict": "different", "reason": "loss differs", "checkpoint": "step-5"}
    announcer.note_finding(running, 3, RankFinding("verdict", "resume.verdict", fields))
    assert offered == []
    announcer.note_finding(running, 3, RankFinding("verdict", "resume.inexact", fields))
    ((notice, more),) = offered
    assert (notice.event, more) == ("suspect", (hook,))
    assert notice.message == "the resume of attempt 3 is different: loss differs"


def test_a_disk_that_runs_low_is_told_once_and_again_after_there_was_room():
    watch, said = DiskWatch(1000), []
    for free in (1000, 999, 500, 1199, 900, 1200, 999):
        watch, notice = look_at_disk(watch, free, folder="/state", wall_s=NOW)
        said.append(notice is not None)
    assert said == [False, True, False, False, False, False, True]


def test_a_rejected_program_that_is_tried_again_is_not_told_of():
    assert told(job(Rejected("program")), events.ScriptChanged()) == ()
