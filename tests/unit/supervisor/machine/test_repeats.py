"""The same failure again and again: what is the same, and what follows."""

from __future__ import annotations

import pytest

from tests.support.supervisor_objects import NOW, job, spec
from trainerd.supervisor.machine import decide
from trainerd.supervisor.machine.job_events import AttemptEnded
from trainerd.supervisor.machine.outcome import Outcome, OutcomeKind, Retry
from trainerd.supervisor.machine.repeats import Remedy, after_failure
from trainerd.supervisor.machine.states import BackingOff, Draining, Parked, Running


def crash(failure="crashed: ValueError", *, step=150, resumed_from="step-100", before="step-050", **fields):
    values = {"kind": OutcomeKind.CRASHED, "reason": "it did", "retry": Retry.AFTER_BACKOFF}
    return Outcome(
        **(values | fields),
        failure=failure,
        step=step,
        checkpoint=resumed_from,
        resumed_from=resumed_from,
        checkpoint_before=before,
    )


def nan(**fields):
    retry = Retry.FROM_THE_CHECKPOINT_BEFORE
    return crash("non-finite-loss", kind=OutcomeKind.NON_FINITE_LOSS, retry=retry, **fields)


def remedies(*outcomes):
    repeat, found = None, []
    for outcome in outcomes:
        repeat, remedy = after_failure(repeat, outcome)
        found.append(remedy)
    return found


def test_the_third_of_a_kind_goes_back_and_the_next_gives_up():
    older = crash(resumed_from="step-050", before=None)
    assert remedies(crash(), crash(), crash(), older) == [
        Remedy.NONE,
        Remedy.NONE,
        Remedy.GO_BACK,
        Remedy.GIVE_UP,
    ]


def test_another_step_another_failure_or_another_checkpoint_is_not_the_same():
    for other in [crash(step=151), crash("crashed: SIGSEGV"), crash(resumed_from="step-140")]:
        assert Remedy.GO_BACK not in remedies(crash(), crash(), other, crash(), crash())


def test_another_failure_after_going_back_begins_to_count_anew():
    assert remedies(crash(), crash(), crash(), crash(step=160), crash(step=160))[-2:] == [Remedy.NONE] * 2


def test_without_an_older_checkpoint_there_is_nowhere_to_go_back_to():
    assert set(remedies(*[crash(before=None)] * 6)) == {Remedy.NONE}


def test_what_a_failure_saved_counts_as_the_checkpoint_it_came_from():
    """An attempt that saves its newest boundary as it fails moves where the next one begins."""
    first = crash(saved_at_end="step-140")
    second = crash(resumed_from="step-140", saved_at_end="step-150")
    third = crash(resumed_from="step-150")
    assert remedies(first, second, third) == [Remedy.NONE, Remedy.NONE, Remedy.GO_BACK]
    assert remedies(first, crash(), third) == [Remedy.NONE, Remedy.NONE, Remedy.NONE]


def test_what_the_first_attempt_saved_as_it_failed_is_a_checkpoint_of_its_own():
    """It had gone on from none."""
    first = crash(resumed_from=None, before=None, saved_at_end="step-140")
    later = crash(resumed_from="step-140")
    assert remedies(first, later, later, later) == [Remedy.NONE] * 3 + [Remedy.GO_BACK]
    lost = crash(resumed_from=None, before=None)
    assert remedies(later, later, lost, later) == [Remedy.NONE] * 4


def test_from_the_beginning_the_budget_alone_decides():
    assert set(remedies(*[crash(resumed_from=None, before=None)] * 6)) == {Remedy.NONE}


def test_what_was_killed_from_outside_in_between_neither_counts_nor_clears():
    assert remedies(crash(), crash(failure=""), crash(), crash()) == [
        Remedy.NONE,
        Remedy.NONE,
        Remedy.NONE,
        Remedy.GO_BACK,
    ]


def test_a_non_finite_loss_goes_back_at_once_and_gives_up_when_it_comes_again():
    assert remedies(nan(), nan(resumed_from="step-050", before=None)) == [Remedy.GO_BACK, Remedy.GIVE_UP]


def test_a_non_finite_loss_that_moves_goes_further_back():
    """The newest checkpoint may be spoilt already, and the one before it."""
    assert remedies(nan(), nan(step=120)) == [Remedy.GO_BACK, Remedy.GO_BACK]


def test_the_machine_goes_back_and_says_so():
    subject = job(Running(), best_step=150, spec=spec(budget=10))
    for _ in range(3):
        decision = decide("ant", subject, AttemptEnded(3, crash()), NOW)
        subject = decision.job
        assert isinstance(subject.state, BackingOff)
        last, subject = subject, job(Running(), best_step=150, spec=spec(budget=10), repeat=subject.repeat)
    assert last.goes_back_to == "step-050"
    assert "going back to step-050" in decision.reason
    decision = decide("ant", subject, AttemptEnded(3, crash(resumed_from="step-050", before=None)), NOW)
    assert isinstance(decision.job.state, Parked)
    assert "4 times in the same way, again after going back to an earlier checkpoint" in decision.reason


def test_a_job_that_has_nothing_to_go_back_to_does_not_say_that_it_went_back():
    repeat, _ = after_failure(None, nan(before=None))
    decision = decide(
        "ant", job(Running(), best_step=150, repeat=repeat), AttemptEnded(3, nan(before=None)), NOW
    )
    assert isinstance(decision.job.state, Parked)
    assert "2 times in the same way, and there is no earlier checkpoint to go back to" in decision.reason


@pytest.mark.parametrize("state", [Running(), Draining()], ids=["running", "draining"])
def test_a_job_that_went_back_does_not_go_back_again_after_its_next_attempt(state):
    """However that one ended: the checkpoints after the older one were set aside before it was launched."""
    subject = job(state, best_step=150, goes_back_to="step-050")
    assert decide("ant", subject, AttemptEnded(3, crash(failure="")), NOW).job.goes_back_to is None


def test_an_attempt_that_made_progress_forgets_what_failed_before():
    before = after_failure(after_failure(None, crash())[0], crash())[0]
    subject = job(Running(has_progressed=True), best_step=150, repeat=before)
    decision = decide("ant", subject, AttemptEnded(3, crash()), NOW)
    assert decision.job.repeat.times == 1
    assert decision.job.goes_back_to is None


def test_a_non_finite_loss_under_stop_is_parked_at_once():
    ending = crash("non-finite-loss", kind=OutcomeKind.NON_FINITE_LOSS, retry=Retry.ON_REQUEST)
    decision = decide("ant", job(Running(), best_step=150), AttemptEnded(3, ending), NOW)
    assert isinstance(decision.job.state, Parked)
