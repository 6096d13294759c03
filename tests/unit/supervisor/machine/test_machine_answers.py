"""What single answers promise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.supervisor_objects import NOW, STATE_SAMPLES, job, outcome, spec
from trainerd.supervisor.machine import decide
from trainerd.supervisor.machine import job_events as events
from trainerd.supervisor.machine.commands import DrainAttempt, LaunchAttempt, ObserveAttempt, WakeLater
from trainerd.supervisor.machine.outcome import OutcomeKind, Retry
from trainerd.supervisor.machine.restarts import refusal_of_restart
from trainerd.supervisor.machine.states import (
    BackingOff,
    Draining,
    DrainReason,
    Faulted,
    Finished,
    Parked,
    Paused,
    Queued,
    Rejected,
    Running,
    Starting,
    Stopped,
)


def after(subject, event):
    return decide("ant", subject, event, NOW)


def ended(kind=OutcomeKind.CRASHED, retry=Retry.AFTER_BACKOFF, *, step=None):
    return events.AttemptEnded(3, outcome(kind, retry, step=step))


def drained(step=None):
    return ended(OutcomeKind.DRAINED, Retry.AT_ONCE_IF_MOVED, step=step)


def test_a_new_spec_is_queued():
    decision = after(None, events.SpecAccepted(spec()))
    assert decision.job.state == Queued()
    assert decision.job.attempt == 0


def test_numbers_of_attempts_go_on_after_those_in_the_run_folder():
    """So no attempt folder is ever used twice, even if the journal was lost."""
    queued = after(None, events.SpecAccepted(spec(), newest_attempt=7)).job
    assert after(queued, events.SlotGranted()).commands == (LaunchAttempt(8),)


@pytest.mark.parametrize("known", [None, "refused"])
def test_an_attempt_that_lives_in_the_run_folder_of_a_new_job_is_adopted(known):
    """Even if the spec was first seen broken: nothing runs twice when the journal was lost."""
    subject = None if known is None else after(None, events.SpecRefused("broken")).job
    decision = after(subject, events.SpecAccepted(spec(), newest_attempt=7, is_live=True))
    assert decision.job.state == Starting()
    assert decision.commands == (ObserveAttempt(7),)


@pytest.mark.parametrize("state", [Starting(), Running()], ids=["starting", "running"])
def test_a_changed_spec_drains_and_goes_on_under_the_new_one(state):
    draining = after(job(state), events.SpecAccepted(spec("v2")))
    assert draining.commands == (DrainAttempt(3),)
    assert draining.job.state == Draining(DrainReason.CHANGED)
    decision = after(draining.job, drained(step=120))
    assert decision.job.state == Queued()
    assert decision.job.spec == spec("v2")


@pytest.mark.parametrize("state", STATE_SAMPLES.values(), ids=lambda state: state.NAME)
def test_a_spec_that_was_renamed_is_known_by_its_new_path_and_changes_nothing_else(state):
    before = job(state)
    decision = after(before, events.SpecAccepted(spec(spec_path="/jobs/other.yaml")))
    assert (decision.is_ignored, decision.commands) == (False, ())
    assert "/jobs/other.yaml" in decision.reason
    assert decision.job == replace(before, spec=spec(spec_path="/jobs/other.yaml"))


def test_a_broken_edit_does_not_disturb_a_running_job():
    decision = after(job(Running()), events.SpecRefused("line 3: no"))
    assert decision.job.state == Running()
    assert decision.commands == ()
    assert decision.job.refusal == "line 3: no"


def test_a_job_whose_spec_is_refused_is_not_launched_again():
    decision = after(job(Running(), refusal="line 3: no"), ended(step=120))
    assert decision.job.state == Rejected("spec")


def test_a_removed_spec_drains_and_then_the_job_is_forgotten():
    draining = after(job(Running()), events.SpecVanished())
    assert draining.commands == (DrainAttempt(3),)
    assert after(draining.job, drained()).job is None


def test_a_removed_job_that_finishes_while_it_drains_is_forgotten_too():
    decision = after(job(Draining(DrainReason.REMOVED)), ended(OutcomeKind.FINISHED, Retry.NOTHING_LEFT))
    assert decision.job is None


def test_a_spec_that_comes_back_while_draining_goes_on():
    draining = job(Draining(DrainReason.REMOVED))
    back = after(draining, events.SpecAccepted(spec())).job
    assert back.state.why is DrainReason.CHANGED
    assert after(back, drained()).job.state == Queued()


def test_a_finished_job_goes_on_when_its_spec_changes():
    decision = after(job(Finished("v1")), events.SpecAccepted(spec("v2")))
    assert decision.job.state == Queued()


def test_a_finished_job_stays_finished_while_its_spec_stays():
    assert after(job(Finished("v1")), events.SpecAccepted(spec("v1"))).is_ignored


def test_finishing_under_the_old_spec_is_not_finishing_under_the_new_one():
    draining = job(Draining(DrainReason.CHANGED), spec=spec("v2"), attempt_digest="v1")
    decision = after(draining, ended(OutcomeKind.FINISHED, Retry.NOTHING_LEFT))
    assert decision.job.state == Queued()


@pytest.mark.parametrize("why", [DrainReason.STOP, DrainReason.SHUTDOWN, DrainReason.PREEMPTED])
def test_a_job_that_finishes_while_it_is_drained_is_finished(why):
    decision = after(job(Draining(why)), ended(OutcomeKind.FINISHED, Retry.NOTHING_LEFT))
    assert decision.job.state == Finished("v1")


@pytest.mark.parametrize(
    ("why", "state"),
    [
        (DrainReason.STOP, Stopped()),
        (DrainReason.SHUTDOWN, Queued()),
        (DrainReason.PREEMPTED, Queued()),
        (DrainReason.RESUMED, Queued()),
    ],
)
@pytest.mark.parametrize(
    "event", [drained(), ended(), ended(OutcomeKind.KILLED)], ids=["drained", "crashed", "killed"]
)
def test_after_a_drain_the_job_goes_where_the_request_said(why, state, event):
    """Whatever became of the attempt, and without cost to the restart budget."""
    decision = after(job(Draining(why), failures=4), event)
    assert decision.job.state == state
    assert decision.job.failures == 4


def test_stop_and_resume_while_draining_take_each_other_back():
    stopping = after(job(Running()), events.StopAsked()).job
    resumed = after(stopping, events.ResumeAsked()).job
    assert resumed.state.why is DrainReason.RESUMED
    assert after(resumed, events.StopAsked()).job.state.why is DrainReason.STOP


def test_a_drain_is_signalled_once():
    """A second signal would say "now"."""
    signalled = after(job(Draining(DrainReason.STOP)), events.DrainSignalled(3)).job
    assert after(signalled, events.AttemptSeen(3)).is_ignored


def test_a_drain_whose_signal_is_not_known_to_be_sent_is_signalled_when_the_attempt_is_seen():
    """As after the death of a supervisor between the decision and the signal."""
    assert after(job(Draining(DrainReason.STOP)), events.AttemptSeen(3)).commands == (DrainAttempt(3),)


def test_a_crash_waits_before_it_tries_again():
    decision = after(job(Running()), ended())
    assert isinstance(decision.job.state, BackingOff)
    (wake,) = decision.commands
    assert wake == WakeLater(3, decision.job.state.delay_s)
    assert after(decision.job, events.WaitEnded(3)).job.state == Queued()


def test_the_word_of_the_state_is_not_in_its_reason_again():
    rejected = after(job(Running()), ended(OutcomeKind.REJECTED, Retry.NEVER))
    assert not rejected.reason.startswith("rejected")
    stopped = after(job(Draining(DrainReason.STOP)), ended(OutcomeKind.STOPPED, Retry.AT_ONCE))
    assert stopped.job.state == Stopped()
    assert not stopped.reason.startswith("stopped")


def test_a_job_that_does_not_move_is_parked_when_its_budget_is_spent():
    decision = after(job(Running(), spec=spec(budget=3), failures=2), ended(step=100))
    assert decision.job.state == Parked()
    assert "3 attempts in a row made no progress beyond step 100" in decision.reason


def test_a_job_that_moves_is_never_parked():
    subject = job(Running(), spec=spec(budget=1), failures=0)
    for step in range(101, 200):
        decision = after(subject, ended(step=step))
        assert isinstance(decision.job.state, BackingOff)
        subject = job(Running(), spec=spec(budget=1), failures=decision.job.failures, best_step=step)


def test_reaching_the_same_step_again_is_no_progress():
    decision = after(job(Running(), best_step=100), ended(step=100))
    assert decision.job.failures == 1


def test_progress_seen_on_the_way_counts_at_the_end():
    """The heartbeat may be lost with the machine by then."""
    moving = after(job(Running(), failures=4), events.ProgressSeen(3, 130)).job
    assert moving.failures == 0
    assert after(moving, ended(OutcomeKind.LOST)).job.failures == 0


def test_a_rank_that_drains_by_itself_is_run_again_at_once():
    """Somebody sent SIGTERM: nothing is wrong with the job."""
    decision = after(job(Running()), drained(step=120))
    assert decision.job.state == Queued()


def test_a_rank_that_drains_by_itself_over_and_over_is_parked():
    subject = job(Running(), spec=spec(budget=2), failures=1)
    assert after(subject, drained(step=100)).job.state == Parked()


def test_a_restart_of_the_machine_costs_nothing():
    decision = after(job(Running(), failures=4), ended(OutcomeKind.LOST, Retry.AT_ONCE))
    assert decision.job.state == Queued()
    assert decision.job.failures == 4


def test_progress_before_a_restart_of_the_machine_counts():
    decision = after(job(Running(), failures=4), ended(OutcomeKind.LOST, Retry.AT_ONCE, step=101))
    assert decision.job.failures == 0


def test_a_rejected_program_is_not_run_again():
    decision = after(job(Running()), ended(OutcomeKind.REJECTED, Retry.NEVER))
    assert decision.job.state == Rejected("program")
    assert after(decision.job, events.SpecAccepted(spec("v1"))).is_ignored


@pytest.mark.parametrize(
    "event",
    [events.SpecAccepted(spec("v2")), events.ScriptChanged(), events.ResumeAsked()],
    ids=["spec changed", "script changed", "resumed"],
)
def test_a_rejected_program_is_run_again_when_something_changes(event):
    decision = after(job(Rejected("program"), failures=3), event)
    assert decision.job.state == Queued()
    assert decision.job.failures == 0


def test_resuming_a_parked_job_gives_it_a_full_budget():
    decision = after(job(Parked(), failures=5), events.ResumeAsked())
    assert decision.job.state == Queued()
    assert decision.job.failures == 0


def test_no_room_on_the_disk_pauses_until_there_is_room_and_the_wait_is_over():
    paused = after(job(Running()), ended(retry=Retry.WHEN_THERE_IS_ROOM)).job
    assert isinstance(paused.state, Paused)
    assert after(paused, events.SpaceBack()).is_ignored
    waited = after(paused, events.WaitEnded(3)).job
    assert isinstance(waited.state, Paused)
    assert after(waited, events.SpaceBack()).job.state == Queued()


def test_a_launch_without_room_on_the_disk_costs_nothing():
    decision = after(job(Starting(), failures=2), events.LaunchFailed(3, "full", is_for_want_of_space=True))
    assert isinstance(decision.job.state, Paused)
    assert decision.job.failures == 2


def test_failing_to_observe_is_no_evidence():
    for state in (Starting(), Running(), Draining()):
        assert after(job(state), events.ObservationFailed(3, "EIO")).is_ignored


def test_a_shutdown_leaves_what_does_not_run_as_it_is():
    for state in (Queued(), Stopped(), Parked(), BackingOff(1.0, NOW)):
        assert after(job(state), events.ShutdownAsked()).is_ignored


def test_a_held_job_that_runs_drains_and_waits_in_the_queue_until_it_is_resumed():
    decision = after(job(Running()), events.HoldAsked())
    assert decision.commands == (DrainAttempt(3),)
    queued = after(decision.job, drained(step=101)).job
    assert (queued.state, queued.is_held, queued.reason.endswith("held until it is resumed")) == (
        Queued(),
        True,
        True,
    )
    released = after(queued, events.ResumeAsked()).job
    assert (released.state, released.is_held, released.since_wall_s) == (Queued(), False, queued.since_wall_s)


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (Finished("v1"), events.SpecAccepted(spec("v2"))),
        (Parked(), events.SpecAccepted(spec("v2"))),
        (Rejected("program"), events.ScriptChanged()),
        (BackingOff(1.0, NOW), events.WaitEnded(3)),
        (Parked(), events.RetryAsked()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_start_a_job_does_not_end_its_hold(state, event):
    held = after(job(state), events.HoldAsked()).job
    assert type(held.state) is type(state)
    moved = after(held, event).job
    assert (moved.state, moved.is_held) == (Queued(), True)


def test_retry_gives_a_full_budget_to_what_was_given_up_and_leaves_a_stopped_job_alone():
    decision = after(job(Parked(), failures=5), events.RetryAsked())
    assert (decision.job.state, decision.job.failures) == (Queued(), 0)
    assert after(job(Stopped()), events.RetryAsked()).is_ignored
    assert after(job(Parked(), refusal="broken"), events.RetryAsked()).is_ignored


def test_a_job_drained_with_all_others_goes_on_when_there_is_a_slot():
    decision = after(job(Running()), events.ShutdownAsked(is_leaving=False))
    assert "starts nothing for now" in decision.reason
    assert after(decision.job, drained(step=101)).job.state == Queued()


@pytest.mark.parametrize(
    "state",
    [Stopped(), Parked(), Rejected("program"), Finished("v1"), Faulted()],
    ids=lambda state: state.NAME,
)
def test_a_job_at_rest_is_started_again_also_a_complete_one(state):
    decision = after(job(state, failures=5, is_held=True, best_step=100), events.RestartAsked())
    assert (decision.job.state, decision.job.failures, decision.job.is_held) == (Queued(), 0, False)
    assert decision.job.best_step == 100
    assert after(job(state, refusal="broken"), events.RestartAsked()).is_ignored


def test_a_new_run_has_reached_no_step_so_that_its_first_ones_are_progress():
    former = job(Finished("v1"), best_step=100, goes_back_to="step-000000050")
    fresh = after(former, events.RestartAsked(is_fresh=True)).job
    assert (fresh.state, fresh.best_step, fresh.goes_back_to) == (Queued(), -1, None)


@pytest.mark.parametrize(
    "state", [Starting(), Running(), Draining(), Faulted(may_live=True)], ids=lambda state: state.NAME
)
def test_a_job_of_which_an_attempt_may_run_is_not_started_again(state):
    assert after(job(state), events.RestartAsked(is_fresh=True)).is_ignored


@pytest.mark.parametrize(
    "state", [*STATE_SAMPLES.values(), Faulted(may_live=True)], ids=lambda state: state.NAME
)
def test_whether_a_restart_is_refused_is_known_before_anything_is_stopped(state):
    may_run = isinstance(state, Starting | Running | Draining) or state == Faulted(may_live=True)
    at_rest = Stopped() if may_run else state
    for each in (job(state), job(state, refusal="broken"), job(state, spec=None)):
        answer = after(replace(each, state=at_rest), events.RestartAsked())
        assert (refusal_of_restart(each) is not None) == answer.is_ignored
