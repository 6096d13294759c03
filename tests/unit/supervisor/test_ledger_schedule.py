"""Who may start is asked only when something has changed that matters, and the answer is as if it were asked
always."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from trainerd.contract.clock import SystemClock
from trainerd.contract.policy import Resources
from trainerd.contract.resolved import ResolvedJob
from trainerd.supervisor.journal.journal import Journal
from trainerd.supervisor.ledger import Ledger, _owners, _requests
from trainerd.supervisor.machine.job_events import (
    AttemptSeen,
    AttemptVoided,
    ObservationFailed,
    ResumeAsked,
    SpecAccepted,
    SpecVanished,
    StopAsked,
)
from trainerd.supervisor.scheduler import Capacity, schedule

NAMES = ("ant", "bee", "cat", "dog")
CAPACITY = Capacity(cpus=3, max_jobs=2)


def accepted(name: str, cpus: float) -> SpecAccepted:
    job = ResolvedJob(name, ("true",), "/", f"/{name}.yaml", f"v{cpus}", resources=Resources(cpus=cpus))
    return SpecAccepted(job)


events = st.one_of(
    st.sampled_from([0.0, 1.0, 2.0, 9.0]),
    st.sampled_from([SpecVanished, StopAsked, ResumeAsked, AttemptSeen, AttemptVoided, ObservationFailed]),
    st.sampled_from(["grant", "hold"]),
)


def build(ledger: Ledger, name: str, choice):
    if isinstance(choice, float):
        return accepted(name, choice)
    job = ledger.jobs.get(name)
    attempt = job.attempt if job is not None else 1
    if choice is ObservationFailed:
        return ObservationFailed(attempt, "x")
    return choice(attempt) if choice in {AttemptSeen, AttemptVoided} else choice()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES), events), max_size=25))
def test_the_answer_is_as_if_it_were_asked_at_every_event(choices):
    ledger = Ledger(Journal(":memory:"), CAPACITY, SystemClock())
    for name, choice in choices:
        if isinstance(choice, str):
            ledger.grants_slots = choice == "grant"
            ledger.apply([])
        else:
            ledger.apply([(name, build(ledger, name, choice))])
        jobs = ledger.jobs
        asked_now = schedule(CAPACITY, _owners(jobs), _requests(jobs) if ledger.grants_slots else ())
        assert ledger.waits == asked_now.waits
        assert asked_now.grants == ()
        assert asked_now.misfits == {}
