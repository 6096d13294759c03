"""The table as a whole: complete, true to what it declares, and the same as its page."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from tests.support.supervisor_objects import NOW, STATE_SAMPLES, event_samples, job
from trainerd.supervisor.machine import TABLE, Absent, decide
from trainerd.supervisor.machine.commands import LaunchAttempt
from trainerd.supervisor.machine.docs import document
from trainerd.supervisor.machine.job_events import (
    EVENTS,
    AttemptEnded,
    AttemptVoided,
    FaultSeen,
    LaunchFailed,
    SlotGranted,
)
from trainerd.supervisor.machine.states import (
    LIVE,
    STATES,
    Draining,
    DrainReason,
    Faulted,
    Finished,
    Paused,
    Queued,
    Rejected,
    Running,
)

PAGE = Path(__file__).parents[4] / "docs" / "state-machine.md"


def varied_jobs():
    """Yield jobs in every state, with what may be different about them."""
    yield None
    states = [
        *STATE_SAMPLES.values(),
        *[Draining(why, is_signalled=signalled) for why in DrainReason for signalled in (False, True)],
        Running(has_progressed=True),
        Running(is_stalled=True),
        Finished("v0"),
        Rejected("spec"),
        Rejected("resources"),
        Paused(1.0, NOW, has_waited=True),
        Faulted(("a traceback",), may_live=True, devices=(1,)),
    ]
    yield job(Rejected("spec"), spec=None, attempt=0)
    varieties = itertools.product(states, (None, "refused before"), (0, 4), (False, True))
    for state, refusal, failures, is_held in varieties:
        yield job(state, refusal=refusal, failures=failures, is_held=is_held)


def varied_pairs():
    for subject in varied_jobs():
        for samples in event_samples().values():
            for event in samples:
                yield subject, event


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
@pytest.mark.parametrize("state", [Absent, *STATES], ids=lambda state: state.NAME)
def test_every_pair_of_state_and_event_has_an_answer(state, event):
    """242 pairs, 242 answers; each says why."""
    cell = TABLE[state, event]
    subject = None if state is Absent else job(STATE_SAMPLES[state])
    for sample in event_samples()[event]:
        decision = decide("ant", subject, sample, NOW)
        assert decision.reason
        assert cell.summary


def test_an_ignored_event_changes_nothing_and_asks_for_nothing():
    """Whatever is said to be ignored leaves the very same job."""
    for subject, event in varied_pairs():
        decision = decide("ant", subject, event, NOW)
        if decision.is_ignored:
            assert decision.job == subject
            assert decision.commands == ()


def test_a_decision_leads_only_where_the_table_says():
    """The states that an answer declares are all that it leads to."""
    for subject, event in varied_pairs():
        decision = decide("ant", subject, event, NOW)
        before = Absent if subject is None else type(subject.state)
        after = Absent if decision.job is None else type(decision.job.state)
        cell = TABLE[before, type(event)]
        assert after is before or after in cell.leads_to, (subject, event, decision)


def test_the_declared_ways_are_all_taken():
    """No answer declares a state to which nothing leads."""
    taken = set()
    for subject, event in varied_pairs():
        decision = decide("ant", subject, event, NOW)
        before = Absent if subject is None else type(subject.state)
        taken.add((before, type(event), Absent if decision.job is None else type(decision.job.state)))
    declared = {(state, event, target) for (state, event), cell in TABLE.items() for target in cell.leads_to}
    ways = {way for way in declared if way[0] is not way[2]}
    assert ways - taken == set()


def test_a_live_state_is_left_only_when_nobody_is_left():
    """Else a second attempt could be launched beside the first."""
    for subject, event in varied_pairs():
        decision = decide("ant", subject, event, NOW)
        if subject is not None and subject.is_live and not (decision.job and decision.job.is_live):
            is_set_aside = isinstance(event, FaultSeen) and decision.job.may_have_processes
            assert is_set_aside or isinstance(event, AttemptEnded | AttemptVoided | LaunchFailed)


def test_only_a_granted_slot_launches_and_only_from_the_queue():
    """One way to a launch, with the next number."""
    for subject, event in varied_pairs():
        decision = decide("ant", subject, event, NOW)
        if any(isinstance(command, LaunchAttempt) for command in decision.commands):
            assert isinstance(event, SlotGranted)
            assert isinstance(subject.state, Queued)
            assert decision.commands == (LaunchAttempt(subject.attempt + 1),)


def test_the_queue_is_never_entered_under_a_refused_spec():
    """Nothing may be launched while the author of the spec is changing it."""
    for subject, event in varied_pairs():
        decision = decide("ant", subject, event, NOW)
        entered = decision.job is not None and isinstance(decision.job.state, Queued)
        if entered and not (subject is not None and isinstance(subject.state, Queued)):
            assert decision.job.refusal is None


def test_news_of_an_older_attempt_changes_nothing():
    """A late or repeated event about attempt 2 says nothing about attempt 3."""
    for state in STATE_SAMPLES.values():
        for samples in event_samples(attempt=2).values():
            for event in samples:
                if hasattr(event, "attempt"):
                    assert decide("ant", job(state), event, NOW).is_ignored


def test_a_repeated_event_is_ignored_or_asks_for_nothing_new():
    """Level, not edge: said twice is said once, but for launches, which a slot guards."""
    for subject, event in varied_pairs():
        first = decide("ant", subject, event, NOW)
        if first.is_ignored:
            continue
        second = decide("ant", first.job, event, NOW)
        if second.job is not None and first.job is not None:
            assert second.job.attempt == first.job.attempt
            assert second.job.failures == first.job.failures


def test_live_states_are_those_that_hold_a_slot():
    """A slot is told from the state alone."""
    assert {
        state for state in STATES if "gpus" in {field.name for field in dataclasses.fields(state)}
    } == set(LIVE)


def test_the_page_is_the_table():
    """`python -m trainerd.supervisor.machine.docs > docs/state-machine.md` renews it."""
    assert PAGE.read_text(encoding="utf-8") == document()
